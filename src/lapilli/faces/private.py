"""A server in this process for one command, where none is up: nobody else can reach it."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx2
import uvicorn

from lapilli.errors import InputError, LapilliError
from lapilli.faces.residents import Residents
from lapilli.faces.server.app import build_app
from lapilli.faces.server.listener import listen
from lapilli.ground.settings import Settings
from lapilli.store.library import Library
from lapilli.store.naming import ModelName
from lapilli.store.package import Package
from lapilli.store.sources import package_at

_LONGEST_SOCKET_PATH = 100
_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_GRACE_SECONDS = 2


class PrivateServer:
    """A server on a socket that only this user can open; `http` reaches it. Close it when the command ends.

    `named` gives names to folders and GGUF files, for this server alone. Raises LapilliError where it does not start.
    """

    def __init__(self, settings: Settings, named: Mapping[str, Path] | None = None) -> None:
        library = _WithMore(settings.models, settings.other_models, named or {})
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
        app = build_app(library, Residents(library, settings), settings)
        self._server = uvicorn.Server(listen(app, timeout_graceful_shutdown=_GRACE_SECONDS, log_level="critical"))
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


class _WithMore(Library):
    """A library with some more models, each by a name and the path where it lies."""

    def __init__(self, root: Path, others: Sequence[Path], more: Mapping[str, Path]) -> None:
        super().__init__(root, others)
        self._more = {ModelName.parse(name).key: (name, path) for name, path in more.items()}

    def find(self, name: str | ModelName, *, paths: bool = False) -> Package:
        with contextlib.suppress(InputError):
            known, path = self._more.get(ModelName.parse(str(name)).key, ("", None))
            package = package_at(path, known) if path is not None else None
            if package is not None:
                return package
        return super().find(name, paths=paths)
