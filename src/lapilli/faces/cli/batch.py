"""`lapilli batch`: a file of pictures and questions in, a table of answers out."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lapilli.errors import InputError


class _Questions(TyperGroup):
    """A group whose first word may be a file: that is `run`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["run", *args]
        return super().parse_args(ctx, args)


batch = typer.Typer(
    name="batch", cls=_Questions, help="Ask about many pictures: lapilli batch JOBS.jsonl --out DIR.",
    rich_markup_mode=None, no_args_is_help=True,
)  # fmt: skip


@batch.command()
def run(
    jobs: Annotated[Path, typer.Argument(metavar="JOBS.jsonl", help="A line for each: image, question, and so on.")],
    out: Annotated[Path, typer.Option(help="The job's folder; one that was begun goes on.")],
    model: Annotated[
        str, typer.Option(help="A model's name, a folder, a .gguf file; a server's, with --url.")
    ] = "mini",
    url: Annotated[str | None, typer.Option(help="A server of Ollama's or OpenAI's kind that has the model.")] = None,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A Ray cluster: auto, host:port, or local for one here.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes here, or actors on the cluster.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask about the first so many pictures.")] = None,
    shard: Annotated[int, typer.Option(min=1, help="Pictures in a part; what a kill can cost at most.")] = 64,
    window: Annotated[int, typer.Option(min=1, help="Questions under way at once.")] = 32,
    quantize: Annotated[str | None, typer.Option(help="int8 or int4: round the weights while loading.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    retry: Annotated[bool, typer.Option("--retry", help="Ask again where something failed before.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Ask every question of a file; the answers go to a folder.

    lapilli batch photos.jsonl --model mini --out runs/photos

    A line is an object: "image" or "images", "question" or "questions", and where wished "id", "system", "schema",
    "options". Paths are read from the file's own folder. Stopped or killed, the same command goes on; the rows are the
    same in the end, whoever works. A server's key is read from LAPILLI_API_KEY.
    """
    from lapilli.apps.batch import Answering, Questions, run_batch
    from lapilli.apps.executors.opening import open_executor
    from lapilli.faces.job_progress import job_progress, told

    questions = Questions.read(jobs)
    answering = Answering(
        model=model, url=url, key=os.environ.get("LAPILLI_API_KEY") if url else None, quantize=quantize, device=device,
        window=window,
    )  # fmt: skip
    total = questions.items if limit is None else min(limit, questions.items)
    again = shlex.join(["lapilli", "batch", str(jobs), "--model", model, "--out", str(out)])
    with job_progress("pictures", total, again) as progress:
        report = run_batch(
            questions, out, answering, executor=open_executor(workers=workers, ray=ray), shard=shard, limit=limit,
            carry=ray is not None, retry=retry, progress=progress,
        )  # fmt: skip
    if as_json:
        print(json.dumps(asdict(report)))
    else:
        print(f"{told(report, 'pictures')}; lapilli batch export {shlex.quote(str(out))}")
    return 1 if report.rows and report.failed == report.rows else 0


@batch.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A job's folder.")],
    format: Annotated[str, typer.Option(help="jsonl, parquet or csv.")] = "jsonl",
    to: Annotated[Path | None, typer.Option(help="Write this file; else standard output.")] = None,
) -> None:
    """Write the rows of a job in the order of its lines: JSON lines, one Parquet file, or CSV that is safe in Excel.

    lapilli batch export runs/photos --format csv --to photos.csv
    """
    import sys

    from lapilli.apps.jobs import export as exporting
    from lapilli.apps.jobs.job import Job
    from lapilli.faces.job_progress import note_what_is_missing, output

    if format not in exporting.FORMATS:
        raise InputError(f"--format {format[:40]!r} is not known: use {', '.join(exporting.FORMATS)}")
    if to is None and format == "parquet" and sys.stdout.isatty():
        raise InputError("Parquet is no text for a terminal: give --to FILE")
    with Job.at(folder) as job:
        with output(to) as file:
            exporting.export(job.rows(), job.columns, format, file)
        note_what_is_missing(job)
