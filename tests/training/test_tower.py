"""The tower's teachers: boxes weigh the right patches, names are told apart, and it learns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from lapilli.config import VisionConfig
from lapilli.inputs.tokenizer import Tokenizer
from lapilli.training.initialise import place_positions, whiten_patches
from lapilli.training.loop import run
from lapilli.training.recipe import LoopOptions, TowerOptions
from lapilli.training.tower import Region, TowerBatch, TowerObjective, _overlap, normalise_pixels
from lapilli.training.vocabulary import build_vocabulary

VISION = VisionConfig(
    family="siglip", hidden_size=32, intermediate_size=64, num_layers=2, num_heads=2, image_size=32, patch_size=8,
    activation="gelu_tanh", norm_eps=1e-6,
)  # fmt: skip
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 220), "white": (240, 240, 240)}


def batches(first_step: int, size: int) -> Iterator[TowerBatch]:
    """Two coloured squares on black."""
    for step in range(first_step, 10_000):
        rng = np.random.default_rng(step)
        pixels_BHWC = np.zeros((size, 32, 32, 3), np.uint8)
        captions, regions = [], []
        for row in range(size):
            left, right = rng.choice(list(COLOURS), 2, replace=False)
            pixels_BHWC[row, 8:24, 0:16], pixels_BHWC[row, 8:24, 16:32] = COLOURS[left], COLOURS[right]
            captions.append(f"{left} to the left of {right}")
            regions += [Region(row, left, (0, 8, 16, 24)), Region(row, right, (16, 8, 32, 24))]
        yield TowerBatch(normalise_pixels(torch.from_numpy(pixels_BHWC)), tuple(captions), tuple(regions))


def test_a_box_weighs_the_patches_it_covers() -> None:
    boxes_R4 = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.25, 0.5, 0.75, 1.0], [0.0, 0.0, 1.0, 1.0], [0.3, 0.3, 0.3, 0.3]])
    weights_RN = _overlap(boxes_R4, 2)
    assert weights_RN[0].tolist() == [1, 0, 0, 0]
    assert weights_RN[1].tolist() == [0, 0, 0.5, 0.5], "rows run down, columns across"
    assert weights_RN[2].tolist() == [0.25] * 4
    assert weights_RN[3].tolist() == [0] * 4, "a box of no size weighs nothing, and is no NaN"


def test_it_learns_names_from_boxes_and_pictures_from_captions(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_json(build_vocabulary([], 400, whole=["to the left of", *COLOURS]))
    objective = TowerObjective(VISION, tokenizer, list(COLOURS), TowerOptions(batch=16, workers=0), batches)
    with torch.no_grad():
        untaught = objective.loss(next(batches(9_000, 32)))
    run(objective, LoopOptions(steps=80, rate=2e-3, warmup=10, bf16=False), tmp_path)
    with torch.no_grad():
        held_out = objective.loss(next(batches(9_000, 32)))
    assert float(held_out["region_accuracy"]) == 1.0
    assert float(held_out["picture"]) < 0.85 * float(untaught["picture"])


def test_pictures_with_the_same_caption_are_no_contrast() -> None:
    tokenizer = Tokenizer.from_json(build_vocabulary([], 400, whole=list(COLOURS)))
    objective = TowerObjective(VISION, tokenizer, list(COLOURS), TowerOptions(batch=2, workers=0), batches)
    batch = next(batches(0, 2))
    same = dataclasses.replace(batch, captions=("red", "red"))
    other = dataclasses.replace(batch, captions=("red", "blue"))
    # With the bias far below zero, a pair that belongs together is what costs.
    assert float(objective.loss(same)["picture"].detach()) > float(objective.loss(other)["picture"].detach()) + 3


def test_patches_start_whitened() -> None:
    pixels_BCHW = torch.cat([batch.pixels_BCHW for _, batch in zip(range(4), batches(0, 16), strict=False)])
    pixels_BCHW = pixels_BCHW + 0.05 * torch.randn(pixels_BCHW.shape, generator=torch.Generator().manual_seed(0))
    patch = torch.nn.Conv2d(3, 8, 8, stride=8)
    whiten_patches(patch, pixels_BCHW)
    with torch.no_grad():
        seen_DN = patch(pixels_BCHW).flatten(2).transpose(0, 1).flatten(1)
    assert seen_DN.mean(1).abs().max() < 1e-3
    covariance_DD = torch.cov(seen_DN)
    assert (covariance_DD - torch.diag(covariance_DD.diag())).abs().max() < 1e-2
    assert covariance_DD.diag().max() == pytest.approx(0.25, rel=0.05)


def test_positions_start_alike_for_neighbours() -> None:
    position_ND = torch.zeros(16, 32)
    place_positions(position_ND, 4)
    distance = torch.cdist(position_ND, position_ND)
    assert distance[0, 1] == pytest.approx(float(distance[5, 6])), "the same step is the same change, wherever"
    assert distance[0, 4] == pytest.approx(float(distance[5, 9]))
    assert 0 < distance[0, 1] < distance[0, 2] < distance[0, 3]
