"""Vision towers: pixels in, one feature a patch out (CLIP arXiv 2103.00020, SigLIP arXiv 2303.15343)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lapilli.config import VisionConfig
from lapilli.model.attention import VisionAttention
from lapilli.model.layers import MLP


class VisionBlock(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.attention = VisionAttention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.mlp = MLP(config.hidden_size, config.intermediate_size, config.activation)

    def forward(self, x_BND: Tensor) -> Tensor:
        x_BND = x_BND + self.attention(self.norm1(x_BND))
        out: Tensor = x_BND + self.mlp(self.norm2(x_BND))
        return out


class VisionTower(nn.Module):
    """Cuts a picture into patches and lets them look at each other."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        size, patch = config.hidden_size, config.patch_size
        self.patch = nn.Conv2d(3, size, patch, stride=patch, bias=not config.has_class_token)
        self.position = nn.Parameter(torch.empty(config.num_positions, size))
        if config.has_class_token:
            self.class_token = nn.Parameter(torch.empty(size))
            self.norm_pre = nn.LayerNorm(size, eps=config.norm_eps)
        self.blocks = nn.ModuleList(VisionBlock(config) for _ in range(config.num_layers))
        self.norm_post = nn.LayerNorm(size, eps=config.norm_eps)

    def forward(self, pixels_BCHW: Tensor, layers: tuple[int, ...] = (-1,)) -> Tensor:
        """Features (B, positions, D * len(layers)) after these layers, before the last norm.

        Layer 0 is the embedding, -1 the last block's output; several are joined side by side.
        """
        wanted = [layer % (len(self.blocks) + 1) for layer in layers]
        hidden_BND = self.embed(pixels_BCHW)
        kept = {0: hidden_BND}
        for number, block in enumerate(self.blocks[: max(wanted)], start=1):
            hidden_BND = block(hidden_BND)
            kept[number] = hidden_BND
        return torch.cat([kept[layer] for layer in wanted], dim=-1)

    def embed(self, pixels_BCHW: Tensor) -> Tensor:
        """Patches with their positions, the class token first where there is one."""
        patches_BND = self.patch(pixels_BCHW).flatten(2).transpose(1, 2)
        if not self.config.has_class_token:
            return torch.as_tensor(patches_BND + self.position)
        class_B1D = self.class_token.expand(patches_BND.shape[0], 1, -1)
        out: Tensor = self.norm_pre(torch.cat((class_B1D, patches_BND), dim=1) + self.position)
        return out
