"""The words that passages are found by, cut alike in every store and for every language.

No stemming and no stop words: those belong to one language each. Scripts that write no blanks between words are cut
into characters and pairs of characters, as search engines do for Chinese and Japanese.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_LONGEST = 64  # characters of a term; a longer one is found by its beginning
# Han, kana, Hangul, Thai, Lao, Burmese, Khmer.
_UNSPACED = re.compile(
    "([\u2e80-\u2fdf\u3005-\u3007\u3041-\u30ff\u3105-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3"
    "\uf900-\ufaff\U00020000-\U0003134f\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]+)"
)
_ACCENTS = re.compile("[\u0300-\u036f]")


class _Separators(dict[int, str]):
    """What each character is in a text of terms: itself, a blank, or nothing where it cannot be seen."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        kind = unicodedata.category(character)
        # Vowel signs are marks, and belong to the word that they stand in.
        kept = character if kind[0] in "LNM" else "" if kind == "Cf" else " "
        return self.setdefault(code, kept)


_SEPARATORS = _Separators()


def terms(text: str) -> list[str]:
    """The terms of a text in their order, repetitions included, as they are indexed."""
    found: list[str] = []
    for piece, unspaced in _pieces(text):
        found += [*piece, *_pairs(piece)] if unspaced else [piece[:_LONGEST]]
    return found


def query_terms(text: str) -> list[str]:
    """The distinct terms that a query looks for; of unspaced scripts the pairs, which say more than characters do."""
    found: list[str] = []
    for piece, unspaced in _pieces(text):
        found += (_pairs(piece) or [piece]) if unspaced else [piece[:_LONGEST]]
    return list(dict.fromkeys(found))


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    """Each run of letters of one kind, and whether it is of a script that writes no blanks."""
    # Decomposed, accents can be left out; composed again, kana and Hangul are whole.
    bare = _ACCENTS.sub("", unicodedata.normalize("NFKD", text).casefold())
    for word in unicodedata.normalize("NFKC", bare).translate(_SEPARATORS).split():
        for place, piece in enumerate(_UNSPACED.split(word)):
            if piece:
                yield piece, place % 2 == 1


def _pairs(piece: str) -> list[str]:
    return [piece[i : i + 2] for i in range(len(piece) - 1)]
