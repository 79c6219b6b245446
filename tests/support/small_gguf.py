"""The smallest GGUF files that pass for a decoder and for a tower with its projector; no torch is needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lapilli.checkpoints.gguf import TensorSource, write_gguf

WIDTH, WIDE, ROWS = 32, 64, 40

DECODER: Mapping[str, Any] = {
    "general.architecture": "llama",
    "general.name": "small",
    "general.file_type": 0,
    "llama.block_count": 1,
    "llama.context_length": 64,
    "llama.embedding_length": WIDTH,
    "llama.feed_forward_length": WIDE,
    "llama.attention.head_count": 2,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.tokens": [f"t{number}" for number in range(ROWS)],
    "tokenizer.chat_template": "{% for m in messages %}{{ m['content'] }}{% endfor %}",
}
DECODER_TENSORS: Mapping[str, tuple[int, ...]] = {
    "token_embd.weight": (ROWS, WIDTH),
    "output_norm.weight": (WIDTH,),
    "blk.0.attn_norm.weight": (WIDTH,),
    "blk.0.ffn_norm.weight": (WIDTH,),
    **{f"blk.0.attn_{part}.weight": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")},
    "blk.0.ffn_gate.weight": (WIDE, WIDTH),
    "blk.0.ffn_up.weight": (WIDE, WIDTH),
    "blk.0.ffn_down.weight": (WIDTH, WIDE),
}
TOWER: Mapping[str, Any] = {
    "general.architecture": "clip",
    "clip.has_vision_encoder": True,
    "clip.vision.block_count": 1,
    "clip.vision.embedding_length": WIDTH,
    "clip.vision.feed_forward_length": WIDE,
    "clip.vision.attention.head_count": 2,
    "clip.vision.attention.layer_norm_epsilon": 1e-5,
    "clip.vision.image_size": 28,
    "clip.vision.patch_size": 14,
    "clip.vision.image_mean": [0.5, 0.5, 0.5],
    "clip.vision.image_std": [0.5, 0.5, 0.5],
}
TOWER_TENSORS: Mapping[str, tuple[int, ...]] = {
    "v.patch_embd.weight": (WIDTH, 3, 14, 14),
    "v.position_embd.weight": (4, WIDTH),
    "mm.0.weight": (WIDTH, WIDTH),
    "mm.2.weight": (WIDTH, WIDTH),
    **{f"v.blk.0.{part}.weight": (WIDTH,) for part in ("ln1", "ln2")},
    **{f"v.blk.0.attn_{part}.weight": (WIDTH, WIDTH) for part in ("q", "k", "v", "out")},
    "v.blk.0.ffn_up.weight": (WIDE, WIDTH),
    "v.blk.0.ffn_down.weight": (WIDTH, WIDE),
}


def write(
    path: Path, keys: Mapping[str, Any], tensors: Mapping[str, tuple[int, ...]], *, seed: int = 0, type: str = "F32"
) -> Path:
    """A GGUF file of these keys, and tensors of these shapes with random numbers."""
    numbers = np.random.default_rng(seed)
    arrays = {name: numbers.standard_normal(shape, dtype=np.float32) for name, shape in tensors.items()}
    write_gguf(path, keys, [TensorSource.of(n, a, type if a.ndim == 2 else "F32") for n, a in arrays.items()])
    return path


def decoder(path: Path, **options: Any) -> Path:
    return write(path, DECODER, DECODER_TENSORS, **options)


def tower(path: Path, **options: Any) -> Path:
    return write(path, TOWER, TOWER_TENSORS, **options)
