"""Manifests: which blobs a model is made of, in the words of Docker's registries and of Ollama.

Follows https://distribution.github.io/distribution/spec/manifest-v2-2/.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

from lapilli.errors import InputError, StoreError
from lapilli.store.blobs import parse_digest

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
_IMAGE = "application/vnd.ollama.image."
MODEL, PROJECTOR, ADAPTER = f"{_IMAGE}model", f"{_IMAGE}projector", f"{_IMAGE}adapter"
TEMPLATE, PROMPT, SYSTEM = f"{_IMAGE}template", f"{_IMAGE}prompt", f"{_IMAGE}system"
PARAMETERS, MESSAGES, LICENSE = f"{_IMAGE}params", f"{_IMAGE}messages", f"{_IMAGE}license"
TENSOR, JSON = f"{_IMAGE}tensor", f"{_IMAGE}json"

# No real one comes near these.
MAX_BYTES = 4 << 20
MAX_LAYERS = 1 << 13
MAX_SIZE = 1 << 50
MAX_TEXT = 1 << 10


@dataclass(frozen=True)
class Layer:
    """One blob of a model and what it is; `name` is that of a file where several make one thing."""

    media_type: str
    digest: str
    size: int
    name: str = ""

    def to_dict(self) -> dict[str, Any]:
        values: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        return values | {"name": self.name} if self.name else values


@dataclass(frozen=True)
class Manifest:
    """What a model is made of. `raw` are the bytes that it was read from: their hash is the model's digest."""

    config: Layer
    layers: tuple[Layer, ...]
    raw: bytes = field(default=b"", compare=False, repr=False)

    @classmethod
    def parse(cls, raw: bytes) -> Manifest:
        """Read a manifest, trusting none of it. Raises StoreError that says what is wrong with it."""
        if len(raw) > MAX_BYTES:
            _refuse(f"has {len(raw)} bytes, at most {MAX_BYTES} are read")
        try:
            values = json.loads(raw)
        except (ValueError, RecursionError):
            _refuse("is no valid JSON")
        if not isinstance(values, dict):
            _refuse(f"must be an object, it is {_kind(values)}")
        if values.get("schemaVersion", 2) != 2:
            _refuse(f"has schemaVersion {str(values['schemaVersion'])[:20]}, must have 2")
        layers = values.get("layers")
        if not isinstance(layers, list) or not layers:
            _refuse("must have a list of layers, and at least one")
        if len(layers) > MAX_LAYERS:
            _refuse(f"has {len(layers)} layers, at most {MAX_LAYERS} are read")
        found = cls(_layer(values.get("config"), "config"), tuple(_layer(item, "a layer") for item in layers), raw)
        sizes: dict[str, int] = {}
        for layer in found:
            if sizes.setdefault(layer.digest, layer.size) != layer.size:
                _refuse(f"says of {layer.digest} that it has {sizes[layer.digest]} bytes, and {layer.size}")
        return found

    def to_bytes(self) -> bytes:
        """The manifest as it is stored and sent: the bytes it was read from, where it was."""
        if self.raw:
            return self.raw
        values = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.config.to_dict(),
            "layers": [layer.to_dict() for layer in self.layers],
        }
        return json.dumps(values, separators=(",", ":")).encode()

    @property
    def digest(self) -> str:
        """The model's digest: 64 hex digits."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all blobs together."""
        return sum(layer.size for layer in self)

    def __iter__(self) -> Iterator[Layer]:
        """The configuration, then the layers."""
        yield self.config
        yield from self.layers

    def of(self, *media_types: str) -> list[Layer]:
        """The layers of these types, in order."""
        return [layer for layer in self.layers if layer.media_type in media_types]


def _layer(values: object, what: str) -> Layer:
    if not isinstance(values, dict):
        _refuse(f"must have an object for {what}, it has {_kind(values)}")
    kind, digest, size, name = (values.get(key) for key in ("mediaType", "digest", "size", "name"))
    if not isinstance(kind, str) or not 0 < len(kind) <= MAX_TEXT:
        _refuse(f"must have text as mediaType of {what}")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_SIZE:
        _refuse(f"has {what} of {str(size)[:24]} bytes")
    if name is not None and (not isinstance(name, str) or len(name) > MAX_TEXT):
        _refuse(f"must have text as name of {what}")
    try:
        canonical = parse_digest(digest)
    except InputError as error:
        _refuse(f"has {what} with an {error}")
    return Layer(kind, canonical, size, name or "")


def _kind(value: object) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"


def _refuse(why: str) -> NoReturn:
    raise StoreError(f"the manifest {why}")
