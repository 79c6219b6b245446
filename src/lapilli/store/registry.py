"""Models from a registry into the library, and back: what `pull` and `push` do.

pull(library, "llava", progress=print)
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from lapilli.errors import FetchError, InputError, RegistryError, StoreError
from lapilli.ground.door import Answer
from lapilli.store import progress as words
from lapilli.store.blobs import parse_digest
from lapilli.store.library import Library
from lapilli.store.manifests import MANIFEST, MAX_BYTES, Layer, Manifest
from lapilli.store.naming import ModelName
from lapilli.store.partials import claim, completed_by_another
from lapilli.store.progress import Progress, Report, say_nothing
from lapilli.store.remote import Remote, RemoteBlob, read_body
from lapilli.store.transfer import Interrupted, TransferSettings, download, retry_after

_T = TypeVar("_T")
_TRIES = 4  # for what is small
_WAIT = 0.2
_RENEW = 60.0
_CHUNK = 1 << 20


def pull(
    library: Library,
    name: str | ModelName,
    *,
    insecure: bool = False,
    progress: Report | None = None,
    cancel: threading.Event | None = None,
    settings: TransferSettings | None = None,
) -> Manifest:
    """Fetch a model from its registry into the library; what an earlier pull got already is not fetched again.

    `progress` is called from this thread. With `insecure` the registry is spoken to over http. `cancel` ends it soon.
    Raises RegistryError, whose `status` is the HTTP status that fits it; InputError for a name that is none, or built
    in; NoRoomError before the first byte of a layer where the disk is too small; StoreError.
    """
    parsed = library.writable(name)
    settings, report = settings or TransferSettings(), progress or say_nothing
    with _session(parsed, "pull", insecure, settings, cancel) as (remote, stop):
        report(Progress(words.PULLING_MANIFEST))
        manifest = _often(lambda: _get_manifest(remote), settings, stop)
        layers = {layer.digest: layer for layer in (*manifest.layers, manifest.config)}
        library.blobs.need_room(sum(_absent(library, layer) for layer in layers.values()))
        renew = _Renewer(library, list(layers))
        with library.workshop():  # removing another model meanwhile leaves what was found here
            for layer in layers.values():
                _pull_layer(library, remote, layer, report, renew, stop, settings)
            report(Progress(words.VERIFYING))
            report(Progress(words.WRITING_MANIFEST))
            library.publish(parsed, manifest)
    report(Progress(words.SUCCESS))
    return manifest


def push(
    library: Library,
    name: str | ModelName,
    *,
    insecure: bool = False,
    progress: Report | None = None,
    cancel: threading.Event | None = None,
    settings: TransferSettings | None = None,
) -> None:
    """Send a model of the library to its registry; blobs that are there already are not sent.

    Raises RegistryError, ModelNotFoundError, InputError, StoreError.
    """
    parsed = ModelName.parse(name) if isinstance(name, str) else name
    settings, report = settings or TransferSettings(), progress or say_nothing
    report(Progress(words.RETRIEVING_MANIFEST))
    manifest = library.manifest(parsed)
    with _session(parsed, "push", insecure, settings, cancel) as (remote, stop):
        for layer in {layer.digest: layer for layer in (*manifest.layers, manifest.config)}.values():
            path = library.blob(layer.digest)
            if path is None:
                raise StoreError(f"{layer.digest} is missing: pull or create the model again")
            push_one = _Push(remote, layer, path, report, stop, settings.least_part)
            _often(push_one.run, settings, stop, settings.attempts)
        report(Progress(words.PUSHING_MANIFEST))
        _often(lambda: _put_manifest(remote, manifest), settings, stop)
    report(Progress(words.SUCCESS))


@contextmanager
def _session(
    name: ModelName, doing: str, insecure: bool, settings: TransferSettings, cancel: threading.Event | None
) -> Iterator[tuple[Remote, threading.Event]]:
    """A registry to talk to, until the block ends or `cancel` breaks it off; trouble comes out as RegistryError."""
    stop, done = cancel or threading.Event(), threading.Event()
    actions = "pull" if doing == "pull" else "pull,push"
    with Remote(name, insecure=insecure, actions=actions, settings=settings) as remote:

        def watch() -> None:
            while not done.wait(0.05):
                if stop.is_set():
                    remote.hang_up()
                    return

        watcher = threading.Thread(target=watch, name="cancel", daemon=True)
        watcher.start()
        try:
            if stop.is_set():
                raise Interrupted
            yield remote, stop
        except (FetchError, RegistryError, Interrupted) as error:
            if stop.is_set():
                raise RegistryError(f"the {doing} of {name.short} was cancelled", 499) from None
            if isinstance(error, FetchError):
                raise RegistryError(f"{doing} {name.short}: {error}", error.status) from None
            raise
        finally:
            done.set()
            watcher.join()


class _Again(Exception):
    """Trouble that another try may get over."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


def _often(step: Callable[[], _T], settings: TransferSettings, stop: threading.Event, tries: int = _TRIES) -> _T:
    """Do something that may fail on the way; after a pause again, the longer the more often it failed."""
    wait = settings.backoff
    for left in reversed(range(min(tries, settings.attempts))):
        asked = 0.0
        try:
            return step()
        except FetchError as error:
            if not left or error.status in (400, 403, 499):
                raise
        except _Again as error:
            if not left:
                raise RegistryError(str(error)) from None
            asked = error.wait
        if stop.wait(min(max(wait, asked), settings.longest_backoff)):
            raise Interrupted
        wait *= 2
    raise AssertionError("no try")


def _refused(what: str, answer: Answer) -> Exception:
    """What an answer that is none means: another try, or the end."""
    if answer.status in (408, 425, 429) or answer.status >= 500:
        return _Again(f"{what}: the registry answered with status {answer.status}", retry_after(answer))
    return RegistryError(f"{what}: the registry answered with status {answer.status}")


# Pull


def _get_manifest(remote: Remote) -> Manifest:
    what = "pull model manifest"
    url = remote.base.join(f"{remote.base.target}manifests/{remote.name.tag}")
    with remote.get(url, {"Accept": MANIFEST}) as (answer, _):
        if answer.status == 404:
            raise RegistryError(f"{what}: file does not exist", 500)
        if answer.status != 200:
            raise _refused(what, answer)
        raw = read_body(answer, MAX_BYTES)
        told = answer.headers.get("docker-content-digest", "")
    try:
        expected = parse_digest(told)
    except InputError:
        expected = None
    if expected and expected != f"sha256:{hashlib.sha256(raw).hexdigest()}":
        raise _Again(f"{what}: it was damaged on its way")
    try:
        return Manifest.parse(raw)
    except StoreError as error:
        raise RegistryError(f"{what}: {error}", 400) from None


def _absent(library: Library, layer: Layer) -> int:
    """Bytes that a layer will take on our disk."""
    if library.blob(layer.digest) is not None:
        return 0
    return max(0, layer.size - completed_by_another(library.blobs, layer.digest))


def _pull_layer(
    library: Library,
    remote: Remote,
    layer: Layer,
    report: Report,
    renew: Callable[[], None],
    stop: threading.Event,
    settings: TransferSettings,
) -> None:
    def tell(completed: int) -> None:
        report(Progress.layer("pulling", layer.digest, layer.size, completed))
        renew()

    while not _is_here(library, layer):
        partial = claim(library.blobs, layer.digest, layer.size, settings.segment, remote.name.short)
        if partial is None:
            tell(completed_by_another(library.blobs, layer.digest))
            if stop.wait(_WAIT):
                raise Interrupted
            continue
        try:
            # Whoever was at it may have ended between the two questions.
            if not _is_here(library, layer):
                tell(partial.completed)
                download(RemoteBlob(remote, layer.digest, layer.size), partial, settings, stop, tell)
                partial.finish()
        finally:
            partial.release()
    library.blobs.renew(layer.digest)
    tell(layer.size)


def _is_here(library: Library, layer: Layer) -> bool:
    path = library.blob(layer.digest)
    if path is None:
        return False
    size = path.stat().st_size
    if size == layer.size:
        return True
    raise StoreError(
        f"{layer.digest} has {size} bytes here, and {layer.size} by the registry's manifest: "
        "remove the models that use it and pull again"
    )


class _Renewer:
    """Keeps what a long pull already has from looking old, now and then."""

    def __init__(self, library: Library, digests: list[str]) -> None:
        self._blobs = library.blobs
        self._digests = digests
        self._last = time.monotonic()

    def __call__(self) -> None:
        if time.monotonic() - self._last > _RENEW:
            self._last = time.monotonic()
            for digest in self._digests:
                self._blobs.renew(digest)


# Push


class _Push:
    """One layer on its way out."""

    def __init__(
        self, remote: Remote, layer: Layer, path: Path, report: Report, stop: threading.Event, part: int
    ) -> None:
        self._remote = remote
        self._layer = layer
        self._path = path
        self._report = report
        self._stop = stop
        self._part = part

    def run(self) -> None:
        """Send the layer, from its start. Raises _Again where another try may get further."""
        layer, base = self._layer, self._remote.base
        what = f"push {layer.digest}"
        self._tell(0)
        with self._remote.ask("HEAD", base.join(f"{base.target}blobs/{layer.digest}")) as answer:
            if answer.status == 200:
                self._tell(layer.size)
                return
            if answer.status != 404:
                raise _refused(what, answer)
        with self._remote.ask("POST", base.join(f"{base.target}blobs/uploads/")) as answer:
            if answer.status != 202 or "location" not in answer.headers:
                raise _refused(what, answer)
            at = base.join(answer.headers["location"])
        for start in range(0, layer.size, self._part):
            stop = min(start + self._part, layer.size)
            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Length": str(stop - start),
                "Content-Range": f"{start}-{stop - 1}",
            }
            with self._remote.ask("PATCH", at, headers, self._read(start, stop)) as answer:
                if answer.status == 401:
                    raise _Again(f"{what}: the registry's token ran out")
                if answer.status not in (202, 204) or "location" not in answer.headers:
                    raise _refused(what, answer)
                at = at.join(answer.headers["location"])
        mark = "&" if "?" in at.target else "?"
        with self._remote.ask("PUT", at.join(f"{at.target}{mark}digest={layer.digest}")) as answer:
            if answer.status not in (201, 204):
                raise _refused(what, answer)

    def _read(self, start: int, stop: int) -> Iterator[bytes]:
        with open(self._path, "rb") as file:
            file.seek(start)
            while start < stop:
                if self._stop.is_set():
                    raise Interrupted
                chunk = file.read(min(stop - start, _CHUNK))
                if not chunk:
                    raise StoreError(f"{self._layer.digest} is shorter than its {self._layer.size} bytes")
                yield chunk
                start += len(chunk)
                self._tell(start)

    def _tell(self, completed: int) -> None:
        self._report(Progress.layer("pushing", self._layer.digest, self._layer.size, completed))


def _put_manifest(remote: Remote, manifest: Manifest) -> None:
    url = remote.base.join(f"{remote.base.target}manifests/{remote.name.tag}")
    with remote.ask("PUT", url, {"Content-Type": MANIFEST}, manifest.to_bytes()) as answer:
        if answer.status not in (200, 201, 202, 204):
            raise _refused("push model manifest", answer)
