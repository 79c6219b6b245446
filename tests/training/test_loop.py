"""The loop keeps what it learnt, goes on where it was, and stops with a clear word."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from lapilli import TrainingError
from lapilli.training.loop import BOARD_FOLDER, METRICS_FILE, STATE_FILE, run, trained_weights
from lapilli.training.recipe import LoopOptions

OPTIONS = LoopOptions(steps=12, rate=0.05, warmup=3, log_every=1, bf16=False)


class Line:
    """Learn y = 3x - 1 from points that depend on the step alone."""

    def __init__(self, *, poison_at: int | None = None) -> None:
        torch.manual_seed(3)
        self.line, self.poison_at = nn.Linear(1, 1), poison_at

    def modules(self) -> nn.Module:
        return self.line

    def batches(self, first_step: int) -> Iterator[Tensor]:
        for step in range(first_step, 1000):
            points = torch.rand(8, 1, generator=torch.Generator().manual_seed(step))
            yield points * torch.nan if step == self.poison_at else points

    def loss(self, batch: Tensor) -> dict[str, Tensor]:
        return {"loss": (self.line(batch) - (3 * batch - 1)).pow(2).mean()}


def test_a_run_in_pieces_is_the_whole_run_bit_for_bit(tmp_path: Path) -> None:
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    assert run(Line(), OPTIONS, whole) == 12
    steps = [run(Line(), OPTIONS, pieces, minutes=0) for _ in range(12)]
    assert steps == list(range(1, 13))
    ours, theirs = trained_weights(pieces), trained_weights(whole)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert run(Line(), OPTIONS, pieces) == 12, "a run that is done stays as it is"


def test_muon_turns_linear_layers_and_also_runs_in_pieces(tmp_path: Path) -> None:
    options = replace(OPTIONS, optimizer="muon")
    whole, pieces, plain = tmp_path / "whole", tmp_path / "pieces", tmp_path / "plain"
    assert run(Line(), options, whole) == run(Line(), OPTIONS, plain) == 12
    for _ in range(12):
        run(Line(), options, pieces, minutes=0)
    ours, theirs, other = trained_weights(pieces), trained_weights(whole), trained_weights(plain)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not torch.equal(theirs["weight"], other["weight"])
    with safe_open(whole / STATE_FILE, framework="pt") as file:
        kept = {name for name in file.keys() if name.startswith("optimizer.")}
    assert "optimizer.weight.momentum_buffer" in kept, "Muon's"
    assert {"optimizer.bias.exp_avg", "optimizer.bias.exp_avg_sq"} <= kept, "AdamW's"


def test_it_learns_and_says_how_far_it_is(tmp_path: Path) -> None:
    run(Line(), LoopOptions(steps=300, rate=0.05, warmup=10, bf16=False, weight_decay=0.0), tmp_path)
    weights = trained_weights(tmp_path)
    assert float(weights["weight"]) == pytest.approx(3, abs=0.1)
    assert float(weights["bias"]) == pytest.approx(-1, abs=0.1)
    lines = [json.loads(line) for line in (tmp_path / METRICS_FILE).read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(20, 301, 20))
    assert lines[-1]["loss"] < lines[0]["loss"] / 10


def test_lines_of_steps_that_a_cut_lost_are_said_once(tmp_path: Path) -> None:
    run(Line(), OPTIONS, tmp_path, minutes=0)
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"loss": 9, "step": 2}\n{"loss": 9, "ste')
    run(Line(), OPTIONS, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / METRICS_FILE).read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert all(line["loss"] != 9 for line in lines)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # TensorBoard's own
@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
def test_tensorboard_reads_what_was_logged(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(Line(), OPTIONS, tmp_path, minutes=0)
    run(Line(), OPTIONS, tmp_path)
    read = EventAccumulator(str(tmp_path / BOARD_FOLDER)).Reload()
    lines = [json.loads(line) for line in (tmp_path / METRICS_FILE).read_text().splitlines()]
    assert [(event.step, round(event.value, 5)) for event in read.Scalars("loss")] == [
        (line["step"], pytest.approx(line["loss"], abs=1e-5)) for line in lines
    ]


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    run(Line(), OPTIONS, tmp_path, minutes=0)
    before = trained_weights(tmp_path)
    with pytest.raises(TrainingError, match="nan at step 1: lower the rate"):
        run(Line(poison_at=1), OPTIONS, tmp_path)
    assert all(torch.equal(before[name], value) for name, value in trained_weights(tmp_path).items())


def test_another_runs_folder_is_refused(tmp_path: Path) -> None:
    run(Line(), OPTIONS, tmp_path, minutes=0)
    other = Line()
    other.line = nn.Linear(2, 1)  # type: ignore[assignment]
    with pytest.raises(TrainingError, match=r"weight is \(1, 1\), this run needs \(1, 2\)"):
        run(other, OPTIONS, tmp_path)
    other.line = nn.Bilinear(1, 1, 1, bias=False)  # type: ignore[assignment]
    with pytest.raises(TrainingError, match="other names"):
        run(other, OPTIONS, tmp_path)


def test_nothing_to_learn_and_nothing_trained_are_said(tmp_path: Path) -> None:
    frozen = Line()
    frozen.line.requires_grad_(False)
    with pytest.raises(TrainingError, match="every parameter is frozen"):
        run(frozen, OPTIONS, tmp_path)
    with pytest.raises(TrainingError, match="run that stage first"):
        trained_weights(tmp_path / "nowhere")


def test_an_interrupt_saves_first(tmp_path: Path) -> None:
    class Interrupted(Line):
        def loss(self, batch: Tensor) -> dict[str, Tensor]:
            os.kill(os.getpid(), signal.SIGINT)
            return super().loss(batch)

    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(), OPTIONS, tmp_path)
    assert run(Line(), OPTIONS, tmp_path, minutes=0) == 2


IN_TWO = """
import sys
from pathlib import Path
import torch
from torch import nn
from lapilli.training.distributed import join
from lapilli.training.loop import run
from lapilli.training.recipe import LoopOptions

class Line:
    def __init__(self):
        torch.manual_seed(3)
        self.line = nn.Linear(1, 1)
    def modules(self):
        return self.line
    def batches(self, first_step):
        ranks = join()
        for step in range(first_step, 1000):
            points = torch.rand(8, 1, generator=torch.Generator().manual_seed(step))
            yield points.split(8 // ranks.world)[ranks.rank]
    def loss(self, batch):
        return {"loss": (self.line(batch) - (3 * batch - 1)).pow(2).mean()}

run(Line(), LoopOptions(steps=12, rate=0.05, warmup=3, bf16=False), Path(sys.argv[1]))
"""


def test_two_processes_with_half_a_batch_each_learn_what_one_learns(tmp_path: Path) -> None:
    ours = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", IN_TWO]
    subprocess.run([*command, str(tmp_path / "one")], check=True, env=ours, timeout=300)
    address = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(29600 + os.getpid() % 300)}
    started = [
        subprocess.Popen([*command, str(tmp_path / "two")], env=ours | address | {"RANK": str(rank)})
        for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=300) for process in started] == [0, 0]
    finally:
        for process in started:
            process.kill()
            process.wait()
    alone, together = trained_weights(tmp_path / "one"), trained_weights(tmp_path / "two")
    assert all(torch.allclose(alone[name], together[name], atol=1e-6) for name in alone)
