"""Killed at any write, flush or rename, and at any time, a job goes on: none lost, none twice, the same bytes."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from lapilli.apps.jobs.job import Job

CALLS = ("write", "pwrite64", "fsync", "fdatasync", "rename", "unlink", "mkdir", "ftruncate", "openat")
PROGRAM = """
import sys
from pathlib import Path
from lapilli.apps.executors.opening import open_executor
from lapilli.apps.jobs import rehearsal
from lapilli.apps.jobs.columns import encode
from lapilli.apps.jobs.job import Job
from lapilli.apps.jobs.work import Worker
count, shard, seconds, workers = int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]) or None
worker = Worker("lapilli.apps.jobs.rehearsal:open_rehearsal", {"lines": 2, "seconds": seconds})
encode([{"line": 1}], rehearsal.COLUMNS)  # what is loaded at first use is loaded before the first change
print("begin", flush=True)
with Job.open(Path(sys.argv[1]), {"model": "a"}, shard=shard, columns=rehearsal.COLUMNS) as job:
    items = lambda: ({"n": n, "text": "word " * n} for n in range(count))
    report = job.run(items, worker, executor=open_executor(workers=workers))
print(report.made, report.kept)
"""


def command(folder: Path, *, count: int = 5, shard: int = 2, seconds: float = 0, workers: int = 0) -> list[str]:
    return [sys.executable, "-B", "-c", PROGRAM, *map(str, (folder, count, shard, seconds, workers))]


def finished(folder: Path, **how: float) -> dict[str, bytes]:
    """Have a run come to its end, and give the parts; all else that is left is in its place."""
    done = subprocess.run(command(folder, **how), capture_output=True, text=True, timeout=120)  # type: ignore[arg-type]
    assert done.returncode == 0, done.stderr
    assert {path.name for path in folder.iterdir()} == {"job.json", "manifest.sqlite", "parts", "running"}
    parts = {path.name: path.read_bytes() for path in (folder / "parts").iterdir()}
    with Job.at(folder) as job:
        rows = [(row["item"]["n"], row["line"]) for row in job.rows()]
        assert rows == [(n, line) for n in range(int(how.get("count", 5))) for line in (0, 1)]
        assert job.missing() == 0
    return parts


def strace(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["strace", "-f", "-qq", *options, *command(folder)], capture_output=True, text=True, timeout=120
    )


def points(tmp_path: Path) -> list[tuple[str, int]]:
    """Every call from the first to the last that changes something in the job's folder."""
    log, folder = tmp_path / "log", tmp_path / "counted"
    done = strace(folder, "-o", str(log), "-y", "-e", f"trace={','.join(CALLS)}")
    assert done.returncode == 0, done.stderr
    total: Counter[str] = Counter()
    for line in log.read_text(errors="replace").splitlines():
        match = re.search(r"\b(" + "|".join(CALLS) + r")\(", line)
        if match is not None:
            total[match[1]] += 1
            if str(folder) in line and (match[1] != "openat" or "O_CREAT" in line):
                total[f"first {match[1]}"] = total[f"first {match[1]}"] or total[match[1]]
                total[f"last {match[1]}"] = total[match[1]]
    found = [
        (call, number)
        for call in CALLS
        if total[f"first {call}"]
        for number in range(total[f"first {call}"], total[f"last {call}"] + 1)
    ]
    assert {"write", "pwrite64", "fsync", "rename", "unlink", "openat"} <= {call for call, _ in found}
    return found


def sweep(tmp_path: Path, share: int) -> int:
    """Kill at each of the points, or at one in `share`, and go on; how many runs were killed."""
    whole = finished(tmp_path / "whole")
    assert len(whole) == 3
    killed = 0
    for call, when in points(tmp_path)[::share]:
        folder = tmp_path / f"{call}-{when}"
        done = strace(folder, "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={when}")
        killed += done.returncode != 0
        try:
            assert finished(folder) == whole
        except BaseException as error:
            error.add_note(f"killed at {call} number {when}")
            raise
        shutil.rmtree(folder)
    return killed


needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


@needs_strace
def test_killed_at_some_calls_it_goes_on(tmp_path: Path) -> None:
    assert sweep(tmp_path, 60) >= 2


@needs_strace
@pytest.mark.soak
def test_killed_at_every_call_it_goes_on(tmp_path: Path) -> None:
    assert sweep(tmp_path, 1) >= 60


def kill_at_random(tmp_path: Path, kills: int, seed: int, workers: int) -> None:
    how = {"count": 24, "shard": 2, "seconds": 0.02, "workers": workers}
    began = time.monotonic()
    whole = finished(tmp_path / "whole", **how)
    longest = time.monotonic() - began
    chance, killed, number = random.Random(seed), 0, 0
    while killed < kills:
        folder, number = tmp_path / str(number), number + 1
        for _ in range(5):
            with subprocess.Popen(
                command(folder, **how),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,  # type: ignore[arg-type]
            ) as running:
                assert running.stdout is not None
                assert running.stdout.readline() == b"begin\n"
                time.sleep(chance.uniform(0, 0.7 * longest))
                os.kill(running.pid, signal.SIGKILL)
                killed += running.wait() != 0
        assert finished(folder, **how) == whole
        shutil.rmtree(folder)


def test_killed_at_random_it_goes_on(tmp_path: Path) -> None:
    kill_at_random(tmp_path, 2, seed=1, workers=0)


@pytest.mark.soak
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_at_random_fifty_times_it_goes_on(tmp_path: Path, workers: int) -> None:
    kill_at_random(tmp_path, 50, seed=2, workers=workers)
