"""What a model can do, measured: questions with known answers about pictures it has never seen."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from lapilli.model.cache import KVCache
from lapilli.model.llava import Llava
from lapilli.training.corpus import ask
from lapilli.training.tower import normalise_pixels
from lapilli.training.vocabulary import BOS_ID, EOS_ID, IMAGE_ID

if TYPE_CHECKING:
    from lapilli.inputs.tokenizer import Tokenizer

Answer = Callable[[Sequence[np.ndarray], Sequence[str]], list[str]]
"""Pictures (H, W, C, bytes) and a question for each, to an answer for each."""


@dataclass(frozen=True)
class Task:
    """A picture, a question of one skill about it, and the answers that count as right."""

    skill: str
    pixels_HWC: np.ndarray
    question: str
    accept: frozenset[str]


@dataclass(frozen=True)
class Score:
    """How many of a skill's questions were answered right, and some that were not."""

    skill: str
    right: int
    asked: int
    misses: tuple[tuple[str, str, str], ...]

    @property
    def share(self) -> float:
        return self.right / self.asked


def score(answer: Answer, tasks: Iterable[Task], *, batch: int = 32, show: int = 5) -> list[Score]:
    """Exact match for each skill, in the order in which skills appear; keeps `show` misses of each.

    A miss is the question, what was said, and what would have been right.
    """
    pending = list(tasks)
    said: list[str] = []
    for start in range(0, len(pending), batch):
        group = pending[start : start + batch]
        said += answer([task.pixels_HWC for task in group], [task.question for task in group])
    scores = []
    for skill in dict.fromkeys(task.skill for task in pending):
        pairs = [(task, text) for task, text in zip(pending, said, strict=True) if task.skill == skill]
        wrong = [(task, text) for task, text in pairs if text.strip() not in task.accept]
        misses = [(task.question, text, " | ".join(sorted(task.accept))) for task, text in wrong]
        scores.append(Score(skill, len(pairs) - len(misses), len(pairs), tuple(misses[:show])))
    return scores


def table(scores: Sequence[Score]) -> str:
    """The scores as lines of text, the shares in percent."""
    wide = max(len(score.skill) for score in scores)
    return "\n".join(f"{x.skill:<{wide}}  {100 * x.share:5.1f} %  ({x.right} of {x.asked})" for x in scores)


def record(scores: Sequence[Score], log: Path, what: str) -> None:
    """Append one line to `log`: what was scored, when, and how; the model card counts these lines."""
    line = {
        "what": what,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "scores": {score.skill: [score.right, score.asked] for score in scores},
    }
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as file:
        file.write(json.dumps(line) + "\n")


def answerer(model: Llava, tokenizer: Tokenizer, *, longest: int = 64) -> Answer:
    """Greedy answers of a model in training, a batch at once, in the format it is trained on.

    The engine says the same; this one stands here since training does not see the engine.
    """

    @torch.inference_mode()
    def answer(pictures: Sequence[np.ndarray], questions: Sequence[str]) -> list[str]:
        pixels_BCHW = normalise_pixels(torch.from_numpy(np.stack(pictures)))
        images = [(pixels_BCHW[row : row + 1], picture.shape[:2]) for row, picture in enumerate(pictures)]
        features = model.encode_images(images)
        prompts = [
            [BOS_ID, *ask(tokenizer, question, len(feature))]
            for question, feature in zip(questions, features, strict=True)
        ]
        return [tokenizer.decode(ids).strip() for ids in _greedy(model, prompts, features, longest)]

    return answer


def _greedy(model: Llava, prompts: Sequence[list[int]], features: list[torch.Tensor], longest: int) -> list[list[int]]:
    """The most likely continuation of each prompt, up to `</s>`; prompts are padded on the left."""
    width = max(len(prompt) for prompt in prompts)
    lengths_B = torch.tensor([len(prompt) for prompt in prompts], device=model.device)
    ids_BT = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts], device=model.device)
    places_T = torch.arange(width, device=model.device)
    positions_BT = places_T - (width - lengths_B)[:, None]
    cache = KVCache(model.config.text, len(prompts), width + longest, dtype=model.dtype, device=model.device)
    hidden_BTD = model(model.embed(ids_BT, features), positions_BT.clamp(min=0), cache, positions_BT >= 0)
    said: list[list[int]] = [[] for _ in prompts]
    open_rows = set(range(len(prompts)))
    for turn in range(longest):
        scores_BV = model.logits(hidden_BTD[:, -1])
        scores_BV[:, IMAGE_ID] = -torch.inf  # a placeholder is never said
        next_B = scores_BV.argmax(-1)
        for row, token in enumerate(next_B.tolist()):
            if row in open_rows and token != EOS_ID:
                said[row].append(token)
            else:
                open_rows.discard(row)
        if not open_rows:
            break
        hidden_BTD = model(model.embed(next_B[:, None]), (lengths_B + turn)[:, None], cache)
    return said
