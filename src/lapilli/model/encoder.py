"""Text encoders of BERT's kind: token ids in, one vector a token out (arXiv 1810.04805).

B texts, T tokens, H heads, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lapilli.config.encoder import EncoderConfig
from lapilli.model.layers import MLP


class EncoderAttention(nn.Module):
    """Every token looks at every other of its text, in both directions."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.num_heads = config.num_heads
        self.q, self.k, self.v, self.out = (nn.Linear(size, size) for _ in range(4))

    def forward(self, x_BTD: Tensor, there_B11T: Tensor) -> Tensor:
        q_BHTD, k_BHTD, v_BHTD = (
            part(x_BTD).unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in (self.q, self.k, self.v)
        )
        seen_BHTD = F.scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD, attn_mask=there_B11T)
        out: Tensor = self.out(seen_BHTD.transpose(1, 2).flatten(2))
        return out


class EncoderBlock(nn.Module):
    """Attention and MLP, each added to what went in and normed after."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention = EncoderAttention(config)
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.mlp = MLP(config.hidden_size, config.intermediate_size, config.activation)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)

    def forward(self, x_BTD: Tensor, there_B11T: Tensor) -> Tensor:
        x_BTD = self.norm1(x_BTD + self.attention(x_BTD, there_B11T))
        out: Tensor = self.norm2(x_BTD + self.mlp(x_BTD))
        return out


class Encoder(nn.Module):
    """Reads whole texts; all tokens are of the first kind."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.positions = nn.Embedding(config.max_positions, config.hidden_size)
        self.kinds = nn.Embedding(config.num_kinds, config.hidden_size) if config.num_kinds else None
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.blocks = nn.ModuleList(EncoderBlock(config) for _ in range(config.num_layers))

    def forward(self, ids_BT: Tensor, there_BT: Tensor) -> Tensor:
        """The last hidden states (B, T, D); `there_BT` is True where a token is, False where a text has ended."""
        x_BTD: Tensor = self.words(ids_BT)
        if self.kinds is not None:
            x_BTD = x_BTD + self.kinds.weight[0]
        x_BTD = self.norm(x_BTD + self.positions.weight[: ids_BT.shape[1]])
        for block in self.blocks:
            x_BTD = block(x_BTD, there_BT[:, None, None, :])
        return x_BTD


def pool(hidden_BTD: Tensor, there_BT: Tensor, *, first: bool) -> Tensor:
    """One vector (B, D) of length 1 a text: its first token's, or the mean of all that are there."""
    if first:
        return F.normalize(hidden_BTD[:, 0], dim=-1)
    weights_BT1 = there_BT[:, :, None].to(hidden_BTD.dtype)
    means_BD = (hidden_BTD * weights_BT1).sum(1) / weights_BT1.sum(1).clamp(min=1)
    return F.normalize(means_BD, dim=-1)


def encode(model: Encoder, ids: list[list[int]], *, width: int, rows: int, pad: int, first: bool) -> Tensor:
    """Vectors (B, D) of B texts, computed as `rows` texts of `width` tokens whatever they are.

    How a product of matrices sums depends on its shape: so a text has the same bits beside whatever others.
    """
    ids_BT = torch.full((rows, width), pad)
    there_BT = torch.zeros((rows, width), dtype=torch.bool)
    there_BT[:, 0] = True  # attention over nothing at all is no number
    for row, text in enumerate(ids):
        ids_BT[row, : len(text)] = torch.tensor(text)
        there_BT[row, : len(text)] = True
    device = model.words.weight.device
    ids_BT, there_BT = ids_BT.to(device), there_BT.to(device)
    with torch.inference_mode():
        return pool(model(ids_BT, there_BT), there_BT, first=first)[: len(ids)].float().cpu()
