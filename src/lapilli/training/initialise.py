"""Where training starts: random weights that neither explode nor vanish."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def initialise(module: nn.Module, seed: int, *, layers: int) -> None:
    """Fill every parameter: normal with deviation 0.02, norms one, biases zero.

    Projections back into the residual stream are divided by sqrt(2 * layers), as in GPT-2.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        with torch.no_grad():
            _fill(name, parameter, generator, layers)


def _fill(name: str, parameter: Tensor, generator: torch.Generator, layers: int) -> None:
    if parameter.ndim <= 1 and not name.endswith(("class_token", "newline")):
        # The only vectors are norm weights, biases and scalars; scalars keep what their owner gave them.
        if parameter.ndim == 1:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
        return
    deviation = 0.02
    if name.endswith(("attention.out.weight", "mlp.down.weight")):
        deviation /= (2 * layers) ** 0.5
    elif name.endswith("patch.weight"):
        deviation = (parameter[0].numel()) ** -0.5
    parameter.normal_(0.0, deviation, generator=generator)


def place_positions(position_ND: Tensor, grid: int, strength: float = 0.3) -> None:
    """Start learnt positions as sines and cosines of row and column (arXiv 2205.01580): neighbours begin alike."""
    quarter = position_ND.shape[1] // 4
    angles_GQ = torch.arange(grid)[:, None] * 100.0 ** -(torch.arange(quarter) / quarter)
    waves_GD = torch.cat((angles_GQ.sin(), angles_GQ.cos()), dim=1)
    rows_ND = waves_GD[:, None].expand(grid, grid, -1).flatten(0, 1)
    columns_ND = waves_GD[None].expand(grid, grid, -1).flatten(0, 1)
    with torch.no_grad():
        position_ND[:, : 4 * quarter] = torch.cat((rows_ND, columns_ND), dim=1) * strength


def whiten_patches(patch: nn.Conv2d, pixels_BCHW: Tensor) -> None:
    """Start the patch embedding as the main directions of real patches, each brought to the same size.

    Neighbouring pixels are nearly equal: what tells patches apart is a small part of their variance, and early
    training would spend itself on finding it (arXiv 2404.00498).
    """
    size = patch.kernel_size[0]
    patches_ND = F.unfold(pixels_BCHW, size, stride=size).transpose(1, 2).flatten(0, 1)
    mean_D = patches_ND.mean(0)
    patches_ND = patches_ND - mean_D
    variances, directions = torch.linalg.eigh((patches_ND.T @ patches_ND / len(patches_ND)).double())
    best = variances.argsort(descending=True)[: patch.out_channels]
    filters = (directions[:, best] / (variances[best] + 0.01).sqrt()).T.float() * 0.5
    with torch.no_grad():
        patch.weight.copy_(filters.view_as(patch.weight))
        if patch.bias is not None:
            patch.bias.copy_(-(filters @ mean_D))
