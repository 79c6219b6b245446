"""Ollama's calls about models: tags, ps, show, copy, delete, create, pull, push, blobs."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from lapilli.errors import CheckpointError, InputError, LapilliError, ModelNotFoundError
from lapilli.faces.server.bodies import read_json
from lapilli.faces.server.problems import ClientGoneError, HttpError
from lapilli.faces.server.streams import Json, whole
from lapilli.faces.server.transfers import told
from lapilli.ground.settings import Settings
from lapilli.store import create as making
from lapilli.store import registry
from lapilli.store.blobs import parse_digest
from lapilli.store.library import Library
from lapilli.store.naming import ModelName
from lapilli.store.package import Package
from lapilli.store.progress import SUCCESS, Report
from lapilli.store.sources import built_in_name, read_hub_name
from lapilli.store.transfer import TransferSettings
from lapilli.wire import fields
from lapilli.wire.durations import moment

log = logging.getLogger("lapilli.server")

FOR_EVER = datetime(2318, 1, 1, tzinfo=UTC)


def routes() -> list[Route]:
    """The routes of this file."""
    return [
        Route("/api/tags", tags, methods=["GET"]),
        Route("/api/ps", ps, methods=["GET"]),
        Route("/api/show", show, methods=["POST"]),
        Route("/api/copy", copy, methods=["POST"]),
        Route("/api/delete", delete, methods=["DELETE"]),
        Route("/api/create", create, methods=["POST"]),
        Route("/api/pull", pull, methods=["POST"]),
        Route("/api/push", push, methods=["POST"]),
        Route("/api/blobs/{digest:path}", has_blob, methods=["HEAD"]),
        Route("/api/blobs/{digest:path}", put_blob, methods=["POST"]),
    ]


async def tags(request: Request) -> Response:
    """`GET /api/tags`: what is in the store, the latest first."""
    return Json({"models": await asyncio.to_thread(_listed, _library(request))})


async def ps(request: Request) -> Response:
    """`GET /api/ps`: what is in memory, the longest to stay first."""
    residents = sorted(request.app.state.residents.running(), key=lambda one: one.expires_at or FOR_EVER, reverse=True)
    found = []
    for resident in residents:
        facts = resident.process.facts
        memory = await asyncio.to_thread(resident.process.memory_bytes)
        found.append(
            {
                "name": resident.package.name,
                "model": resident.package.name,
                "size": memory,
                "digest": resident.package.digest,
                "details": resident.package.details,
                "expires_at": moment(resident.expires_at or FOR_EVER),
                "size_vram": 0 if facts.device == "cpu" else memory,
                "context_length": facts.context_length,
            }
        )
    return Json({"models": found})


async def show(request: Request) -> Response:
    """`POST /api/show`."""
    body = await read_json(request)
    name, verbose = _name(body), fields.flag(body, "verbose")

    def look() -> dict[str, Any]:
        return _find(_library(request), name).show(verbose)

    found = await whole(request, asyncio.to_thread(look))
    system = fields.text(body, "system")
    return Json({**found, **({"system": system} if system else {})})


async def copy(request: Request) -> Response:
    """`POST /api/copy`."""
    body = await read_json(request)
    source, target = fields.text(body, "source"), fields.text(body, "destination")
    ModelName.parse(source), ModelName.parse(target)
    try:
        await asyncio.to_thread(_library(request).copy, source, target)
    except ModelNotFoundError:
        raise ModelNotFoundError(f'model "{source}" not found') from None
    return Response()


async def delete(request: Request) -> Response:
    """`DELETE /api/delete`; whoever is being answered by the model is answered to the end."""
    body = await read_json(request)
    name = _name(body)
    library = _library(request)
    package = await asyncio.to_thread(_find, library, name)
    await asyncio.to_thread(library.remove, name)
    await _unload(request, package)
    return Response()


async def create(request: Request) -> Response:
    """`POST /api/create`."""
    body = await read_json(request)
    name = _name(body)
    order = making.CreateRequest.from_dict(body)

    def work(report: Report, cancel: threading.Event) -> None:
        def fetch(source: str) -> None:
            _pull(request, source, False, lambda step: report(step) if step.status != SUCCESS else None, cancel)

        try:
            making.create(_library(request), name, order, progress=report, cancel=cancel, pull=fetch)
        except CheckpointError as error:
            raise InputError(str(error)) from None  # what was sent is no model: no fault of this server's

    return await told(request, request.app.state.transfers.steps(work), stream=fields.flag(body, "stream", True))


async def pull(request: Request) -> Response:
    """`POST /api/pull`."""
    return await _transfer(request, _pull)


async def push(request: Request) -> Response:
    """`POST /api/push`."""
    return await _transfer(request, _push)


async def has_blob(request: Request) -> Response:
    """`HEAD /api/blobs/…`."""
    digest = parse_digest(request.path_params["digest"])
    there = await asyncio.to_thread(_library(request).blobs.has, digest)
    return Response(status_code=200 if there else 404)


async def put_blob(request: Request) -> Response:
    """`POST /api/blobs/…`: into the store as it comes, never whole in memory."""
    digest = parse_digest(request.path_params["digest"])
    blobs = _library(request).blobs
    chunks = request.stream()
    if await asyncio.to_thread(blobs.has, digest):
        async for _ in chunks:  # so that the client can finish its sentence
            pass
        return Response(status_code=200)
    length = request.headers.get("content-length")
    loop = asyncio.get_running_loop()

    def pieces() -> Iterator[bytes]:
        """The body's pieces, for a thread."""
        while True:
            piece = asyncio.run_coroutine_threadsafe(_next(chunks), loop).result()
            if piece is None:
                return
            yield piece

    await asyncio.to_thread(blobs.add, pieces(), digest=digest, size=int(length) if length else None)
    return Response(status_code=201)


async def _next(chunks: AsyncIterator[bytes]) -> bytes | None:
    try:
        return await anext(chunks, None)
    except ClientDisconnect:
        raise ClientGoneError("the client left while it was sending") from None


async def _transfer(request: Request, move: Callable[[Request, str, bool, Report, threading.Event], None]) -> Response:
    body = await read_json(request)
    name, insecure = _name(body), fields.flag(body, "insecure")
    steps = request.app.state.transfers.steps(lambda report, cancel: move(request, name, insecure, report, cancel))
    return await told(request, steps, stream=fields.flag(body, "stream", True))


def _pull(request: Request, name: str, insecure: bool, report: Report, cancel: threading.Event) -> None:
    settings: Settings = request.app.state.settings
    hub_name = read_hub_name(name)
    if hub_name is not None:
        from lapilli.store import hub  # brings much along that only this needs

        check_outward(settings, None)
        owner, repository, revision = hub_name
        hub.pull_hub(_library(request), f"{owner}/{repository}", revision, report, cancel=cancel)
        return
    if built_in_name(ModelName.parse(name)) is not None:
        return  # it is here, and nowhere else
    check_outward(settings, ModelName.parse(name))
    how = transfer_settings(settings)
    registry.pull(_library(request), name, insecure=insecure, progress=report, cancel=cancel, settings=how)


def _push(request: Request, name: str, insecure: bool, report: Report, cancel: threading.Event) -> None:
    settings: Settings = request.app.state.settings
    check_outward(settings, ModelName.parse(name))
    how = transfer_settings(settings)
    registry.push(_library(request), name, insecure=insecure, progress=report, cancel=cancel, settings=how)


def check_outward(settings: Settings, name: ModelName | None) -> None:
    """Raise HttpError 403 where nothing may leave this machine, or not to that registry."""
    if settings.offline:
        raise HttpError(403, "this server reaches out to nobody: LAPILLI_OFFLINE is set")
    allowed = settings.allowed_registries
    if allowed and name is not None and name.host.lower() not in {host.lower() for host in allowed}:
        raise HttpError(403, f"the registry {name.host} is not one of LAPILLI_ALLOWED_REGISTRIES")


def transfer_settings(settings: Settings) -> TransferSettings:
    """How pulls and pushes go, as the settings want it."""
    return TransferSettings(
        streams=settings.max_transfer_streams, allowed_registries=frozenset(settings.allowed_registries)
    )


async def _unload(request: Request, package: Package) -> None:
    try:
        await request.app.state.residents.unload(package.name)
    except LapilliError as error:
        log.info("%s was removed, and was not in memory: %s", package.name, error)


def _listed(library: Library) -> list[dict[str, Any]]:
    """What `tags` says of each; a damaged model is left out, and named in the log."""
    found = []
    for package in sorted(library.packages(), key=lambda package: package.modified, reverse=True):
        try:
            # A model of many files is put together in a folder when it is found for the first time.
            whole = package if package.model.exists() else library.find(package.name)
            found.append(
                {
                    "name": package.name,
                    "model": package.name,
                    "modified_at": moment(package.modified),
                    "size": package.size,
                    "digest": package.digest,
                    "details": whole.details,
                    "capabilities": list(whole.capabilities),
                }
            )
        except LapilliError as error:
            log.warning("%s cannot be listed: %s", package.name, error)
    return found


def _name(body: Any) -> str:
    """The model that a request names, by `model` or by its older word `name`, in a valid form."""
    name = fields.text(body, "model") or fields.text(body, "name")
    if not name:
        raise InputError("model is required")
    if read_hub_name(name) is None:
        ModelName.parse(name)
    return name


def _find(library: Library, name: str) -> Package:
    try:
        return library.find(name)
    except ModelNotFoundError:
        raise ModelNotFoundError(f"model '{name}' not found") from None


def _library(request: Request) -> Library:
    library: Library = request.app.state.library
    return library
