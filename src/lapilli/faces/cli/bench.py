"""`lapilli bench`: how fast a model is on this machine."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lapilli.errors import InputError

if TYPE_CHECKING:
    from lapilli.apps.speed import Speed


def bench(
    model: Annotated[str, typer.Argument(help="A model's name, a checkpoint folder, or a .gguf file.")] = "mini",
    lengths: Annotated[str, typer.Option(help="Tokens of the prompts, with commas between.")] = "64,256,1024,4096",
    users: Annotated[str, typer.Option(help="How many ask at once, with commas between.")] = "1,2,4,8",
    said: Annotated[int, typer.Option(help="Tokens of each answer.")] = 32,
    turns: Annotated[int, typer.Option(help="Repeats of each figure; medians are told.")] = 3,
    quantize: Annotated[str | None, typer.Option(help="int8 or int4: round the weights while loading.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the figures as a picture, too (.svg).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Time a model: a picture encoded, prompts read and answered, several users at once.

    lapilli bench mini --plot speed.svg

    Prompts are tokens drawn at random, so that nothing is found again. Beside other programs: see bench/ in the
    repository, where peers take turns in one run.
    """
    from lapilli.apps.speed import measure
    from lapilli.engine.engine import EngineOptions
    from lapilli.engine.local import load
    from lapilli.ground.machine import cores, processor

    if plot is not None and plot.suffix.lower() != ".svg":
        raise InputError(f"--plot writes .svg, not {plot.suffix or 'a file without an ending'!r}")
    many = _numbers("--users", users)
    most = max(8, *many)
    machine = f"{processor()}, {cores()} cores"
    loaded = load(
        model, quantize=quantize, device=device, dtype=dtype,
        engine=EngineOptions(running=most, rows=most, speculate=False),
    )  # fmt: skip
    speed = measure(
        loaded, lengths=_numbers("--lengths", lengths), users=many, said=said, turns=turns,
        progress=lambda doing: print(f"timing: {doing}", file=sys.stderr),
    )  # fmt: skip
    if plot is not None:
        from lapilli.apps.speed_chart import draw
        from lapilli.ground.files import publish

        with publish(plot) as fresh:
            fresh.write_text(draw(speed, model), encoding="utf-8")
    if as_json:
        print(json.dumps({"model": model, "machine": machine, **dataclasses.asdict(speed)}))
        return
    print(f"{model} on {machine}; medians of {turns}\n")
    _show(speed)


def _show(speed: Speed) -> None:
    if speed.picture_seconds is not None:
        print(f"a picture encoded: {1000 * speed.picture_seconds:.1f} ms, {speed.picture_tokens} tokens\n")
    print(f"{'prompt, tokens':>14}  {'first token, ms':>15}  {'read, tokens/s':>14}  {'answer, tokens/s':>16}")
    for row in speed.lengths:
        first = 1000 * row.first_seconds
        print(f"{row.tokens:>14,}  {first:>15,.1f}  {row.read_rate:>14,.0f}  {row.decode_rate:>16,.1f}")
    print(f"\n{'users at once':>14}  {'tokens/s of all':>15}  {'of each':>14}")
    for each in speed.company:
        print(f"{each.users:>14}  {each.rate:>15,.1f}  {each.rate / each.users:>14,.1f}")


def _numbers(name: str, text: str) -> list[int]:
    try:
        found = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise InputError(f"{name} is {text!r}: write whole numbers with commas between, such as 1,2,4") from None
    if found[0] < 1:
        raise InputError(f"{name} begins with {found[0]}: 1 is the least")
    return found
