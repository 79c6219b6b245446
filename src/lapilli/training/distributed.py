"""Training in several processes, each with its share of every batch: `torchrun --nproc-per-node 2 -m lapilli train …`.

Every process holds all weights and draws its own pictures; gradients are averaged before each step.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn


@dataclass(frozen=True)
class Ranks:
    """Which process this is, and of how many."""

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes and reports."""
        return self.rank == 0

    def share(self, step: int) -> int:
        """The number of this process's part of a step's batch."""
        return step * self.world + self.rank

    def average(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over all processes."""
        if self.world == 1:
            return
        learning = list(parameters)
        for parameter in learning:
            if parameter.grad is None:  # this process's share had no use for it, another's may
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in learning if p.grad is not None]
        whole = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(whole)
        whole /= self.world
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, part in zip(gradients, torch.split(whole, sizes), strict=True):
            gradient.copy_(part.view_as(gradient))

    def total(self, count: float) -> float:
        """The sum over all processes."""
        if self.world == 1:
            return count
        whole = torch.tensor([count], dtype=torch.float64)
        dist.all_reduce(whole)
        return float(whole.item())

    def agree(self, said: bool) -> bool:
        """Whether any process says so: all stop at the same step, or none does."""
        if self.world == 1:
            return said
        flag = torch.tensor([int(said)])
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag.item())


def join() -> Ranks:
    """Join the processes that torchrun started; alone where it started none."""
    if "RANK" not in os.environ:
        return Ranks()
    if not dist.is_initialized():
        dist.init_process_group("gloo")
    return Ranks(dist.get_rank(), dist.get_world_size())
