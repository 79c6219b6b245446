"""Decoders of the Llama kind: embeddings in, hidden states and logits out (arXiv 2302.13971)."""

from __future__ import annotations

from torch import Tensor, nn

from lapilli.config import TextConfig
from lapilli.model.attention import CausalAttention
from lapilli.model.cache import Cache, NoCache
from lapilli.model.layers import GatedMLP, RMSNorm
from lapilli.model.rope import rotation


class DecoderBlock(nn.Module):
    def __init__(self, config: TextConfig, layer: int) -> None:
        super().__init__()
        self.norm1 = RMSNorm(config.hidden_size, config.norm_eps)
        self.attention = CausalAttention(config, layer)
        self.norm2 = RMSNorm(config.hidden_size, config.norm_eps)
        self.mlp = GatedMLP(config.hidden_size, config.intermediate_size, config.activation, config.mlp_bias)

    def forward(self, x_BTD: Tensor, rotation: tuple[Tensor, Tensor], cache: Cache) -> Tensor:
        x_BTD = x_BTD + self.attention(self.norm1(x_BTD), rotation, cache)
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
        cache: Cache | None = None,
        valid_BT: Tensor | None = None,
        lengths_B: Tensor | None = None,
    ) -> Tensor:
        """Hidden states (B, T, D) after the last norm.

        `positions_BT` count from 0 at a row's first real token; `valid_BT` is False on padding, which
        stands on the left where there is a cache. `lengths_B` is how long a row's prompt is as a whole, where
        only a part of it is read: some rotations depend on it.
        """
        memory = NoCache(embeds_BTD.device) if cache is None else cache
        memory.begin(embeds_BTD.shape[1], valid_BT)
        turns = rotation(self.config, positions_BT, embeds_BTD.dtype, lengths_B)
        hidden_BTD = embeds_BTD
        for block in self.blocks:
            hidden_BTD = block(hidden_BTD, turns, memory)
        out: Tensor = self.norm(hidden_BTD)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the vocabulary (…, V) for hidden states (…, D)."""
        out: Tensor = hidden @ self.embed.weight.T if self.head is None else self.head(hidden)
        return out
