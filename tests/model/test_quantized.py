"""Layers over quantized matrices: each held against the same layer over the expanded matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lapilli.checkpoints.ggml import quantize
from lapilli.config import TextConfig
from lapilli.errors import InputError
from lapilli.kernels.quantized import QuantizedWeight
from lapilli.model.attention import CausalAttention
from lapilli.model.layers import GatedMLP
from lapilli.model.quantized import QuantizedEmbedding, QuantizedLinear, blocks_of, fuse, rows_of

TYPES = ("Q4_0", "Q4_1", "Q4_K", "Q6_K", "Q8_0")


def drawn(type: str, rows: int = 40, width: int = 512, seed: int = 0) -> QuantizedWeight:
    weights = np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32) * 0.05
    return QuantizedWeight.from_ggml(quantize(weights, type), type, (rows, width))


def cosine(one: Tensor, other: Tensor) -> float:
    return float(nn.functional.cosine_similarity(one, other, dim=-1).min())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("type", TYPES)
def test_a_linear_layer_is_near_the_one_over_floats(type: str, dtype: torch.dtype) -> None:
    weight, bias = drawn(type), torch.randn(40)
    layer = QuantizedLinear(weight, bias.to(dtype))
    x = torch.randn(2, 3, 512).to(dtype)
    expected = nn.functional.linear(x.float(), weight.dequantize(), bias)
    assert layer(x).dtype == dtype
    assert layer(x).shape == (2, 3, 40)
    assert cosine(layer(x).float(), expected) >= 0.999


@pytest.mark.parametrize("type", TYPES)
def test_looked_up_rows_are_those_of_the_expanded_matrix(type: str) -> None:
    weight = drawn(type)
    ids = torch.tensor([[0, 39, 17], [16, 15, 39]])
    assert torch.equal(rows_of(weight, ids), weight.dequantize()[ids])
    assert torch.equal(QuantizedEmbedding(weight)(ids), weight.dequantize()[ids])
    half = QuantizedEmbedding(weight, torch.bfloat16)(ids)
    assert torch.equal(half, weight.dequantize()[ids].bfloat16())
    assert rows_of(weight, ids[:0]).shape == (0, 3, 512)


@pytest.mark.parametrize("row", [40, -1, 47])
def test_a_row_that_is_not_there_is_refused(row: int) -> None:
    with pytest.raises(IndexError, match="of a table of 40"):
        rows_of(drawn("Q8_0"), torch.tensor([row, 3]))


@pytest.mark.parametrize("type", TYPES)
def test_blocks_come_back_as_they_were(type: str) -> None:
    weights = np.random.default_rng(3).standard_normal((40, 512)).astype(np.float32)
    raw = quantize(weights, type)
    weight = QuantizedWeight.from_ggml(raw, type, weights.shape)
    np.testing.assert_array_equal(blocks_of(weight).numpy().reshape(-1), raw)


def test_no_change_of_dtype_touches_the_matrix() -> None:
    layer = QuantizedLinear(drawn("Q4_K"), torch.randn(40))
    x = torch.randn(5, 512)
    before = layer(x)
    layer.to(torch.bfloat16)
    assert layer.bias is not None
    assert layer.bias.dtype == torch.bfloat16
    assert layer.data.dtype == torch.uint8
    assert cosine(layer(x), before) >= 0.9999


def test_state_goes_from_one_layer_to_another() -> None:
    one, other = QuantizedLinear(drawn("Q4_K")), QuantizedLinear(drawn("Q4_K", seed=1))
    x = torch.randn(5, 512)
    assert not torch.equal(one(x), other(x))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x), other(x))
    other.load_state_dict({"data": drawn("Q4_K", seed=1).data}, assign=True)
    assert not torch.equal(one(x), other(x))


def test_there_is_no_gradient() -> None:
    with pytest.raises(InputError, match="no gradient through a quantized weight"):
        QuantizedLinear(drawn("Q8_0"))(torch.randn(2, 512, requires_grad=True))


def test_stacked_layers_say_what_each_says() -> None:
    layers = [QuantizedLinear(drawn("Q4_K", rows, seed=rows), torch.randn(rows)) for rows in (48, 16, 32)]
    one = QuantizedLinear.stacked(layers)
    assert one is not None
    x = torch.randn(3, 512)
    assert torch.equal(one(x), torch.cat([layer(x) for layer in layers], dim=-1))


@pytest.mark.parametrize(
    "other",
    [
        QuantizedLinear(drawn("Q6_K", 32)),  # another type
        QuantizedLinear(drawn("Q4_K", 32, width=256)),  # another width
        QuantizedLinear(drawn("Q4_K", 32), torch.zeros(32)),  # a bias beside none
        nn.Linear(512, 32),
        None,
    ],
)
def test_what_does_not_fit_is_not_stacked(other: nn.Module | None) -> None:
    assert QuantizedLinear.stacked([QuantizedLinear(drawn("Q4_K", 32)), other]) is None


def test_fused_parts_say_what_they_said_alone() -> None:
    mlp = GatedMLP(512, 256, "silu", bias=False)
    for seed, part in enumerate(("gate", "up")):
        setattr(mlp, part, QuantizedLinear(drawn("Q4_K", 256, seed=seed)))
    mlp.down = QuantizedLinear(drawn("Q4_K", 512, width=256))  # type: ignore[assignment]
    x = torch.randn(1, 3, 512)
    alone = mlp(x)
    fuse(mlp)
    assert mlp.gate is None
    assert isinstance(mlp.gate_up, QuantizedLinear)
    assert torch.equal(mlp(x), alone)


def test_parts_in_floats_stay_apart() -> None:
    config = TextConfig(
        family="llama", vocab_size=8, hidden_size=512, intermediate_size=8, num_layers=1, num_heads=4, num_kv_heads=2,
        head_dim=16, norm_eps=1e-5, max_positions=8,
    )  # fmt: skip
    attention = CausalAttention(config, 0)
    attention.q = QuantizedLinear(drawn("Q4_K", 64))  # type: ignore[assignment]
    fuse(attention)
    assert attention.qkv is None
    assert isinstance(attention.q, QuantizedLinear)
