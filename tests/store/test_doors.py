"""One function from a digest to a path, and one place that knows where manifests lie."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import lapilli

SOURCE = Path(lapilli.__file__).parent
# Where each folder's name may become part of a path; settings only look whether Ollama's is there.
DOORS = {
    "blobs": {"store/library.py"},
    "manifests": {"store/library.py", "ground/settings.py"},
    "sha256-": set[str](),
}


def test_nobody_else_makes_a_path_under_blobs_or_manifests() -> None:
    around = [
        f"{path.relative_to(SOURCE)}:{line}: {name}"
        for path, tree in trees("blobs", "manifests", "sha256-")
        for line, name in joined(tree)
        if path.relative_to(SOURCE).as_posix() not in DOORS[name]
    ]
    assert not around, "\n".join(around)


def test_digests_become_names_of_files_in_one_function() -> None:
    found = []
    for path, tree in trees('":", "-"', "':', '-'"):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "replace":
                given = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
                if given[:2] == [":", "-"]:
                    found.append(path.relative_to(SOURCE).as_posix())
    assert found == ["store/blobs.py"]


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("root / 'blobs' / digest", "blobs"),
        ("Path(root, 'manifests', host)", "manifests"),
        ("os.path.join(root, 'blobs')", "blobs"),
        ("root.joinpath('manifests/registry.ollama.ai')", "manifests"),
        ("root / f'sha256-{hexadecimal}'", "sha256-"),
        ("root / ('sha256-' + hexadecimal)", "sha256-"),
        ("path.with_name('sha256-' + hexadecimal)", "sha256-"),
    ],
)
def test_such_paths_are_found(code: str, name: str) -> None:
    assert [found for _, found in joined(ast.parse(textwrap.dedent(code)))] == [name]


def test_addresses_are_no_paths() -> None:
    assert not list(joined(ast.parse("get(f'{url}/v2/{name}/blobs/{digest}'); 'blobs' in words")))


def trees(*words: str) -> Iterator[tuple[Path, ast.Module]]:
    """The files of the package that hold one of these words."""
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if any(word in text for word in words):
            yield path, ast.parse(text)


def joined(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Where one of the names is put into a path, and which."""
    for node in ast.walk(tree):
        parts: list[ast.expr] = []
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            parts = [node.right, *([] if isinstance(node.left, ast.BinOp) else [node.left])]
        elif isinstance(node, ast.Call):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if function == "join" and not ast.unparse(node.func).endswith("path.join"):
                continue  # texts and addresses are joined too
            if function in ("Path", "PurePath", "join", "joinpath", "with_name"):
                parts = node.args
        for part in parts:
            words = "".join(str(leaf.value) for leaf in ast.walk(part) if isinstance(leaf, ast.Constant))
            for name in DOORS:
                if words == name or words.startswith((f"{name}/", name if name.endswith("-") else f"{name}/")):
                    yield part.lineno, name
