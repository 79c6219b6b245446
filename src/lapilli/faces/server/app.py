"""The server as an ASGI application: `build_app(library, residents, settings)`."""

from __future__ import annotations

import importlib.resources
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from lapilli import __version__
from lapilli.faces.residents import Residents
from lapilli.faces.server import anthropic, documents, models, native, openai
from lapilli.faces.server.guard import Guard, GuardOptions
from lapilli.faces.server.metrics import Metrics
from lapilli.faces.server.problems import HttpError, problem
from lapilli.faces.server.streams import Json
from lapilli.faces.server.transfers import Transfers
from lapilli.ground.settings import Settings
from lapilli.store.library import Library

# The API that is spoken here: clients compare it with the least they need.
OLLAMA_VERSION = "0.33.0"
LAST_SECONDS = 2.0
WEB_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'"
)
ELSEWHERE = (
    ("/api/me", ["POST"]),
    ("/api/signout", ["POST"]),
    ("/api/user/keys/{key:path}", ["DELETE"]),
    ("/api/experimental/{rest:path}", ["GET", "POST", "DELETE"]),
)


def build_app(library: Library, residents: Residents, settings: Settings) -> Starlette:
    """The whole server but its sockets; `residents` are closed when it ends."""
    counted, transfers = Metrics(), Transfers()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            transfers.close()
            # Answers had their time while the connections were drained.
            await residents.close(min(settings.drain, LAST_SECONDS))

    app = Starlette(
        routes=routes(),
        middleware=[Middleware(Guard, options=guard_options(settings, residents), seen=counted.seen)],
        exception_handlers={HTTPException: _refused},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    counted.routes = {route.endpoint: route.path for route in app.routes if isinstance(route, Route)}
    app.state.library, app.state.residents, app.state.settings = library, residents, settings
    app.state.metrics, app.state.transfers = counted, transfers
    _watch(counted, residents, transfers)
    return app


def routes() -> list[BaseRoute]:
    """Every path that is answered."""
    found: list[BaseRoute] = [
        Route("/", root, methods=["GET"]),
        Route("/api/version", version, methods=["GET"]),
        Route("/api/status", status, methods=["GET"]),
        *native.routes(),
        *models.routes(),
        *openai.routes(),
        *anthropic.routes(),
        *documents.routes(),
        *(Route(path, elsewhere, methods=methods) for path, methods in ELSEWHERE),
        Route("/metrics", metrics, methods=["GET"]),
        Route("/healthz", healthz, methods=["GET"]),
        Route("/readyz", readyz, methods=["GET"]),
    ]
    web = web_folder()
    if web is not None:
        found.append(Mount("/static", _Web(directory=web)))
    return found


def guard_options(settings: Settings, residents: Residents) -> GuardOptions:
    """What the settings let in."""
    return GuardOptions(
        api_keys=settings.api_keys,
        allowed_hosts=settings.allowed_hosts,
        origins=settings.origins,
        body_bytes=settings.max_body,
        admit=residents.admission.admit,
    )


def web_folder() -> Path | None:
    """Where the web page lies, if it was installed."""
    folder = Path(str(importlib.resources.files("lapilli.faces") / "web"))
    return folder if (folder / "index.html").is_file() else None


async def root(request: Request) -> Response:
    """The web page for browsers; for everybody else the words by which clients know that a server is up."""
    web = web_folder()
    if "text/html" in request.headers.get("accept", "") and web is not None:
        return FileResponse(web / "index.html", headers={"Content-Security-Policy": WEB_POLICY, "Vary": "Accept"})
    return PlainTextResponse("Ollama is running", headers={"Vary": "Accept"})


async def version(request: Request) -> Response:
    """`/api/version`: of Ollama's API, and of this package."""
    return Json({"version": OLLAMA_VERSION, "lapilli": __version__})


async def status(request: Request) -> Response:
    """`/api/status`: there is no cloud behind this server."""
    return Json({"cloud": {"disabled": True, "source": "config"}})


async def elsewhere(request: Request) -> Response:
    """What only a company's servers can do."""
    raise HttpError(501, "accounts and cloud services are not part of this server: it works without any")


async def metrics(request: Request) -> Response:
    """`/metrics`, for Prometheus."""
    counted: Metrics = request.app.state.metrics
    return Response(counted.text(), media_type=counted.content_type)


async def healthz(request: Request) -> Response:
    """`/healthz`: the server runs."""
    return Json({"status": "ok"})


async def readyz(request: Request) -> Response:
    """`/readyz`: the server takes requests."""
    if request.app.state.residents.draining:
        raise HttpError(503, "the server is shutting down")
    return Json({"status": "ready"})


def _watch(counted: Metrics, residents: Residents, transfers: Transfers) -> None:
    """Have the gauges read what they show."""
    admission = residents.admission
    counted.gauge("lapilli_requests_running", "Requests that are being answered.", lambda: residents.answering)
    counted.gauge(
        "lapilli_requests_queued",
        "Requests that were let in and wait: for their own body, for a model, for a place.",
        lambda: max(0, admission.inside - residents.answering),
    )
    counted.gauge("lapilli_models_loaded", "Models in memory.", lambda: len(residents.running()))
    counted.gauge("lapilli_models_bytes", "Memory of the models' processes.", lambda: _memory(residents))
    counted.gauge("lapilli_transfers_running", "Pulls, pushes and creates under way.", lambda: transfers.running)


def _memory(residents: Residents) -> float:
    return sum(resident.process.memory_bytes() for resident in residents.running())


async def _refused(request: Request, error: Exception) -> Response:
    return problem(error, request.url.path)


class _Web(StaticFiles):
    """The web page's parts, under its policy."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def dressed(message: Any) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", WEB_POLICY.encode())
                message = {**message, "headers": [*message.get("headers", []), policy, (b"cache-control", b"no-cache")]}
            await send(message)

        await super().__call__(scope, receive, dressed)
