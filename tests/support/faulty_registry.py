"""A registry on loopback that does to its callers what networks and servers do, by seed or by order."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.server
import json
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
MODEL = "application/vnd.ollama.image.model"
LICENSE = "application/vnd.ollama.image.license"

# What may happen to an answer, and how often each beside the others. The last three are silent.
WEIGHTS = {
    "cut": 6,  # the connection ends midway
    "reset": 2,  # it ends before the answer begins
    "status": 3,  # 500, 502, 503 or 429
    "latency": 3,
    "stall": 1,  # nothing more comes, and the connection stays open
    "wrong range": 2,  # Content-Range names another range, and that comes
    "whole": 2,  # 200 with everything
    "short": 2,  # an honest 206 with less than was asked for
    "long": 1,  # more than was asked for, without end
    "length": 1,  # Content-Length and Content-Range do not agree
    "total": 1,  # another size of the whole
    "packed": 1,
    "new tag": 1,  # another ETag, the same bytes
    "other file": 1,  # another ETag, other bytes
    "flip": 1,  # one bit
    "other bytes": 1,  # Content-Range is right, the bytes are of another place
}


@dataclass
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]

    @property
    def range(self) -> tuple[int, int] | None:
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        return (int(match[1]), int(match[2]) + 1) if match else None


Script = Callable[[Asked], str | None]


@dataclass
class FaultyRegistry:
    """Serves models; each answer fails with probability `rate`, in ways drawn by `seed`, or as `script` says.

    `stall` is how long a stalled answer hangs. `asked` are the requests so far, `sent` the bytes of blobs.
    """

    seed: int = 0
    rate: float = 0.0
    kinds: Iterable[str] = tuple(WEIGHTS)
    script: Script | None = None
    stall: float = 1.0
    asked: list[Asked] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    token: str = ""
    realm: str = ""
    pace: float = 0.0  # seconds between two pieces of 16 KiB
    sent: int = 0

    def __post_init__(self) -> None:
        self.lock = threading.Lock()
        self.random = random.Random(self.seed)
        self.ended = threading.Event()
        registry = self

        class Handler(_Handler):
            site = registry

        self.server = _Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.host = f"127.0.0.1:{self.port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def __enter__(self) -> FaultyRegistry:
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()

    def add(self, name: str, model: bytes, *more: bytes) -> dict[str, bytes]:
        """A model `namespace/model:tag` of one big layer and some small ones; returns its blobs by digest."""
        layers = [self.layer(MODEL, model), *(self.layer(LICENSE, text) for text in more)]
        config = self.layer(CONFIG, json.dumps({"model_format": "gguf", "model_family": "llama"}).encode())
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
        self.manifests[name] = json.dumps(manifest).encode()
        return {str(part["digest"]): self.blobs[str(part["digest"])] for part in (config, *layers)}

    def layer(self, media_type: str, data: bytes) -> dict[str, object]:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def fault(self, asked: Asked) -> str | None:
        with self.lock:
            self.asked.append(asked)
            if self.script is not None:
                kind = self.script(asked)
            elif self.random.random() < self.rate:
                kinds = list(self.kinds)
                kind = self.random.choices(kinds, [WEIGHTS[kind] for kind in kinds])[0]
            else:
                kind = None
            if kind:
                self.faults.append(kind)
            return kind

    def draw(self, first: int, last: int) -> int:
        with self.lock:
            return self.random.randint(first, max(first, last))

    def blob_requests(self) -> list[Asked]:
        return [asked for asked in self.asked if "/blobs/" in asked.path]


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        pass


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: FaultyRegistry
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        asked = self._asked
        fault = self.site.fault(asked)
        if fault == "reset":
            return self._hang_up(reset=True)
        if fault == "status":
            return self._say(b"", status=(500, 502, 503, 429)[self.site.draw(0, 3)])
        if fault is not None and fault.startswith("redirect "):
            return self._say(b"", status=307, Location=fault.removeprefix("redirect "))
        if fault == "gone":
            return self._say(b"", status=403)
        if fault == "bomb":
            return self._say(gzip.compress(bytes(1 << 20)), Content_Encoding="gzip")
        if fault == "endless":
            return self._say_without_end(b"[" * 65536, 200, {}, times=1000)
        if fault == "latency":
            time.sleep(self.site.draw(1, 30) / 1000)
        if self.path.startswith("/v2/") and not self._is_known():
            return None
        if self.path.startswith("/token"):
            return self._say(json.dumps({"token": self.site.token}).encode())
        match = re.fullmatch(r"/(?:v2|elsewhere)/(.+)/(manifests|blobs)/([^/]+)", self.path)
        if match is None:
            return self._say(b"not found", status=404)
        if match[2] == "manifests":
            return self._manifest(self.site.manifests.get(f"{match[1]}:{match[3]}"), fault)
        return self._blob(self.site.blobs.get(match[3]), asked, fault)

    def do_POST(self) -> None:
        if self._is_known():
            self._say(b"", status=202, Location=f"{self.path}{self.site.draw(1, 1 << 30)}?state=x")

    def do_PATCH(self) -> None:
        body, fault = self._body()
        if fault or not self._is_known():
            return self._hang_up(reset=True)
        kept = self.site.uploads.setdefault(self.path.partition("?")[0], bytearray())
        start, _, last = self.headers["Content-Range"].partition("-")
        if int(start) != len(kept) or int(last) + 1 - int(start) != len(body):
            return self._say(b"", status=416)
        kept += body
        self._say(b"", status=202, Location=self.path)

    def do_PUT(self) -> None:
        body, fault = self._body()
        if fault or not self._is_known():
            return self._hang_up(reset=True)
        if match := re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", self.path):
            self.site.manifests[f"{match[1]}:{match[2]}"] = body
            return self._say(b"", status=201)
        path, _, query = self.path.partition("?")
        data = bytes(self.site.uploads.pop(path, b""))
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if f"digest={digest}" not in query:
            return self._say(b"", status=400)
        self.site.blobs[digest] = data
        self._say(b"", status=201)

    def _body(self) -> tuple[bytes, str | None]:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return body, self.site.fault(self._asked)

    @property
    def _asked(self) -> Asked:
        return Asked(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})

    def _is_known(self) -> bool:
        if not self.site.token or self.headers["Authorization"] == self._bearer:
            return True
        realm = self.site.realm or f"http://{self.site.host}/token"
        self._say(b"{}", status=401, WWW_Authenticate=f'Bearer realm="{realm}",service="registry"')
        return False

    @property
    def _bearer(self) -> str:
        return f"Bearer {self.site.token}"

    def _manifest(self, body: bytes | None, fault: str | None) -> None:
        if body is None:
            return self._say(b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}', status=404)
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if fault in ("flip", "other bytes", "other file"):
            body = self._flip(body)
        if fault in ("cut", "stall"):
            return self._say(body, stop=len(body) // 2, hang=fault == "stall", Docker_Content_Digest=digest)
        return self._say(body, Content_Type=MANIFEST, Docker_Content_Digest=digest)

    def _blob(self, body: bytes | None, asked: Asked, fault: str | None) -> None:
        if body is None:
            return self._say(b"", status=404)
        size, span = len(body), asked.range
        if span and span[0] >= size:
            return self._say(b"", status=416)
        start, stop = span or (0, size)
        stop, headers = min(stop, size), {"ETag": '"1"', "Accept-Ranges": "bytes"}
        if fault == "short":
            stop = self.site.draw(start + 1, stop)
        part = body[start:stop]
        partial = span is not None
        if fault == "whole" and partial:
            part, partial = body, False
        if fault == "wrong range" and partial:
            start = self.site.draw(0, size - len(part)) if len(part) < size else 1
            part = body[start : start + len(part)]
        if fault == "other bytes":
            elsewhere = self.site.draw(0, size - len(part))
            part = body[elsewhere : elsewhere + len(part)]
        if fault == "flip":
            part = self._flip(part)
        if fault in ("new tag", "other file"):
            headers["ETag"] = '"2"'
            part = part if fault == "new tag" else bytes(len(part))
        if fault == "packed":
            headers["Content-Encoding"] = "gzip"
        if partial:
            total = size + (1 if fault == "total" else 0)
            headers["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{total}"
        if fault == "length":
            headers["Content-Length"] = str(len(part) + 7)
        elif fault == "total" and not partial:
            part += b"x"
        if fault == "long":
            return self._say_without_end(part, 206 if partial else 200, headers)
        cut = self.site.draw(0, len(part) - 1) if fault in ("cut", "stall") and part else None
        self._say(part, status=206 if partial else 200, stop=cut, hang=fault == "stall", counted=True, **headers)

    def _flip(self, body: bytes) -> bytes:
        if not body:
            return body
        place = self.site.draw(0, len(body) - 1)
        return body[:place] + bytes([body[place] ^ 1 << self.site.draw(0, 7)]) + body[place + 1 :]

    def _say(
        self,
        body: bytes,
        *,
        status: int = 200,
        stop: int | None = None,
        hang: bool = False,
        counted: bool = False,
        **headers: str,
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self._send(body[:stop], counted)
        if hang:
            self.site.ended.wait(self.site.stall)
        if stop is not None or len(body) < int(headers.get("Content-Length", 0)):
            self._hang_up()

    def _say_without_end(self, body: bytes, status: int, headers: dict[str, str], times: int = 64) -> None:
        self.send_response(status)
        for name, value in {**headers, "Transfer-Encoding": "chunked"}.items():
            self.send_header(name, value)
        self.end_headers()
        more = body + b"x" * 1000
        for _ in range(times):
            self._send(f"{len(more):x}\r\n".encode() + more + b"\r\n", True)
            more = b"x" * 16384
        self._hang_up()

    def _send(self, body: bytes, counted: bool) -> None:
        view = memoryview(body)
        while view:
            self.wfile.write(view[:16384])
            if counted:
                with self.site.lock:
                    self.site.sent += min(len(view), 16384)
            view = view[16384:]
            if counted and self.site.pace:
                time.sleep(self.site.pace)

    def _hang_up(self, reset: bool = False) -> None:
        self.close_connection = True
        if reset:
            with contextlib.suppress(OSError):
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
