"""Training in several processes, each with its share of every batch: `torchrun --nproc-per-node 2 -m lapilli train …`.

Every process holds all weights and averages gradients before each step, or holds a share of them (`sharding`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import PrefixStore, Store


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

    def most(self, count: int) -> int:
        """The largest count of all processes."""
        if self.world == 1:
            return count
        largest = torch.tensor([count])
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest.item())

    def wait(self) -> None:
        """Go on when all processes have come here."""
        self.most(0)

    def agree(self, said: bool) -> bool:
        """Whether any process says so: all stop at the same step, or none does."""
        if self.world == 1:
            return said
        return bool(self.most(int(said)))


def join() -> Ranks:
    """Join the processes that torchrun started, each with a GPU of its own where there are enough; else alone."""
    if "RANK" not in os.environ:
        return Ranks()
    if not dist.is_initialized():
        local, beside = (int(os.environ.get(name, "0")) for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
        if gpus := 0 < beside <= torch.cuda.device_count():
            torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" and os.environ.get("GROUP_WORLD_SIZE") == "1":
            rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
            dist.init_process_group(backend, store=_fresh_store(world), rank=rank, world_size=world)
        else:
            dist.init_process_group(backend)
    return Ranks(dist.get_rank(), dist.get_world_size())


def _fresh_store(world: int) -> Store:
    """A part of torchrun's store for this start alone: it keeps the addresses of processes that died (pytorch 135712).

    On several machines starts are not counted alike: there TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 is the way.
    """
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), world, is_master=False)
    return PrefixStore(f"start {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)


def leave() -> None:
    """Part from the other processes, where there are any."""
    if dist.is_initialized():
        dist.destroy_process_group()
