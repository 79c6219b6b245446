"""Weights shared out over processes: one process's loss, states that any number of processes reads, cuts survived."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from shards import OWN_RECIPE, losses, train

TWENTY = ("epochs=7", "shard=true", "save_minutes=0")


@pytest.fixture(scope="module")
def alone(base: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work of one process: 21 steps."""
    work = tmp_path_factory.mktemp("alone") / "work"
    assert len(train(base, data, work, *TWENTY)) == 21
    return work


def far(one: list[float], other: list[float]) -> float:
    assert len(one) == len(other)
    return float(np.abs(np.subtract(one, other)).max())


@pytest.mark.parametrize("tower", [(), ("tower",)], ids=["decoder", "tower too"])
def test_shares_learn_what_one_learns_and_the_model_is_written_whole(
    alone: Path, base: Path, data: Path, tmp_path: Path, tower: tuple[str, ...]
) -> None:
    assert far(train(base, data, tmp_path / "two", *TWENTY, *tower, world=2), losses(alone)) <= 1e-5
    ours, theirs = (
        load_file(path / "model.safetensors") for path in (tmp_path / "two.out", alone.with_name("work.out"))
    )
    assert ours.keys() == theirs.keys()
    # AdamW turns the smallest differences of a sum into steps of its rate where gradients are near zero.
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-3) for name in theirs)


@pytest.mark.parametrize("world", [1, 4])
def test_a_state_of_two_is_gone_on_with_by_others(
    alone: Path, base: Path, data: Path, tmp_path: Path, world: int
) -> None:
    assert len(train(base, data, tmp_path / "work", *TWENTY, "ema=0.9", world=2, minutes=0)) == 1
    assert [path.name for path in (tmp_path / "work").glob("*state*")] == ["state-000000001"]
    assert far(train(base, data, tmp_path / "work", *TWENTY, "ema=0.9", world=world), losses(alone)) <= 1e-5
    kept = {path.name for path in (tmp_path / "work").glob("*state*")}
    assert kept == ({"state.safetensors"} if world == 1 else {"state-000000021"})


def test_a_state_of_one_is_gone_on_with_by_two(base: Path, data: Path, tmp_path: Path) -> None:
    """With adapters, and through recomputed blocks."""
    changes = (*TWENTY, "lora={rank=4}", "checkpointing=true")
    whole = train(base, data, tmp_path / "whole", *changes)
    train(base, data, tmp_path / "work", *changes, minutes=0)
    assert far(train(base, data, tmp_path / "work", *changes, world=2), whole) <= 1e-5
    ours, theirs = (load_file(tmp_path / f"{name}.out" / "adapter_model.safetensors") for name in ("work", "whole"))
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-3) for name in theirs)


def test_a_worker_killed_is_survived_from_the_last_state(alone: Path, base: Path, data: Path, tmp_path: Path) -> None:
    """By torchrun's own restarts, through the command line."""
    (tmp_path / "own.toml").write_text(OWN_RECIPE)
    options = [part for change in TWENTY for part in ("--set", change)]
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1",
        "-m", "lapilli", "train", "tune", str(tmp_path / "own.toml"), "--base", str(base), "--data", str(data),
        "--out", str(tmp_path / "out"), "--device", "cpu", *options,
    ]  # fmt: skip
    work = tmp_path / "out.training"
    started = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list(work.glob("state-*")) and time.monotonic() < deadline and started.poll() is None:
        time.sleep(0.02)
    workers = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
    os.kill(int(workers[-1]), signal.SIGKILL)
    told, _ = started.communicate(timeout=240)
    assert started.returncode == 0
    assert told.decode().count("step 21, written to") == 1, "one of two speaks, and only at the end"
    assert far(losses(work), losses(alone)) <= 1e-5
