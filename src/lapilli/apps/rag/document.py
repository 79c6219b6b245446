"""A source as text, and the passages that it is cut into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Value = str | int | float | bool
"""What a document is told apart by: the values of `meta`, which searches can ask for."""


@dataclass(frozen=True)
class Document:
    """One source as text.

    `text` is what was read out of the source, and every character counts from 0 in it. `marks` say where something
    begins, by the first character and a label, in order: `(0, "page 1")`. `digest` is the sha256 of the source's bytes.
    A picture's text is its description, and `picture` its bytes.
    """

    source: str  # an absolute path, a URL, or "text:" and the first 16 digits of the digest
    kind: str  # text markdown html pdf docx csv json xml xlsx picture qna
    title: str
    text: str
    digest: str
    meta: Mapping[str, Value] = field(default_factory=dict)
    marks: tuple[tuple[int, str], ...] = ()
    picture: bytes | None = None


@dataclass(frozen=True)
class Passage:
    """A piece of a document: `document.text[start:end] == text`, always.

    `label` says where it stands (of the document's marks), `picture` is the digest of the picture, if it is one.
    """

    id: str
    source: str
    start: int
    end: int
    text: str
    label: str = ""
    picture: str = ""
    meta: Mapping[str, Value] = field(default_factory=dict)
