"""The server that a command talks to."""

from __future__ import annotations

from lapilli.faces.client import Client, connect


def connected() -> Client:
    """A client of the server that is up, else of a private one that ends with the command; use it in a `with`."""
    from lapilli.ground.settings import Settings

    return connect(Settings())
