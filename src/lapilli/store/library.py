"""The models on this machine: a folder of ours in Ollama's layout, and Ollama's own, which is only read.

library = Library(root, others=[Path("~/.ollama/models").expanduser()])
package = library.find("llava")

docs/store.md tells what lies where.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

from lapilli.errors import InputError, ModelNotFoundError, StoreError
from lapilli.ground.files import open_regular
from lapilli.ground.owner import ABANDONED_SECONDS
from lapilli.store.adapted import over_its_base
from lapilli.store.blobs import Blobs, hash_file, parse_digest
from lapilli.store.fetched import Fetched
from lapilli.store.linked import LinkedFolders, is_file_of_model
from lapilli.store.manifests import (
    ADAPTER,
    CONFIG,
    JSON,
    LICENSE,
    MESSAGES,
    MODEL,
    PARAMETERS,
    PROJECTOR,
    PROMPT,
    SYSTEM,
    TEMPLATE,
    TENSOR,
    Layer,
    Manifest,
)
from lapilli.store.naming import ModelName
from lapilli.store.package import Package
from lapilli.store.shelf import Shelf
from lapilli.store.sources import BUILT_IN, built_in, built_in_name, package_at, read_hub_name
from lapilli.store.workshops import Workshops

logger = logging.getLogger(__name__)

_TEXTS = (TEMPLATE, PROMPT, SYSTEM, PARAMETERS, MESSAGES, LICENSE)
_DIGEST = re.compile(rb"sha256[:-]([0-9a-f]{64})")


class Library:
    """The models of one store, with those of other stores that are only read; safe with many threads and processes.

    Names are matched whatever their case. Nothing is made on disk before something is put in.
    """

    def __init__(self, root: Path, others: Sequence[Path] = ()) -> None:
        self.root = Path(root)
        self.blobs = Blobs(self.root / "blobs")
        self._shelf = Shelf(self.root / "manifests")
        self._folders = LinkedFolders(self.root / "folders")
        self._fetched = Fetched(self.root / "hub")
        self._workshops = Workshops(self.root / "making")
        elsewhere = [Path(other) for other in others if Path(other).absolute() != self.root.absolute()]
        self._others = [(Shelf(other / "manifests"), Blobs(other / "blobs")) for other in elsewhere]

    def names(self) -> list[ModelName]:
        """The names of all models: the built-in ones, ours, and those of other stores."""
        found = {name.key: name for name in map(ModelName.parse, BUILT_IN)}
        for shelf in self._shelves:
            for name, _ in shelf.names():
                found.setdefault(name.key, name)
        return list(found.values())

    def packages(self) -> list[Package]:
        """All models, the latest first; one whose manifest is damaged is left out, and told of in the log."""
        found = [_built_in_package(name) for name in BUILT_IN]
        seen = {ModelName.parse(name).key for name in BUILT_IN}
        for shelf in self._shelves:
            for name, path in shelf.names():
                if name.key in seen:
                    continue
                seen.add(name.key)
                with contextlib.suppress(ModelNotFoundError):  # removed just now
                    try:
                        found.append(self._package(shelf, path))
                    except StoreError as error:
                        logger.warning("%s: %s", name.short, error)
        fetched = (package_at(folder, text) for text, folder in self._fetched)
        found += [package for package in fetched if package is not None]
        return sorted(found, key=lambda package: package.modified, reverse=True)

    def find(self, name: str | ModelName, *, paths: bool = False) -> Package:
        """The model of that name: built in, stored, `hf:owner/name[@revision]`, or with `paths` what lies at a path.

        A path that says it is one (`./mini`) comes first, another after the names. An adapter's folder is the model
        that it names, with that adapter.
        Raises ModelNotFoundError, StoreError where the model's manifest is damaged, InputError for no name at all.
        """
        found = self._find(name, paths)
        return over_its_base(found, lambda base: self._find(base, paths))

    def _find(self, name: str | ModelName, paths: bool) -> Package:
        text = str(name)
        if paths and _is_path(text) and (package := package_at(Path(text).expanduser(), text)):
            return package
        try:
            package = self._find_named(name)
        except InputError:
            package = None
            if not paths:
                raise
        if package is None and paths:
            package = package_at(Path(text).expanduser(), text)
        if package is None:
            raise ModelNotFoundError(f"model {text[:400]!r} not found")
        return package

    def manifest(self, name: str | ModelName) -> Manifest:
        """The manifest of a stored model; of a built-in one, whose files become blobs of ours, what it would be.

        Raises ModelNotFoundError, StoreError, InputError.
        """
        parsed = ModelName.parse(name) if isinstance(name, str) else name
        known = built_in_name(parsed)
        if known is not None:
            return self._manifest_of(_built_in_package(known))
        for shelf in self._shelves:
            path = shelf.locate(parsed)
            if path is not None:
                return shelf.read(path)
        raise ModelNotFoundError(f"model {parsed.short!r} not found")

    def blob(self, digest: str) -> Path | None:
        """Where a blob lies, in our store or in another; None where it is in none."""
        for blobs in self._stores:
            if blobs.has(digest):
                return blobs.path(digest)
        return None

    def digest_at(self, path: Path) -> str | None:
        """The digest of the blob that lies at a path, None where it is no blob of any store."""
        return next((parse_digest(path.name) for blobs in self._stores if path.parent == blobs.root), None)

    def writable(self, name: str | ModelName, doing: str = "replaced") -> ModelName:
        """A name that a model of ours can have. Raises InputError for one that is built in, or no name at all."""
        parsed = ModelName.parse(name) if isinstance(name, str) else name
        if (known := built_in_name(parsed)) is not None:
            raise InputError(f"{known} is built in and cannot be {doing}")
        return parsed

    def publish(self, name: str | ModelName, manifest: Manifest) -> None:
        """Put a model under a name, once all its blobs are here; another of that name gives way.

        Raises StoreError where a blob is missing, InputError for a name that is built in.
        """
        target = self.writable(name)
        with self._shelf.lock():
            for layer in manifest:
                if (fault := self._fault(layer)) is not None:
                    raise StoreError(f"{target.short}: {fault}")
            self._shelf.write(target, manifest)

    def copy(self, source: str | ModelName, target: str | ModelName) -> None:
        """Give a model a second name. Raises ModelNotFoundError, StoreError, InputError."""
        self.writable(target)
        self.publish(target, self.manifest(source))

    def remove(self, name: str | ModelName) -> None:
        """Remove a model of ours, and those of its blobs that no other needs.

        Raises ModelNotFoundError, InputError for one that is built in or another store's.
        """
        hub = read_hub_name(str(name))
        if hub is not None:
            self._fetched.remove(str(name), *hub)
            return
        parsed = self.writable(name, "removed")
        with self._shelf.lock():
            path = self._shelf.locate(parsed)
            if path is None:
                if self.blobs.abandon_for(parsed.short):
                    return  # a pull of it was never finished
                if any(shelf.locate(parsed) for shelf, _ in self._others):
                    raise InputError(f"{parsed.short} lies in another program's store, which is only read here")
                raise ModelNotFoundError(f"model {parsed.short!r} not found")
            published, raw = self._shelf.written(path), self._shelf.raw(path)
            self._shelf.remove(path)
            needed, busy = self._needed(), self._workshops.busy()
            for digest in _digests(raw) - needed:
                # One touched since may be what a live writer is about to publish: pruning takes it if nobody did.
                if self.blobs.has(digest) and not (busy and self.blobs.path(digest).stat().st_mtime > published):
                    self.blobs.remove(digest)
            self._folders.prune(self._linked())

    def check(self) -> list[str]:
        """What is damaged, a line each: manifests that cannot be read, blobs that are missing or cut short."""
        found = []
        for shelf in self._shelves:
            for name, path in shelf.names():
                try:
                    faults = {self._fault(layer) for layer in shelf.read(path)} - {None}
                except ModelNotFoundError:
                    continue
                except StoreError as error:
                    faults = {str(error)}
                found += [f"{name.short}: {fault}: pull or create it again" for fault in sorted(map(str, faults))]
        return found

    def prune(self, older_than_seconds: float = ABANDONED_SECONDS) -> list[str]:
        """Remove what nobody needs and is older: blobs without a model, and what killed writers left.

        Returns the names of what was removed. What a live writer is at is never touched.
        """
        if not self.root.is_dir():
            return []
        with self._shelf.lock():
            removed = self.blobs.prune(self._needed(), older_than_seconds)
            removed += self._shelf.prune()
            removed += self._folders.prune(self._linked())
        return removed + self._workshops.prune(older_than_seconds) + self._fetched.prune(older_than_seconds)

    def hub_folder(self, owner: str, name: str, revision: str = "main") -> Path:
        """Where a repository of the Hugging Face hub is kept, or would be. Raises InputError for no such name."""
        return self._fetched.folder(owner, name, revision)

    def workshop(self) -> AbstractContextManager[Path]:
        """A folder on the store's disk to make something in; it is gone when the block ends, or at the next pruning.

        While it is there, blobs that were found of late stay, though nobody has published them yet.
        """
        return self._workshops.open()

    def linked(self, layers: Sequence[Layer]) -> Path:
        """A folder of these layers by their names, as links to the blobs. Raises StoreError."""
        if (path := self._folders.path(layers)).is_dir():
            return path
        with self._shelf.lock():
            return self._folders.link(layers, self._blob_or_fail)

    @property
    def _shelves(self) -> list[Shelf]:
        return [self._shelf, *(shelf for shelf, _ in self._others)]

    @property
    def _stores(self) -> list[Blobs]:
        return [self.blobs, *(blobs for _, blobs in self._others)]

    def _find_named(self, name: str | ModelName) -> Package | None:
        if isinstance(name, str) and (hub := read_hub_name(name)) is not None:
            return package_at(self.hub_folder(*hub), name)
        parsed = ModelName.parse(name) if isinstance(name, str) else name
        known = built_in_name(parsed)
        if known is not None:
            return _built_in_package(known)
        for shelf in self._shelves:
            path = shelf.locate(parsed)
            if path is not None:
                return self._package(shelf, path)
        return None

    def _package(self, shelf: Shelf, path: Path) -> Package:
        manifest = shelf.read(path)
        name = shelf.named(path).short
        adapters, files = _grouped(manifest.of(ADAPTER)), manifest.of(JSON, TENSOR)
        model = manifest.of(MODEL)
        if len(model) + bool(files) != 1:
            raise StoreError(f"{name}: the manifest must name one model, it names {len(model) + bool(files)}")
        wanted = [*adapters, *([files] if files else [])]
        folders = [self.linked(layers) for layers in wanted]
        projector = manifest.of(PROJECTOR)
        return Package(
            name=name,
            digest=manifest.digest,
            size=manifest.size,
            modified=datetime.fromtimestamp(shelf.written(path), UTC),
            model=folders.pop() if files else self._blob_or_fail(model[0].digest),
            projector=self._blob_or_fail(projector[0].digest) if projector else None,
            adapters=tuple(folders),
            blobs={kind: tuple(self._blob_or_fail(part.digest) for part in manifest.of(kind)) for kind in _TEXTS}
            | {CONFIG: (self._blob_or_fail(manifest.config.digest),)},
        )

    def _manifest_of(self, package: Package) -> Manifest:
        """A folder as a model of layers, its files made blobs of ours."""
        layers = []
        for path in sorted(package.model.iterdir()):
            if is_file_of_model(path.name):
                with open_regular(path) as file:
                    digest = hash_file(file)
                kind, blob = TENSOR if path.suffix == ".safetensors" else JSON, self.blobs.add_file(path, digest=digest)
                layers.append(Layer(kind, blob.digest, blob.size, path.name))
        for text in package.license:
            blob = self.blobs.add(text.encode())
            layers.append(Layer(LICENSE, blob.digest, blob.size))
        return Manifest(self.add_config(package.details, layers), tuple(layers))

    def add_config(self, details: dict[str, object], layers: Sequence[Layer], **more: str) -> Layer:
        """The layer that tells what a model is, made a blob of ours."""
        values = {
            "model_format": details["format"],
            "model_family": details["family"],
            "model_families": details["families"],
            "model_type": details["parameter_size"],
            "file_type": details["quantization_level"],
            **{name: value for name, value in more.items() if value},
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in layers]},
        }
        blob = self.blobs.add(json.dumps(values, separators=(",", ":")).encode())
        return Layer(CONFIG, blob.digest, blob.size)

    def _blob_or_fail(self, digest: str) -> Path:
        path = self.blob(digest)
        if path is None:
            raise StoreError(f"{digest} is missing: pull or create the model again")
        return path

    def _fault(self, layer: Layer) -> str | None:
        sizes = [size for blobs in self._stores if (size := blobs.size(layer.digest)) is not None]
        if not sizes:
            return f"{layer.digest} is missing"
        return None if sizes[0] == layer.size else f"{layer.digest} has {sizes[0]} bytes, must have {layer.size}"

    def _needed(self) -> set[str]:
        """The digests that our manifests name, those that are damaged too."""
        return {digest for _, path in self._shelf.names() for digest in _digests(self._shelf.raw(path))}

    def _linked(self) -> set[Path]:
        """The folders that our models and those of other stores are opened from."""
        found = set()
        for shelf in self._shelves:
            for _, path in shelf.names():
                with contextlib.suppress(StoreError, ModelNotFoundError):
                    manifest = shelf.read(path)
                    for layers in (*_grouped(manifest.of(ADAPTER)), manifest.of(JSON, TENSOR)):
                        found.add(self._folders.path(layers))
        return found


def _built_in_package(name: str) -> Package:
    package = package_at(built_in(name), ModelName.parse(name).short)
    if package is None:
        raise StoreError(f"{name} is missing from the package: install lapilli again")
    return package


def _grouped(layers: Sequence[Layer]) -> list[list[Layer]]:
    """Adapters one after another: each begins with its configuration."""
    groups: list[list[Layer]] = []
    for layer in layers:
        if layer.name == "adapter_config.json" or not groups:
            groups.append([])
        groups[-1].append(layer)
    return groups


def _digests(raw: bytes) -> set[str]:
    """The digests in a manifest, even in a damaged one."""
    found = {f"sha256:{digest.decode()}" for digest in _DIGEST.findall(raw)}
    with contextlib.suppress(StoreError):
        found |= {layer.digest for layer in Manifest.parse(raw)}
    return found


def _is_path(text: str) -> bool:
    return text.startswith(("/", "./", "../", "~", ".\\", "..\\")) or text in (".", "..") or text.endswith(".gguf")
