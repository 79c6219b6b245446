"""Kept image features: never more than the budget, never a wrong value, whatever happens to the disk."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lapilli.errors import InputError
from lapilli.store.features import FeatureCache, Features, feature_key

KEYS = [hashlib.sha256(bytes([number])).hexdigest() for number in range(6)]


def features(number: int, count: int = 4, dtype: str = "float32") -> Features:
    """Features that tell which key they belong to; 12 or 6 bytes a row."""
    held = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}[dtype]
    return Features.of(np.full((count, 3), number, held), dtype)


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.features"))


# --- keys and values ---


def test_a_key_tells_everything_apart_that_changes_features() -> None:
    pixels = np.zeros((1, 3, 4, 4), np.float32)
    other = pixels.copy()
    other[0, 2, 3, 3] = 1
    given = [
        (pixels, 4, 4, "a"), (other, 4, 4, "a"), (pixels, 5, 4, "a"), (pixels, 4, 5, "a"), (pixels, 4, 4, "b"),
        (pixels.reshape(1, 3, 2, 8), 4, 4, "a"), (pixels.view(np.int32), 4, 4, "a"),
    ]  # fmt: skip
    keys = [feature_key(*each) for each in given]
    assert len(set(keys)) == len(given)
    assert keys[0] == feature_key(np.asfortranarray(pixels), 4, 4, "a")
    assert len(bytes.fromhex(keys[0])) == 32


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_features_come_back_as_they_were(dtype: str, tmp_path: Path) -> None:
    kept = features(7, dtype=dtype)
    FeatureCache(0, tmp_path).put(KEYS[0], kept)
    found = FeatureCache(1000, tmp_path).get(KEYS[0])
    assert found == kept
    assert found.array().tolist() == kept.array().tolist()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Features("float32", (2, 3), b"\0" * 23),
        lambda: Features("float64", (1, 1), b"\0" * 8),
        lambda: Features("float32", (0, 3), b""),
        lambda: Features.of(np.zeros((2, 3))),
        lambda: Features.of(np.zeros((2, 3), np.float16), "bfloat16"),
        lambda: Features.of(np.zeros(3, np.float32)),
        lambda: FeatureCache(-1),
        lambda: FeatureCache(9).get("../../etc/passwd"),
        lambda: FeatureCache(9).put("AB" * 32, features(1)),
    ],
)
def test_what_is_no_features_and_no_key_is_refused(wrong: object) -> None:
    with pytest.raises(InputError):
        wrong()


# --- a plain dict, held against it ---


class AgainstDict(RuleBasedStateMachine):
    """Everything in memory as an ordered dict has it, everything on disk right or gone."""

    BUDGET, DISK = 150, 500

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.model: OrderedDict[str, Features] = OrderedDict()
        self.truth: dict[str, Features] = {}
        self.added = 0  # bytes that damage has written
        self.open()

    def open(self) -> None:
        self.cache = FeatureCache(self.BUDGET, self.folder, self.DISK)
        self.model.clear()

    def remember(self, key: str, value: Features) -> None:
        self.model.pop(key, None)
        if len(value.data) <= self.BUDGET:
            self.model[key] = value
            while sum(len(each.data) for each in self.model.values()) > self.BUDGET:
                self.model.popitem(last=False)

    @rule(number=st.integers(0, 5))
    def put(self, number: int) -> None:
        self.truth[KEYS[number]] = features(number, count=2 + 3 * number)
        self.cache.put(KEYS[number], self.truth[KEYS[number]])
        self.remember(KEYS[number], self.truth[KEYS[number]])

    @rule(number=st.integers(0, 5))
    def get(self, number: int) -> None:
        found = self.cache.get(KEYS[number])
        assert found in (None, self.truth.get(KEYS[number]))
        if KEYS[number] in self.model:
            assert found is not None
        if found is not None:
            self.remember(KEYS[number], found)

    @rule()
    def restart(self) -> None:
        self.open()

    @precondition(lambda self: entries(self.folder))
    @rule(data=st.data())
    def damage(self, data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(entries(self.folder)))
        content = bytearray(path.read_bytes() or b"emptied before")
        place = data.draw(st.integers(0, len(content) - 1))
        how = data.draw(st.sampled_from(["flip", "cut", "grow", "swap"]))
        if how == "flip":
            content[place] ^= 1 << data.draw(st.integers(0, 7))
        elif how == "cut":
            del content[place:]
        elif how == "grow":
            content += b"\0" * (place + 1)
        else:
            content = bytearray(data.draw(st.sampled_from(entries(self.folder))).read_bytes())
        self.added += max(0, len(content) - path.stat().st_size)
        path.write_bytes(content)

    @invariant()
    def memory_is_the_dict(self) -> None:
        assert len(self.cache) == len(self.model)
        assert self.cache.used_bytes == sum(len(each.data) for each in self.model.values()) <= self.BUDGET

    @invariant()
    def the_disk_holds_to_its_budget(self) -> None:
        assert sum(path.stat().st_size for path in entries(self.folder)) <= self.DISK + self.added

    def teardown(self) -> None:
        shutil.rmtree(self.folder)


TestAgainstDict = AgainstDict.TestCase
TestAgainstDict.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_memory_forgets_what_lay_unused_longest() -> None:
    cache = FeatureCache(3 * len(features(0).data))
    for number in range(3):
        cache.put(KEYS[number], features(number))
    cache.get(KEYS[0])
    cache.put(KEYS[3], features(3))
    assert [cache.get(key) for key in KEYS[:4]] == [features(0), None, features(2), features(3)]


# --- disk ---


def test_the_disk_forgets_what_lay_unused_longest(tmp_path: Path) -> None:
    size = len(features(0).data) + 88
    cache = FeatureCache(0, tmp_path, 3 * size)
    for number in range(3):
        cache.put(KEYS[number], features(number))
        os.utime(tmp_path / f"{KEYS[number]}.features", (number, number))
    assert cache.get(KEYS[0]) is not None  # used again, so the second is now the oldest
    cache.put(KEYS[3], features(3))
    assert [cache.get(key) is not None for key in KEYS[:4]] == [True, False, True, True]
    assert sum(path.stat().st_size for path in entries(tmp_path)) <= 3 * size


def test_a_hit_in_memory_keeps_the_entry_on_disk_young(tmp_path: Path) -> None:
    cache = FeatureCache(1000, tmp_path)
    cache.put(KEYS[0], features(0))
    (path,) = entries(tmp_path)
    os.utime(path, (1, 1))
    cache.get(KEYS[0])
    assert path.stat().st_mtime > 1


def test_a_damaged_entry_is_dropped_and_rebuilt(tmp_path: Path) -> None:
    FeatureCache(0, tmp_path).put(KEYS[0], features(1))
    (path,) = entries(tmp_path)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        cache = FeatureCache(1000, tmp_path)
        assert cache.get(KEYS[0]) is None, f"byte {place} was changed"
        assert not path.exists()
        cache.put(KEYS[0], features(1))
        assert path.read_bytes() == whole


def test_a_header_that_promises_more_than_there_is_allocates_nothing(tmp_path: Path) -> None:
    FeatureCache(0, tmp_path).put(KEYS[0], features(1))
    (path,) = entries(tmp_path)
    content = bytearray(path.read_bytes())
    content[44:52] = b"\xff" * 8  # N and D: 64 EiB of float32
    path.write_bytes(content)
    assert FeatureCache(1000, tmp_path).get(KEYS[0]) is None
    with path.open("wb") as file:
        file.write(content)
        file.truncate(1 << 40)  # sparse: a terabyte that takes no room
    assert FeatureCache(1000, tmp_path).get(KEYS[0]) is None


def test_another_keys_entry_is_not_believed(tmp_path: Path) -> None:
    FeatureCache(0, tmp_path).put(KEYS[0], features(1))
    shutil.copy(entries(tmp_path)[0], tmp_path / f"{KEYS[1]}.features")
    cache = FeatureCache(1000, tmp_path)
    assert cache.get(KEYS[1]) is None
    assert cache.get(KEYS[0]) == features(1)


def test_other_files_in_the_folder_are_left_alone_and_unfinished_ones_go(tmp_path: Path) -> None:
    mine, old, young = tmp_path / "notes.features", *(tmp_path / f".{key}.features.ab12.part" for key in KEYS[:2])
    for path in (mine, old, young):
        path.write_bytes(b"x" * 1000)
    os.utime(old, (time.time() - 7200,) * 2)
    FeatureCache(0, tmp_path, 200).put(KEYS[0], features(0))
    assert (mine.exists(), old.exists(), young.exists()) == (True, False, True)


def test_a_disk_that_cannot_be_written_is_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache = FeatureCache(1000, tmp_path / "file" / "below")
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            cache.put(KEYS[number], features(number))
    assert [cache.get(key) for key in KEYS[:4]] == [*map(features, range(3)), None]
    assert len(caplog.records) == 1
    assert "memory alone" in caplog.text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_leaves_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch) -> None:
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda path, mode="r": opened(Path("/dev/full"), mode, buffering=0))
    cache = FeatureCache(1000, tmp_path)
    cache.put(KEYS[0], features(0))
    cache.put(KEYS[1], features(1))
    assert (cache.get(KEYS[0]), cache.get(KEYS[1])) == (features(0), features(1))
    assert os.listdir(tmp_path) == []
    assert len(caplog.records) == 1
    assert "No space left" in caplog.text


# --- in company ---


def test_many_threads_see_only_right_values(tmp_path: Path) -> None:
    cache = FeatureCache(120, tmp_path, 600)
    wrong: list[int] = []

    def work(seed: int) -> None:
        for step in range(60):
            number = (seed * 31 + step * step) % 6
            found = cache.get(KEYS[number])
            if found is None:
                cache.put(KEYS[number], features(number))
            elif found != features(number):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert cache.used_bytes <= 120
    assert sum(path.stat().st_size for path in entries(tmp_path)) <= 600


def test_many_processes_share_a_folder(tmp_path: Path) -> None:
    script = """
import hashlib, sys
from pathlib import Path
import numpy as np
from lapilli.store.features import FeatureCache, Features
cache = FeatureCache(0, Path(sys.argv[1]), 6400)
for step in range(80):
    number = (int(sys.argv[2]) * 31 + step * step) % 64
    key, right = hashlib.sha256(bytes([number])).hexdigest(), Features.of(np.full((4, 3), number, np.float32))
    assert cache.get(key) in (None, right)
    cache.put(key, right)
"""
    command = [sys.executable, "-W", "error", "-c", script, str(tmp_path)]
    runs = [subprocess.Popen([*command, str(seed)], stderr=subprocess.PIPE) for seed in range(3)]
    for run in runs:
        _, said = run.communicate()
        assert (run.returncode, said) == (0, b"")
    assert sum(path.stat().st_size for path in entries(tmp_path)) <= 6400 * (1 + 2 / 16)
