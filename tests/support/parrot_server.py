"""A server that speaks Ollama's API and repeats what it is asked: what the commands are tried against."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

SEER = {
    "details": {"family": "llama", "families": ["llama", "clip"], "parameter_size": "7B", "quantization_level": "Q4_0"},
    "capabilities": ["completion", "vision"],
    "model_info": {
        "general.architecture": "llama",
        "llama.context_length": 32768,
        "llama.embedding_length": 4096,
    },
    "projector_info": {"general.architecture": "clip", "clip.vision.embedding_length": 1024},
    "template": "{{ .Prompt }}",
    "parameters": 'stop                           "[INST]"\ntemperature                    0.5',
    "system": "Be kind.",
    "license": "Apache License\nVersion 2.0\nJanuary 2004",
    "modelfile": "FROM parrot\n",
}


@dataclass
class ParrotServer:
    """The app and what it was asked; `gone` counts clients that left in the middle of an answer."""

    models: dict[str, dict[str, Any]] = field(default_factory=lambda: {"parrot:latest": dict(SEER)})
    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    pulls: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    key: str = ""
    gone: int = 0
    url: str = ""

    def reset(self) -> ParrotServer:
        """As it was at first, at the same place."""
        self.__dict__.update(vars(ParrotServer(url=self.url)))
        return self

    def bodies(self, path: str) -> list[Any]:
        """What was sent to one path, in order."""
        return [body for where, body in self.asked if where == path]

    def app(self) -> Starlette:
        routes = {
            "/api/tags": (self.tags, "GET"), "/api/ps": (self.ps, "GET"), "/api/show": (self.show, "POST"),
            "/api/chat": (self.chat, "POST"), "/api/generate": (self.generate, "POST"),
            "/api/embed": (self.embed, "POST"), "/api/copy": (self.copy, "POST"),
            "/api/delete": (self.delete, "DELETE"), "/api/pull": (self.pull, "POST"),
            "/api/push": (self.pull, "POST"), "/api/create": (self.create, "POST"),
        }  # fmt: skip
        return Starlette(
            routes=[
                Route("/", lambda _: PlainTextResponse("Ollama is running")),
                *(Route(path, call, methods=[method]) for path, (call, method) in routes.items()),
                Route("/api/blobs/{digest}", self.blob, methods=["HEAD", "POST"]),
            ]
        )

    async def body(self, request: Request) -> Any:
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            raise PermissionError
        sent = json.loads(await request.body() or b"{}")
        self.asked.append((request.url.path, sent))
        return sent

    def known(self, name: str) -> dict[str, Any] | None:
        return self.models.get(name if ":" in name else f"{name}:latest")

    def missing(self, name: str) -> Response:
        return JSONResponse({"error": f"model '{name}' not found"}, 404)

    async def tags(self, request: Request) -> Response:
        await self.body(request)
        rows = [
            {"name": name, "size": 4_700_000_000, "digest": hashlib.sha256(name.encode()).hexdigest(),
             "modified_at": "2020-01-01T00:00:00.123456789Z", "details": shown.get("details", {})}
            for name, shown in self.models.items()
        ]  # fmt: skip
        return JSONResponse({"models": rows})

    async def ps(self, request: Request) -> Response:
        rows = [
            {"name": name, "size": 1000, "size_vram": 0, "digest": "ab" * 32, "context_length": 4096,
             "expires_at": "2318-01-01T00:00:00Z"}
            for name in self.running
        ]  # fmt: skip
        return JSONResponse({"models": rows})

    async def show(self, request: Request) -> Response:
        sent = await self.body(request)
        shown = self.known(sent["model"])
        return self.missing(sent["model"]) if shown is None else JSONResponse(shown)

    async def generate(self, request: Request) -> Response:
        sent = await self.body(request)
        if self.known(sent["model"]) is None:
            return self.missing(sent["model"])
        name = sent["model"]
        if sent.get("keep_alive") == 0:
            self.running = [other for other in self.running if other != name]
        elif name not in self.running:
            self.running.append(name)
        return JSONResponse({"model": name, "response": "", "done": True})

    async def chat(self, request: Request) -> Response:
        sent = await self.body(request)
        if self.known(sent["model"]) is None:
            return self.missing(sent["model"])
        last = sent["messages"][-1]
        if last["content"] == "busy":
            return JSONResponse({"error": "server busy"}, 503)
        pictures = [image for message in sent["messages"] for image in message.get("images", ())]
        sizes = [len(base64.b64decode(image, validate=True)) for image in pictures]
        words = last["content"].split() + [f"[{len(sizes)} pictures]"] * bool(sizes)

        async def lines() -> AsyncIterator[bytes]:
            if sent.get("think"):
                yield _line(message={"role": "assistant", "content": "", "thinking": "hm hm"}, done=False)
            for word in words:
                yield _line(message={"role": "assistant", "content": f"{word} "}, done=False)
                if word == "endless":
                    try:
                        await asyncio.sleep(600)
                    except asyncio.CancelledError:
                        self.gone += 1
                        raise
                if word == "break":
                    yield _line(error="the model's process has ended")
                    return
                if word == "cut":
                    return
            yield _line(
                message={"role": "assistant", "content": ""}, done=True, done_reason="stop",
                total_duration=1_500_000_000, load_duration=250_000, prompt_eval_count=9,
                prompt_eval_duration=500_000_000, eval_count=len(words), eval_duration=2_000_000_000,
            )  # fmt: skip

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def embed(self, request: Request) -> Response:
        sent = await self.body(request)
        return JSONResponse({"embeddings": [[0.6, 0.8][: sent.get("dimensions", 2)] for _ in sent["input"]]})

    async def copy(self, request: Request) -> Response:
        sent = await self.body(request)
        shown = self.known(sent["source"])
        if shown is None:
            return JSONResponse({"error": f'model "{sent["source"]}" not found'}, 404)
        self.models[f"{sent['destination']}:latest"] = shown
        return Response()

    async def delete(self, request: Request) -> Response:
        sent = await self.body(request)
        if self.known(sent["model"]) is None:
            return self.missing(sent["model"])
        del self.models[f"{sent['model']}:latest"]
        return Response()

    async def pull(self, request: Request) -> Response:
        sent = await self.body(request)
        steps = self.pulls.get(sent["model"])

        async def lines() -> AsyncIterator[bytes]:
            yield _line(status="pulling manifest")
            if steps is None:
                yield _line(error="pull model manifest: file does not exist")
                return
            for step in steps:
                yield _line(**step)
                if step.get("status") == "waiting":
                    await asyncio.sleep(600)
            self.models[f"{sent['model']}:latest"] = dict(SEER)
            yield _line(status="success")

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def create(self, request: Request) -> Response:
        sent = await self.body(request)
        for digest in {**sent.get("files", {}), **sent.get("adapters", {})}.values():
            if digest not in self.blobs:
                return JSONResponse({"error": f"blob {digest} is not here"}, 400)
        self.models[f"{sent['model']}:latest"] = {**SEER, "messages": sent.get("messages", [])}
        lines = b"".join(_line(status=status) for status in ("parsing GGUF", "writing manifest", "success"))
        return Response(lines, media_type="application/x-ndjson")

    async def blob(self, request: Request) -> Response:
        digest = request.path_params["digest"]
        if request.method == "HEAD":
            return Response(status_code=200 if digest in self.blobs else 404)
        data = await request.body()
        found = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if found != digest:
            return JSONResponse({"error": f'digest mismatch, expected "{digest}", got "{found}"'}, 400)
        self.blobs[digest] = data
        return Response(status_code=201)


@contextlib.contextmanager
def serving(server: ParrotServer) -> Iterator[ParrotServer]:
    """The server, up on a free port of this machine; `url` says where."""
    listener = socket.create_server(("127.0.0.1", 0))
    server.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(server.app(), log_level="critical", timeout_graceful_shutdown=1)
    runner = uvicorn.Server(config)
    thread = threading.Thread(target=runner.run, args=([listener],), daemon=True)
    thread.start()
    while not runner.started:
        time.sleep(0.005)
    try:
        yield server
    finally:
        runner.should_exit = runner.force_exit = True
        thread.join(10)
        listener.close()


def _line(**values: Any) -> bytes:
    return json.dumps(values).encode() + b"\n"
