"""A job's folder: exactly once, in order, the same bytes, and only for what it was made for."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from lapilli.apps.executors.local import LocalExecutor
from lapilli.apps.executors.processes import ProcessExecutor
from lapilli.apps.jobs.job import Job, JobReport
from lapilli.apps.jobs.rehearsal import COLUMNS, Rehearsal
from lapilli.apps.jobs.work import Done, Executor, Item, Row, Shard, Work, Worker
from lapilli.errors import InputError, LapilliError

WORKER = Worker("lapilli.apps.jobs.rehearsal:open_rehearsal", {"lines": 2})
MADE_FOR = {"model": "a", "options": {"temperature": 0.0, "stop": ["x"]}}


def items(count: int, word: str = "item") -> Iterator[Item]:
    return ({"n": number, "word": f"{word} {number} é\n"} for number in range(count))


def run(folder: Path, count: int = 10, *, shard: int = 4, executor: Executor | None = None, **more: Any) -> JobReport:
    with Job.open(folder, MADE_FOR, shard=shard, columns=COLUMNS) as job:
        return job.run(lambda: items(count), WORKER, executor=executor or LocalExecutor(), **more)


def parts(folder: Path) -> dict[str, str]:
    """The names and digests of all files in parts/."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / "parts").iterdir()}


class Numbers:
    """Work that does as it is told with each item."""

    def __init__(self, told: Mapping[int, Any]) -> None:
        self.told = told
        self.seen: list[int] = []

    def rows(self, items: Iterable[Item]) -> Iterator[Sequence[Row]]:
        for item in items:
            self.seen.append(item["n"])
            told = self.told.get(item["n"], [{"n": item["n"]}])
            if isinstance(told, Exception):
                raise told
            yield told

    def close(self) -> None:
        self.seen.append(-1)


class Backwards:
    """An executor that is done with the last shard first."""

    def run(self, worker: Worker, shards: Iterator[Shard]) -> Generator[Done, None, None]:
        yield from reversed(list(LocalExecutor().run(worker, shards)))


def test_rows_come_out_in_the_order_of_the_items(tmp_path: Path) -> None:
    report = run(tmp_path / "job")
    assert (report.items, report.rows, report.failed, report.made, report.kept) == (10, 20, 0, 3, 0)
    job = Job.at(tmp_path / "job")
    assert [(row["item"]["n"], row["line"]) for row in job.rows()] == [(n, line) for n in range(10) for line in (0, 1)]
    assert next(job.rows())["item"] == {"n": 0, "word": "item 0 é\n"}
    assert job.missing() == 0


@pytest.mark.parametrize("executor", [Backwards(), ProcessExecutor(2)], ids=["backwards", "processes"])
def test_the_bytes_are_the_same_whoever_works(tmp_path: Path, executor: Executor) -> None:
    run(tmp_path / "here")
    run(tmp_path / "there", executor=executor)
    assert parts(tmp_path / "here") == parts(tmp_path / "there")
    assert len(parts(tmp_path / "here")) == 3


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    run(tmp_path, limit=8)
    before = parts(tmp_path)
    seen = Numbers({})
    with Job.open(tmp_path, MADE_FOR, shard=4, columns=COLUMNS) as job:
        assert job.missing() is None
        with pytest.raises(InputError, match="a row has n, which is no column"):
            job.run(lambda: items(10), WORKER, executor=LocalExecutor(lambda _: seen))
    assert seen.seen == [8, 9, -1]
    report = run(tmp_path)
    assert (report.made, report.kept, report.items) == (1, 2, 10)
    assert before.items() <= parts(tmp_path).items()


def test_nothing_is_opened_where_nothing_is_to_do(tmp_path: Path) -> None:
    run(tmp_path)

    def fail(worker: Worker) -> Work:
        raise AssertionError("opened")

    assert run(tmp_path, executor=LocalExecutor(fail)).made == 0


def test_a_part_that_a_limit_cut_short_is_made_whole(tmp_path: Path) -> None:
    run(tmp_path / "bit by bit", limit=5)
    assert len(list(Job.at(tmp_path / "bit by bit").rows())) == 10
    assert run(tmp_path / "bit by bit").made == 2
    run(tmp_path / "at once")
    assert parts(tmp_path / "bit by bit") == parts(tmp_path / "at once")
    assert run(tmp_path / "at once", limit=1).made == 0
    assert len(list(Job.at(tmp_path / "at once").rows())) == 20


@pytest.mark.parametrize(
    ("made_for", "shard", "columns", "said"),
    [
        ({**MADE_FOR, "model": "b"}, 4, COLUMNS, 'model was "a", now it is "b"'),
        ({**MADE_FOR, "options": {"temperature": 0.5, "stop": ["x"]}}, 4, COLUMNS,
         "options.temperature was 0.0, now it is 0.5"),
        ({**MADE_FOR, "options": {"temperature": 0.0}}, 4, COLUMNS, r'options.stop was \["x"\], now it is not there'),
        ({**MADE_FOR, "more": None}, 4, COLUMNS, "more was not there, now it is null"),
        (MADE_FOR, 8, COLUMNS, "shard was 4, now it is 8"),
        (MADE_FOR, 4, {**COLUMNS, "line": "text"}, 'column line was "int", now it is "text"'),
    ],
)  # fmt: skip
def test_a_folder_of_another_fingerprint_is_refused(
    tmp_path: Path, made_for: dict[str, Any], shard: int, columns: Any, said: str
) -> None:
    run(tmp_path)
    before = parts(tmp_path)
    with pytest.raises(InputError, match=said):
        Job.open(tmp_path, made_for, shard=shard, columns=columns)
    assert parts(tmp_path) == before
    assert run(tmp_path).made == 0


def test_another_input_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with (
        Job.open(tmp_path, MADE_FOR, shard=4, columns=COLUMNS) as job,
        pytest.raises(InputError, match="items 0 to 3 are not those that part 0 was made of"),
    ):
        job.run(lambda: items(10, "other"), WORKER, executor=LocalExecutor())


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    with (
        Job.open(tmp_path, MADE_FOR, shard=4, columns=COLUMNS),
        pytest.raises(InputError, match="another run works in it"),
    ):
        Job.open(tmp_path, MADE_FOR, shard=4, columns=COLUMNS)
    program = (
        "import sys; from lapilli.apps.jobs.job import Job; from pathlib import Path\n"
        f"Job.open(Path(sys.argv[1]), {MADE_FOR!r}, shard=4, columns={dict(COLUMNS)!r})\n"
        "print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(InputError, match="another run works in it"):
            run(tmp_path)
        other.kill()
    assert run(tmp_path).made == 3


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds 'thesis.txt' and no job"):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(InputError, match="holds no job"):
        Job.at(tmp_path)


def test_a_part_that_is_gone_is_made_again(tmp_path: Path) -> None:
    run(tmp_path)
    before = parts(tmp_path)
    job = Job.at(tmp_path)
    job.path(1).unlink()
    with pytest.raises(InputError, match=r"part-00001.parquet: is gone"):
        list(job.rows())
    report = run(tmp_path)
    assert (report.made, report.kept) == (1, 2)
    assert parts(tmp_path) == before


def test_a_part_that_was_changed_is_told_of(tmp_path: Path) -> None:
    run(tmp_path)
    path = Job.at(tmp_path).path(2)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"part-00002.parquet: is [0-9a-f]{12}, was [0-9a-f]{12}; remove it"):
        list(Job.at(tmp_path).rows())


def test_failed_rows_are_counted_and_done_again_where_wished(tmp_path: Path) -> None:
    columns = {"n": "int", "error": "text"}

    def once(told: Mapping[int, Any], **more: Any) -> tuple[JobReport, list[int]]:
        work = Numbers(told)
        with Job.open(tmp_path, MADE_FOR, shard=2, columns=columns) as job:  # type: ignore[arg-type]
            report = job.run(
                lambda: iter({"n": n} for n in range(6)), WORKER, executor=LocalExecutor(lambda _: work), **more
            )
        return report, work.seen

    report, _ = once({3: [{"n": 3, "error": "unreadable"}]})
    assert (report.rows, report.failed) == (6, 1)
    assert once({})[1] == []
    report, seen = once({}, retry=True)
    assert (seen, report.failed, report.kept) == ([2, 3, -1], 0, 2)
    assert [row["error"] for row in Job.at(tmp_path).rows()] == [None] * 6


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({5: LapilliError("the model is gone")}, "the model is gone"),
        ({5: [{"n": "five"}]}, "column n is int, a row has str: 'five'"),
        ({5: [{"n": True}]}, "column n is int, a row has bool"),
    ],
)
def test_what_stops_a_run_keeps_what_was_done(tmp_path: Path, told: Mapping[int, Any], said: str) -> None:
    work = Numbers(told)
    with Job.open(tmp_path, MADE_FOR, shard=2, columns={"n": "int"}) as job, pytest.raises(LapilliError, match=said):
        job.run(lambda: iter({"n": n} for n in range(8)), WORKER, executor=LocalExecutor(lambda _: work))
    assert work.seen[-1] == -1
    assert [row["n"] for row in Job.at(tmp_path).rows()] == [0, 1, 2, 3]


def test_a_worker_that_loses_items_is_found_out(tmp_path: Path) -> None:
    class Loses(Rehearsal):
        def rows(self, items: Iterable[Item]) -> Iterator[Sequence[Row]]:
            return (rows for n, rows in enumerate(super().rows(items)) if n != 6)

    with pytest.raises(LapilliError, match="the worker gave rows for 1 of the 2 items of shard 2"):
        run(tmp_path, executor=LocalExecutor(lambda _: Loses()))


def test_progress_counts_what_was_done_before(tmp_path: Path) -> None:
    run(tmp_path, limit=4)
    told: list[tuple[int, int]] = []
    run(tmp_path, progress=lambda report: told.append((report.items, report.rows)))
    assert told == [(8, 16), (10, 20)]


def test_carried_bytes_are_no_part_of_the_item(tmp_path: Path) -> None:
    def carry(item: Item) -> Item:
        return {**item, "carried": "here"}

    run(tmp_path, carry=carry)
    assert next(Job.at(tmp_path).rows())["item"]["carried"] == "here"
    assert run(tmp_path).made == 0


@pytest.mark.parametrize(
    "name",
    ["os:system", "lapilli.apps.jobs.rehearsal", "lapilli.ground.child:subprocess.Popen", "lapillix.a:b",
     "lapilli:load", "lapilli.a:b\n", "lapilli.apps.jobs.rehearsal:__import__"],
)  # fmt: skip
def test_a_name_that_is_no_workers_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="is no worker of lapilli's"):
        Worker(name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("lapilli.ground.child:contextlib", "does not define this worker"),
        ("lapilli.apps.jobs.rehearsal:canonical", "does not define this worker"),
        ("lapilli.apps.jobs.rehearsal:nobody", "no such worker here"),
        ("lapilli.apps.nothing:open_it", "no such worker here"),
    ],
)
def test_what_a_module_only_imports_is_no_worker(name: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Worker(name).open()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "[" * 100_000, '{"format": 1, "shard": 0, "columns": {}, "fingerprint": {}}',
     '{"format": 1, "shard": 1, "columns": {"a": "pickle"}, "fingerprint": {}}',
     '{"format": 2, "shard": 1, "columns": {}, "fingerprint": {}}'],
)  # fmt: skip
def test_an_odd_description_is_refused(tmp_path: Path, text: str) -> None:
    run(tmp_path)
    (tmp_path / "job.json").write_text(text)
    with pytest.raises(InputError, match=r"job.json"):
        run(tmp_path)


def test_a_list_of_parts_that_is_none_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / "manifest.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(InputError, match="cannot be read as a job's list of parts"):
        run(tmp_path)


def test_the_description_can_be_read_by_people(tmp_path: Path) -> None:
    run(tmp_path)
    assert json.loads((tmp_path / "job.json").read_text())["fingerprint"] == MADE_FOR
