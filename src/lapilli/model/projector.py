"""The projector: image features become embeddings of the decoder's width."""

from __future__ import annotations

from torch import Tensor, nn

from lapilli.config import LlavaConfig
from lapilli.model.layers import activation


class Projector(nn.Module):
    """One linear layer (LLaVA, arXiv 2304.08485) or two with a GELU between (1.5, arXiv 2310.03744)."""

    def __init__(self, config: LlavaConfig) -> None:
        super().__init__()
        size = config.text.hidden_size
        self.linear_1 = nn.Linear(config.feature_size, size, bias=config.projector_bias)
        self.activate = activation(config.projector_activation)
        self.linear_2 = nn.Linear(size, size, bias=config.projector_bias) if config.projector == "mlp" else None

    def forward(self, features_BND: Tensor) -> Tensor:
        hidden: Tensor = self.linear_1(features_BND)
        if self.linear_2 is not None:
            hidden = self.linear_2(self.activate(hidden))
        return hidden
