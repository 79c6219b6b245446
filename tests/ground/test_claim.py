"""One owner of a folder at a time, and the dead ones' work taken over."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lapilli.ground.claim import Claim, abandon, is_aside
from lapilli.ground.owner import Owner


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "work"


def aged(path: Path, seconds: float) -> Path:
    os.utime(path, (time.time() - seconds,) * 2)
    return path


def test_one_of_many_becomes_the_owner(folder: Path) -> None:
    gate = threading.Barrier(16)
    got: list[Claim | None] = []

    def run() -> None:
        gate.wait()
        got.append(Claim.take(folder))

    for _ in range(20):
        threads = [threading.Thread(target=run) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        owners = [claim for claim in got if claim is not None]
        assert len(owners) == 1
        assert Claim.take(folder) is None
        owners[0].release()
        got.clear()


def test_what_is_let_go_waits_for_the_next(folder: Path) -> None:
    claim = Claim.take(folder)
    assert claim is not None
    (folder / "data").write_text("kept")
    claim.release()
    following = Claim.take(folder)
    assert following is not None
    assert (folder / "data").read_text() == "kept"
    following.discard()
    assert not folder.exists()
    following.release()
    assert os.listdir(folder.parent) == []


def test_a_dead_owners_work_is_taken_over(folder: Path) -> None:
    script = (
        f"from pathlib import Path; from lapilli.ground.claim import Claim; print(Claim.take(Path({str(folder)!r})))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    (folder / "data").write_text("kept")
    assert Claim.take(folder) is not None
    assert (folder / "data").read_text() == "kept"
    assert not abandon(folder)


def test_another_machines_owner_is_waited_for_and_never_written_beside(folder: Path) -> None:
    folder.mkdir()
    (folder / "data").write_text("theirs")
    owner = folder / f"owner.{Owner('00000000', 1, 1)}-0123abcd"
    owner.touch()
    assert Claim.take(folder) is None
    assert folder.exists()
    aged(owner, 300)
    assert Claim.take(folder) is None  # put aside
    assert Claim.take(folder) is not None
    assert not (folder / "data").exists()
    assert [is_aside(path.name) for path in folder.parent.iterdir() if path != folder] == [True]


@pytest.mark.parametrize("name", ["owner.", "owner.nonsense"])
def test_an_owner_that_cannot_be_read_is_waited_for_a_while(name: str, folder: Path) -> None:
    folder.mkdir()
    aged_owner = folder / name
    aged_owner.touch()
    assert Claim.take(folder) is None
    aged(aged_owner, 300)
    assert Claim.take(folder) is None
    assert Claim.take(folder) is not None


def test_beating_shows_life(folder: Path) -> None:
    claim = Claim.take(folder)
    assert claim is not None
    owner = next(folder.iterdir())
    aged(owner, 300)
    claim.beat()
    assert time.time() - owner.stat().st_mtime < 100


def test_abandoning_takes_what_nobody_holds(folder: Path) -> None:
    assert abandon(folder)
    claim = Claim.take(folder)
    assert claim is not None
    assert not abandon(folder)
    claim.release()
    assert abandon(folder)
    assert os.listdir(folder.parent) == []
