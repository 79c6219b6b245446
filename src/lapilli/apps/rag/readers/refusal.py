"""How a reader says no."""

from __future__ import annotations

import importlib
from typing import Any


class RefusedError(Exception):
    """A document that is not read; the text is one line without the document's name, with the way out."""


def need(module: str) -> Any:
    """Import a library of the extra `rag`, or say how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise RefusedError("reading this kind needs another library: pip install 'lapilli[rag]'") from None
