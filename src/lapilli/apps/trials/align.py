"""Where a value stands in a text: letter by letter, then without regard to case, width and blanks, then nearly.

Work is bounded by the lengths of value and text together, never by their product: looking for one of two thousand
characters in a text of a hundred thousand takes milliseconds, whatever they hold.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from lapilli.apps.trials.vocabulary import Alignment

MAX_VALUE = 2000
"""Characters of a value; what is longer is looked for letter by letter alone."""

MAX_TEXT = 400_000
"""Characters of a text that are looked at for more than the very letters."""

LEAST = 0.75
"""How much of a value, by letters, has to stand together for a place to be nearly right."""

_MOST_TOKENS = 200
_MOST_COMPARED = 2000
_TEXTS_KEPT = 64
_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_IS_CJK = re.compile(f"[{_CJK}]")
_EDGE = re.compile(rf"[\W_{_CJK}]")
_TOKEN = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")
_SAME = {
    **dict.fromkeys(map(chr, (*range(0x2010, 0x2016), 0x2212, 0xFE58, 0xFE63, 0xFF0D)), "-"),
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u02bc`\u00b4", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u2033\u00ab\u00bb", '"'),
    **dict.fromkeys("\u00ad\u200b\u200c\u200d\u2060\ufeff\u00ae\u2122", ""),
}


@dataclass(frozen=True)
class Span:
    """`text[start:end]` is the value's place, found as `how` says; with "none" there is no place, and both are 0."""

    start: int
    end: int
    how: Alignment


NOWHERE = Span(0, 0, "none")


def align(value: str, text: str, *, after: int = 0) -> Span:
    """The first place of a value at or after the character `after`; failing that the first one before it.

    A value that begins or ends in a letter or a digit ends where words do: "chloroquine" does not stand in
    "hydroxychloroquine". Words of Chinese, Japanese and Korean have no such ends.
    """
    value = value.strip()
    if not _TOKEN.search(value) or not text:
        return NOWHERE
    if span := _in_order(value, text, after):
        return Span(*span, "exact")
    if len(value) > MAX_VALUE:
        return NOWHERE
    return _aligned(text[:MAX_TEXT]).find(value, after)


def align_all(values: Sequence[str], text: str) -> list[Span]:
    """The places of values that were read off a text in order: what stands there twice is found at its own place."""
    spans: list[Span] = []
    after = 0
    for value in values:
        span = align(value, text, after=after)
        if span.how != "none" and span.start >= after:
            after = span.end
        spans.append(span)
    return spans


@lru_cache(_TEXTS_KEPT)
def _aligned(text: str) -> _Text:
    return _Text(text)


class _Text:
    """A text with what it is looked at as, made once for all values."""

    def __init__(self, text: str) -> None:
        self.plain, self.starts, self.ends = _normalised(text)

    @cached_property
    def tokens(self) -> list[tuple[str, int, int]]:
        return [(hit[0], hit.start(), hit.end()) for hit in _TOKEN.finditer(self.plain)]

    @cached_property
    def near(self) -> dict[str, list[str]]:
        """The text's longer words by their first and by their last letters."""
        found: dict[str, list[str]] = defaultdict(list)
        for token in dict.fromkeys(token for token, _, _ in self.tokens if len(token) >= 5):
            found["<" + token[:3]].append(token)
            found[">" + token[-3:]].append(token)
        return found

    def find(self, value: str, after: int) -> Span:
        wanted, _, _ = _normalised(value)
        wanted = wanted.strip()
        begin = bisect_left(self.starts, after)
        if wanted and (span := _in_order(wanted, self.plain, begin)):
            return self._span(*span, "normalised")
        tokens = _TOKEN.findall(wanted)[: _MOST_TOKENS + 1]
        if not tokens or len(tokens) > _MOST_TOKENS:
            return NOWHERE
        window = self._window(tokens, begin) or (self._window(tokens, 0) if begin else None)
        return self._span(*window, "fuzzy") if window else NOWHERE

    def _span(self, start: int, end: int, how: Alignment) -> Span:
        return Span(self.starts[start], self.ends[end - 1], how)

    def _window(self, wanted: Sequence[str], begin: int) -> tuple[int, int] | None:
        """The stretch of words from `begin` on that has most of the wanted ones, if that is enough of them."""
        alike = self._alike(wanted)
        left = Counter(wanted)
        weights = {token: max(len(token), 1) for token in left}
        whole = sum(weights[token] * count for token, count in left.items())
        size = len(wanted) + max(2, len(wanted) // 3)
        best: tuple[int, int, int] | None = None
        inside: list[tuple[int, str]] = []  # (which word of the text, the wanted word it is)
        held: Counter[str] = Counter()
        weight = head = 0
        for place in range(bisect_left(self.tokens, begin, key=lambda token: token[1]), len(self.tokens)):
            token = alike.get(self.tokens[place][0])
            if token is None:
                continue
            inside.append((place, token))
            held[token] += 1
            weight += weights[token] if held[token] <= left[token] else 0
            while inside[head][0] <= place - size or held[inside[head][1]] > left[inside[head][1]]:
                gone = inside[head][1]
                weight -= weights[gone] if held[gone] <= left[gone] else 0
                held[gone] -= 1
                head += 1
            if best is None or weight > best[0]:
                best = (weight, inside[head][0], place)
        if best is None or best[0] < LEAST * whole:
            return None
        return self.tokens[best[1]][1], self.tokens[best[2]][2]

    def _alike(self, wanted: Sequence[str]) -> dict[str, str]:
        """The text's words that count as a wanted one: the same, or for a long one with a letter or two changed."""
        present = {token for token, _, _ in self.tokens}
        alike = {token: token for token in wanted if token in present}
        compared = 0
        for token in dict.fromkeys(wanted):
            if token in present or len(token) < 5:
                continue
            most = 1 if len(token) < 8 else 2
            for other in (*self.near.get("<" + token[:3], ()), *self.near.get(">" + token[-3:], ())):
                compared += 1
                if compared > _MOST_COMPARED:
                    return alike
                if other not in alike and _is_near(token, other, most):
                    alike[other] = token
        return alike


def _in_order(value: str, text: str, after: int) -> tuple[int, int] | None:
    return _find(value, text, after) or (_find(value, text, 0) if after > 0 else None)


def _find(value: str, text: str, after: int) -> tuple[int, int] | None:
    """The first place of a value in a text at or after a character, with the ends of words respected."""
    head, tail = _is_wordlike(value[0]), _is_wordlike(value[-1])
    start = text.find(value, after)
    while start >= 0:
        end = start + len(value)
        if head and start > 0 and _is_wordlike(text[start - 1]):
            # No place in this word can be right: on to its end, or a word of one letter takes the square of its length.
            edge = _EDGE.search(text, start)
            start = text.find(value, edge.start()) if edge else -1
        elif tail and end < len(text) and (_is_wordlike(text[end]) or unicodedata.combining(text[end])):
            start = text.find(value, start + 1)
        else:
            return start, end
    return None


def _is_wordlike(character: str) -> bool:
    return character.isalnum() and not _IS_CJK.match(character)


def _normalised(text: str) -> tuple[str, Sequence[int], Sequence[int]]:
    """The text in one spelling, and for each of its characters where the one that it comes from starts and ends."""
    if text.isascii() and "  " not in text and "`" not in text and not re.search(r"[\t\r\f\v]| \n|\n[ \n]", text):
        return text.lower().replace("\n", " "), range(len(text)), range(1, len(text) + 1)
    out: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    blank = True
    for start, end in _clusters(text):
        part = text[start:end]
        if part.isspace():
            if blank:
                continue
            written = " "
        else:
            # Twice, as folding may undo a composition: NFKC of what is folded is stable.
            folded = unicodedata.normalize("NFKC", "".join(_SAME.get(each, each) for each in part)).casefold()
            written = "".join(_SAME.get(each, each) for each in unicodedata.normalize("NFKC", folded))
            written = " ".join(written.split()) if written.strip() else written.strip()
        if not written:
            continue
        blank = written == " "
        out.append(written)
        starts += [start] * len(written)
        ends += [end] * len(written)
    return "".join(out), starts, ends


def _clusters(text: str) -> Iterator[tuple[int, int]]:
    """Each character with the marks that are put on it."""
    start = 0
    for place in range(1, len(text) + 1):
        if place == len(text) or not unicodedata.combining(text[place]) or place - start > 16:
            yield start, place
            start = place


def _is_near(one: str, other: str, most: int) -> bool:
    """Whether at most so many letters are to be changed, put in or taken out to make one word of the other."""
    if abs(len(one) - len(other)) > most or len(one) > 60 or len(other) > 60:
        return False
    row = list(range(len(other) + 1))
    for number, letter in enumerate(one, 1):
        last, row[0] = row[0], number
        least = number
        for place, each in enumerate(other, 1):
            last, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, last + (letter != each))
            least = min(least, row[place])
        if least > most:
            return False
    return row[-1] <= most
