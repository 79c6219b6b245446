"""Quantized while loading, kept quantized as GGUF has them, and written as GGUF: each held against plain floats."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import peft
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from checkpoints import CANVASES, our_logits, save_llava
from lapilli.checkpoints.ggml import TensorType, dequantize, q5_0_as_q8_0, quantize
from lapilli.checkpoints.gguf import read_gguf
from lapilli.checkpoints.load import Checkpoint, load_checkpoint
from lapilli.checkpoints.mixture import MIXTURES, Mixture
from lapilli.checkpoints.quantize import mmproj_beside, quantize_checkpoint
from lapilli.checkpoints.save import save_folder, save_gguf
from lapilli.checkpoints.weights import weights_of
from lapilli.errors import CheckpointError, InputError
from lapilli.model.llava import Llava
from lapilli.model.quantized import QuantizedEmbedding, QuantizedLinear, sums_rows_alone

WIDE = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2}
FAMILIES: dict[str, Any] = {
    "llama": {},
    "tied llama": {"tie_word_embeddings": True},
    "llama with biases": {"attention_bias": True, "mlp_bias": True},
    "mistral": {"sliding_window": 6},
    "phi3": {},
    "qwen2": {},
}


def save_decoder(family: str, folder: Path, **changes: Any) -> Path:
    kind = next(name for name in ("llama", "mistral", "phi3", "qwen2") if name in family)
    config = tiny.text_config(kind, **(WIDE | FAMILIES[family] | changes))
    return tiny.save(tiny.random_model(config), folder)


def in_floats(checkpoint: Checkpoint) -> Checkpoint:
    """The same model with every matrix expanded: what is left to differ is how activations are rounded."""
    model = Llava(checkpoint.config)
    model.load_state_dict({name: weight.read() for name, weight in weights_of(checkpoint.model).items()})
    return replace(checkpoint, model=model.eval())


def assert_same_weights(checkpoint: Checkpoint, floats: Checkpoint) -> None:
    expected = dict(floats.model.named_parameters())
    found = weights_of(checkpoint.model)
    assert found.keys() == expected.keys()
    for name, weight in found.items():
        assert torch.equal(weight.read(), expected[name]), name


def cosine(one: Tensor, other: Tensor) -> float:
    return float(nn.functional.cosine_similarity(one, other, dim=-1).min())


def quantized_layers(checkpoint: Checkpoint) -> dict[str, str]:
    return {
        name: module.weight.type
        for name, module in checkpoint.model.named_modules()
        if isinstance(module, QuantizedLinear | QuantizedEmbedding)
    }


# While loading


@pytest.mark.parametrize("bits", ["int8", "int4"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_decoder_is_quantized_while_loading(family: str, bits: Any, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(save_decoder(family, tmp_path), quantize=bits)
    assert checkpoint.left_in_float == ()
    assert not any(isinstance(module, nn.Linear | nn.Embedding) for module in checkpoint.model.modules())
    expected = {"int8": {"Q8_0"}, "int4": {"Q4_K", "Q6_K"}}[bits]
    assert set(quantized_layers(checkpoint).values()) == expected
    assert cosine(our_logits(checkpoint), our_logits(in_floats(checkpoint))) >= 0.999
    whole = load_checkpoint(tmp_path)
    assert cosine(our_logits(checkpoint), our_logits(whole)) >= {"int8": 0.998, "int4": 0.9}[bits]
    assert sums_rows_alone(checkpoint.model)
    assert not sums_rows_alone(whole.model)


@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_tower_and_projector_are_quantized_too(bits: Any, tmp_path: Path) -> None:
    save_llava(tmp_path, text=tiny.text_config("llama", **WIDE))
    checkpoint = load_checkpoint(tmp_path, quantize=bits)
    # The tower is 48 wide, which no block divides; what is 80 wide neither.
    assert all(name.startswith(("vision.", "projector.linear_1")) for name in checkpoint.left_in_float)
    assert "vision.blocks.0.attention.q.weight" in checkpoint.left_in_float
    wide = tiny.vision_config("clip", hidden_size=64, intermediate_size=128, num_attention_heads=4)
    tiny.save(tiny.random_model(tiny.llava_config(wide, tiny.text_config("llama", **WIDE))), tmp_path / "wide")
    checkpoint = load_checkpoint(tmp_path / "wide", quantize=bits)
    assert checkpoint.left_in_float == ()
    layers = quantized_layers(checkpoint)
    assert {layers["vision.blocks.2.mlp.down"], layers["projector.linear_1"]} == {"Q8_0"}
    tiles = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    found, expected = (our_logits(model, tiles=tiles) for model in (checkpoint, in_floats(checkpoint)))
    assert cosine(found, expected) >= 0.999


def test_rows_of_no_whole_blocks_take_the_better_of_two_types(tmp_path: Path) -> None:
    path = save_decoder("llama", tmp_path, intermediate_size=96)
    tensors = load_file(path / "model.safetensors")
    tensors["model.layers.0.mlp.down_proj.weight"] = tensors["model.layers.0.mlp.down_proj.weight"].abs()
    save_file(tensors, path / "model.safetensors")
    layers = quantized_layers(load_checkpoint(path, quantize="int4"))
    # Q8_0 stands where Q6_K would; weights on one side of zero do better with a lowest value of their own.
    assert {layers[f"language.blocks.{number}.mlp.down"] for number in range(2)} <= {"Q4_0", "Q4_1", "Q8_0"}
