"""Which server a command talks to: the one that is up, or a private one for itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import httpx2

from lapilli.errors import LapilliError
from lapilli.faces.client import Client
from lapilli.ground.settings import Settings
from lapilli.ground.urls import server_url as server_url

_CONNECT_SECONDS = 5.0
_PATIENCE = 6  # so many times longer than a connection may its first answer take: the machine may be busy


def connect(settings: Settings) -> Client:
    """The server that is up at the settings' host; where none is and that is this machine, a private one.

    A private server lives in this process and ends with the client. Raises LapilliError where no server answers and
    none can be started.
    """
    client = reach(settings)
    if client is not None:
        return client
    url, here = server_url(settings.host)
    if not here:
        raise LapilliError(f"no server answers at {url}: start one there with `lapilli serve`")
    return alone(settings)


def alone(settings: Settings, named: Mapping[str, Path] | None = None) -> Client:
    """A private server, whatever else is up; `named` gives names to folders and GGUF files, for it alone."""
    from lapilli.faces.private import PrivateServer

    server = PrivateServer(settings, named)
    client = Client(server.http, "the server of this command", private=True)
    client.at_end(server.close)
    return client


def reach(settings: Settings, *, timeout: float = _CONNECT_SECONDS) -> Client | None:
    """The server that is up at the settings' host, or None.

    Raises LapilliError where something else answers there.
    """
    url, here = server_url(settings.host)
    headers = {"Authorization": f"Bearer {settings.client_key}"} if settings.client_key else {}
    # A proxy is for the world outside; what is on this machine is reached directly.
    http = httpx2.Client(
        base_url=url, headers=headers, timeout=httpx2.Timeout(None, connect=timeout), trust_env=not here
    )
    try:
        if answers(http, url, _PATIENCE * timeout):
            return Client(http, url)
    except BaseException:
        http.close()
        raise
    http.close()
    return None


def answers(http: httpx2.Client, url: str, seconds: float) -> bool:
    """Whether a server that speaks this API is up; nobody there is False.

    Raises LapilliError where something else answers, or nothing comes within `seconds`.
    """
    try:
        answer = http.head("/", timeout=httpx2.Timeout(seconds, connect=seconds / _PATIENCE))
    except (httpx2.ConnectError, httpx2.ConnectTimeout):
        return False
    except httpx2.TimeoutException as error:
        raise LapilliError(f"what listens at {url} says nothing within {seconds:g} s") from error
    except httpx2.HTTPError as error:
        raise LapilliError(f"what listens at {url} does not speak HTTP: {error or type(error).__name__}") from error
    if answer.status_code != 200:
        raise LapilliError(f"what listens at {url} answers {answer.status_code}, a server of models answers 200")
    return True
