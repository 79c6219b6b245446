"""Extraction as a job: stopped and gone on with, it is what it would have been; what it was made for is in its name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from made_registers import write_ictrp
from parrot_backend import ParrotBackend

from lapilli.apps.executors.local import LocalExecutor
from lapilli.apps.jobs.job import Job, JobReport
from lapilli.apps.jobs.work import Item, Row, Work, Worker
from lapilli.apps.trials.extract import Extractor, Options
from lapilli.apps.trials.job import Extracting, Reading, run_extraction, shown_trials
from lapilli.errors import InputError, LapilliError

RULES = Reading(model=None)


class Stopping:
    """Work that stops after so many trials."""

    def __init__(self, work: Work, count: int) -> None:
        self.work, self.count, self.close = work, count, work.close

    def rows(self, items: Iterable[Item]) -> Iterator[Sequence[Row]]:
        for place, rows in enumerate(self.work.rows(items)):
            if place == self.count:
                raise LapilliError("the power went")
            yield rows


def run(path: Path, out: Path, *, stop: int | None = None, reading: Reading = RULES, **rest: Any) -> JobReport:
    def opened(worker: Worker) -> Work:
        return worker.open() if stop is None else Stopping(worker.open(), stop)

    options = rest.pop("options", Options())
    return run_extraction([path], out, reading, options, executor=LocalExecutor(opened), shard=4, **rest)


def parts(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "parts").iterdir()}


@pytest.fixture
def register(tmp_path: Path) -> Path:
    return write_ictrp(tmp_path / "made.xml", 18)


def test_every_trial_has_a_record(register: Path, tmp_path: Path) -> None:
    report = run(register, tmp_path / "job")
    assert (report.items, report.failed) == (18, 0)
    with Job.at(tmp_path / "job") as job:
        rows = list(job.rows())
    assert list(dict.fromkeys(row["trial"] for row in rows)) == [f"MADE{number:08}" for number in range(18)]
    assert {row["record"]["provenance"]["source_file"] for row in rows} == {str(register)}


@pytest.mark.parametrize("stop", [1, 4, 5, 17])
def test_stopped_and_gone_on_with_it_is_the_same(register: Path, tmp_path: Path, stop: int) -> None:
    run(register, tmp_path / "whole")
    with pytest.raises(LapilliError, match="power"):
        run(register, tmp_path / "job", stop=stop)
    report = run(register, tmp_path / "job")
    assert report.kept == stop // 4
    assert parts(tmp_path / "job") == parts(tmp_path / "whole")


def test_a_limit_can_be_raised(register: Path, tmp_path: Path) -> None:
    assert run(register, tmp_path / "job", limit=6).items == 6
    run(register, tmp_path / "job")
    run(register, tmp_path / "whole")
    assert parts(tmp_path / "job") == parts(tmp_path / "whole")


def test_another_model_options_or_file_are_refused_by_name(register: Path, tmp_path: Path) -> None:
    run(register, tmp_path / "job")
    with pytest.raises(InputError, match=r"options\.ask"):
        run(register, tmp_path / "job", options=Options(ask="missing"))
    with pytest.raises(InputError, match="model was"):
        run(register, tmp_path / "job", reading=Reading(model="mini"))
    write_ictrp(register, 19)
    with pytest.raises(InputError, match="files"):
        run(register, tmp_path / "job")


def test_a_jobs_rows_are_the_trials_of_its_report(register: Path, tmp_path: Path) -> None:
    run(register, tmp_path / "job")
    with Job.at(tmp_path / "job") as job:
        shown = list(shown_trials(job.rows()))
    assert [trial.ids[0] for trial in shown] == [f"MADE{number:08}" for number in range(18)]
    assert next(iter(shown[0].fields)) == "public_title"
    for trial in shown:
        for record in trial.records:
            for one in record["evidence"]:
                assert trial.fields[one["field"]][one["start"] : one["end"]] == one["quote"]


def test_rows_are_the_records_of_the_extractor() -> None:
    work = Extracting(Extractor(ParrotBackend(lambda _: "nonsense")), lambda: None)
    items: list[Item] = [
        {"ids": ["X1"], "register": "made", "fields": {"public_title": "half \ud800"}, "stated": [], "arms": []},
        {"ids": [], "register": "", "fields": {}, "stated": [], "arms": []},
    ]
    rows = [list(some) for some in work.rows(items)]
    assert [len(some) for some in rows] == [1, 1]
    assert json.dumps(rows, ensure_ascii=False).encode()
    assert rows[1][0]["status"] == "none"
