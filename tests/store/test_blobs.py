"""Blobs: one way from a digest to a path, whole or not there, and nobody's work pruned."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lapilli.errors import InputError, NoRoomError, StoreError
from lapilli.ground.owner import Owner
from lapilli.store import blobs as blobs_module
from lapilli.store.blobs import Blob, Blobs, parse_digest

HEX = hashlib.sha256(b"abc").hexdigest()
ABC = f"sha256:{HEX}"
BAD_DIGESTS = [
    "",
    "sha256:",
    "sha256-",
    "sha256:../../x",
    f"sha256:{HEX[:-1]}",
    f"sha256:{HEX}0",
    f"sha256:{HEX.upper()}",
    f"sha512:{HEX}",
    f"sha256:{HEX[:-1]}\0",
    f"sha256:{HEX}\n",
    f"sha256:{HEX[:-1]}٣",
    f"../sha256:{HEX}",
    "sha256:" + "a" * 10_000_000,
    HEX,
    None,
]


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return Blobs(tmp_path / "blobs")


def old(path: Path, seconds: float = 7200) -> Path:
    then = time.time() - seconds
    for entry in (*path.iterdir(), path) if path.is_dir() else (path,):
        os.utime(entry, (then, then))
    return path


@pytest.mark.parametrize("digest", BAD_DIGESTS, ids=range(len(BAD_DIGESTS)))
def test_no_path_comes_of_anything_but_a_digest(blobs: Blobs, digest: str) -> None:
    for door in (parse_digest, blobs.path, blobs.partial, blobs.has, blobs.size, blobs.remove, blobs.abandon):
        with pytest.raises(InputError, match=r"^invalid digest format$"):
            door(digest)
    with pytest.raises(InputError, match="invalid digest format"):
        blobs.add(b"abc", digest=digest or "")
    with pytest.raises(InputError, match="invalid digest format"):
        blobs.prune([digest])


def test_both_spellings_of_a_digest_are_one_path(blobs: Blobs) -> None:
    assert parse_digest(f"sha256-{HEX}") == ABC
    assert blobs.path(f"sha256-{HEX}") == blobs.path(ABC) == blobs.root / f"sha256-{HEX}"


@pytest.mark.parametrize("source", [b"abc", io.BytesIO(b"abc"), [b"a", b"", b"bc"]], ids=["bytes", "file", "chunks"])
def test_what_is_added_is_there_under_its_hash(blobs: Blobs, source: object) -> None:
    assert blobs.add(source) == Blob(ABC, 3)  # type: ignore[arg-type]
    assert blobs.path(ABC).read_bytes() == b"abc"
    assert (blobs.has(ABC), blobs.size(ABC), list(blobs)) == (True, 3, [ABC])
    assert os.listdir(blobs.root) == [f"sha256-{HEX}"]


def test_an_empty_store_has_nothing_and_says_so(blobs: Blobs) -> None:
    assert (list(blobs), blobs.has(ABC), blobs.size(ABC), blobs.prune([])) == ([], False, None, [])
    blobs.remove(ABC)
    assert not blobs.root.exists()


def test_a_wrong_hash_or_length_leaves_nothing(blobs: Blobs) -> None:
    other = "sha256:" + "0" * 64
    with pytest.raises(InputError, match=f'^digest mismatch, expected "{other}", got "{ABC}"$'):
        blobs.add(b"abc", digest=other)
    with pytest.raises(InputError, match="ended after 3 of 4 bytes"):
        blobs.add(b"abc", size=4)
    read = []

    def endless() -> object:
        while True:
            read.append(1)
            yield b"x" * 10

    with pytest.raises(InputError, match="more than the 25 bytes"):
        blobs.add(endless(), size=25)  # type: ignore[arg-type]
    assert len(read) == 3

    def broken() -> object:
        yield b"abc"
        raise ConnectionResetError("the uploader left")

    with pytest.raises(ConnectionResetError):
        blobs.add(broken(), digest=ABC)  # type: ignore[arg-type]
    assert os.listdir(blobs.root) == []


def test_a_blob_that_is_here_is_not_read_again_and_is_young_again(blobs: Blobs) -> None:
    blobs.add(b"abc")
    old(blobs.path(ABC))

    def never() -> object:
        raise AssertionError("read")
        yield b""

    assert blobs.add(never(), digest=ABC) == Blob(ABC, 3)  # type: ignore[arg-type]
    assert blobs.prune([]) == []


def test_a_blob_cut_short_is_written_anew(blobs: Blobs) -> None:
    blobs.add(b"abc")
    blobs.path(ABC).write_bytes(b"a")
    blobs.add(b"abc", digest=ABC, size=3)
    assert blobs.path(ABC).read_bytes() == b"abc"


def test_many_writers_of_one_blob_all_end_well(blobs: Blobs) -> None:
    gate = threading.Barrier(8)
    got: list[Blob] = []

    def write() -> None:
        gate.wait()
        got.append(blobs.add(iter([b"a" * 100_000] * 10)))

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8
    assert len(set(got)) == 1
    assert hashlib.sha256(blobs.path(got[0].digest).read_bytes()).hexdigest() == got[0].digest[7:]
    assert len(os.listdir(blobs.root)) == 1


def test_files_are_copied_or_moved(blobs: Blobs, tmp_path: Path) -> None:
    file = tmp_path / "model"
    file.write_bytes(b"abc")
    with pytest.raises(InputError, match="digest mismatch"):
        blobs.add_file(file, digest="sha256:" + "0" * 64, move=True)
    assert blobs.add_file(file) == Blob(ABC, 3)
    file.write_bytes(b"abX")  # a copy: what people do to their file does not reach the store
    assert blobs.path(ABC).read_bytes() == b"abc"
    file.write_bytes(b"abc")
    assert blobs.add_file(file, move=True) == Blob(ABC, 3)
    assert not file.exists()
    file.write_bytes(b"new")
    moved = blobs.add_file(file, move=True)
    assert not file.exists()
    assert blobs.path(moved.digest).read_bytes() == b"new"


def test_only_regular_files_are_added(blobs: Blobs, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for strange in (tmp_path / "fifo", tmp_path, Path("/dev/zero"), tmp_path / "absent"):
        with pytest.raises(InputError):
            blobs.add_file(strange)


def test_room_is_asked_for_before_a_byte_is_read(blobs: Blobs) -> None:
    with pytest.raises(NoRoomError, match=f"no space left on device: {1 << 60} bytes are needed and [0-9]+ are free"):
        blobs.add(iter([]), size=1 << 60)


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [(errno.ENOSPC, NoRoomError, "no space left"), (errno.EIO, StoreError, "cannot be written to: Input/output error")],
)
def test_a_disk_that_fails_is_told_in_our_words_and_leaves_nothing(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[StoreError], words: str
) -> None:
    for call in ("fsync", "replace"):

        def fail(*_: object) -> None:
            raise OSError(code, os.strerror(code))

        with monkeypatch.context() as patch:
            patch.setattr(blobs_module.os, call, fail)
            with pytest.raises(kind, match=words):
                blobs.add(b"abc")
        assert os.listdir(blobs.root) == []
    blobs.add(b"abc")


def test_pruning_takes_what_is_old_and_nobody_needs(blobs: Blobs) -> None:
    needed, young, unneeded = (blobs.add(text).digest for text in (b"1", b"2", b"3"))
    for digest in (needed, unneeded):
        old(blobs.path(digest))
    strange = old(_write(blobs.root / "notes.txt"))
    assert blobs.prune([needed]) == [unneeded]
    assert set(blobs) == {needed, young}
    assert strange.exists()


def test_pruning_never_takes_a_live_writers_work(blobs: Blobs) -> None:
    dead = subprocess.run(
        [sys.executable, "-c", "from lapilli.ground.owner import Owner; print(Owner.current())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    blobs.root.mkdir()
    mine = old(_write(blobs.root / f"incoming-{Owner.current()}-0123abcd.part"))
    theirs = old(_write(blobs.root / f"incoming-{dead}-0123abcd.part"))
    pulled, left = blobs.partial(ABC), blobs.partial("sha256:" + "1" * 64)
    for folder, owner in ((pulled, str(Owner.current())), (left, dead)):
        folder.mkdir()
        _write(folder / f"owner.{owner}-0123abcd")
        _write(folder / "data")
        old(folder)
    young = _write(blobs.root / f"incoming-{dead}-89abcdef.part")
    assert blobs.prune([]) == [theirs.name, left.name]
    assert {path.name for path in blobs.root.iterdir()} == {mine.name, pulled.name, young.name}
    assert not blobs.abandon(ABC)


def test_removing_takes_the_unfinished_with_it(blobs: Blobs) -> None:
    blobs.add(b"abc")
    blobs.partial(ABC).mkdir()
    _write(blobs.partial(ABC) / "free")
    blobs.remove(ABC)
    assert os.listdir(blobs.root) == []


def test_a_process_is_known_by_more_than_its_number() -> None:
    me = Owner.current()
    assert me.alive
    assert Owner.parse(str(me)) == me
    assert Owner(me.machine, me.pid, me.started + 1).alive is False
    assert Owner("00000000", me.pid, me.started).alive is None
    assert Owner.parse("../../x-1-1") is None


def _write(path: Path) -> Path:
    path.write_bytes(b"x")
    return path
