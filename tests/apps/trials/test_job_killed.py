"""`lapilli trials extract`, killed: the same command goes on, and its bytes are those of a run that nobody touched."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_registers import write_ictrp

from lapilli.apps.jobs.job import Job


def begin(path: Path, out: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-B", "-m", "lapilli", "trials", "extract", str(path), "--out", str(out), "--shard", "4"]
    return subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(path: Path, out: Path, *arguments: str) -> dict[str, bytes]:
    with begin(path, out, *arguments) as process:
        _, told = process.communicate(timeout=300)
    assert process.returncode == 0, told.decode()
    return {part.name: part.read_bytes() for part in (out / "parts").iterdir()}


def kill_after(path: Path, out: Path, seconds: float, *arguments: str) -> bool:
    """Whether it was still at work when it was killed."""
    with begin(path, out, *arguments) as process:
        time.sleep(seconds)
        alive = process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    return alive


def test_killed_as_its_first_part_appears_it_goes_on(tmp_path: Path) -> None:
    path, out = write_ictrp(tmp_path / "made.xml", 40), tmp_path / "job"
    with begin(path, out, "--rules") as process:
        deadline = time.monotonic() + 60
        while not (out / "parts" / "part-00000.parquet").exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert finish(path, out, "--rules") == finish(path, tmp_path / "whole", "--rules")
    with Job.at(out) as job:
        trials = [row["trial"] for row in job.rows() if row["fields"] is not None]
    assert trials == [f"MADE{number:08}" for number in range(40)]


@pytest.mark.soak
@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_killed_twenty_times_at_random_it_goes_on(tmp_path: Path, workers: tuple[str, ...]) -> None:
    path, out = write_ictrp(tmp_path / "made.xml", 2000), tmp_path / "job"
    chance = random.Random(7)
    killed = sum(kill_after(path, out, chance.uniform(0.5, 4), "--rules", *workers) for _ in range(20))
    assert killed
    assert finish(path, out, "--rules", *workers) == finish(path, tmp_path / "whole", "--rules")


@pytest.mark.soak
def test_a_model_that_is_killed_says_the_same_in_the_end(tmp_path: Path) -> None:
    path, out = write_ictrp(tmp_path / "made.xml", 12), tmp_path / "job"
    for _ in range(4):
        kill_after(path, out, 12, "--model", "mini")
    assert finish(path, out, "--model", "mini") == finish(path, tmp_path / "whole", "--model", "mini", "--window", "3")
