"""Making a model of others: of a stored one, of GGUF files, or of a checkpoint folder, with what a Modelfile says.

create(library, "mine", CreateRequest(source="mini", system="You count."), progress=print)
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lapilli.errors import CheckpointError, InputError, ModelNotFoundError, TemplateError
from lapilli.ground.amounts import count_text
from lapilli.ground.files import open_regular
from lapilli.inputs.chat import Message, TextPart
from lapilli.inputs.templates import ChatTemplate, TemplateText
from lapilli.store.blobs import parse_digest
from lapilli.store.checks import MODEL_FILE, Kind, check_adapter, check_gguf
from lapilli.store.convert import CancelledError, convert
from lapilli.store.description import read_header
from lapilli.store.library import Library
from lapilli.store.linked import is_file_of_model, link
from lapilli.store.manifests import (
    ADAPTER,
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
from lapilli.store.package import NEEDS, Package, usual_parameters
from lapilli.store.progress import SUCCESS, WRITING_MANIFEST, Progress, Report, say_nothing
from lapilli.store.request import PICKLES, PLAIN, Found, read_quantization
from lapilli.store.request import CreateRequest as CreateRequest

NO_DIGEST = "0000000000000000000"
"""What stands for a digest where none is known yet."""

_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def create(
    library: Library,
    name: str,
    request: CreateRequest,
    *,
    progress: Report = say_nothing,
    cancel: threading.Event | None = None,
    pull: Callable[[str], None] | None = None,
) -> None:
    """Make a model and put it under a name; it is there whole, or what was there before is.

    `pull` fetches a source that is not here. Raises InputError, CheckpointError and TemplateError for what was asked,
    ModelNotFoundError for an unknown source, StoreError where the disk refuses or `cancel` is set.
    """
    target = library.writable(name)
    if not request.source and not request.files:
        raise InputError("neither 'from' or 'files' was specified")
    if request.template:
        check_template(request.template)
    with library.workshop() as shop:
        making = _Making(library, request, shop, progress, cancel)
        making.take_source(pull)
        making.take_files()
        making.quantize()
        making.take_adapters()
        making.take_texts()
        library.publish(target, making.manifest())
    progress(Progress(SUCCESS))


class _Making:
    """A model that is being made: the layers it has so far, and what is known of it."""

    def __init__(
        self,
        library: Library,
        request: CreateRequest,
        shop: Path,
        progress: Report,
        cancel: threading.Event | None,
    ) -> None:
        self.library, self.request, self.shop = library, request, shop
        self.progress, self.cancel = progress, cancel
        self.layers: list[Layer] = []
        self.details: dict[str, Any] = {}
        self.kind = read_quantization(request.quantize)
        self.usual: dict[str, Any] = {}
        self.needs: dict[str, str] = {}

    def take_source(self, pull: Callable[[str], None] | None) -> None:
        """Begin with a model that is here, or can be fetched."""
        if not self.request.source:
            return
        try:
            package = self.library.find(self.request.source)
        except ModelNotFoundError:
            if pull is None:
                raise
            pull(self.request.source)
            package = self.library.find(self.request.source)
        if package.name.startswith("hf:"):
            self._take_paths(_files_of(package))
            return
        for layer in self.library.manifest(self.request.source).layers:
            self._reuse(layer)
        self.details, self.needs = dict(package.details), package.needs

    def take_files(self) -> None:
        """Add the files of a model, or of its projector."""
        if self.request.files:
            self._take_paths({name: self._path(found) for name, found in self.request.files.items()})

    def _take_paths(self, paths: Mapping[str, Path]) -> None:
        for name in paths:
            if name.lower().endswith(PICKLES):
                raise InputError(f"{name[:200]}: may be pickle, which can run code; only safetensors and GGUF are read")
        folder = {name: path for name, path in paths.items() if is_file_of_model(name)}
        if any(name.endswith(".safetensors") for name in folder):
            self._convert_folder(folder)
            return
        self.progress(Progress("parsing GGUF"))
        found: dict[str, Path] = {}
        for name, path in paths.items():
            kind = MODEL if _checked(name, path) == MODEL_FILE else PROJECTOR
            if kind in found:
                raise InputError(f"two files are a {kind.rsplit('.', 1)[-1]}: give one model, and one projector")
            found[kind] = path
        for kind, path in found.items():
            self._put(kind, path)
        self._describe()

    def _convert_folder(self, files: Mapping[str, Path]) -> None:
        """Make GGUF of a folder's files, quantized right away where that is wanted."""
        self.progress(Progress("converting model"))
        folder = _folder_of(files, self.shop / "model")
        stored, status = read_header(folder).file_type, "converting model"
        if self.kind is not None and self.kind not in PLAIN:
            status = f"quantizing {stored} model to {self.kind}"
        self._convert(folder, status)
        self.kind = None
        self.usual = usual_parameters(folder)

    def quantize(self) -> None:
        """Bring the decoder to fewer bits; a projector stays as it is."""
        model, files = self._of(MODEL), self._of(JSON, TENSOR)
        if self.kind is None:
            return
        if files:
            self._without(JSON, TENSOR)
            self._convert_folder({layer.name: self._blob(layer.digest) for layer in files})
        elif model:
            path = self._blob(model[0].digest)
            stored = read_header(path).file_type
            if stored not in PLAIN:
                raise InputError(f"quantization is only supported for F16, BF16 and F32 models, not {stored}")
            if stored != self.kind:
                self._convert(path, f"quantizing {stored} model to {self.kind}")

    def _convert(self, source: Path, status: str) -> None:
        """Make GGUF of a file or a folder, in the precision that is wanted; its layers take the place of others."""

        def told(total: int, completed: int) -> None:
            self.progress(Progress(status, NO_DIGEST, total, completed))

        files = convert(source, self.shop / "model.gguf", self.kind, cancel=self.cancel, told=told)
        self.progress(Progress("verifying conversion"))
        for path in files:
            self._put(MODEL if check_gguf(path) == MODEL_FILE else PROJECTOR, path, move=True)
        self._describe()

    def take_adapters(self) -> None:
        """Add a LoRA, which takes the place of the source's."""
        given = self.request.adapters
        if not given:
            return
        gguf = [name for name in given if name.lower().endswith(".gguf")]
        missing = [name for name in _ADAPTER_FILES if name not in given]
        if gguf or missing:
            raise InputError(
                "an adapter is read in PEFT's layout, adapter_config.json and adapter_model.safetensors"
                + (f"; {gguf[0][:200]} is GGUF" if gguf else f"; {missing[0]} is missing")
            )
        paths = {name: self._path(given[name]) for name in _ADAPTER_FILES}
        self.progress(Progress("converting adapter"))
        check_adapter(_folder_of(paths, self.shop / "adapter"))
        self._without(ADAPTER)
        for name, path in paths.items():
            self._put(ADAPTER, path, name=name, replace_others=False)

    def take_texts(self) -> None:
        """Put what is said beside the weights in the place of the source's."""
        request = self.request
        if request.template is not None:
            self._without(TEMPLATE, PROMPT)
            self._put_text(TEMPLATE, request.template)
        if request.system is not None:
            self._without(SYSTEM)
            self._put_text(SYSTEM, request.system)
        for license in request.licenses:
            self._put_text(LICENSE, license)
        earlier = self._earlier_parameters()
        merged = self.usual | earlier | dict(request.parameters)
        if merged != earlier:
            self._without(PARAMETERS)
            self._put_text(PARAMETERS, json.dumps(merged, separators=(",", ":")))
        if request.messages:
            self._without(MESSAGES)
            self._put_text(MESSAGES, json.dumps([dict(message) for message in request.messages]))

    def manifest(self) -> Manifest:
        """All of it, its configuration written."""
        self._require_going_on()
        if not self._of(MODEL, TENSOR):
            raise InputError("a projector alone is no model: give the model's GGUF file as well")
        if self._of(TENSOR) and self._of(PROJECTOR):
            raise InputError("a projector file goes with a GGUF model; this one is a folder, and has its own")
        families = self.details["families"]
        if self._of(PROJECTOR) and "clip" not in families:
            self.details["families"] = [*families, "clip"]
        said = {name: value for name in NEEDS if (value := getattr(self.request, name))}
        config = self.library.add_config(self.details, self.layers, **(self.needs | said))
        self.progress(Progress(WRITING_MANIFEST))
        return Manifest(config, tuple(self.layers))

    def _path(self, found: Found) -> Path:
        """The file that was given; a path is never looked at where a digest was meant."""
        if isinstance(found, Path):
            return found
        path = self.library.blob(digest := parse_digest(found))
        if path is None:
            raise InputError(f'blob "{digest}" not found: send it first')
        return path

    def _blob(self, digest: str) -> Path:
        path = self.library.blob(digest)
        if path is None:
            raise CheckpointError(f"{digest} is missing: pull or create the model again")
        return path

    def _of(self, *media_types: str) -> list[Layer]:
        return [layer for layer in self.layers if layer.media_type in media_types]

    def _without(self, *media_types: str) -> None:
        self.layers = [layer for layer in self.layers if layer.media_type not in media_types]

    def _reuse(self, layer: Layer) -> None:
        self._require_going_on()
        self.layers.append(layer)
        self.progress(Progress(f"using existing layer {layer.digest}"))

    def _put(
        self, media_type: str, path: Path, *, name: str = "", move: bool = False, replace_others: bool = True
    ) -> None:
        """Make a file a layer, in the place of those of its kind; one that is a blob already is used as it is."""
        self._require_going_on()
        if replace_others:
            self._without(media_type, *((JSON, TENSOR) if media_type == MODEL else ()))
        known = self.library.digest_at(path)
        if known is not None:
            self._reuse(Layer(media_type, known, path.stat().st_size, name))
            return
        blob = self.library.blobs.add_file(path, move=move)
        self.layers.append(Layer(media_type, blob.digest, blob.size, name))
        self.progress(Progress(f"creating new layer {blob.digest}"))

    def _put_text(self, media_type: str, text: str) -> None:
        if not text:
            return
        self._require_going_on()
        raw = text.encode()
        known = self.library.blobs.has(f"sha256:{hashlib.sha256(raw).hexdigest()}")
        blob = self.library.blobs.add(raw)
        self.layers.append(Layer(media_type, blob.digest, blob.size))
        self.progress(Progress(f"{'using existing' if known else 'creating new'} layer {blob.digest}"))

    def _earlier_parameters(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for layer in self._of(PARAMETERS):
            with open_regular(self._blob(layer.digest)) as file:
                values = json.loads(file.read(4 << 20))
            found |= values if isinstance(values, dict) else {}
        return found

    def _describe(self) -> None:
        """Tell what the model is from its header; a projector alone changes nothing of it."""
        model = self._of(MODEL)
        if not model:
            return
        header = read_header(self._blob(model[0].digest))
        self.details = {
            "format": "gguf",
            "family": header.architecture,
            "families": [header.architecture, *(["clip"] if self._of(PROJECTOR) else [])],
            "parameter_size": count_text(header.parameters),
            "quantization_level": header.file_type,
        }

    def _require_going_on(self) -> None:
        if self.cancel is not None and self.cancel.is_set():
            raise CancelledError("cancelled")


def check_template(text: str) -> None:
    """See that a chat template can be run. Raises TemplateError that says where it fails."""
    told = TemplateText.of(text)
    template = ChatTemplate.from_text(told.language, text)
    if told.language == "go":
        return
    try:
        template.render([Message("user", (TextPart("Hello."),))])
    except TemplateError as error:
        if "refuses this conversation" not in str(error):
            raise


def _checked(name: str, path: Path) -> Kind:
    """What a file is part of, its errors told under the name that it was given."""
    try:
        return check_gguf(path)
    except CheckpointError as error:
        raise CheckpointError(str(error).replace(path.name, name[:200])) from None


def _files_of(package: Package) -> dict[str, Path]:
    if package.model.is_dir():
        return {path.name: path for path in sorted(package.model.iterdir()) if is_file_of_model(path.name)}
    return {path.name: path for path in (package.model, package.projector) if path is not None}


def _folder_of(files: Mapping[str, Path], fresh: Path) -> Path:
    """The folder that the files lie in under their names, or a fresh one with links to them."""
    folders = {path.parent for path in files.values()}
    if len(folders) == 1 and all(path.name == name for name, path in files.items()):
        return folders.pop()
    fresh.mkdir()
    for name, path in files.items():
        link(path, fresh / name)
    return fresh
