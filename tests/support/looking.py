"""Drawn scenes whose boxes are known, asked about: does relevance lie on the shape that the answer names?"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lapilli.engine.local import LocalModel
from lapilli.inputs.chat import conversation
from lapilli.inputs.prompt import Prompt
from lapilli.training.synthetic import Art, Item, Scene, scene_at


@dataclass(frozen=True)
class Case:
    """A question about a scene of two shapes or more, its answer, and the one shape that this answer is true of."""

    skill: str
    scene: Scene
    prompt: Prompt
    features: list[Tensor]
    answer: tuple[int, ...]
    named: Item
    right: bool


def cases(model: LocalModel, skill: str, seed: int) -> Iterator[Case]:
    """Questions of a skill, "colour" or "shape", whose answer names one shape, be it the one that was asked for."""
    art = Art.load(None)
    for number in itertools.count():
        scene = scene_at(number, seed, art, "test", kind="shapes")
        asked = scene.items[number % len(scene.items)]
        key, told = ("name", "colour") if skill == "colour" else ("colour", "name")
        if len(scene.items) < 2 or sum(getattr(item, key) == getattr(asked, key) for item in scene.items) > 1:
            continue
        question = f"What colour is the {asked.name}?" if skill == "colour" else f"What shape is {asked.colour}?"
        messages = conversation(question, [scene.image])
        said = model.chat(messages)
        word = said.text.lower().strip(" .").removeprefix("an ").removeprefix("a ")
        named = [item for item in scene.items if getattr(item, told) == word]
        if len(named) != 1:
            continue
        prompt = model.prompts.chat(messages)
        with torch.inference_mode():
            features = [model.engine.sight.features(image) for image in prompt.images]
        yield Case(skill, scene, prompt, features, said.token_ids, named[0], named[0] is asked)


def inside(grid_RC: np.ndarray, box: tuple[float, ...], size: int = 128) -> tuple[float, float]:
    """The share of a grid's relevance inside a box, and the box's share of the picture."""
    rows, columns = grid_RC.shape
    down = np.clip(np.minimum(box[3], edges(rows, size)[1:]) - np.maximum(box[1], edges(rows, size)[:-1]), 0, None)
    across = np.clip(
        np.minimum(box[2], edges(columns, size)[1:]) - np.maximum(box[0], edges(columns, size)[:-1]), 0, None
    )
    cover_RC = down[:, None] * across[None] * rows * columns / size**2
    return float((grid_RC * cover_RC).sum() / max(grid_RC.sum(), 1e-12)), float(cover_RC.mean())


def edges(count: int, size: int) -> np.ndarray:
    return np.linspace(0, size, count + 1)
