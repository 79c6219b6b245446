"""Extraction as a job: the files' trials in shards, a row for each record, in a folder that goes on where it was.

A job's rows are records; the first row of each trial has the trial's texts as well, so that a report needs no source.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import lapilli
from lapilli.apps.jobs.columns import Columns
from lapilli.apps.jobs.job import Job, JobReport
from lapilli.apps.jobs.work import Executor, Item, Row, Worker
from lapilli.apps.trials.extract import Extractor, Options
from lapilli.apps.trials.prompt import BODY, HEAD
from lapilli.apps.trials.readers.files import find_files, read_trials
from lapilli.apps.trials.report import Shown
from lapilli.apps.trials.schema import Record
from lapilli.apps.trials.trial import Trial
from lapilli.errors import InputError
from lapilli.ground.files import open_regular

COLUMNS: Columns = {
    "trial": "text", "register": "text", "status": "text", "error": "text", "record": "json", "fields": "json",
}  # fmt: skip
SHARD = 64
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Reading:
    """Who reads trials: the arguments of `open_backend`, or `model` None for rules alone."""

    model: str | None = "mini"
    url: str | None = None
    dialect: str | None = None
    key: str | None = field(default=None, repr=False)
    quantize: str | None = None
    device: str = "auto"
    window: int = 32


def run_extraction(
    paths: Sequence[Path],
    out: Path,
    reading: Reading,
    options: Options,
    *,
    executor: Executor,
    shard: int = SHARD,
    limit: int | None = None,
    retry: bool = False,
    problems: Callable[[str], None] = lambda _: None,
    progress: Callable[[JobReport], None] = lambda _: None,
) -> JobReport:
    """Make the records of all trials that have none yet, in the job's folder `out`; the same call goes on after a kill.

    `problems` hears what could not be read of the files. Raises InputError where the folder is another run's, and what
    opening the model raises.
    """
    digest = _digest(reading)
    made_for = {
        "work": "trials", "lapilli": lapilli.__version__, "model": reading.model or "rules alone", "digest": digest,
        "options": options.fingerprint(), "files": _digests(paths, problems),
    }  # fmt: skip
    settings = {"reading": vars(reading), "options": asdict(options), "digest": digest}
    worker = Worker("lapilli.apps.trials.job:open_extraction", settings)

    def items() -> Iterator[Item]:
        return (trial.to_json() for trial in read_trials(paths, problems=problems))

    with Job.open(out, made_for, shard=shard, columns=COLUMNS) as job:
        return job.run(items, worker, executor=executor, limit=limit, failed=is_failed, retry=retry, progress=progress)


def open_extraction(settings: Mapping[str, Any]) -> Extracting:
    """The worker: a model, opened. Raises InputError where it is not the one that the job was begun with."""
    from lapilli.apps.backend.opening import open_backend

    how, options = dict(settings["reading"]), Options(**settings["options"])
    window = how.pop("window")
    if how["model"] is None:
        return Extracting(Extractor(None, options), lambda: None)
    backend = open_backend(**how)
    if backend.digest != settings["digest"]:
        found, wanted = backend.digest[:12], settings["digest"][:12]
        backend.close()
        raise InputError(f"{backend.name} is {found} here, and {wanted} where the job was begun: have the same in both")
    return Extracting(Extractor(backend, options, window=window), backend.close)


class Extracting:
    """Work on trials as JSON values."""

    def __init__(self, extractor: Extractor, close: Callable[[], None]) -> None:
        self._extractor, self.close = extractor, close

    def rows(self, items: Iterable[Item]) -> Iterator[Sequence[Row]]:
        """The rows of each trial's records."""
        for trial, records in self._extractor.each(map(Trial.from_json, items)):
            yield [_row(record, trial if place == 0 else None) for place, record in enumerate(records)]


def is_failed(row: Row) -> bool:
    """Whether a row is the record of a trial that failed."""
    return bool(row["status"] == "failed")


def shown_trials(rows: Iterable[Row]) -> Iterator[Shown]:
    """A job's rows as the trials of a report."""
    records: list[Mapping[str, Any]] = []
    fields: Mapping[str, str] = {}
    for row in rows:
        if row["fields"] is not None and records:
            yield _shown(records, fields)
            records = []
        fields = row["fields"] if row["fields"] is not None else fields
        records.append(row["record"])
    if records:
        yield _shown(records, fields)


def _shown(records: Sequence[Mapping[str, Any]], fields: Mapping[str, str]) -> Shown:
    first = records[0]
    # In the order in which people read, which canonical JSON has not kept.
    ordered = {name: fields[name] for name in (*HEAD, *BODY, *fields) if name in fields}
    return Shown(first["trial_ids"], first["source_register"], first["status"], records, ordered)


def _row(record: Record, trial: Trial | None) -> Row:
    return {
        "trial": record.primary_trial_id,
        "register": record.source_register,
        "status": record.status,
        "error": None if record.error is None else f"{record.error.code}: {record.error.message}",
        "record": record.to_json(),
        "fields": None if trial is None else {name: _whole(text) for name, text in trial.fields.items()},
    }


def _whole(text: str) -> str:
    """A text that can be written down: of half a surrogate pair a mark is left, at its place."""
    return text.encode("utf-8", "replace").decode()


def _digest(reading: Reading) -> str:
    if reading.model is None:
        return ""
    from lapilli.apps.backend.opening import identify

    how: dict[str, Any] = {name: getattr(reading, name) for name in ("url", "dialect", "key", "quantize")}
    return identify(reading.model, **how)


def _digests(paths: Sequence[Path], problems: Callable[[str], None]) -> dict[str, str]:
    """The files that are read, each with the sha256 of its bytes."""
    # Dictionaries keep the order of files, which is that of the trials.
    return {
        str(path): _sha256(path) for path in dict.fromkeys(each.path for each in find_files(paths, problems=problems))
    }


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while data := file.read(_CHUNK):
            digest.update(data)
    return digest.hexdigest()
