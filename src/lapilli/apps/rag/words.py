"""Words that carry meaning, to see whether a question, an answer and a passage speak of the same things."""

from __future__ import annotations

import itertools
import re
import unicodedata

_WORD = re.compile(r"\w+")
# Scripts without blanks between words: their letters are taken two at a time.
_UNSPACED = re.compile(r"[぀-ヿ㐀-䶿一-鿿豈-﫿฀-๿]+")
_ENDS = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n+|(?<=[。！？])")
_COMMON_TEXT = """
a about after again all also am an and any are as at be because been before being but by can could did do does doing
down each for from had has have having he her here hers him his how i if in into is it its itself just me more most
my no not of off on once only or other our out over own please say same she should so some such tell than that the
their them then there these they this those through to too under until up very was we were what when where which
while who whom whose why will with would you your many much give find show describe explain name document documents
passage passages question answer
"""
_COMMON = frozenset(_COMMON_TEXT.split())
# What stands for something that was named before.
_POINTING = re.compile(r"\b(?:it|its|he|him|his|she|her|hers|they|them|their|this|that|these|those|there|then)\b", re.I)


def words_of(text: str) -> frozenset[str]:
    """The words that carry meaning, in lower case and without their commonest endings."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    found: set[str] = set()
    for word in _WORD.findall(folded):
        pairs = [run[i : i + 2] for run in _UNSPACED.findall(word) for i in range(max(1, len(run) - 1))]
        found.update(pairs or ([_stem(word)] if word not in _COMMON else []))
    return frozenset(found)


def overlap(words: frozenset[str], text: str) -> float:
    """The share of the words that the text has."""
    return len(words & words_of(text)) / len(words) if words else 0.0


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Where the sentences and lines of a text begin and end, without the blanks around them."""
    ends = [0, *(match.end() for match in _ENDS.finditer(text)), len(text)]
    spans = []
    for start, end in itertools.pairwise(ends):
        piece = text[start:end]
        if piece.strip():
            spans.append((start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())))
    return spans


def points_back(question: str) -> bool:
    """Whether a question can only be understood by what was said before it."""
    return len(words_of(question)) < 2 or _POINTING.search(question) is not None


def _stem(word: str) -> str:
    """The word without its commonest endings: enough for apples and an apple, making and make alike."""
    word = word.removesuffix("'s")
    for ending in ("ies", "ing", "ed", "s"):
        stem = word[: -len(ending)]
        if word.endswith(ending) and len(stem) >= 3 and not stem.endswith("s"):
            if ending in ("ing", "ed") and stem[-1] == stem[-2] and stem[-1] not in "aeiouls":
                stem = stem[:-1]
            word = stem + ("y" if ending == "ies" else "")
            break
    return word.removesuffix("e") if len(word) > 3 else word
