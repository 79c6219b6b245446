"""Rotary positions (arXiv 2104.09864) and the ways they are stretched to longer contexts."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from lapilli.config import RopeConfig, TextConfig


def rotation(
    config: TextConfig, positions_BT: Tensor, dtype: torch.dtype, lengths_B: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Cosines and sines (B, 1, T, rotary_dim) for these positions.

    `dynamic` and `longrope` depend on how long a row has become, `lengths_B` if that is more than what is read
    here; each row decides for itself, so that a row's answer never depends on its neighbours.
    """
    rope = config.rope
    if rope.kind in ("dynamic", "longrope"):
        grown_B = positions_BT.amax(dim=1) + 1
        grown_B = grown_B if lengths_B is None else torch.maximum(grown_B, lengths_B)
        each = torch.stack([frequencies(config, int(n)) for n in grown_B.tolist()]).to(positions_BT.device)
        angles = positions_BT[..., None].float() * each[:, None, :]
    else:
        angles = positions_BT[..., None].float() * frequencies(config, 0).to(positions_BT.device)
    angles = torch.cat((angles, angles), dim=-1)[:, None]
    scale = attention_factor(rope, config.max_positions)
    return (angles.cos() * scale).to(dtype), (angles.sin() * scale).to(dtype)


def rotate(x_BHTD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the first rotary_dim dimensions of each head; the rest passes unchanged."""
    width = cos.shape[-1]
    turned, rest = x_BHTD[..., :width], x_BHTD[..., width:]
    first, second = turned.chunk(2, dim=-1)
    turned = turned * cos + torch.cat((-second, first), dim=-1) * sin
    return torch.cat((turned, rest), dim=-1) if rest.shape[-1] else turned


@lru_cache(maxsize=64)
def frequencies(config: TextConfig, length: int) -> Tensor:
    """Inverse frequencies (rotary_dim / 2) for a row that has grown to `length` tokens."""
    rope, dim = config.rope, config.rotary_dim
    exponents = torch.arange(0, dim, 2, dtype=torch.int64).float() / dim
    if rope.kind == "dynamic":
        # In float32, as the reference has it: at positions of thousands, the last bit of a frequency is seen.
        grown = rope.factor * torch.tensor(max(length, config.max_positions)) / config.max_positions
        theta = rope.theta * (grown - (rope.factor - 1)) ** (dim / (dim - 2))
        return torch.as_tensor(1.0 / theta**exponents)
    if rope.kind == "longrope":
        original = rope.original_max_positions or config.max_positions
        stretch = torch.tensor(rope.long_factor if length > original else rope.short_factor)
        return torch.as_tensor(1.0 / (stretch * rope.theta**exponents))
    plain = torch.as_tensor(1.0 / rope.theta**exponents)
    if rope.kind == "linear":
        return plain / rope.factor
    if rope.kind == "llama3":
        return _llama3(rope, plain, config.max_positions)
    if rope.kind == "yarn":
        return _yarn(rope, plain, dim, config.max_positions)
    return plain


def _llama3(rope: RopeConfig, plain: Tensor, max_positions: int) -> Tensor:
    """Llama 3.1: slow frequencies are divided, fast ones kept, those between blended."""
    original = rope.original_max_positions or max_positions
    wavelength = 2 * math.pi / plain
    low, high = original / rope.low_freq_factor, original / rope.high_freq_factor
    blend = (original / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    blended = (1 - blend) * plain / rope.factor + blend * plain
    return torch.where(wavelength > low, plain / rope.factor, torch.where(wavelength < high, plain, blended))


def _yarn(rope: RopeConfig, plain: Tensor, dim: int, max_positions: int) -> Tensor:
    """YaRN (arXiv 2309.00071): interpolate the dimensions that turn too seldom to have seen a full circle."""
    original = rope.original_max_positions or max_positions

    def dimension_of(turns: float) -> float:
        return dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = dimension_of(rope.beta_fast), dimension_of(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001  # a ramp of no width would divide by zero
    ramp = ((torch.arange(dim // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    return plain / rope.factor * ramp + plain * (1 - ramp)


def attention_factor(rope: RopeConfig, max_positions: int) -> float:
    """What cosines and sines are multiplied by, so that attention stays as sharp over longer texts."""
    if rope.kind not in ("yarn", "longrope"):
        return 1.0
    if rope.attention_factor is not None:
        return rope.attention_factor
    if rope.factor <= 1.0:
        return 1.0
    if rope.kind == "longrope":
        return math.sqrt(1 + math.log(rope.factor) / math.log(rope.original_max_positions or max_positions))
    if rope.mscale and rope.mscale_all_dim:
        return _yarn_scale(rope.factor, rope.mscale) / _yarn_scale(rope.factor, rope.mscale_all_dim)
    return _yarn_scale(rope.factor, 1.0)


def _yarn_scale(factor: float, mscale: float) -> float:
    return 0.1 * mscale * math.log(factor) + 1.0
