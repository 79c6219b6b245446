"""`lapilli train`: the four stages that make `mini`, each in pieces that go on where the last one stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from lapilli.errors import InputError

train = typer.Typer(name="train", help="Train a model, one stage at a time.", rich_markup_mode=None)

Data = Annotated[Path, typer.Option(help="The folder with emoji/ and text/ to learn from.")]
Out = Annotated[Path, typer.Option(help="The folder that keeps the work; the stages share it.")]
Minutes = Annotated[float | None, typer.Option(help="Stop after so long; the same command goes on from there.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Start = Annotated[
    str | None, typer.Option("--from", help="An earlier mini to begin with: its vocabulary and its weights.")
]

DATA, OUT = Path("data"), Path("runs/mini")


@train.callback(invoke_without_command=True)
def _train(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@train.command()
def tower(
    data: Data = DATA, out: Out = OUT, minutes: Minutes = None, device: Device = "auto", start: Start = None
) -> None:
    """A vision tower, from pictures and their words."""
    from lapilli.training.mini import train_tower

    _run(train_tower, data, out, minutes, device, start)


@train.command()
def language(
    data: Data = DATA, out: Out = OUT, minutes: Minutes = None, device: Device = "auto", start: Start = None
) -> None:
    """A decoder, from text."""
    from lapilli.training.mini import train_language

    _run(train_language, data, out, minutes, device, start)


@train.command()
def align(
    data: Data = DATA, out: Out = OUT, minutes: Minutes = None, device: Device = "auto", start: Start = None
) -> None:
    """Stage one of LLaVA: the projector alone, tower and decoder frozen."""
    from lapilli.training.mini import train_align

    _run(train_align, data, out, minutes, device, start)


@train.command()
def tune(
    data: Data = DATA, out: Out = OUT, minutes: Minutes = None, device: Device = "auto", start: Start = None
) -> None:
    """Stage two of LLaVA: projector and decoder, the tower frozen."""
    from lapilli.training.mini import train_tune

    _run(train_tune, data, out, minutes, device, start)


def _run(
    stage: Callable[..., int], data: Path, out: Path, minutes: float | None, device: str, start: str | None
) -> None:
    from lapilli.model.device import choose_device
    from lapilli.store.reference import resolve
    from lapilli.training.mini import Workshop

    if minutes is not None and not minutes > 0:
        raise InputError(f"--minutes is {minutes}, it must be above 0")
    if not data.is_dir():
        raise InputError(f"--data {data}: there is no such folder")
    earlier = None if start is None else resolve(start).path
    step = stage(Workshop.open(data, out, choose_device(device), earlier), minutes=minutes)
    typer.echo(f"step {step}, kept in {out}")
