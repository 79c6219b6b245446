"""Opening a model as old code names it: at the server that is up, else here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lapilli.apps.backend.call import Backend
from lapilli.apps.rag.opening import open_model
from lapilli.apps.rag.providers import NAMED, Opening


@contextmanager
def opened(model: str | Backend) -> Iterator[Backend]:
    """A backend for a model's name, closed at the end; one that is open already stays so.

    Raises ModelNotFoundError, naming what is here, where neither a server nor this machine has it.
    """
    if not isinstance(model, str):
        yield model
        return
    with open_model(Opening(model=model or "mini", url=NAMED, dialect="ollama", or_here=True)) as backend:
        yield backend
