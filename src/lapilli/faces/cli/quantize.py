"""`lapilli quantize`: a checkpoint as quantized GGUF, and what that cost."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lapilli.errors import InputError

if TYPE_CHECKING:
    from lapilli.apps.evals.agreement import Agreement
    from lapilli.checkpoints.quantize import Report


def quantize(
    source: Annotated[
        str, typer.Argument(metavar="IN", help="A model's name (mini), a checkpoint folder, or a .gguf file.")
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The .gguf file to write; mmproj-OUT is written beside it.")
    ],
    type: Annotated[
        str, typer.Option("--type", help="Q4_K_M, Q4_K_S, Q4_0, Q4_1 (4 bits), Q6_K, or Q8_0 (8 bits).")
    ] = "Q4_K_M",
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Ask both models about drawn pictures, and compare.")] = False,
    each: Annotated[int, typer.Option(help="Questions of each skill for --check.")] = 20,
    data: Annotated[Path | None, typer.Option(help="The folder with emoji/ and text/, for --check.")] = None,
    projector: Annotated[Path | None, typer.Option(help="The mmproj file of a .gguf model.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="A folder with a LoRA adapter to merge before.")] = None,
    vision_tower: Annotated[Path | None, typer.Option(help="The CLIP folder that an original LLaVA names.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write a checkpoint as quantized GGUF, for lapilli, llama.cpp and Ollama.

    lapilli quantize llava-1.5-7b-hf llava.gguf --type Q4_K_M

    Says for each kind of tensor what it takes and what rounding changed (root mean square, in percent).
    """
    from lapilli.checkpoints.quantize import quantize_checkpoint
    from lapilli.store.reference import resolve

    if each < 1:
        raise InputError(f"--each is {each}, it must be at least 1")
    found = resolve(source)
    adapter = adapter or next(iter(found.adapters), None)
    with _progress() as (begin, watch):
        report = quantize_checkpoint(
            found.path,
            out,
            type,
            projector=projector or found.projector,
            adapter=adapter,
            vision_tower=vision_tower,
            replace=force,
            begin=begin,
            watch=watch,
        )
    agreement = None
    if check and len(report.files) == 1:
        print("lapilli: note: --check asks about pictures, this model reads text only", file=sys.stderr)
    elif check:
        options = {"projector": projector, "adapter": adapter, "vision_tower": vision_tower}
        agreement = _compare(source, report, each, data, options)
    if as_json:
        print(json.dumps(report.to_dict() | ({} if agreement is None else {"agreement": agreement.to_dict()})))
        return
    print(report.table())
    if agreement is not None:
        print(
            f"same answer: {agreement.same} of {agreement.asked} ({100 * agreement.share:.1f} %), "
            f"perplexity of the first's answers {agreement.perplexity:.3f}, now {agreement.perplexity_after:.3f}"
        )


def _compare(source: str, report: Report, each: int, data: Path | None, options: dict[str, Any]) -> Agreement:
    from lapilli.apps.evals.agreement import compare
    from lapilli.apps.evals.mini import ExamOptions
    from lapilli.engine.local import load

    model, mmproj = report.files
    return compare(load(source, **options), load(model, projector=mmproj), data, ExamOptions(each=each))


@contextmanager
def _progress() -> Iterator[Any]:
    """A bar on standard error where that is a terminal: what is written, how fast, how long it will take."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("quantizing", total=None)

        def begin(nbytes: int) -> None:
            bar.update(task, total=nbytes)

        def watch(name: str, nbytes: int) -> None:
            bar.update(task, advance=nbytes)

        yield begin, watch
