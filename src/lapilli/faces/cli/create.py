"""`lapilli create`: a model out of a Modelfile, a folder or a GGUF file."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lapilli.errors import InputError
from lapilli.faces.cli.server import connected
from lapilli.faces.terminal import printable
from lapilli.store.progress import Progress

if TYPE_CHECKING:
    from lapilli.faces.client import Client
    from lapilli.store.modelfile import Modelfile
    from lapilli.store.request import Found

Step = Callable[[Progress], None]

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
    from lapilli.store.request import CreateRequest

    modelfile, folder = read_modelfile(file)
    for warning in modelfile.warnings:
        print("lapilli: warning:", printable(warning), file=sys.stderr)
    again = "Nothing was created, but what was copied is kept: the same command goes on from there."
    with connected() as client, following(again) as step:
        step(Progress("gathering model components"))
        asked = CreateRequest.from_modelfile(modelfile, folder, quantize or "")
        files, adapters = send(asked.files, client, step), send(asked.adapters, client, step)
        for progress in client.create(model, dataclasses.replace(asked, files=files, adapters=adapters).to_dict()):
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


def send(files: Mapping[str, Found], client: Client, step: Step) -> dict[str, str]:
    """Bring files into the server's store, those that it does not have; their digests by name."""
    digests: dict[str, str] = {}
    for name, file in files.items():
        assert isinstance(file, Path), "what a Modelfile names on this machine is a path"
        digests[name] = digest = _hash(file, step)
        if not client.has_blob(digest):
            _upload(file, digest, client, step)
    return digests


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
