"""`lapilli train mini align` and `train mini tune`: a decoder learns to speak about what the tower sees.

The two stages of LLaVA (arXiv 2304.08485): first the projector alone learns from captions, then all that speaks from
conversations, and with it the tower where it is told to (arXiv 2408.03326). Loss is on the answers and their `</s>`,
on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lapilli.model.llava import Llava
from lapilli.training.corpus import Dialogue, Reading, read
from lapilli.training.tower import normalise_pixels, steps_ahead
from lapilli.training.vocabulary import PAD_ID

if TYPE_CHECKING:
    from lapilli.inputs.tokenizer import Tokenizer

Trained = Literal["projector", "projector+language", "projector+language+vision"]


@dataclass(frozen=True, kw_only=True)
class InstructOptions:
    """Dialogues in a batch, and processes that draw and write them ahead."""

    batch: int = 32
    workers: int = 1


@dataclass(frozen=True)
class Lesson:
    """A dialogue, and the picture (H, W, C, bytes) that it is about, if any."""

    dialogue: Dialogue
    pixels_HWC: np.ndarray | None = None


@dataclass(frozen=True)
class InstructBatch:
    """Dialogues padded on the right; row by row, those with a picture use the next of `pixels_PHWC`."""

    ids_BT: np.ndarray
    spoken_BT: np.ndarray
    pixels_PHWC: np.ndarray


LessonAt = Callable[[int], Lesson]
"""The n-th lesson of a whole run, from n alone; it goes to other processes, so it must be picklable."""


def _lessons(step: int, size: int, lesson: LessonAt) -> list[Lesson]:
    return [lesson(step * size + row) for row in range(size)]


def instruct_batch(tokenizer: Tokenizer, lessons: Sequence[Lesson], image_tokens: int) -> InstructBatch:
    """Lessons read and padded to the longest."""
    readings = [read(tokenizer, lesson.dialogue, image_tokens) for lesson in lessons]
    pictures = [lesson.pixels_HWC for lesson in lessons if lesson.pixels_HWC is not None]
    pixels_PHWC = np.stack(pictures) if pictures else np.empty((0, 0, 0, 3), dtype=np.uint8)
    return InstructBatch(*_padded(readings), pixels_PHWC)


def _padded(readings: Sequence[Reading]) -> tuple[np.ndarray, np.ndarray]:
    longest = max(len(reading.ids) for reading in readings)
    ids_BT = np.full((len(readings), longest), PAD_ID, dtype=np.int64)
    spoken_BT = np.zeros((len(readings), longest), dtype=bool)
    for row, reading in enumerate(readings):
        ids_BT[row, : len(reading.ids)] = reading.ids
        spoken_BT[row, : len(reading.ids)] = reading.spoken
    return ids_BT, spoken_BT


class InstructObjective:
    """Say what the answers say, given the picture and all that was said before."""

    def __init__(
        self, model: Llava, tokenizer: Tokenizer, lesson: LessonAt, options: InstructOptions, *, train: Trained
    ) -> None:
        self.model, self.tokenizer, self.lesson, self.options = model, tokenizer, lesson, options
        model.requires_grad_(False)
        for part in train.split("+"):
            model.get_submodule(part).requires_grad_(True)

    def modules(self) -> Llava:
        return self.model

    def batches(self, first_step: int) -> Iterator[InstructBatch]:
        # Workers draw; tokens are made here, since a tokenizer does not travel between processes.
        make = partial(_lessons, size=self.options.batch, lesson=self.lesson)
        for lessons in steps_ahead(make, first_step, self.options.workers):
            yield instruct_batch(self.tokenizer, lessons, self.model.config.features_per_tile)

    def loss(self, batch: InstructBatch) -> dict[str, Tensor]:
        """Cross-entropy a spoken token, and the share of answer tokens that would be said right."""
        model, device = self.model, self.model.device
        ids_BT = torch.from_numpy(batch.ids_BT).to(device)
        spoken_BT = torch.from_numpy(batch.spoken_BT).to(device)
        embeds_BTD = model.embed(ids_BT[:, :-1], self._features(batch.pixels_PHWC))
        positions_BT = torch.arange(embeds_BTD.shape[1], device=device).expand(embeds_BTD.shape[:2])
        # Padding stands on the right, where the causal mask already hides it from every real token.
        hidden_BTD = model(embeds_BTD, positions_BT)
        ahead_BT = spoken_BT[:, 1:]
        scores_SV = model.logits(hidden_BTD[ahead_BT]).float()
        said_S = ids_BT[:, 1:][ahead_BT]
        right = (scores_SV.detach().argmax(-1) == said_S).float().mean()
        return {"loss": F.cross_entropy(scores_SV, said_S), "right": right}

    def _features(self, pixels_PHWC: np.ndarray) -> list[Tensor]:
        if not len(pixels_PHWC):
            return []
        pixels_PCHW = normalise_pixels(torch.from_numpy(pixels_PHWC)).to(self.model.device)
        return list(self.model.project(self.model.see(pixels_PCHW)))
