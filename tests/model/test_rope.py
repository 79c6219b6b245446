"""Rotary positions: cosines and sines are those of transformers, for every way of stretching them."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.phi3.modeling_phi3 import Phi3RotaryEmbedding

from lapilli.config import TextConfig
from lapilli.model.rope import attention_factor, rotate, rotation

YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 32768}
LONG = {
    "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 4096,
    "short_factor": [1.0 + 0.01 * i for i in range(48)], "long_factor": [1.0 + 1.3 * i for i in range(48)],
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
PHI3 = {"hidden_size": 3072, "num_attention_heads": 32, "num_key_value_heads": 32}
WIDE = {"hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8}

# The numbers of published models where there are any.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama 2": ("llama", {**WIDE, "max_position_embeddings": 4096}),
    "Llama 3.1": ("llama", {**WIDE, "max_position_embeddings": 131072, "rope_parameters": LLAMA3}),
    "Llama 3.2": ("llama", {**WIDE, "rope_parameters": {**LLAMA3, "factor": 32.0}}),
    "Vicuna 16k": ("llama", {**WIDE, "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}),
    "Qwen2 with YaRN": ("qwen2", {**WIDE, "max_position_embeddings": 131072, "rope_parameters": YARN}),
    "YaRN not truncated": ("llama", {**WIDE, "rope_parameters": {**YARN, "truncate": False}}),
    "YaRN by mscale": ("llama", {**WIDE, "rope_parameters": {**YARN, "mscale": 0.7, "mscale_all_dim": 1.1}}),
    "YaRN by its own factor": ("llama", {**WIDE, "rope_parameters": {**YARN, "attention_factor": 1.3}}),
    "YaRN by betas": ("llama", {**WIDE, "rope_parameters": {**YARN, "beta_fast": 16.0, "beta_slow": 2.0}}),
    "dynamic": (
        "llama",
        {
            **WIDE, "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0},
        },
    ),
    "Phi-3 128k": (
        "phi3",
        {
            **PHI3, "max_position_embeddings": 131072, "original_max_position_embeddings": 4096,
            "rope_parameters": LONG,
        },
    ),
    "Phi-4 mini": (
        "phi3",
        {
            **PHI3, "max_position_embeddings": 131072, "original_max_position_embeddings": 4096,
            "rope_parameters": {
                **LONG, "partial_rotary_factor": 0.75, "short_factor": [1.0] * 36,
                "long_factor": [1.0 + i for i in range(36)],
            },
        },
    ),
}  # fmt: skip


def both(name: str, positions_BT: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    family, changes = KINDS[name]
    theirs = tiny.text_config(family, **changes)
    kind = Phi3RotaryEmbedding if family == "phi3" else LlamaRotaryEmbedding
    ours = rotation(TextConfig.from_dict(theirs.to_dict()), positions_BT, torch.float32)
    return ours, kind(theirs)(torch.zeros(1), positions_BT)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("length", [1, 2048, 2049, 4096, 4097, 9000])
def test_turns_equal_transformers(name: str, length: int) -> None:
    """On both sides of every length at which something changes."""
    positions = torch.arange(length)[None]
    (cos, sin), (their_cos, their_sin) = both(name, positions)
    assert torch.allclose(cos[:, 0], their_cos, atol=1e-5)
    assert torch.allclose(sin[:, 0], their_sin, atol=1e-5)


@pytest.mark.parametrize("name", ["dynamic", "Phi-3 128k", "Phi-4 mini"])
def test_a_row_never_depends_on_its_neighbours(name: str) -> None:
    config = TextConfig.from_dict(tiny.text_config(KINDS[name][0], **KINDS[name][1]).to_dict())
    short, long = torch.arange(100)[None], torch.arange(6000, 6100)[None]
    together = rotation(config, torch.cat((short, long)), torch.float32)
    for row, positions in enumerate((short, long)):
        for turned, alone in zip(together, rotation(config, positions, torch.float32), strict=True):
            assert torch.equal(turned[row], alone[0])
    assert not torch.equal(rotation(config, short, torch.float32)[0], rotation(config, short + 6000, torch.float32)[0])


def test_only_the_rotary_part_is_turned() -> None:
    config = TextConfig.from_dict(tiny.text_config("phi3", **KINDS["Phi-4 mini"][1]).to_dict())
    x_BHTD = torch.randn(1, 2, 5, config.head_dim)
    turned = rotate(x_BHTD, *rotation(config, torch.arange(5)[None], torch.float32))
    assert (config.head_dim, config.rotary_dim) == (96, 72)
    assert torch.equal(turned[..., 72:], x_BHTD[..., 72:])
    assert not torch.equal(turned[:, :, 1:, :72], x_BHTD[:, :, 1:, :72])
    scale = attention_factor(config.rope, config.max_positions)
    assert torch.allclose(turned[..., :72].norm(dim=-1), x_BHTD[..., :72].norm(dim=-1) * scale, rtol=1e-4)
