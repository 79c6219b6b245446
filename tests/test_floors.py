"""The floors of the house, and its doors: what may import what, and what may be called where."""

from __future__ import annotations

import ast
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "lapilli"

# Calls that turn a stranger's bytes into code, or go past a door; each with the files that are the door.
DOORS: dict[str, tuple[str, ...]] = {
    "PIL.Image.open": ("inputs/images.py",),
    "PIL.ImageFile.Parser": (),
    "pickle": (),
    "marshal": (),
    "shelve": (),
    "torch.load": (),
    "torch.jit.load": (),
    "numpy.load": (),
    "eval": (),
    "exec": (),
    "os.system": (),
    "os.popen": (),
    "jinja2": (
        "inputs/sandbox.py",
        "apps/evals/report.py",
        "apps/trials/report.py",
    ),  # the reports run templates of our own
    "urllib.request": (),
    "http.client": (),
    "requests": (),
    "httpx": (),
    "httpx2": (
        "ground/door.py",
        "faces/client.py",
        "faces/connection.py",
        "faces/private.py",
        "apps/backend/connection.py",
    ),
    "httpcore2": ("ground/door.py",),
    "huggingface_hub": ("store/hub.py",),
    "socket.create_connection": (),
    "transformers": (),
    "llama_cpp": (),
    "gguf": (),
}


def test_every_import_goes_down() -> None:
    script = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_nothing_goes_round_a_door() -> None:
    around = [
        f"{path.relative_to(SOURCE)}:{line}: {name}"
        for path in sorted(SOURCE.rglob("*.py"))
        for line, name in forbidden(ast.parse(path.read_text(encoding="utf-8")))
        if path.relative_to(SOURCE).as_posix() not in DOORS.get(name, ())
    ]
    assert not around, "\n".join(around)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("from PIL import Image\nImage.open(path)", "PIL.Image.open"),
        ("import PIL.Image\nPIL.Image.open(path)", "PIL.Image.open"),
        ("import PIL.Image as pictures\npictures.open(path)", "PIL.Image.open"),
        ("from PIL.Image import open as look\nlook(path)", "PIL.Image.open"),
        ("import torch\ndef read(path):\n    return torch.load(path)", "torch.load"),
        ("from torch import load", "torch.load"),
        ("import pickle", "pickle"),
        ("from pickle import loads", "pickle"),
        ("import numpy as np\nnp.load(path)", "numpy.load"),
        ("eval(text)", "eval"),
        ("import subprocess\nsubprocess.run(line, shell=True)", "shell=True"),
        ("import urllib.request", "urllib.request"),
        ("from urllib import request", "urllib.request"),
        ("import jinja2.sandbox", "jinja2"),
    ],
)
def test_the_search_for_side_doors_finds_them(code: str, name: str) -> None:
    assert name in {found for _, found in forbidden(ast.parse(textwrap.dedent(code)))}


def test_the_search_for_side_doors_lets_others_be() -> None:
    code = (
        "import json, re\nfrom PIL import Image\nmodel.eval()\njson.load(file)\nImage.new('RGB', (1, 1))\npath.open()"
    )
    assert list(forbidden(ast.parse(code))) == []


@pytest.mark.parametrize("room", ["errors", "config", "inputs", "store"])
def test_a_room_without_torch_imports_none(room: str) -> None:
    place = SOURCE / room
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
    names = [".".join(("lapilli", *file.relative_to(SOURCE).with_suffix("").parts)) for file in files]
    script = (
        f"import importlib, sys; [importlib.import_module(name) for name in {names!r}]; "
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def forbidden(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The line and the name of everything in a module that DOORS names, or that asks for a shell."""
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for item in node.names:
                known[item.asname or item.name.partition(".")[0]] = (
                    item.name if item.asname else item.name.partition(".")[0]
                )
                yield from ((node.lineno, door) for door in DOORS if _within(item.name, door))
        elif isinstance(node, ast.ImportFrom) and node.module:
            for item in node.names:
                whole = f"{node.module}.{item.name}"
                known[item.asname or item.name] = whole
                yield from ((node.lineno, door) for door in DOORS if _within(whole, door))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = _dotted(node.func)
            first, _, rest = name.partition(".")
            whole = ".".join(part for part in (known.get(first, first), rest) if part)
            if whole in DOORS:
                yield node.lineno, whole
            if any(
                k.arg == "shell" and not (isinstance(k.value, ast.Constant) and not k.value.value)
                for k in node.keywords
            ):
                yield node.lineno, "shell=True"


def _within(name: str, door: str) -> bool:
    return name == door or name.startswith(f"{door}.")


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"
