"""`lapilli eval`: how well a model does, on material that it has not seen."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from lapilli.errors import InputError
from lapilli.faces.cli.terminal import printable

evaluate = typer.Typer(name="eval", help="Measure a model.", rich_markup_mode=None)


@evaluate.callback(invoke_without_command=True)
def _evaluate(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@evaluate.command()
def mini(
    model: Annotated[str, typer.Option(help="A model's name, a checkpoint folder, or a .gguf file.")] = "mini",
    data: Annotated[Path | None, typer.Option(help="The folder with emoji/ and text/; without it, no naming.")] = None,
    each: Annotated[int, typer.Option(help="Questions of each skill.")] = 200,
    seed: Annotated[int, typer.Option(help="Another seed, other pictures.")] = 0,
    batch: Annotated[int, typer.Option(help="Questions asked together.")] = 32,
    unseen: Annotated[bool, typer.Option("--unseen", help="Score naming in the unseen style instead, and log it.")] = (
        False
    ),
    log: Annotated[Path, typer.Option(help="Where each scoring of the unseen style leaves a line.")] = Path(
        "docs/unseen-style.jsonl"
    ),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show a few wrong answers of each skill.")] = False,
) -> None:
    """Exact match per skill: colour, shape, count, relation, naming, word.

    The pictures are drawn: compositions, words and typefaces that training never shows.
    """
    if data is not None and not data.is_dir():
        raise InputError(f"--data {data}: there is no such folder")
    if unseen and data is None:
        raise InputError("--unseen needs --data, the folder with emoji/ and text/")

    from lapilli.apps.evals.mini import ExamOptions, examine, examine_unseen
    from lapilli.engine.local import load

    options = ExamOptions(each=each, seed=seed, batch=batch, misses=5 if verbose else 0)
    asked = load(model, device=device)
    if unseen:
        assert data is not None
        results = examine_unseen(asked, data, log, options, name=model)
    else:
        results = examine(asked, data, options)
    if as_json:
        print(json.dumps({"model": model, "each": each, "seed": seed, "unseen": unseen, **results.to_dict()}))
    else:
        print(results.table())
        for note in results.notes:
            print("lapilli: note:", note, file=sys.stderr)
    for score in results.scores if verbose else ():
        for question, said, right in score.misses:
            lines = (f"{score.skill}: {question}", f"    said   {said}", f"    right  {right}")
            print(printable("\n".join(lines)), file=sys.stderr)
