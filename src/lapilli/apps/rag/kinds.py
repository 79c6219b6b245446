"""Kinds of documents: their names, those that embedchain gives them, and what a file's name says."""

from __future__ import annotations

import difflib
from pathlib import PurePath

from lapilli.errors import InputError

KINDS = ("text", "markdown", "html", "pdf", "docx", "csv", "json", "xml", "xlsx", "picture", "qna")
PLACES = ("folder", "web", "sitemap")
"""What is no document itself and leads to some."""

_ALIASES = {
    "csv_file": "csv",
    "directory": "folder",
    "excel_file": "xlsx",
    "image": "picture",
    "json_file": "json",
    "jsonl": "json",
    "md": "markdown",
    "mdx": "markdown",
    "pdf_file": "pdf",
    "qna_pair": "qna",
    "text_file": "text",
    "tsv": "csv",
    "txt": "text",
    "web_page": "web",
    "xml_file": "xml",
}
# What embedchain has and is not read here, with what comes nearest where the letters do not say it.
_NEAREST = {
    "docs_site": "sitemap",
    "dropbox": "directory",
    "google_drive": "directory",
    "openapi": "json",
    "substack": "web_page",
    "unstructured": "directory",
    "youtube_channel": "web_page",
    "youtube_video": "web_page",
}

SUFFIXES = {
    ".txt": "text", ".text": "text", ".log": "text", ".rst": "text", ".adoc": "text", ".org": "text", ".tex": "text",
    ".md": "markdown", ".markdown": "markdown", ".mdx": "markdown", ".mkd": "markdown",
    ".html": "html", ".htm": "html", ".xhtml": "html",
    ".pdf": "pdf", ".docx": "docx", ".docm": "docx",
    ".csv": "csv", ".tsv": "csv", ".tab": "csv",
    ".json": "json", ".jsonl": "json", ".ndjson": "json", ".geojson": "json", ".ipynb": "json",
    ".xml": "xml", ".svg": "xml", ".rss": "xml", ".atom": "xml",
    ".xlsx": "xlsx", ".xlsm": "xlsx",
    ".png": "picture", ".jpg": "picture", ".jpeg": "picture", ".webp": "picture", ".gif": "picture", ".bmp": "picture",
}  # fmt: skip


def kind_named(name: str) -> str:
    """The kind that a name means, ours or embedchain's: one of KINDS or PLACES.

    Raises InputError that names the nearest valid one.
    """
    said = name.strip().casefold() if isinstance(name, str) else ""
    if said in KINDS or said in PLACES:
        return said
    if said in _ALIASES:
        return _ALIASES[said]
    valid = sorted({*KINDS, *PLACES, *_ALIASES})
    nearest = _NEAREST.get(said) or difflib.get_close_matches(said, valid, 1, cutoff=0)[0]
    raise InputError(
        f"{str(name)[:60]!r} is no kind of document: did you mean {nearest!r}? There are {', '.join(valid)}"
    )


def suffix_kind(name: str) -> str | None:
    """What a file's suffix says about its kind; None where it says nothing."""
    return SUFFIXES.get(PurePath(name).suffix.casefold())
