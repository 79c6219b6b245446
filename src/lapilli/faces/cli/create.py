"""`lapilli create`: a model out of a Modelfile, a folder or a GGUF file."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lapilli.errors import InputError
from lapilli.faces.cli.server import connected
from lapilli.faces.terminal import printable
from lapilli.store.progress import Progress

if TYPE_CHECKING:
    from lapilli.faces.client import Client
    from lapilli.store.modelfile import Modelfile

Step = Callable[[Progress], None]

_WEIGHTS = (".safetensors", ".gguf")
_BESIDE = (".json", ".jinja", ".model", ".txt")
_PIECE_BYTES = 4 << 20


def create(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The name of the new model.")],
    file: Annotated[
        str, typer.Option("--file", "-f", metavar="FILE", help="A Modelfile; - is standard input. Without one: FROM .")
    ] = "Modelfile",
    quantize: Annotated[
        str | None, typer.Option("--quantize", "-q", metavar="TYPE", help="Q4_K_M, Q4_K_S, Q8_0, F16, BF16 or F32.")
    ] = None,
) -> None:
    """Create a model from a Modelfile.

    lapilli create mine -f Modelfile

    FROM names a model, a GGUF file, or a checkpoint folder; ADAPTER a LoRA. Files that are there are not copied again.
    """
    from lapilli.faces.progress import following

    modelfile, folder = read_modelfile(file)
    for warning in modelfile.warnings:
        print("lapilli: warning:", printable(warning), file=sys.stderr)
    again = "Nothing was created, but what was copied is kept: the same command goes on from there."
    with connected() as client, following(again) as step:
        step(Progress("gathering model components"))
        request = gather(modelfile, folder, client, step)
        if quantize is not None:
            request["quantize"] = quantize
        for progress in client.create(model, request):
            step(progress)


def read_modelfile(file: str) -> tuple[Modelfile, Path]:
    """A Modelfile, and the folder that its paths start from.

    Raises InputError.
    """
    from lapilli.store.modelfile import MAX_CHARACTERS, Modelfile

    if file == "-":
        return Modelfile.parse(sys.stdin.buffer.read(4 * MAX_CHARACTERS)), Path.cwd()
    path = Path(file).expanduser()
    if not path.exists() and file == "Modelfile":
        return Modelfile(sources=(".",)), Path.cwd()
    from lapilli.ground.files import open_regular

    try:
        with open_regular(path) as stream:
            return Modelfile.parse(stream.read(4 * MAX_CHARACTERS)), path.resolve().parent
    except OSError as error:
        raise InputError(f"--file {file}: {error.strerror or error}") from None
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def gather(modelfile: Modelfile, folder: Path, client: Client, step: Step) -> dict[str, Any]:
    """The request that a Modelfile means; the files it names are brought into the server's store.

    Raises InputError for a path where nothing usable lies.
    """
    request: dict[str, Any] = {}
    files: dict[str, str] = {}
    for source in modelfile.sources:
        path = _path(source, folder)
        if path is None:
            request["from"] = source
        else:
            files |= send(path, client, step)
    adapters: dict[str, str] = {}
    for adapter in modelfile.adapters:
        path = _path(adapter, folder)
        if path is None:
            raise InputError(f"ADAPTER {adapter}: there is no such file or folder")
        adapters |= send(path, client, step)
    texts = {
        "files": files, "adapters": adapters, "template": modelfile.template, "system": modelfile.system,
        "parameters": dict(modelfile.parameters), "license": list(modelfile.licenses), "renderer": modelfile.renderer,
        "parser": modelfile.parser, "requires": modelfile.requires,
        "messages": [{"role": role, "content": content} for role, content in modelfile.messages],
    }  # fmt: skip
    return request | {name: value for name, value in texts.items() if value not in (None, {}, [])}


def send(path: Path, client: Client, step: Step) -> dict[str, str]:
    """Bring a file, or a folder's files, into the server's store; their digests by name."""
    digests: dict[str, str] = {}
    for file in _files(path):
        digests[file.name] = digest = _hash(file, step)
        if not client.has_blob(digest):
            _upload(file, digest, client, step)
    return digests


def _path(source: str, folder: Path) -> Path | None:
    """Where a FROM or an ADAPTER lies; None where it is no path, so a model's name."""
    path = folder / Path(source).expanduser()
    try:
        if path.exists():
            return path
    except (OSError, ValueError):
        return None  # a name that no file could ever have
    if source.startswith((".", "/", "~", "\\")) or Path(source).suffix.lower() in _WEIGHTS:
        raise InputError(f"{source}: there is no such file or folder")
    return None


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    for kind in _WEIGHTS:
        weights = [file for file in found if file.suffix.lower() == kind]
        if weights:
            beside = [file for file in found if file.suffix.lower() in _BESIDE] if kind == ".safetensors" else []
            return [*weights, *beside]
    pickles = [file.name for file in found if file.suffix.lower() in (".bin", ".pt", ".pth", ".ckpt")]
    hint = f"; {pickles[0]} may be pickle, which is not read: convert it to safetensors" if pickles else ""
    raise InputError(f"{path}: this folder holds no .safetensors and no .gguf file{hint}")


def _hash(path: Path, step: Step) -> str:
    digest, total, done = hashlib.sha256(), os.path.getsize(path), 0
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE_BYTES):
            digest.update(piece)
            done += len(piece)
            step(Progress(f"reading {path.name}", "", total, done))
    return f"sha256:{digest.hexdigest()}"


def _upload(path: Path, digest: str, client: Client, step: Step) -> None:
    total, done = os.path.getsize(path), 0

    def watch(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        step(Progress(f"copying {path.name}", digest, total, done))

    with path.open("rb") as stream:
        client.upload(digest, stream, watch)
