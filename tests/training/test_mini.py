"""The stages that make `mini`, each for one step, from the weights of the shipped one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from checkpoints import save_llava
from lapilli import TrainingError
from lapilli.checkpoints.load import load_checkpoint
from lapilli.store.reference import resolve
from lapilli.training.loop import trained_weights
from lapilli.training.mini import Workshop, train_align, train_tower, train_tune


def test_an_earlier_mini_is_where_the_next_one_begins(shared_data: Path, tmp_path: Path) -> None:
    shipped = load_checkpoint(resolve("mini").path, dtype=torch.float32)
    shop = Workshop.open(shared_data, tmp_path, torch.device("cpu"), resolve("mini").path)
    assert shop.tokenizer.vocab_size == shipped.prompts.tokenizer.vocab_size
    for stage in (train_tower, train_align, train_tune):
        assert stage(shop, minutes=0) == 1
    made = load_checkpoint(tmp_path / "model", dtype=torch.float32)
    assert made.config == shipped.config
    before, after = shipped.model.state_dict(), made.model.state_dict()
    moved = {name: float((after[name] - before[name]).abs().max()) for name in before}
    assert max(moved.values()) < 0.05, "one step of each stage stays near where it began"
    for part in ("vision.", "projector.", "language."):
        assert any(moved[name] > 0 for name in moved if name.startswith(part)), f"{part} has learnt nothing"


@pytest.mark.parametrize("stage", [train_align, train_tune])
def test_from_an_earlier_mini_a_stage_needs_none_before_it(
    shared_data: Path, tmp_path: Path, stage: Callable[..., int]
) -> None:
    shop = Workshop.open(shared_data, tmp_path, torch.device("cpu"), resolve("mini").path)
    assert shop.start is not None
    before = shop.start.state_dict()
    assert stage(shop, minutes=0) == 1
    [state] = [folder for folder in tmp_path.iterdir() if folder.name in ("align", "tune")]
    after = trained_weights(state)
    assert max(float((after[name] - before[name]).abs().max()) for name in before) < 0.05


def test_another_model_is_refused(shared_data: Path, tmp_path: Path) -> None:
    save_llava(tmp_path / "other")
    with pytest.raises(TrainingError, match="another model"):
        Workshop.open(shared_data, tmp_path, torch.device("cpu"), tmp_path / "other")
