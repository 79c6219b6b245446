"""`lapilli eval`: how well a model answers about pictures that training never shows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lapilli.errors import InputError
from lapilli.faces.cli.terminal import printable

if TYPE_CHECKING:
    import numpy as np

    from lapilli.engine.local import LocalModel
    from lapilli.training.skills import Answer

KNOWN = ("noto", "twemoji")


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model's name (mini), a folder, or a .gguf file.")],
    data: Annotated[Path | None, typer.Option(help="The folder with emoji/ and text/; without it, no naming.")] = None,
    unseen: Annotated[str | None, typer.Option(help="Score naming in this style of emoji/ too, and log it.")] = None,
    log: Annotated[Path, typer.Option(help="Where each scoring of an unseen style leaves a line.")] = Path(
        "runs/mini/unseen.jsonl"
    ),
    each: Annotated[int, typer.Option(help="Questions of each skill.")] = 200,
    seed: Annotated[int, typer.Option(help="Another seed, other pictures.")] = 0,
    batch: Annotated[int, typer.Option(help="Questions asked together.")] = 32,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    misses: Annotated[int, typer.Option(help="Show so many wrong answers of each skill.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Score answers about pictures never seen.

    Exact match per skill, on held-out drawings, compositions and fonts.
    """
    for name, value in (("each", each), ("batch", batch)):
        if value < 1:
            raise InputError(f"--{name} is {value}, it must be at least 1")
    if unseen is not None and (data is None or unseen in KNOWN):
        raise InputError("--unseen needs --data, and a style that is not trained on")

    from lapilli.engine.local import load
    from lapilli.training.art import Art
    from lapilli.training.material import examination
    from lapilli.training.skills import record, score, table

    loaded = load(model, device=device)
    answer = answerer(loaded)
    scores = score(answer, examination(Art.load(data, KNOWN), seed, each), batch=batch, show=misses)
    if unseen is not None:
        tasks = examination(Art.load(data, (unseen,)), seed, each, skills=("naming",))
        strange = score(answer, tasks, batch=batch, show=misses)
        record(strange, log, f"{model}: naming in {unseen}, {each} questions, seed {seed}")
        scores += [dataclasses.replace(result, skill=f"naming in {unseen}") for result in strange]
    if as_json:
        print(json.dumps({x.skill: {"right": x.right, "asked": x.asked, "share": x.share} for x in scores}))
        return
    print(table(scores))
    for result in scores:
        for question, said, right in result.misses:
            print(f"{result.skill}: {question}\n    said   {printable(said)}\n    right  {right}")


def answerer(model: LocalModel) -> Answer:
    """Greedy answers of the engine, a batch at once."""
    from PIL import Image

    from lapilli.engine.generation import write
    from lapilli.engine.sampler import SamplingOptions
    from lapilli.inputs.chat import conversation

    options = SamplingOptions(max_tokens=64)

    def answer(pictures: Sequence[np.ndarray], questions: Sequence[str]) -> list[str]:
        pairs = zip(pictures, questions, strict=True)
        prompts = [model.prompts.chat(conversation(text, [Image.fromarray(pixels)])) for pixels, text in pairs]
        said = [""] * len(prompts)
        for events in write(model.model, model.tokenizer, prompts, [options] * len(prompts)):
            for number, _, done in events:
                said[number] = done.text.strip() if done else said[number]
        return said

    return answer
