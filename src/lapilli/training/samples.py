"""From conversations to what a step computes: token ids, which of them are to be said, and in which order all come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from lapilli.errors import TrainingError
from lapilli.inputs.chat import ImagePart, Message, show
from lapilli.training.talks import PictureFile, Talk

if TYPE_CHECKING:
    from lapilli.inputs.processor import ImageInput
    from lapilli.inputs.prompt import PromptBuilder


@dataclass(frozen=True)
class Sample:
    """One conversation as the model reads it; `said_T` is True where a token is the assistant's, to be learnt."""

    ids_T: np.ndarray
    said_T: np.ndarray
    images: tuple[ImageInput, ...] = ()
    files: tuple[PictureFile, ...] = ()

    def __len__(self) -> int:
        return len(self.ids_T)


class SampleMaker:
    """Writes conversations out with the prompt code that answers questions, so that training sees what use will."""

    def __init__(
        self,
        prompts: PromptBuilder,
        max_tokens: int,
        *,
        plain: bool = False,
        open_picture: Callable[[PictureFile], ImagePart] | None = None,
    ) -> None:
        self.prompts, self.max_tokens, self.plain = prompts, max_tokens, plain
        self._open = open_picture or (lambda file: show(file.read()))

    def make(self, talk: Talk) -> Sample:
        """Raises TrainingError where nothing of what is said fits into `max_tokens`."""
        messages = talk.messages(self._open)
        sample = self._plain(messages) if self.plain else self._chat(messages)
        sample = replace(sample, files=talk.pictures)
        if len(sample) > self.max_tokens:
            sample = self._cut(sample)
        return sample

    def _chat(self, messages: Sequence[Message]) -> Sample:
        prompt = self.prompts.chat(messages, add_generation_prompt=False)
        said_T = np.zeros(len(prompt.token_ids), dtype=bool)
        for begin, end in prompt.spans:
            said_T[begin:end] = True
        return Sample(np.array(prompt.token_ids), said_T, prompt.images)

    def _plain(self, messages: Sequence[Message]) -> Sample:
        """The pictures, then what the assistant says of them, and the end: no question, no format."""
        pictures = [image for message in messages for image in message.images]
        words = "\n".join(message.text for message in messages if message.role == "assistant")
        shown = self.prompts.raw("<image>\n" * len(pictures), pictures)
        tokenizer = self.prompts.tokenizer
        said = [*tokenizer.encode(words, special=False), *sorted(tokenizer.eos_ids)[:1]]
        ids = [*shown.token_ids, *said]
        return Sample(np.array(ids), np.arange(len(ids)) >= len(shown.token_ids), shown.images)

    def _cut(self, sample: Sample) -> Sample:
        image = self.prompts.config.image_token_id
        said_T = sample.said_T[: self.max_tokens]
        if not said_T.any() or (sample.ids_T[self.max_tokens :] == image).any():
            raise TrainingError(
                f"it has {len(sample)} tokens, and pictures or all that is said lie beyond max_tokens = "
                f"{self.max_tokens}: raise it, or leave the record out"
            )
        return replace(sample, ids_T=sample.ids_T[: self.max_tokens], said_T=said_T)


@dataclass(frozen=True)
class Order:
    """Which records make up each step, from the seed alone: every epoch in another order, like lengths together.

    Records are shuffled, then sorted by length within groups of `near` steps, and those steps are shuffled again.
    """

    lengths: Sequence[int]
    batch: int
    seed: int
    near: int = 32
    _epochs: dict[int, list[int]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def step(self, number: int) -> list[int]:
        """The records of a step; the last step of an epoch begins the next one."""
        count = len(self.lengths)
        places = range(number * self.batch, (number + 1) * self.batch)
        return [self._epoch(place // count)[place % count] for place in places]

    def _epoch(self, epoch: int) -> list[int]:
        if epoch not in self._epochs:
            self._epochs.pop(epoch - 2, None)
            self._epochs[epoch] = self._make(epoch)
        return self._epochs[epoch]

    def _make(self, epoch: int) -> list[int]:
        rng = np.random.default_rng([self.seed, epoch])
        order = [int(i) for i in rng.permutation(len(self.lengths))]
        size, steps = self.batch * self.near, []
        for start in range(0, len(order), size):
            group = sorted(order[start : start + size], key=lambda record: (self.lengths[record], record))
            steps += [group[at : at + self.batch] for at in range(0, len(group), self.batch)]
        # A step that is not full stays last, so that the others keep their edges.
        full = [step for step in steps if len(step) == self.batch]
        rest = [step for step in steps if len(step) < self.batch]
        mixed = [full[int(i)] for i in rng.permutation(len(full))]
        return [record for step in (*mixed, *rest) for record in step]


@dataclass(frozen=True)
class Row:
    """Samples that stand in one row, one after another."""

    samples: tuple[Sample, ...]

    def __len__(self) -> int:
        return sum(map(len, self.samples))


@dataclass(frozen=True)
class Batch:
    """Rows computed at once, padded on the right with texts that nobody learns.

    `texts_BT` numbers the sample of each place, `positions_BT` count from 0 in each sample. `samples` come row by row.
    """

    ids_BT: np.ndarray
    said_BT: np.ndarray
    texts_BT: np.ndarray
    positions_BT: np.ndarray
    samples: tuple[Sample, ...]
    packed: bool
    share: float = 1.0
    """How many tokens to be said make the whole that this batch's loss is a part of."""

    @property
    def spoken(self) -> int:
        """How many tokens are to be learnt."""
        return int(self.said_BT[:, 1:].sum())


_TWO_BLANKS = np.zeros((1, 2), dtype=np.int64)
EMPTY = Batch(_TWO_BLANKS, _TWO_BLANKS.astype(bool), _TWO_BLANKS, _TWO_BLANKS, samples=(), packed=False)
"""A batch in which nobody says anything."""


def rows_of(samples: Sequence[Sample], pack: int) -> list[Row]:
    """Rows of up to `pack` tokens, the longest sample first, each put where it fits; a longer one is alone."""
    rows: list[list[Sample]] = []
    room: list[int] = []
    for sample in sorted(samples, key=len, reverse=True):
        place = next((number for number, left in enumerate(room) if left >= len(sample)), None)
        if place is None:
            rows.append([sample])
            room.append(pack - len(sample))
        else:
            rows[place].append(sample)
            room[place] -= len(sample)
    return [Row(tuple(row)) for row in rows]


def batches_of(rows: Sequence[Row], tokens: int, pad_id: int) -> Iterator[Batch]:
    """Rows side by side, padded to the longest, of at most `tokens` places together (and at least one row)."""
    group: list[Row] = []
    for row in sorted(rows, key=len, reverse=True):
        if group and len(group[0]) * (len(group) + 1) > tokens:
            yield _batch(group, pad_id)
            group = []
        group.append(row)
    if group:
        yield _batch(group, pad_id)


def _batch(rows: Sequence[Row], pad_id: int) -> Batch:
    shape = len(rows), len(rows[0])
    ids_BT, said_BT = np.full(shape, pad_id, dtype=np.int64), np.zeros(shape, dtype=bool)
    texts_BT, positions_BT = np.full(shape, -1, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for b, row in enumerate(rows):
        at = 0
        for text, sample in enumerate(row.samples):
            place = slice(at, at + len(sample))
            ids_BT[b, place], said_BT[b, place] = sample.ids_T, sample.said_T
            said_BT[b, at] = False  # nothing before it says it
            texts_BT[b, place], positions_BT[b, place] = text, np.arange(len(sample))
            at += len(sample)
    samples = tuple(sample for row in rows for sample in row.samples)
    return Batch(ids_BT, said_BT, texts_BT, positions_BT, samples, any(len(row.samples) > 1 for row in rows))
