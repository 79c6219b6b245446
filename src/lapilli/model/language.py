"""Decoders of the Llama kind: embeddings in, hidden states and logits out (arXiv 2302.13971)."""

from __future__ import annotations

from torch import Tensor, nn

from lapilli.config import TextConfig
from lapilli.model.attention import CausalAttention, Masks
from lapilli.model.cache import KVCache
from lapilli.model.layers import GatedMLP, RMSNorm
from lapilli.model.rope import rotation


class DecoderBlock(nn.Module):
    def __init__(self, config: TextConfig, layer: int) -> None:
        super().__init__()
        self.norm1 = RMSNorm(config.hidden_size, config.norm_eps)
        self.attention = CausalAttention(config, layer)
        self.norm2 = RMSNorm(config.hidden_size, config.norm_eps)
        self.mlp = GatedMLP(config.hidden_size, config.intermediate_size, config.activation, config.mlp_bias)

    def forward(self, x_BTD: Tensor, rotation: tuple[Tensor, Tensor], masks: Masks, cache: KVCache | None) -> Tensor:
        x_BTD = x_BTD + self.attention(self.norm1(x_BTD), rotation, masks, cache)
        out: Tensor = x_BTD + self.mlp(self.norm2(x_BTD))
        return out


class Decoder(nn.Module):
    """Llama, Vicuna, Mistral, Phi-3 or Qwen2: they differ in numbers, not in code."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.blocks = nn.ModuleList(DecoderBlock(config, layer) for layer in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.head = None if config.tie_embeddings else nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(
        self,
        embeds_BTD: Tensor,
        positions_BT: Tensor,
        cache: KVCache | None = None,
        valid_BT: Tensor | None = None,
    ) -> Tensor:
        """Hidden states (B, T, D) after the last norm.

        `positions_BT` count from 0 at a row's first real token; `valid_BT` is False on padding, which
        stands on the left where there is a cache.
        """
        new = embeds_BTD.shape[1]
        if cache is None:
            masks = Masks(new, new, valid_BT, embeds_BTD.device)
        else:
            cache.extend(new, valid_BT)
            masks = Masks(
                new, cache.length, cache.valid_BS[:, : cache.length] if cache.padded else None, embeds_BTD.device
            )
        turns = rotation(self.config, positions_BT, embeds_BTD.dtype)
        hidden_BTD = embeds_BTD
        for block in self.blocks:
            hidden_BTD = block(hidden_BTD, turns, masks, cache)
        out: Tensor = self.norm(hidden_BTD)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the vocabulary (…, V) for hidden states (…, D)."""
        out: Tensor = hidden @ self.embed.weight.T if self.head is None else self.head(hidden)
        return out
