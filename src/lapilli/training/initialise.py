"""Where training starts: random weights that neither explode nor vanish."""

from __future__ import annotations

import torch
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
