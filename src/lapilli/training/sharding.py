"""Weights shared out over processes (FSDP2): each holds a part of every matrix, and gathers a block's when it is due.

A gathering is made by all processes together, so all of them compute as many passes, with the same parts of the model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lapilli.model.llava import Llava
from lapilli.training.distributed import Ranks

LARGE_TOWER = 1 << 30
"""From so many parameters on a frozen tower is shared out, too; a smaller one is whole in every process."""


def is_sharded(value: Tensor) -> bool:
    return isinstance(value, DTensor)


def whole_of(value: Tensor) -> Tensor:
    """All of a value that may be shared out; every process calls this."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def shard(whole: nn.Module, model: Llava, device: torch.device, ranks: Ranks, *, tower: bool) -> None:
    """Share the model out; `whole` is the module around it whose forward pass is all that is computed.

    With `tower` its blocks are shared out as well.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (ranks.world,))
    blocks: list[nn.Module] = list(model.language.blocks)
    left: set[nn.Parameter] = set()
    if model.vision is not None:
        model.vision.to(device)
        left = set(model.vision.parameters())
        if tower:
            blocks += list(model.vision.blocks)
            left -= {parameter for block in model.vision.blocks for parameter in block.parameters()}
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(whole, mesh=mesh, ignored_params=left)
    model.to(device)


def gather(model: nn.Module, ranks: Ranks, *, learnt_only: bool = False) -> None:
    """Make the leader's model whole, on the CPU, all of it or what has learnt; every process calls this.

    It cannot be computed with any more: it is there to be written.
    """
    owners = dict(model.named_modules())
    for name, value in list(model.named_parameters()):
        if isinstance(value, DTensor) and (value.requires_grad or not learnt_only):
            whole = whole_of(value.detach())
            if ranks.leads:
                path, _, last = name.rpartition(".")
                # Set beside FSDP, which would share it out again.
                owners[path]._parameters[last] = nn.Parameter(whole.cpu(), requires_grad=False)
