"""One live server for all tests of it: the real thing on a free port, with `mini`, over a store of its own."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from faulty_registry import FaultyRegistry
from PIL import Image, ImageDraw
from processes import memory
from serving import serving

CANARY = "canary-7f3a9c"


class Live:
    """A server and a client for it; `app.state` is the server's inside, for what cannot be seen from outside."""

    def __init__(self, url: str, app: Any, home: Path) -> None:
        self.url = url
        self.app = app
        self.home = home
        self.http = httpx2.Client(base_url=url, timeout=60)

    def get(self, path: str, **more: Any) -> httpx2.Response:
        return self.http.get(path, **more)

    def post(self, path: str, body: Any = None, **more: Any) -> httpx2.Response:
        return self.http.post(path, json=body, **more) if body is not None else self.http.post(path, **more)

    def delete(self, path: str, body: Any) -> httpx2.Response:
        return self.http.request("DELETE", path, json=body)

    def whole(self, path: str, **body: Any) -> Any:
        """The JSON of an answer in one piece; `mini`, greedy and short unless told otherwise."""
        response = self.post(path, {**short(body), "stream": False})
        assert response.status_code == 200, response.text
        return response.json()

    def lines(self, path: str, **body: Any) -> list[dict[str, Any]]:
        """The JSON of an answer's lines."""
        response = self.post(path, short(body))
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/x-ndjson"
        assert response.text.endswith("\n")
        return [json.loads(line) for line in response.text.splitlines()]

    def refused(self, path: str, status: int, body: Any = None, method: str = "POST", **more: Any) -> str:
        """The text of a refusal, which must have this status and the one shape that errors have."""
        response = self.http.request(method, path, **({"json": body} if body is not None else {}), **more)
        assert response.status_code == status, response.text
        assert response.headers["content-type"].startswith("application/json")
        found = response.json()
        assert list(found) == ["error"]
        assert isinstance(found["error"], str)
        assert found["error"]
        assert no_leak(response.text)
        return str(found["error"])

    def loaded(self) -> dict[str, dict[str, Any]]:
        """The models in memory, by name."""
        return {model["name"]: model for model in self.get("/api/ps").json()["models"]}

    def gauge(self, name: str) -> float:
        """The value of one of /metrics' lines."""
        found = re.search(rf"^{name} ([0-9.e+-]+)$", self.get("/metrics").text, re.MULTILINE)
        assert found is not None, name
        return float(found[1])

    def memory(self) -> int:
        """Bytes in memory of the server's process and of all that it started."""
        return memory(os.getpid())

    def is_idle(self, seconds: float = 1) -> bool:
        """Whether nobody is being answered, and nobody waits, within a time."""
        deadline = time.monotonic() + seconds
        while self.gauge("lapilli_requests_running") or self.gauge("lapilli_requests_queued"):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True


def short(body: dict[str, Any]) -> dict[str, Any]:
    options = {"temperature": 0, "num_predict": 4, **body.get("options", {})}
    return {"model": "mini", **body, "options": options}


def no_leak(text: str) -> bool:
    """Whether a text is free of addresses, tracebacks, folders of this machine and secrets of its environment."""
    found = re.search(rf"0x[0-9a-f]{{6,}}|Traceback|{CANARY}|(?<![\w.:/])/(?:home|root|tmp|usr|work|var|etc)/\w", text)
    return found is None


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user's folder with nothing in it, and no settings but the tests' own."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("OLLAMA_", "LAPILLI_")) and name != "LAPILLI_SHARED":
                patch.delenv(name)
        patch.setenv("HOME", str(folder))
        for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
            patch.setenv(name, str(folder / name.lower()))
        patch.setenv("LAPILLI_TEST_SECRET", CANARY)
        yield folder


@pytest.fixture(scope="session")
def registry() -> Iterator[FaultyRegistry]:
    """A registry of models on this machine, the only one that the server may reach."""
    with FaultyRegistry() as found:
        yield found


@pytest.fixture(scope="session")
def live(home: Path, registry: FaultyRegistry) -> Iterator[Live]:
    """The server; one for the whole run."""
    from lapilli.faces.residents import Residents
    from lapilli.faces.server.app import build_app
    from lapilli.ground.settings import Settings
    from lapilli.store.library import Library

    settings = Settings(models=home / "models", ollama_models=None, drain=2, allowed_registries=(registry.host,))
    library = Library(settings.models)
    app = build_app(library, Residents(library, settings), settings)
    with serving(app) as url:
        found = Live(url, app, home)
        yield found
        found.http.close()


@pytest.fixture(scope="session")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A GGUF file's bytes: a decoder with the smallest of everything, good enough to be stored."""
    from lapilli.checkpoints.gguf import TensorSource, write_gguf

    sizes = {"embedding_length": 32, "block_count": 1, "feed_forward_length": 64, "context_length": 64}
    heads = {"attention.head_count": 2, "attention.head_count_kv": 2, "attention.layer_norm_rms_epsilon": 1e-5}
    metadata = {"general.architecture": "llama", **{f"llama.{key}": value for key, value in (sizes | heads).items()}}
    words = {"model": "llama", "tokens": ["<unk>", "<s>", "</s>", "a"], "scores": [0.0] * 4, "token_type": [2, 3, 3, 1]}
    metadata |= {f"tokenizer.ggml.{key}": value for key, value in words.items()}
    shapes = {"token_embd": (4, 32), "output_norm": (32,), "blk.0.attn_norm": (32,), "blk.0.ffn_norm": (32,)}
    shapes |= {f"blk.0.attn_{part}": (32, 32) for part in ("q", "k", "v", "output")}
    shapes |= {"blk.0.ffn_gate": (64, 32), "blk.0.ffn_up": (64, 32), "blk.0.ffn_down": (32, 64)}
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    zeros = [TensorSource.of(f"{name}.weight", np.zeros(shape, np.float32), "F32") for name, shape in shapes.items()]
    write_gguf(path, metadata, zeros)
    return path.read_bytes()


@pytest.fixture(scope="session")
def picture() -> bytes:
    """A small picture, as a PNG file's bytes."""
    image = Image.new("RGB", (96, 96), "white")
    ImageDraw.Draw(image).ellipse((20, 20, 70, 70), fill="red")
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


@pytest.fixture(scope="session")
def picture64(picture: bytes) -> str:
    """The same in base64."""
    return base64.b64encode(picture).decode()


@pytest.fixture(scope="session")
def controls(live: Live, picture64: str) -> list[tuple[dict[str, Any], str]]:
    """Questions and their greedy answers, before anything else was asked."""
    asked = [
        {"prompt": "Hello, who are you?", "options": {"num_predict": 4}},
        {"prompt": "What is in this picture?", "images": [picture64], "options": {"num_predict": 3}},
    ]
    return [(body, live.whole("/api/generate", **body)["response"]) for body in asked]


@pytest.fixture
def oracles(
    live: Live, controls: list[tuple[dict[str, Any], str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    """What must hold after every attack: the server lives, grew little, wrote nothing, called nobody, answers the same.

    O1 alive, O2 memory, O3 files, O4 egress, O5 answer, O6 leak, O7 slot; O8, the shape of errors, is `live.refused`.
    """
    canary = tmp_path / "canary"
    canary.write_text("untouched")
    store, before = _tree(live.home), memory(os.getpid())
    sinks = [_Sink("127.0.0.1"), _Sink("127.0.0.2")]
    yield
    started = time.monotonic()
    assert live.get("/api/version").status_code == 200, "O1"
    assert time.monotonic() - started < 1, "O1"
    assert live.is_idle(), "O7"
    assert memory(os.getpid()) - before < 256 << 20, "O2"
    assert canary.read_text() == "untouched", "O3"
    assert not {name for name in _tree(live.home) - store if name.endswith(".part")}, "O3"
    for body, answer in controls:
        assert live.whole("/api/generate", **body)["response"] == answer, "O5"
    assert no_leak("\n".join(record.getMessage() for record in caplog.records if record.name.startswith("lapilli"))), (
        "O6"
    )
    for sink in sinks:
        assert sink.close() == 0, "O4"


def _tree(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*")}


class _Sink:
    """A listener that nobody should ever find; `port` is where an attack points."""

    def __init__(self, host: str) -> None:
        self.listener = socket.create_server((host, 0))
        self.port = self.listener.getsockname()[1]
        self.hits = 0
        threading.Thread(target=self._count, daemon=True).start()

    def _count(self) -> None:
        while True:
            try:
                self.listener.accept()[0].close()
            except OSError:
                return
            self.hits += 1

    def close(self) -> int:
        self.listener.shutdown(socket.SHUT_RDWR)  # ends the thread that waits there
        self.listener.close()
        return self.hits
