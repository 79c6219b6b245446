"""A cluster of three nodes on this machine: the same bytes, also when a node is taken away, or the driver killed."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from processes import family

from lapilli.apps.executors.local import LocalExecutor
from lapilli.apps.jobs.job import Job
from lapilli.apps.jobs.rehearsal import COLUMNS
from lapilli.apps.jobs.work import Worker

pytestmark = pytest.mark.soak

ITEMS, SHARD = 60, 2
# Everything at 127.0.0.1, and nothing told to anybody.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
small = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=small)
nodes = [cluster.add_node(**small) for _ in range(2)]
print("at", cluster.address, flush=True)
for line in sys.stdin:
    cluster.remove_node(nodes.pop(), allow_graceful=False)
    print("removed", flush=True)
cluster.shutdown()
"""
DRIVER = """
import sys
from pathlib import Path
from lapilli.apps.executors.ray import RayExecutor
from lapilli.apps.jobs.job import Job
from lapilli.apps.jobs.rehearsal import COLUMNS
from lapilli.apps.jobs.work import Worker
worker = Worker("lapilli.apps.jobs.rehearsal:open_rehearsal", {"seconds": float(sys.argv[3])})
with Job.open(Path(sys.argv[1]), {}, shard=2, columns=COLUMNS) as job:
    items = lambda: ({"n": n} for n in range(60))
    tell = lambda report: print(report.made, flush=True)
    report = job.run(items, worker, executor=RayExecutor(sys.argv[2]), progress=tell)
print("done", report.made, report.kept, flush=True)
"""


class Cluster:
    """Three nodes, in a process that ends them with itself."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **QUIET},
        )  # fmt: skip
        self.address = self._said("at")

    def take_one_away(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("remove\n")
        self._process.stdin.flush()
        self._said("removed")

    def end(self) -> None:
        self._process.communicate(timeout=120)

    def _said(self, word: str) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(word):
                return line.removeprefix(word).strip()
        raise AssertionError(f"the cluster ended before it said {word!r}")


class Driver:
    """A run on a cluster, in a process of its own."""

    def __init__(self, folder: Path, address: str, seconds: float) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", DRIVER, str(folder), address, str(seconds)],
            stdout=subprocess.PIPE, text=True, env={**os.environ, **QUIET},
        )  # fmt: skip

    def until(self, made: int) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip() == str(made):
                return
        raise AssertionError(f"the run ended before it had {made} parts")

    def done(self) -> tuple[int, int]:
        said, _ = self.process.communicate(timeout=180)
        assert self.process.returncode == 0
        made, kept = said.splitlines()[-1].removeprefix("done ").split()
        return int(made), int(kept)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    started = Cluster()
    yield started
    started.end()


def parts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "parts").iterdir()}


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    """The parts of a run in this process."""
    with Job.open(tmp_path / "whole", {}, shard=SHARD, columns=COLUMNS) as job:
        worker = Worker("lapilli.apps.jobs.rehearsal:open_rehearsal")
        job.run(lambda: iter({"n": n} for n in range(ITEMS)), worker, executor=LocalExecutor())
    return parts(tmp_path / "whole")


def test_a_node_is_taken_away_and_nothing_is_lost(cluster: Cluster, tmp_path: Path, whole: dict[str, bytes]) -> None:
    driver = Driver(tmp_path / "job", cluster.address, seconds=0.2)
    driver.until(6)
    cluster.take_one_away()
    assert driver.done() == (ITEMS // SHARD, 0)
    assert parts(tmp_path / "job") == whole


def test_the_driver_is_killed_and_the_next_one_goes_on(
    cluster: Cluster, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    for made in (4, 9):
        driver = Driver(tmp_path / "job", cluster.address, seconds=0.1)
        driver.until(made)
        driver.process.kill()
        driver.process.wait()
    cluster.take_one_away()
    made, kept = Driver(tmp_path / "job", cluster.address, seconds=0).done()
    assert made + kept == ITEMS // SHARD
    assert kept >= 13
    assert parts(tmp_path / "job") == whole


def test_one_that_lapilli_starts_listens_at_this_machine_alone(tmp_path: Path, whole: dict[str, bytes]) -> None:
    driver = Driver(tmp_path / "job", "local", seconds=0.05)
    driver.until(3)
    assert reachable(driver.process.pid) == []
    begun = family(driver.process.pid)
    assert len(begun) > 2
    driver.done()
    assert parts(tmp_path / "job") == whole
    end = time.monotonic() + 30
    while left := [pid for pid in begun if psutil.pid_exists(pid)]:
        assert time.monotonic() < end, f"{left} have outlived the run"
        time.sleep(0.1)


def test_a_cluster_that_is_not_there_is_told_of(tmp_path: Path) -> None:
    driver = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path / "job"), "127.0.0.1:1025", "0"], capture_output=True, text=True
    )
    assert "InputError: no Ray cluster at 127.0.0.1:1025" in driver.stderr


def reachable(pid: int) -> list[str]:
    """Where a process and those it has begun listen for other machines."""
    inodes = set()
    for each in {pid, *family(pid)}:
        with contextlib.suppress(OSError):  # it has ended meanwhile
            for file in list(Path(f"/proc/{each}/fd").iterdir()):
                inodes |= set(re.findall(r"socket:\[(\d+)\]", os.readlink(file)))
    assert inodes
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            address, state, inode = fields[1].rpartition(":")[0], fields[3], fields[9]
            here = address in ("0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F")
            if state == "0A" and inode in inodes and not here:
                found.append(fields[1])
    return found
