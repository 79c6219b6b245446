"""A server from its start to its end: who may reach it, where it listens, what it logs, and how it stops."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import lapilli
from lapilli.errors import InputError, LapilliError
from lapilli.faces.connection import reach
from lapilli.faces.residents import Residents
from lapilli.faces.server.app import build_app
from lapilli.faces.server.listener import listen
from lapilli.ground.ports import PortTakenError, listen_at, owner_of
from lapilli.ground.settings import Settings
from lapilli.store.library import Library

log = logging.getLogger("lapilli.server")
requests = logging.getLogger("lapilli.requests")

_PROBE_SECONDS = 2.0
_LAST_WORDS_SECONDS = 1.0


def serve_until_stopped(settings: Settings) -> None:
    """Run the server in this process until it is told to stop.

    SIGTERM or SIGINT lets who is being answered finish, within the time that the settings have for that; a second one
    ends it at once. Raises InputError where it must not, or cannot, listen where it was told to.
    """
    check_reach(settings)
    start_log(settings.debug)
    with claim(settings) as listener:
        library = Library(settings.models, settings.other_models)
        look_over(library, settings)
        residents = Residents(library, settings)
        app = build_app(library, residents, settings)
        host, port = listener.getsockname()[:2]
        log.info(
            "lapilli %s serves at http://%s:%d, models in %s",
            *(lapilli.__version__, f"[{host}]" if ":" in host else host, port, settings.models),
        )
        asyncio.run(_Served(app, residents, settings).run_at(listener))
    log.info("stopped")


def check_reach(settings: Settings) -> None:
    """Raise InputError where people elsewhere could reach a server that has no keys."""
    if settings.host.startswith("https://"):
        raise InputError(
            f"LAPILLI_HOST is {settings.host}: this server speaks plain HTTP; put a proxy with a certificate before it"
        )
    if settings.api_keys:
        return
    if not settings.is_loopback:
        raise InputError(
            f"LAPILLI_HOST is {settings.host}, which other machines can reach, and there are no keys: set "
            "LAPILLI_API_KEYS to a long secret, or listen at 127.0.0.1"
        )
    if settings.allowed_hosts:
        raise InputError(
            "LAPILLI_ALLOWED_HOSTS lets other machines in through a proxy or a tunnel, and there are no keys: set "
            "LAPILLI_API_KEYS to a long secret, or LAPILLI_ALLOWED_HOSTS to nothing"
        )


def claim(settings: Settings) -> socket.socket:
    """A socket that listens where the settings say; raises InputError that says who does already."""
    host, port = settings.address
    try:
        return listen_at(host, port)
    except PortTakenError:
        owner = owner_of(port)
        who = f" (process {owner[0]}, {owner[1]})" if owner else ""
        raise InputError(
            f"{host}:{port} is taken{_said_by(settings)}{who}: stop it, or set LAPILLI_HOST to another port"
        ) from None


def _said_by(settings: Settings) -> str:
    """What the server that is there says of itself, if it says something soon."""
    said: dict[str, Any] = {}

    def look() -> None:
        with contextlib.suppress(LapilliError):
            client = reach(settings, timeout=_PROBE_SECONDS)
            if client is not None:
                with client:
                    said.update(client.version())

    asking = threading.Thread(target=look, daemon=True)
    asking.start()
    asking.join(_PROBE_SECONDS)
    if not said:
        return ""
    name = "lapilli" if "lapilli" in said else "Ollama"
    return f": {name} answers there, version {str(said.get('lapilli', said.get('version', 'unknown')))[:40]}"


def look_over(library: Library, settings: Settings) -> None:
    """Say what is damaged, and remove what nobody needs, unless told not to."""
    for fault in library.check():
        log.warning("%s", fault)
    if not settings.noprune:
        try:
            removed = library.prune()
        except LapilliError as error:
            log.warning("nothing was pruned: %s", error)
        else:
            if removed:
                log.info("pruned: %d files that no model needs", len(removed))


def start_log(debug: bool) -> None:
    """A line for each event on standard error: ours from INFO, of others what is wrong."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO if debug else logging.WARNING)
    logging.getLogger("lapilli").setLevel(logging.DEBUG if debug else logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


class Logged:
    """ASGI: a line for each request, with nothing of what was asked or answered in it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 499

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, told)
        finally:
            client = scope["client"][0] if scope.get("client") else "-"
            took = time.monotonic() - began
            path = scope["path"][:200].encode("ascii", "backslashreplace").decode()
            printable = "".join(letter if letter.isprintable() else "?" for letter in path)
            requests.info(
                "%s %s %s %d %.3fs", client, scope["method"], printable, scope.get("lapilli.status", status), took
            )


class _Served(uvicorn.Server):
    """uvicorn's server, with an end of its own: exit code 0, and nobody left waiting."""

    def __init__(self, app: Starlette, residents: Residents, settings: Settings) -> None:
        config = listen(app, drain_seconds=settings.drain)
        config.app = Logged(app)
        super().__init__(config)
        self.app, self.residents, self.settings = app, residents, settings

    async def run_at(self, listener: socket.socket) -> None:
        """Serve until told to stop; all models' processes have ended then."""
        try:
            await self.serve([listener])
        finally:
            await self.residents.close(0)
            if self.server_state.tasks:  # they were cancelled, and say so to their clients
                await asyncio.wait(self.server_state.tasks, timeout=_LAST_WORDS_SECONDS)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        _notify("READY=1")

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        told = (signal.SIGTERM, signal.SIGINT)
        for number in told:
            try:
                loop.add_signal_handler(number, self.stop)
            except NotImplementedError:  # not on Windows
                signal.signal(number, lambda *_: loop.call_soon_threadsafe(self.stop))
        try:
            yield
        finally:
            for number in told:
                with contextlib.suppress(NotImplementedError):
                    loop.remove_signal_handler(number)

    def stop(self) -> None:
        """Let nobody in any more and send away who waits; asked again, end at once."""
        if self.should_exit:
            log.info("told to stop again: ending at once")
            self.force_exit = True
            for task in self.server_state.tasks:
                task.cancel()
            return
        log.info("told to stop: at most %g s for who is being answered", self.settings.drain)
        _notify("STOPPING=1")
        self.app.state.draining = True
        self.residents.drain()
        for server in self.servers:
            server.close()
        self.should_exit = True


def _notify(state: str) -> None:
    """Tell systemd, where it has asked to be told (sd_notify(3))."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path.startswith(("/", "@")) and hasattr(socket, "AF_UNIX"):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(state.encode(), path.replace("@", "\0", 1))
