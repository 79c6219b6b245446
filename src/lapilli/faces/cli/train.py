"""`lapilli train`: the two stages of LLaVA on your own data, and the four stages that make `mini`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from lapilli.errors import InputError
from lapilli.faces.terminal import printable

train = typer.Typer(name="train", help="Train a model, one stage at a time.", rich_markup_mode=None)
mini = typer.Typer(name="mini", help="The four stages that make mini from nothing.", rich_markup_mode=None)
train.add_typer(mini)

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A published recipe by name, or a TOML file.")]
Base = Annotated[str, typer.Option(help="The model to begin with: a name, a checkpoint folder, or a .gguf file.")]
Records = Annotated[
    Path, typer.Option("--data", help="Conversations (.json, .jsonl), .tar shards, or a folder of captioned pictures.")
]
Images = Annotated[
    Path | None, typer.Option(help="Where the pictures lie that records name; beside the data, if none.")
]
Product = Annotated[Path, typer.Option("--out", help="Where the trained model goes; OUT.training keeps the work.")]
Changes = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change the recipe.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would learn and how long, show samples, and end.")]
Skip = Annotated[bool, typer.Option("--skip", help="Leave out records that cannot be used, and count them.")]

Data = Annotated[Path, typer.Option(help="The folder with emoji/ and text/ to learn from.")]
Out = Annotated[Path, typer.Option(help="The folder that keeps the work; the stages share it.")]
Minutes = Annotated[float | None, typer.Option(help="Stop after so long; the same command goes on from there.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Start = Annotated[
    str | None, typer.Option("--from", help="An earlier mini to begin with: its vocabulary and its weights.")
]

TextData = Annotated[Path, typer.Option(help="The folder with text/ and trials/ to learn from.")]
TextStart = Annotated[
    str | None, typer.Option("--from", help="An earlier mini-text to begin with: its vocabulary and its weights.")
]

DATA, OUT = Path("data"), Path("runs/mini")


@train.callback(invoke_without_command=True)
def _train(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@mini.callback(invoke_without_command=True)
def _mini(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _add(stage: str, usual: str, told: str) -> None:
    """The command of a stage, begun with its usual recipe where nobody names one."""

    @train.command(name=stage, help=told)
    def command(
        base: Base,
        data: Records,
        out: Product,
        recipe: RecipeName = usual,
        images: Images = None,
        changes: Changes = None,
        dry_run: DryRun = False,
        skip: Skip = False,
        minutes: Minutes = None,
        device: Device = "auto",
    ) -> None:
        from lapilli.model.device import choose_device
        from lapilli.store.reference import resolve
        from lapilli.training.distributed import join, leave
        from lapilli.training.recipe import Recipe
        from lapilli.training.talks import open_talks
        from lapilli.training.teach import prepare, teach

        _check_minutes(minutes)
        chosen = Recipe.read(recipe, changes or ())
        if (chosen.train == "projector") != (stage == "align"):
            other = "tune" if stage == "align" else "align"
            raise InputError(f"recipe {chosen.name} trains {chosen.train}: that is `lapilli train {other}`")
        found = resolve(base)
        if found.adapters:
            raise InputError(f"--base {base} has an adapter, which training would lose: give the model below it")
        ranks = join()
        tell: Callable[[object], None] = typer.echo if ranks.leads else _say_nothing
        lesson = prepare(
            chosen,
            found.path,
            open_talks(data, images),
            out.with_name(f"{out.name}.training"),
            name=_lasting(base, found.path),
            device=choose_device(device),
            skip=skip,
            projector=found.projector,
        )
        tell(lesson.estimate)
        if dry_run:
            for number, sample in enumerate(lesson.shown(3), 1):
                tell(f"\nsample {number}, what is learnt in «»:\n{printable(sample)}")
            return
        step = teach(lesson, out, minutes=minutes)
        if left := lesson.course.left_out:
            tell(f"{len(left)} records were left out; the first: {printable(left[0])}")
        if step < lesson.loop.steps:
            tell(f"step {step} of {lesson.loop.steps}, kept in {lesson.work}; the same command goes on from there")
        else:
            tell(f"step {step}, written to {out}; its curves are {lesson.work / 'loss.png'}")
        leave()


_add(
    "align",
    "small-align",
    """Stage one of LLaVA: the projector alone, tower and decoder frozen.

    lapilli train align llava-1.5-align --base ./llava --data captions.json --out ./aligned
    """,
)
_add(
    "tune",
    "small-tune",
    """Stage two of LLaVA: projector and decoder from conversations, whole or as an adapter, the tower frozen.

    lapilli train tune --base mini --data my.json --out ./mine

    lapilli train tune small-lora --base mini --data my.json --out ./my-adapter --set lora.rank=8
    """,
)


def _lasting(base: str, path: Path) -> str:
    """What an adapter calls its base model: its name, or where it lies, whoever asks from where."""
    named = Path(base).expanduser().absolute()
    return str(named) if named in (path.absolute(), path.absolute().parent) else base


def _say_nothing(_: object) -> None:
    """What processes say that another speaks for."""


@mini.command()
def tower(
    data: Data = DATA, out: Out = OUT, minutes: Minutes = None, device: Device = "auto", start: Start = None
) -> None:
    """A vision tower, from pictures and their words."""
    from lapilli.training.mini import train_tower

    _run(train_tower, data, out, minutes, device, start)


@mini.command()
def language(
    data: Data = DATA, out: Out = OUT, minutes: Minutes = None, device: Device = "auto", start: Start = None
) -> None:
    """A decoder, from text."""
    from lapilli.training.mini import train_language

    _run(train_language, data, out, minutes, device, start)


@mini.command(name="align")
def mini_align(
    data: Data = DATA, out: Out = OUT, minutes: Minutes = None, device: Device = "auto", start: Start = None
) -> None:
    """The projector alone, from captions of drawn pictures."""
    from lapilli.training.mini import train_align

    _run(train_align, data, out, minutes, device, start)


@mini.command(name="tune")
def mini_tune(
    data: Data = DATA, out: Out = OUT, minutes: Minutes = None, device: Device = "auto", start: Start = None
) -> None:
    """Tower, projector and decoder, end to end, from conversations about drawn pictures."""
    from lapilli.training.mini import train_tune

    _run(train_tune, data, out, minutes, device, start)


@train.command(name="mini-text")
def mini_text(
    data: TextData = DATA,
    out: Out = Path("runs/mini-text"),
    minutes: Minutes = None,
    device: Device = "auto",
    start: TextStart = None,
) -> None:
    """mini-text, the built-in model for text, from nothing: answers from passages, interventions of trials."""
    from lapilli.apps.evals.mini_text import trial_material
    from lapilli.model.device import choose_device
    from lapilli.store.reference import resolve
    from lapilli.training.mini_text import TextWorkshop, train_text

    _check_minutes(minutes)
    if not data.is_dir():
        raise InputError(f"--data {data}: there is no such folder")
    earlier = None if start is None else resolve(start).path
    shop = TextWorkshop.open(data, trial_material(data), out, choose_device(device), earlier)
    typer.echo(f"step {train_text(shop, minutes=minutes)}, kept in {out}")


def _run(
    stage: Callable[..., int], data: Path, out: Path, minutes: float | None, device: str, start: str | None
) -> None:
    from lapilli.model.device import choose_device
    from lapilli.store.reference import resolve
    from lapilli.training.mini import Workshop

    _check_minutes(minutes)
    if not data.is_dir():
        raise InputError(f"--data {data}: there is no such folder")
    earlier = None if start is None else resolve(start).path
    step = stage(Workshop.open(data, out, choose_device(device), earlier), minutes=minutes)
    typer.echo(f"step {step}, kept in {out}")


def _check_minutes(minutes: float | None) -> None:
    if minutes is not None and not minutes > 0:
        raise InputError(f"--minutes is {minutes}, it must be above 0")
