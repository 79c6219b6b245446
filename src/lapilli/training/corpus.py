"""What the decoder reads: English prose, and dialogues in the very format of a prompt."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lapilli.errors import TrainingError
from lapilli.training.vocabulary import BOS_ID, EOS_ID, IMAGE_ID

if TYPE_CHECKING:
    from lapilli.inputs.tokenizer import Tokenizer

_PLAIN = ("botchan.txt", "republic_clean.txt", "tinyshakespeare.txt")
# Only English: the archives also hold Genesis in other languages, and in jest.
_ZIPPED = {
    "nltk_genesis.zip": re.compile(r"genesis/english-\w+\.txt"),
    "nltk_inaugural.zip": re.compile(r"inaugural/\d{4}-\w+\.txt"),
    "nltk_state_union.zip": re.compile(r"state_union/\d{4}-[\w-]+\.txt"),
}


def prose(folder: Path) -> list[str]:
    """The English texts under `folder` that may train, one string each, in a fixed order.

    Raises TrainingError where one is missing.
    """
    missing = [name for name in (*_PLAIN, *_ZIPPED) if not (folder / name).is_file()]
    if missing:
        raise TrainingError(f"{folder} lacks {', '.join(missing)}: the decoder's English comes from there")
    texts = [(folder / name).read_bytes() for name in _PLAIN]
    for name, wanted in _ZIPPED.items():
        with zipfile.ZipFile(io.BytesIO((folder / name).read_bytes())) as archive:
            texts += [archive.read(entry) for entry in sorted(archive.namelist()) if wanted.fullmatch(entry)]
    return [_plain(text) for text in texts]


def _plain(text: bytes) -> str:
    """One paragraph a line, ASCII only: the vocabulary has no room for more."""
    decoded = text.decode("ascii", errors="ignore").replace("\r\n", "\n")
    paragraphs = re.split(r"\n\s*\n", decoded)
    return "\n".join(" ".join(paragraph.split()) for paragraph in paragraphs if paragraph.strip())


@dataclass(frozen=True)
class Dialogue:
    """Questions, each with its answer, about one picture or about none."""

    turns: tuple[tuple[str, str], ...]
    pictured: bool = True


@dataclass(frozen=True)
class Reading:
    """A dialogue as token ids (T), and which of them (T, bool) the model itself has to say."""

    ids: np.ndarray
    spoken: np.ndarray


def read(tokenizer: Tokenizer, dialogue: Dialogue, image_tokens: int) -> Reading:
    """A dialogue as the model sees it, `<s>` first, its picture as a run of `image_tokens` placeholders.

    `USER: <image>\\nquestion ASSISTANT: answer</s>USER: question ASSISTANT: answer</s>`, token for token what
    a prompt of the same messages gives; a test compares the two.
    """
    ids, spoken = [BOS_ID], [False]
    for number, (question, answer) in enumerate(dialogue.turns):
        asked = ask(tokenizer, question, image_tokens if number == 0 and dialogue.pictured else None)
        said = [*tokenizer.encode(f" {answer}", special=False), EOS_ID]
        ids += asked + said
        spoken += [False] * len(asked) + [True] * len(said)
    return Reading(np.array(ids, dtype=np.int64), np.array(spoken))


def ask(tokenizer: Tokenizer, question: str, image_tokens: int | None) -> list[int]:
    """One user turn up to where the answer begins, without `<s>`; `image_tokens` is None where it shows no picture."""
    if image_tokens is None:
        return tokenizer.encode(f"USER: {question} ASSISTANT:", special=False)
    before, after = (tokenizer.encode(text, special=False) for text in ("USER: ", f"\n{question} ASSISTANT:"))
    return [*before, *[IMAGE_ID] * image_tokens, *after]


@dataclass(frozen=True)
class Blocks:
    """Packed blocks of token ids: `prose_share` of the rows English, the others dialogues end to end.

    `prose_ids` are all texts in one row; `dialogue` makes one from a random generator. Usage:
    `blocks(step, size)` gives (size, length + 1) ids, the same ones for the same step and seed.
    """

    tokenizer: Tokenizer
    prose_ids: np.ndarray
    dialogue: Callable[[np.random.Generator], Dialogue]
    length: int
    prose_share: float
    seed: int

    def __call__(self, step: int, size: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, step])
        rows = round(size * self.prose_share)
        return np.stack([*(self._english(rng) for _ in range(rows)), *self._spoken(rng, size - rows)])

    def _english(self, rng: np.random.Generator) -> np.ndarray:
        start = int(rng.integers(len(self.prose_ids) - self.length))
        return self.prose_ids[start : start + self.length + 1].astype(np.int64)

    def _spoken(self, rng: np.random.Generator, rows: int) -> Iterator[np.ndarray]:
        """Rows that begin with a dialogue and are filled with more; the last one is cut."""
        for _ in range(rows):
            row = np.empty(0, dtype=np.int64)
            while len(row) <= self.length:
                row = np.concatenate((row, read(self.tokenizer, self.dialogue(rng), 0).ids))
            yield row[: self.length + 1]


def prose_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> np.ndarray:
    """All texts as one row of token ids, `<s>` before each."""
    rows = [[BOS_ID, *tokenizer.encode(text, special=False)] for text in texts]
    return np.concatenate([np.array(row, dtype=np.uint16) for row in rows])
