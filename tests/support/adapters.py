"""Adapters of random numbers in PEFT's layout, for decoders of any size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from lapilli.config import TextConfig


def write_adapter(
    config: TextConfig,
    folder: Path,
    seed: int,
    modules: Sequence[str] = ("self_attn.q_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.down_proj"),
    strength: float = 1.0,
) -> Path:
    """An adapter of rank 4 whose additions are about `strength` times as large as a usual matrix's outputs."""
    wide, narrow = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    size, inner = config.hidden_size, config.intermediate_size
    shapes = {
        "self_attn.q_proj": (wide, size), "self_attn.k_proj": (narrow, size), "self_attn.v_proj": (narrow, size),
        "self_attn.o_proj": (size, wide), "mlp.gate_proj": (inner, size), "mlp.up_proj": (inner, size),
        "mlp.down_proj": (size, inner),
    }  # fmt: skip
    random, tensors = torch.Generator().manual_seed(seed), {}
    for layer in range(config.num_layers):
        for module in modules:
            rows, columns = shapes[module]
            name = f"base_model.model.model.layers.{layer}.{module}"
            tensors[f"{name}.lora_A.weight"] = torch.randn(4, columns, generator=random) * columns**-0.5
            tensors[f"{name}.lora_B.weight"] = torch.randn(rows, 4, generator=random) * strength
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 2}))
    return folder
