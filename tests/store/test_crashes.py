"""Killed at any write, flush, rename or link, the store is as before or as after, and the next start needs no hand."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import small_gguf

from lapilli.store.create import create
from lapilli.store.library import Library
from lapilli.store.manifests import ADAPTER
from lapilli.store.naming import ModelName
from lapilli.store.request import CreateRequest

CALLS = ("write", "fsync", "rename", "link", "unlink", "mkdir", "rmdir", "openat")
WORK = {
    "create": """
create(library, "new", CreateRequest(files={"m.gguf": Path(sys.argv[2])}, adapters={
    name: Path(sys.argv[3]) / name for name in ("adapter_config.json", "adapter_model.safetensors")},
    template="{{ .Prompt }}", system="New.", parameters={"seed": 1}))
library.find("new").adapters
""",
    "create over": 'create(library, "old", CreateRequest(source="old", system="New.", quantize=""))',
    "copy": 'library.copy("old", "new")',
    "rm": 'library.remove("old")',
    "prune": "library.prune(0)",
}
PROGRAM = """
import sys
from pathlib import Path
from lapilli.store.create import create
from lapilli.store.library import Library
from lapilli.store.request import CreateRequest
library = Library(Path(sys.argv[1]))
print("begin", flush=True)
"""

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a model that has an adapter, and a stray blob; beside it, what another is made of."""
    folder = tmp_path_factory.mktemp("before")
    lora = folder / "lora"
    lora.mkdir()
    (lora / "adapter_config.json").write_text('{"r": 1}')
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    (lora / "adapter_model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    small_gguf.decoder(folder / "new.gguf", seed=1)
    library = Library(folder / "store")
    adapters = {path.name: path for path in lora.iterdir()}
    files = {"m.gguf": small_gguf.decoder(folder / "old.gguf")}
    create(library, "old", CreateRequest(files=files, adapters=adapters, system="Old."))
    library.find("old")
    library.blobs.add(b"nobody's")
    return folder


def run(work: str, before: Path, place: Path, *strace: str) -> subprocess.CompletedProcess[str]:
    """One piece of work on a fresh copy of the store, under strace."""
    shutil.copytree(before / "store", place, copy_function=shutil.copy2)
    program = [sys.executable, "-B", "-c", PROGRAM + WORK[work], str(place)]
    return subprocess.run(
        ["strace", "-f", "-qq", *strace, *program, str(before / "new.gguf"), str(before / "lora")],
        capture_output=True,
        text=True,
        timeout=120,
    )


def counted(work: str, before: Path, tmp_path: Path) -> Counter[str]:
    """How often each call is made within the store from its first change on, and how often before that."""
    log = tmp_path / "log"
    place = tmp_path / "counted"
    done = run(work, before, place, "-o", str(log), "-y", "-e", f"trace={','.join(CALLS)}")
    assert done.returncode == 0, done.stderr
    total: Counter[str] = Counter()
    for line in log.read_text().splitlines():
        match = re.search(r"\b(" + "|".join(CALLS) + r")\(", line)
        if match is not None:
            total[match[1]] += 1
            if str(place) in line and (match[1] != "openat" or "O_CREAT" in line):
                total[f"first {match[1]}"] = total[f"first {match[1]}"] or total[match[1]]
                total[f"last {match[1]}"] = total[match[1]]
    shutil.rmtree(place)
    return total


def points(work: str, before: Path, tmp_path: Path) -> list[tuple[str, int]]:
    """Every moment at which the work can be killed while it changes something."""
    total = counted(work, before, tmp_path)
    found = [
        (call, number)
        for call in CALLS
        if total[f"first {call}"]
        for number in range(total[f"first {call}"], total[f"last {call}"] + 1)
    ]
    assert {call for call, _ in found} & {"rename", "unlink"}, total
    return found


def state(library: Library) -> dict[str, str]:
    """The models that can be opened, and what they are: every blob read, and found to be what its name says."""
    found = {}
    for name in library.names():
        package = library.find(name)
        if name.model == "mini":
            continue
        for layer in library.manifest(name):
            content = library.blobs.path(layer.digest).read_bytes()
            assert f"sha256:{hashlib.sha256(content).hexdigest()}" == layer.digest
        for folder, layers in zip(package.adapters, [library.manifest(name).of(ADAPTER)], strict=True):
            for layer in layers:
                assert (folder / layer.name).read_bytes() == library.blobs.path(layer.digest).read_bytes()
        found[name.short] = json.dumps([package.digest, package.system])
    return found


def look_after_kill(work: str, before: Path, place: Path, wanted: list[dict[str, str]]) -> None:
    library = Library(place)
    assert library.check() == []
    found = state(library)
    assert found in wanted
    library.prune(0)
    assert state(library) == found
    needed = {layer.digest for name in found for layer in library.manifest(name)}
    assert set(library.blobs) == needed
    files = {path.name for path in place.rglob("*") if path.is_file()}
    assert not [name for name in files if name.endswith(".part") or name.startswith(".")]
    assert not list((place / "making").iterdir())
    library.copy("mini" if not found else next(iter(found)), "after")
    assert ModelName.parse("after").key in {name.key for name in library.names()}


def sweep(work: str, before: Path, tmp_path: Path, share: int) -> int:
    """Kill at each of the points, or at one in `share`; how many runs were killed."""
    whole = tmp_path / "whole"
    assert run(work, before, whole, "-e", "trace=none").returncode == 0
    wanted = [state(Library(before / "store")), state(Library(whole))]
    killed = 0
    for number, (call, when) in enumerate(points(work, before, tmp_path)):
        if number % share:
            continue
        place = tmp_path / f"{call}-{when}"
        done = run(work, before, place, "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={when}")
        killed += done.returncode != 0
        try:
            look_after_kill(work, before, place, wanted)
        except BaseException as error:
            error.add_note(f"{work}, killed at {call} number {when}")
            raise
        shutil.rmtree(place)
    return killed


@pytest.mark.parametrize(("work", "share"), [("create", 30), ("copy", 9), ("rm", 12)])
def test_killed_at_some_calls_the_store_is_whole(before: Path, tmp_path: Path, work: str, share: int) -> None:
    assert sweep(work, before, tmp_path, share) >= 2


@pytest.mark.soak
@pytest.mark.parametrize("work", WORK)
def test_killed_at_every_call_the_store_is_whole(before: Path, tmp_path: Path, work: str) -> None:
    assert sweep(work, before, tmp_path, 1) >= 4
