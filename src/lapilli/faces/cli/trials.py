"""`lapilli trials`: registers of clinical trials in, a table of their interventions out."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lapilli.errors import InputError

if TYPE_CHECKING:
    from lapilli.apps.trials.extract import Ask
    from lapilli.apps.trials.labels import Labelled
    from lapilli.apps.trials.score import Scores

trials = typer.Typer(
    name="trials",
    help="Interventions out of registers of clinical trials: WHO's ICTRP, ClinicalTrials.gov.",
    rich_markup_mode=None,
    no_args_is_help=True,
)
_FILES = "ICTRP's XML or CSV, ClinicalTrials.gov's XML or JSON, folders and zips of them."
_MODEL = "A model's name, a folder, a .gguf file; a server's, with --url."
_URL = "A server of Ollama's or OpenAI's kind that has the model."


@trials.command()
def extract(
    files: Annotated[list[Path], typer.Argument(metavar="FILES…", help=_FILES)],
    out: Annotated[Path, typer.Option(help="The job's folder; one that was begun goes on.")],
    model: Annotated[str, typer.Option(help=_MODEL)] = "mini",
    url: Annotated[str | None, typer.Option(help=_URL)] = None,
    rules: Annotated[bool, typer.Option("--rules", help="No model: what the register states, and rules.")] = False,
    ask: Annotated[str, typer.Option(help="rest: about every trial; missing: where none is stated.")] = "rest",
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A Ray cluster: auto, host:port, or local for one here.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes here, or actors on the cluster.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many trials.")] = None,
    shard: Annotated[int, typer.Option(min=1, help="Trials in a part; what a kill can cost at most.")] = 64,
    window: Annotated[int, typer.Option(min=1, help="Questions under way at once.")] = 32,
    quantize: Annotated[str | None, typer.Option(help="int8 or int4: round the weights while loading.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    retry: Annotated[bool, typer.Option("--retry", help="Read again where something failed before.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Read trials, and write a record for each of their interventions into a folder.

    lapilli trials extract ictrp.xml --model mini --out runs/trials

    What a register states outright is taken over; the model is asked for the rest. A trial that fails has a record
    that says why. Stopped or killed, the same command goes on; the records are the same in the end, whoever works.
    A server's key is read from LAPILLI_API_KEY.
    """
    from lapilli.apps.executors.opening import open_executor
    from lapilli.apps.trials.extract import Options
    from lapilli.apps.trials.job import Reading, run_extraction
    from lapilli.faces.job_progress import job_progress, told

    _require_files(files)
    reading = Reading(
        model=None if rules else model, url=url, key=os.environ.get("LAPILLI_API_KEY") if url else None,
        quantize=quantize, device=device, window=window,
    )  # fmt: skip
    said = ["--rules"] if rules else ["--model", model]
    again = shlex.join(["lapilli", "trials", "extract", *map(str, files), *said, "--out", str(out)])
    with job_progress("trials", limit, again) as progress:
        report = run_extraction(
            files, out, reading, Options(ask=_ask(ask)), executor=open_executor(workers=workers, ray=ray),
            shard=shard, limit=limit, retry=retry, problems=_note, progress=progress,
        )  # fmt: skip
    if as_json:
        print(json.dumps(asdict(report)))
    else:
        print(f"{told(report, 'trials')}; lapilli trials report {shlex.quote(str(out))}")
    return 1 if report.items and report.failed == report.items else 0


@trials.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A job's folder.")],
    format: Annotated[str, typer.Option(help="jsonl, parquet or csv.")] = "jsonl",
    to: Annotated[Path | None, typer.Option(help="Write this file; else standard output.")] = None,
    profile: Annotated[str, typer.Option(help="records: everything; article: name, type, is_new_drug …")] = "records",
) -> None:
    """Write a job's records: JSON lines, one Parquet file, or CSV that is safe in Excel.

    lapilli trials export runs/trials --format csv --to trials.csv
    """
    from lapilli.apps.jobs.export import FORMATS
    from lapilli.apps.jobs.job import Job
    from lapilli.apps.trials import export as exporting
    from lapilli.faces.job_progress import note_what_is_missing, output

    if format not in FORMATS:
        raise InputError(f"--format {format[:40]!r} is not known: use {', '.join(FORMATS)}")
    if profile not in exporting.PROFILES:
        raise InputError(f"--profile {profile[:40]!r} is not known: use {', '.join(exporting.PROFILES)}")
    if to is None and format == "parquet" and sys.stdout.isatty():
        raise InputError("Parquet is no text for a terminal: give --to FILE")
    with Job.at(folder) as job:
        with output(to) as file:
            exporting.export((row["record"] for row in job.rows()), format, file, profile=profile)
        note_what_is_missing(job)


@trials.command()
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A job's folder.")],
    to: Annotated[Path | None, typer.Option(help="The file; else DIR.html.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Show the first so many trials; charts are of all.")] = 10_000,
) -> None:
    """Write a job's trials as one HTML file: each text with what was found lit in colour, filters, charts.

    lapilli trials report runs/trials --to trials.html
    """
    from lapilli.apps.jobs.job import Job
    from lapilli.apps.trials.job import shown_trials
    from lapilli.apps.trials.report import write_report
    from lapilli.faces.job_progress import note_what_is_missing

    path = to or folder.with_name(f"{folder.resolve().name}.html")
    with Job.at(folder) as job:
        made = str(job.fingerprint.fields.get("model", ""))
        counts = write_report(path, folder.resolve().name, lambda: shown_trials(job.rows()), made=made, most=limit)
        note_what_is_missing(job)
    print(f"{path}: {counts.trials:,} trials, {counts.interventions:,} interventions")


@trials.command()
def score(
    labels: Annotated[Path, typer.Argument(metavar="LABELS.jsonl", help="Labelled trials, a line each.")],
    job: Annotated[Path | None, typer.Option(metavar="DIR", help="Score this job's records, found by id.")] = None,
    model: Annotated[str, typer.Option(help=_MODEL)] = "mini",
    url: Annotated[str | None, typer.Option(help=_URL)] = None,
    rules: Annotated[bool, typer.Option("--rules", help="No model: rules alone.")] = False,
    no_rules: Annotated[bool, typer.Option("--no-rules", help="The model alone.")] = False,
    share: Annotated[str, typer.Option(help="held: set aside from training; train; all.")] = "held",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many trials.")] = None,
    window: Annotated[int, typer.Option(min=1, help="Questions under way at once.")] = 32,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, with all measures.")] = False,
) -> None:
    """Compare records with labels: names, spans, types, slots, how much stands in the text, by register and language.

    lapilli trials score labelled.jsonl --model mini

    Without --job the labelled trials are read out now, their own interventions hidden.
    """
    from lapilli.apps.jobs.job import Job
    from lapilli.apps.trials.labels import read_labelled
    from lapilli.apps.trials.scoring import score_records, table
    from lapilli.faces import columns

    if rules and no_rules:
        raise InputError("--rules and --no-rules leave nothing: give one of them")
    if share not in ("held", "train", "all"):
        raise InputError(f"--share {share[:40]!r} is not known: use held, train or all")
    labelled = list(read_labelled(labels, share))[:limit]  # type: ignore[arg-type]
    if not labelled:
        raise InputError(f"{labels}: has no labelled trials of the share {share!r}")
    if job is not None:
        with Job.at(job) as done:
            scores = score_records((row["record"] for row in done.rows()), labelled)
    else:
        key = os.environ.get("LAPILLI_API_KEY") if url else None
        scores = _read_out(labelled, None if rules else model, url, key, not no_rules, window)
    if as_json:
        print(json.dumps(scores.told(), ensure_ascii=False))
    else:
        header, *lines = table(scores)
        print(columns.table(header, lines))


@trials.command()
def schema() -> None:
    """Print the JSON Schema that every record satisfies.

    lapilli trials schema > trial-record.schema.json
    """
    from lapilli.apps.trials.schema import record_schema

    print(json.dumps(record_schema(), indent=2, ensure_ascii=False))


def _read_out(
    labelled: list[Labelled], model: str | None, url: str | None, key: str | None, rules: bool, window: int
) -> Scores:
    from lapilli.apps.backend.opening import open_backend
    from lapilli.apps.trials.extract import Extractor, Options
    from lapilli.apps.trials.scoring import score_extractor

    options = Options(rules=rules, hide=True)
    if model is None:
        return score_extractor(Extractor(None, options), labelled)
    with open_backend(model, url=url, key=key) as backend:
        return score_extractor(Extractor(backend, options, window=window), labelled)


def _require_files(files: list[Path]) -> None:
    for path in files:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")


def _ask(given: str) -> Ask:
    if given not in ("rest", "missing"):
        raise InputError(f"--ask {given[:40]!r} is not known: use rest or missing")
    return "rest" if given == "rest" else "missing"


def _note(problem: str) -> None:
    print(f"lapilli: note: {problem}", file=sys.stderr)
