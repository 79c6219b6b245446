"""The step that says one token, where all of a decoder is quantized and there is a kernel: one call for all layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lapilli.kernels.decode import DTYPES, DecoderShape, LayerWeights, Product, Stack, can_decode
from lapilli.model.language import Decoder, DecoderBlock
from lapilli.model.paged import PagedCache, Rows
from lapilli.model.quantized import QuantizedLinear
from lapilli.model.rope import rotation


class QuantizedStep:
    """`Decoder.forward` for rows of one token each, over one cache; made by `of`, which says where it can be."""

    def __init__(self, decoder: Decoder, cache: PagedCache, layers: list[LayerWeights]) -> None:
        config = decoder.config
        self._decoder = decoder
        shape = DecoderShape(
            width=config.hidden_size,
            inner=config.intermediate_size,
            heads=config.num_heads,
            kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            rotary=config.rotary_dim,
            epsilon=config.norm_eps,
        )
        self._stack = Stack(shape, layers, cache.k_LPSKD, cache.v_LPSKD)

    @classmethod
    def of(cls, decoder: Decoder, cache: PagedCache) -> QuantizedStep | None:
        """The step; None for a decoder of which something is not quantized, or that no kernel takes."""
        config, device = decoder.config, cache.k_LPSKD.device
        fitting = can_decode(config.head_dim) and config.activation == "silu" and device.type == "cpu"
        if not fitting or cache.k_LPSKD.dtype not in DTYPES:
            return None
        layers = [_weights(block) for block in decoder.blocks if isinstance(block, DecoderBlock)]
        known = [one for one in layers if one is not None]
        return cls(decoder, cache, known) if len(known) == len(layers) else None

    def __call__(self, embeds_BD: Tensor, positions_B: Tensor, rows: Rows) -> Tensor:
        """Hidden states (B, D) after the last norm; keys and values are kept on the way."""
        cos, sin = rotation(self._decoder.config, positions_B[:, None], torch.float32)
        x_BD = embeds_BD.float().clone(memory_format=torch.contiguous_format)
        self._stack.run(x_BD, cos[:, 0, 0], sin[:, 0, 0], rows.places_B, rows.tables_BP, rows.contexts_B)
        out: Tensor = self._decoder.norm(x_BD.to(embeds_BD.dtype))
        return out


def _weights(block: DecoderBlock) -> LayerWeights | None:
    attention, mlp = block.attention, block.mlp
    inputs = _products(attention.q, attention.k, attention.v) if attention.qkv is None else _products(attention.qkv)
    gated = _products(mlp.gate, mlp.up) if mlp.gate_up is None else _products(mlp.gate_up)
    ends = _products(attention.out, mlp.down)
    if inputs is None or gated is None or ends is None:
        return None
    norms = block.norm1.weight, block.norm2.weight
    return LayerWeights(*norms, inputs, ends[0], gated, ends[1], attention.window)


def _products(*layers: nn.Module) -> list[Product] | None:
    """The matrices of these layers; None where one is not quantized."""
    found: list[Product] = [(layer.weight, layer.bias) for layer in layers if isinstance(layer, QuantizedLinear)]
    return found if len(found) == len(layers) else None
