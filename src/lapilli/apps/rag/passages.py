"""Documents cut into passages, at the borders that people see: sections, paragraphs, sentences, words."""

from __future__ import annotations

import bisect
import hashlib
import re
import unicodedata

from lapilli.apps.rag.document import Document, Passage
from lapilli.errors import InputError

_CLOSING = r"[\"')\]”’»」』）】]*"
# From the strongest border to the weakest; each ends where the next passage could begin.
_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
_SENTENCE = re.compile(rf"[.!?…]{_CLOSING}\s++(?![a-zà-ÿ])|[。！？｡؟।]{_CLOSING}\s*")
_LINE = re.compile(r"\n\s*")
_CLAUSE = re.compile(r"[;:,]\s+|[；：，、]\s*")
_BLANK = re.compile(r"\s+")
_BORDERS = (_PARAGRAPH, _SENTENCE, _LINE, _CLAUSE, _BLANK)
# From here on there are scripts without blanks between words.
_UNSPACED = "\u0e00"
_SEEN = re.compile(r"\S")
_NUMBERED = re.compile(r"(.*?)(\d+)", re.DOTALL)


def split(document: Document, *, size: int = 1000, overlap: int = 100, least: int = 0) -> list[Passage]:
    """Cut a document into passages of at most `size` characters; `document.text[start:end] == text` for each.

    A passage ends at the strongest border in its second half, and begins at most `overlap` characters before the end
    of the former. A last one that is shorter than `least` begins earlier, as far as `size` allows. Blanks at the ends
    are left out, and nothing else ever is. Time grows with the length of the text.

    Raises InputError where the sizes do not fit one another.
    """
    if size < 1 or not 0 <= overlap < size or not 0 <= least <= size:
        raise InputError(
            f"passages of {size} characters with {overlap} in common and at least {least}: the size must be 1 or more, "
            "the overlap less than it, and the least no more"
        )
    starts = [at for at, _ in document.marks]
    return [
        _passage(document, start, end, starts) for start, end in _spans(document.text, starts, size, overlap, least)
    ]


def _spans(text: str, marks: list[int], size: int, overlap: int, least: int) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    length = len(text.rstrip())
    start = _next_seen(text, 0)
    while start < length:
        if start + size >= length:
            end = length
            if spans and end - start < least:
                start = _next_seen(text, _begin(text, max(end - least, spans[-1][0] + 1), start, spans[-1][0]))
        else:
            end = _cut(text, marks, start, start + max(size // 2, overlap + 1), start + size)
        last = start + len(text[start:end].rstrip())
        following = end
        # What only repeats the end of the former is none.
        if not spans or last > spans[-1][1]:
            spans.append((start, last))
            following = _begin(text, max(last - overlap, start + 1), end, start) if overlap else end
        start = _next_seen(text, following) if end < length else length
    return spans


def _cut(text: str, marks: list[int], start: int, low: int, high: int) -> int:
    """The best place in `low..high` to end what began at `start`."""
    if low < high:
        place = bisect.bisect_right(marks, high) - 1
        if place >= 0 and marks[place] >= low:
            return marks[place]
        for border in _BORDERS:
            ends = [found.end() for found in border.finditer(text, low - 1, high)]
            # A border that the window cuts off says nothing.
            for end in reversed(ends):
                if low <= end <= high and is_border(text, end, start):
                    return end
    for end in range(high, start, -1):
        if is_border(text, end, start):
            return end
    return high


def _begin(text: str, low: int, high: int, start: int) -> int:
    """The best place in `low..high` to begin: a paragraph or sentence in its first half, a word, else any.

    `start` is a border before it.
    """
    for border, most in ((_PARAGRAPH, (low + high) // 2), (_SENTENCE, (low + high) // 2), (_BLANK, high)):
        for found in border.finditer(text, max(low - 1, 0), high):
            if found.end() >= most:
                break
            if found.end() >= low and is_border(text, found.end(), start):
                return found.end()
    if low < high and text[low].isalnum() and text[low] < _UNSPACED:
        return high  # in a script with blanks a word is not begun in its middle
    return next((at for at in range(low, high) if is_border(text, at, start)), high)


def _next_seen(text: str, at: int) -> int:
    found = _SEEN.search(text, at)
    return found.start() if found else len(text)


def is_border(text: str, at: int, start: int) -> bool:
    """Whether what is seen as one character does not go on here (Unicode annex 29, in short).

    `start` is a border before it, from which flags are counted.
    """
    if at <= 0 or at >= len(text):
        return True
    before, after = text[at - 1], text[at]
    if after < "\u0300":
        return not (after == "\n" and before == "\r") and before != "\u200d"
    if unicodedata.category(after) in ("Mn", "Me", "Mc") or before == "\u200d" or after in "\u200c\u200d\u0e33\u0eb3":
        return False
    if unicodedata.combining(before) == 9 and unicodedata.category(after) == "Lo":
        return False  # a conjunct of Indic scripts
    if "\U0001f3fb" <= after <= "\U0001f3ff" or "\U000e0020" <= after <= "\U000e007f":
        return False
    if "\u1160" <= after <= "\u11ff" or "\ud7b0" <= after <= "\ud7fb":
        return False  # a vowel or an ending of a Korean syllable written in parts
    if "\u1100" <= before <= "\u115f" and ("\u1100" <= after <= "\u115f" or "\uac00" <= after <= "\ud7a3"):
        return False
    if _is_flag(before) and _is_flag(after):
        return _flags_before(text, at, start) % 2 == 0
    return True


def _is_flag(letter: str) -> bool:
    return "\U0001f1e6" <= letter <= "\U0001f1ff"


def _flags_before(text: str, at: int, start: int) -> int:
    count = 0
    while at - count > start and _is_flag(text[at - count - 1]):
        count += 1
    return count


def _passage(document: Document, start: int, end: int, marks: list[int]) -> Passage:
    text = document.text[start:end]
    name = f"{document.source}\x00{start}\x00{end}\x00{text}".encode("utf-8", "surrogatepass")
    return Passage(
        id=hashlib.sha256(name).hexdigest()[:32],
        source=document.source,
        start=start,
        end=end,
        text=text,
        label=_label(document, marks, start, end),
        picture=document.digest if document.picture is not None else "",
        meta=document.meta,
    )


def _label(document: Document, marks: list[int], start: int, end: int) -> str:
    """Where a passage stands: "page 3", "page 3-4", or the heading that most of it is under."""

    def at(character: int) -> str:
        place = bisect.bisect_right(marks, character) - 1
        return document.marks[place][1] if place >= 0 else ""

    begins, ends = at(start), at(end - 1)
    one, two = _NUMBERED.fullmatch(begins), _NUMBERED.fullmatch(ends)
    if one and two and one[1] == two[1]:
        return begins if begins == ends else f"{begins}-{two[2]}"
    return at((start + end) // 2) or ends
