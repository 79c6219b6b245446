"""How long, how fast and from where: the numbers of a training run, frozen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """What the loop needs to know; what is trained, the objective knows.

    `rate` is the peak of a cosine schedule after `warmup` steps; it ends at `rate * floor`. Weight decay
    touches matrices only. `save_minutes` is how much work a cut can cost. "muon" turns the weights of linear
    layers by Muon and leaves the rest to AdamW.
    """

    steps: int
    rate: float
    warmup: int = 200
    floor: float = 0.02
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    clip: float = 1.0
    seed: int = 0
    save_minutes: float = 5.0
    log_every: int = 20
    bf16: bool = True
    optimizer: Literal["adamw", "muon"] = "adamw"


@dataclass(frozen=True, kw_only=True)
class TowerOptions:
    """The contrastive stage: what is seen in a batch, and how its losses are weighed."""

    batch: int = 64
    text_layers: int = 1
    region_weight: float = 1.0
    caption_weight: float = 0.25
    seed: int = 31
    workers: int = 1
