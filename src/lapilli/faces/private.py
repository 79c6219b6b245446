"""A server in this process for one command, where none is up: nobody else can reach it."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import uvicorn

from lapilli.errors import LapilliError
from lapilli.faces.residents import Residents
from lapilli.faces.server.app import build_app
from lapilli.faces.server.listener import listen
from lapilli.ground.settings import Settings
from lapilli.store.library import Library
from lapilli.store.naming import ModelName

if TYPE_CHECKING:
    from lapilli.store.package import Package

_LONGEST_SOCKET_PATH = 100
_START_SECONDS = 30.0
_STOP_SECONDS = 10.0


class PrivateServer:
    """A server on a socket that only this user can open; `http` reaches it. Close it when the command ends.

    With `paths` a folder or a GGUF file is a model's name as well. Raises LapilliError where it does not start.
    """

    def __init__(self, settings: Settings, *, paths: bool = False) -> None:
        others = [] if settings.ollama_models is None else [settings.ollama_models]
        library = (_WithPaths if paths else Library)(settings.models, others)
        self._folder = Path(tempfile.mkdtemp(prefix="lapilli-"))  # mode 0700
        path, key = str(self._folder / "socket"), ""
        if os.name == "nt" or len(path.encode()) > _LONGEST_SOCKET_PATH:
            path, key = "", secrets.token_urlsafe(32)
        changed = {"host": "127.0.0.1:0", "api_keys": (key,) if key else (), "allowed_hosts": (), "drain": 0.0}
        settings = settings.model_copy(update=changed)
        if path:
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._listener.bind(path)
            transport = httpx2.HTTPTransport(uds=path)
            self.http = httpx2.Client(base_url="http://localhost", transport=transport, timeout=None)
        else:
            self._listener = socket.create_server(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
            headers = {"Authorization": f"Bearer {key}"}
            self.http = httpx2.Client(base_url=url, headers=headers, timeout=None, trust_env=False)
        self._server = uvicorn.Server(
            listen(build_app(library, Residents(library, settings), settings), drain_seconds=0)
        )
        self._thread = threading.Thread(
            target=self._server.run, args=([self._listener],), name="lapilli-private", daemon=True
        )
        self._start()

    def close(self) -> None:
        """End the server, and the models' processes with it."""
        self._server.should_exit = True
        self._thread.join(_STOP_SECONDS)
        self._listener.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> None:
        self._thread.start()
        deadline = time.monotonic() + _START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                self.close()
                raise LapilliError("the server of this command does not start: LAPILLI_DEBUG=1 shows more")
            time.sleep(0.005)


class _WithPaths(Library):
    """A library in which the path of a folder or of a GGUF file names a model."""

    def find(self, name: str | ModelName, *, paths: bool = True) -> Package:
        return super().find(name, paths=paths)
