"""What the shell offers after Tab where a command wants a model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lapilli.faces.client import Client, Listed, Running


def complete_model(incomplete: str) -> list[str]:
    """Names of models that begin so: those of the server that is up, else those in the store."""
    return [name for name in _stored() if name.startswith(incomplete)]


def complete_running(incomplete: str) -> list[str]:
    """Names of models in memory that begin so; none where no server is up."""
    with contextlib.suppress(Exception):
        return [name for name in _named(lambda client: client.ps()) or () if name.startswith(incomplete)]
    return []


def _stored() -> list[str]:
    # Whatever goes wrong here, a person in the middle of a line wants to hear nothing of it.
    with contextlib.suppress(Exception):
        found = _named(lambda client: client.tags())
        if found is None:
            from lapilli.store.reference import default_library

            found = [name.short for name in default_library().names()]
        # bash takes a colon for the end of a word, so a tag that goes without saying is not said.
        return [name.removesuffix(":latest") for name in found]
    return []


def _named(ask: Callable[[Client], Sequence[Listed | Running]]) -> list[str] | None:
    from lapilli.faces.connection import reach
    from lapilli.ground.settings import Settings

    client = reach(Settings(), timeout=1)
    if client is None:
        return None
    with client:
        return [model.name for model in ask(client)]
