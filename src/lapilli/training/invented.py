"""Invented names, of people, places and firms; a tenth of them is never trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal, TypeVar

import numpy as np

Split = Literal["train", "test"]
T = TypeVar("T")


def listed(text: str, mark: str | None = None) -> tuple[str, ...]:
    """The words of a text, or what stands between its marks."""
    return tuple(text.split(mark))


_STARTS = listed(
    "Al An Ar Bel Ber Bor Bran Cal Car Cor Dal Dar Del Dor El Er Fal Fen Fer Gar Gil Gor Hal Har Hel Hol Il Is Jan Jor "
    "Kal Kel Kor Lan Lar Lin Lor Mal Mar Mel Mor Nal Ner Nor Ol Or Os Pal Per Pol Quin Ral Ren Ros Sal Sel Sor Tal Ter "
    "Tor Ul Ur Val Ver Vol Wal Wen Wil Yor Zan Zel"
)
_MIDDLES = listed("a e i o u an en in on ar er ir or al el il ol as es is os ama eli ino ora uri ane")
_PERSON_ENDS = listed("na ra la da ta mir ven don ric mond bert vin sson ski ovich etti ard wick field ton by")
_PLACE_ENDS = listed("ford ville berg stad holm port mouth dale burg minster grad polis field bury wick haven moor")
_FIRM_ENDS = listed("tek soft line works corp dyne gen max nova pharm bank air motors foods labs")


def pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    """One of them, all equally likely."""
    return items[int(rng.integers(len(items)))]


def split_of(name: str) -> Split:
    """Which share a name belongs to, by its hash: one in ten is kept for examinations."""
    return "test" if hashlib.sha256(name.lower().encode()).digest()[0] % 10 == 0 else "train"


def invent(rng: np.random.Generator, ends: Sequence[str], split: Split) -> str:
    """A name of two to four syllables that belongs to this share."""
    while True:
        name = pick(rng, _STARTS) + (pick(rng, _MIDDLES) if rng.random() < 0.6 else "") + pick(rng, ends)
        if split_of(name) == split:
            return name


def person(rng: np.random.Generator, split: Split) -> str:
    """A first and a last name."""
    return f"{invent(rng, _PERSON_ENDS[:10], split)} {invent(rng, _PERSON_ENDS[4:], split)}"


def place(rng: np.random.Generator, split: Split) -> str:
    """A town, or a land with two words."""
    name = invent(rng, _PLACE_ENDS, split)
    return f"{pick(rng, ('North', 'South', 'New', 'Port', 'Lake', 'Saint'))} {name}" if rng.random() < 0.15 else name


def firm(rng: np.random.Generator, split: Split) -> str:
    """A firm."""
    return invent(rng, _FIRM_ENDS, split)
