"""LLaVA (arXiv 2304.08485): see, project, merge, read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lapilli.config import LlavaConfig, unpadded_grid
from lapilli.errors import PromptError
from lapilli.model.cache import Cache
from lapilli.model.language import Decoder
from lapilli.model.projector import Projector
from lapilli.model.vision import VisionTower


class Llava(nn.Module):
    """A vision tower, a projector and a decoder; or a decoder alone, which reads text only.

    Usage: `features = model.encode_images(images)`, `embeds = model.embed(ids, features)`,
    `hidden = model(embeds, positions, cache)`, `scores = model.logits(hidden[:, -1])`.
    """

    def __init__(self, config: LlavaConfig) -> None:
        super().__init__()
        self.config = config
        self.vision = VisionTower(config.vision) if config.vision else None
        self.projector = Projector(config) if config.vision else None
        self.newline = nn.Parameter(torch.empty(config.text.hidden_size)) if config.is_next else None
        self.language = Decoder(config.text)

    @property
    def device(self) -> torch.device:
        return self.language.norm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.language.norm.weight.dtype

    def encode_images(self, images: Sequence[tuple[Tensor, tuple[int, int]]]) -> list[Tensor]:
        """Features (N, D) of each picture, ready to stand in the prompt.

        A picture is its tiles (T, C, H, W; one tile but for LLaVA-NeXT) and its original (height, width).
        Tiles go through the tower one picture at a time, so a picture's features never depend on its company.
        """
        features = []
        for pixels_TCHW, (height, width) in images:
            tiles_TND = self.project(self.see(pixels_TCHW.to(self.device, self.dtype)))
            features.append(self.arrange(tiles_TND, height, width))
        return features

    def see(self, pixels_TCHW: Tensor) -> Tensor:
        """The tower's features (T, N, D) of these tiles, class token dropped where the model does so."""
        if self.vision is None:
            raise PromptError("this model reads text only: it has no vision tower for a picture")
        features_TND: Tensor = self.vision(pixels_TCHW, self.config.feature_layers)
        return features_TND[:, 1:] if self.config.drop_class_token else features_TND

    def project(self, features_TND: Tensor) -> Tensor:
        """Features (T, N, D) in the decoder's width."""
        assert self.projector is not None
        out: Tensor = self.projector(features_TND)
        return out

    def embed(self, ids_BT: Tensor, features: Sequence[Tensor] = ()) -> Tensor:
        """Embeddings (B, T, D) of the tokens, with image features written over the placeholders in order.

        Raises PromptError where placeholders and features differ in number.
        """
        is_image_BT = ids_BT == self.config.image_token_id
        embeds_BTD: Tensor = self.language.embed(ids_BT.masked_fill(is_image_BT, 0))
        wanted, given = int(is_image_BT.sum()), sum(len(part) for part in features)
        if wanted != given:
            raise PromptError(f"the prompt has {wanted} image placeholders, the pictures give {given} features")
        if not given:
            return embeds_BTD
        return embeds_BTD.masked_scatter(is_image_BT[..., None], torch.cat(list(features)).to(embeds_BTD.dtype))

    def forward(
        self,
        embeds_BTD: Tensor,
        positions_BT: Tensor,
        cache: Cache | None = None,
        valid_BT: Tensor | None = None,
        lengths_B: Tensor | None = None,
    ) -> Tensor:
        """Hidden states (B, T, D) after the decoder's last norm; see `Decoder.forward`."""
        out: Tensor = self.language(embeds_BTD, positions_BT, cache, valid_BT, lengths_B)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores over the vocabulary (…, V)."""
        return self.language.logits(hidden)

    def arrange(self, tiles_TND: Tensor, height: int, width: int) -> Tensor:
        """One picture's features in reading order: the overview, then the tiles as one unpadded grid.

        Each row of that grid ends in the learnt newline (LLaVA-NeXT, "spatial_unpad").
        """
        if self.newline is None:
            return tiles_TND[0]
        assert self.config.vision is not None
        overview_ND, tiles_TND = tiles_TND[0], tiles_TND[1:]
        grid, size = self.config.vision.grid, tiles_TND.shape[-1]
        down, across = self.config.tile_grid(height, width)
        if len(tiles_TND) != down * across:
            raise PromptError(f"a {height}x{width} picture needs {down * across} tiles, {len(tiles_TND)} were given")
        whole_RCD = tiles_TND.view(down, across, grid, grid, size).transpose(1, 2).reshape(down * grid, -1, size)
        rows, columns = unpadded_grid(height, width, (down, across), grid)
        top, left = (down * grid - rows) // 2, (across * grid - columns) // 2
        whole_RCD = whole_RCD[top : top + rows, left : left + columns]
        newline_R1D = self.newline.expand(rows, 1, size)
        return torch.cat((overview_ND, torch.cat((whole_RCD, newline_R1D), dim=1).flatten(0, 1)))
