"""The texts of an answer's tokens, so that together they are the answer."""

from __future__ import annotations

import codecs
from collections.abc import Iterable


def spell(tokens: Iterable[bytes], answer: str) -> tuple[str, ...]:
    """The text of each token, cut to the answer: without the blank before it, or what came with a stop text.

    A character that several tokens make belongs to the last of them. Tokens that spell something else than the answer
    keep what they spell.
    """
    utf8 = codecs.getincrementaldecoder("utf-8")("replace")
    texts = [utf8.decode(token) for token in tokens]
    if texts:
        texts[-1] += utf8.decode(b"", final=True)
    start = "".join(texts).find(answer)
    if start < 0:
        return tuple(texts)
    end, at, cut = start + len(answer), 0, []
    for text in texts:
        cut.append(text[max(0, start - at) : max(0, end - at)])
        at += len(text)
    return tuple(cut)
