"""What a vision tower is, in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from lapilli.config.fields import (
    ACTIVATION_NAMES,
    Activation,
    Json,
    activation,
    integer,
    number,
    require_divisible,
    require_positive,
    shown,
)
from lapilli.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """A CLIP or SigLIP vision tower (arXiv 2103.00020, 2303.15343)."""

    family: Literal["clip", "siglip"]
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    image_size: int
    patch_size: int
    activation: Activation
    norm_eps: float

    def __post_init__(self) -> None:
        require_positive(self, "vision_config")
        require_divisible("vision_config", "hidden_size", self.hidden_size, "num_heads", self.num_heads)
        if self.patch_size > self.image_size:
            raise CheckpointError(
                f"vision_config: patch_size {self.patch_size} is larger than image_size {self.image_size}"
            )

    @property
    def grid(self) -> int:
        """Patches along one side of a picture."""
        return self.image_size // self.patch_size

    @property
    def num_patches(self) -> int:
        return self.grid**2

    @property
    def has_class_token(self) -> bool:
        return self.family == "clip"

    @property
    def num_positions(self) -> int:
        return self.num_patches + self.has_class_token

    @classmethod
    def from_dict(cls, values: Json) -> VisionConfig:
        """Read a Hugging Face vision configuration; CLIP where it does not say, as transformers does."""
        where = "vision_config"
        family = _VISION_FAMILIES.get(str(values.get("model_type", "clip_vision_model")))
        if family is None:
            raise CheckpointError(f"{where}: model_type {shown(values.get('model_type'))} is not CLIP or SigLIP")
        large = _CLIP_DEFAULTS if family == "clip" else _SIGLIP_DEFAULTS
        read = {**large, **{key: value for key, value in values.items() if value is not None}}
        if integer(read, "num_channels", where, 3) != 3:
            raise CheckpointError(f"{where}: num_channels is {read['num_channels']}, only 3 (RGB) is read")
        return cls(
            family=family,
            hidden_size=integer(read, "hidden_size", where),
            intermediate_size=integer(read, "intermediate_size", where),
            num_layers=integer(read, "num_hidden_layers", where),
            num_heads=integer(read, "num_attention_heads", where),
            image_size=integer(read, "image_size", where),
            patch_size=integer(read, "patch_size", where),
            activation=activation(read, where),
            norm_eps=number(read, "layer_norm_eps", where),
        )

    def to_dict(self) -> dict[str, Any]:
        values: dict[str, Any] = {
            "model_type": f"{self.family}_vision_model",
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "image_size": self.image_size,
            "patch_size": self.patch_size,
            "num_channels": 3,
            "hidden_act": ACTIVATION_NAMES[self.activation],
            "layer_norm_eps": self.norm_eps,
        }
        if self.family == "siglip":
            values["vision_use_head"] = False
        return values


_VISION_FAMILIES: dict[str, Literal["clip", "siglip"]] = {
    "clip_vision_model": "clip",
    "clip": "clip",
    "siglip_vision_model": "siglip",
    "siglip": "siglip",
}
_CLIP_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
}  # fmt: skip
_SIGLIP_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "image_size": 224, "patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
}  # fmt: skip
