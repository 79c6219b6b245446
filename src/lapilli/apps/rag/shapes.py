"""Sources, passages and citations as embedchain names and shows them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from lapilli.apps.rag.cited import Citation
from lapilli.apps.rag.rows import Hit


def source_id(source: str) -> str:
    """The id of a source: 32 hexadecimal digits that its name alone decides."""
    return hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def means(said: str, source: str) -> bool:
    """Whether somebody who says this means that source: its name, its id, or a folder that it lies in."""
    if said in (source, source_id(source)):
        return True
    if not source.startswith("/"):
        return False
    named = Path(said).expanduser().absolute()
    folders = [Path(source), *Path(source).parents][:-1]
    return named in folders or said in {source_id(str(folder)) for folder in folders}


def hit_metadata(hit: Hit) -> dict[str, Any]:
    """What goes with a passage that was found."""
    passage = hit.passage
    return {
        **passage.meta, "url": passage.source, "source": passage.source, "doc_id": source_id(passage.source),
        "score": hit.score, "start": passage.start, "end": passage.end, "label": passage.label, "id": passage.id,
    }  # fmt: skip


def citation_metadata(citation: Citation) -> dict[str, Any]:
    """What goes with a passage that is cited."""
    return {
        "url": citation.source, "source": citation.source, "doc_id": source_id(citation.source),
        "score": citation.score, "start": citation.start, "end": citation.end, "label": citation.label,
        "title": citation.title, "number": citation.number, "picture": citation.picture,
    }  # fmt: skip
