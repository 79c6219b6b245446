"""The server that a command talks to."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lapilli.faces.client import Client


def connected() -> Client:
    """A client of the server that is up, else of a private one that ends with the command; use it in a `with`."""
    from lapilli.faces.connection import connect
    from lapilli.ground.settings import Settings

    return connect(Settings())
