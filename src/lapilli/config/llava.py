"""What a whole model is, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lapilli.config.fields import ACTIVATION_NAMES, Activation, Json, activation, integer, integers, shown
from lapilli.config.text import TEXT_DEFAULTS, TextConfig
from lapilli.config.tiles import select_canvas, unpadded_grid
from lapilli.config.vision import VisionConfig
from lapilli.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class LlavaConfig:
    """A vision tower, a projector and a decoder; or a decoder alone, where `vision` is None."""

    text: TextConfig
    vision: VisionConfig | None = None
    image_token_id: int = 32000
    feature_layers: tuple[int, ...] = (-2,)
    drop_class_token: bool = True
    projector: Literal["linear", "mlp"] = "mlp"
    projector_activation: Activation = "gelu"
    projector_bias: bool = True
    tile_canvases: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if self.vision is None:
            return
        if not self.feature_layers:
            raise CheckpointError("vision_feature_layer: at least one layer is needed")
        for layer in self.feature_layers:
            if not -self.vision.num_layers - 1 <= layer <= self.vision.num_layers:
                raise CheckpointError(
                    f"vision_feature_layer: {layer} is outside a tower of {self.vision.num_layers} layers"
                )
        if self.is_next and self.features_per_tile != self.vision.num_patches:
            raise CheckpointError(
                f"LLaVA-NeXT lays {self.vision.num_patches} features out as a grid, vision_feature_select_strategy "
                f"leaves {self.features_per_tile}: it must be {'default' if self.vision.has_class_token else 'full'}"
            )
        for height, width in self.tile_canvases:
            if height % self.vision.image_size or width % self.vision.image_size or min(height, width) < 1:
                raise CheckpointError(
                    f"image_grid_pinpoints: {height}x{width} is no multiple of image_size {self.vision.image_size}"
                )

    @property
    def is_next(self) -> bool:
        """Whether pictures are cut into tiles (LLaVA-NeXT, also called 1.6)."""
        return bool(self.tile_canvases)

    @property
    def features_per_tile(self) -> int:
        """Image features that the tower gives for one tile."""
        if self.vision is None:
            raise CheckpointError("a model without a vision tower has no image features")
        return self.vision.num_positions - self.drop_class_token

    @property
    def feature_size(self) -> int:
        """Width of the features the projector reads."""
        if self.vision is None:
            raise CheckpointError("a model without a vision tower has no image features")
        return self.vision.hidden_size * len(self.feature_layers)

    def image_tokens(self, height: int, width: int) -> int:
        """Placeholder tokens that one picture of this original size takes in the prompt."""
        if not self.is_next:
            return self.features_per_tile
        assert self.vision is not None
        rows, columns = unpadded_grid(height, width, self.tile_grid(height, width), self.vision.grid)
        return self.features_per_tile + rows * (columns + 1)

    def tile_grid(self, height: int, width: int) -> tuple[int, int]:
        """Tiles (down, across) that a picture of this size is cut into, the overview not counted."""
        assert self.vision is not None
        canvas_height, canvas_width = select_canvas(height, width, self.tile_canvases)
        return canvas_height // self.vision.image_size, canvas_width // self.vision.image_size

    @classmethod
    def from_dict(cls, values: Json) -> LlavaConfig:
        """Read a `config.json` of a LLaVA, a LLaVA-NeXT or a decoder alone (Hugging Face layout).

        Raises CheckpointError where a value is missing, misshapen, or of a kind we would get wrong.
        """
        if not isinstance(values, Mapping):
            raise CheckpointError(f"config.json: an object is needed, it holds a {type(values).__name__}")
        kind = str(values.get("model_type", "llava" if "vision_config" in values else None))
        if kind not in ("llava", "llava_next"):
            if kind not in TEXT_DEFAULTS:
                known = ", ".join(["llava", "llava_next", *TEXT_DEFAULTS])
                raise CheckpointError(f"config.json: model_type {shown(kind)} is not known here; known are {known}")
            return cls(text=TextConfig.from_dict(values), image_token_id=-1)
        for part in ("vision_config", "text_config"):
            if not isinstance(values.get(part), Mapping):
                raise CheckpointError(f"config.json: {part} must be an object")
        text = dict(values["text_config"])
        text.setdefault("tie_word_embeddings", values.get("tie_word_embeddings", False))
        select = values.get("vision_feature_select_strategy", "default")
        if select not in ("default", "full"):
            raise CheckpointError(f"config.json: vision_feature_select_strategy {shown(select)} is not default or full")
        return cls(
            text=TextConfig.from_dict(text),
            vision=VisionConfig.from_dict(values["vision_config"]),
            image_token_id=integer(values, "image_token_index", "config.json", values.get("image_token_id") or 32000),
            feature_layers=integers(values, "vision_feature_layer", "config.json", -2),
            drop_class_token=select == "default",
            projector_activation=activation(values, "config.json", "projector_hidden_act", "gelu"),
            projector_bias=bool(values.get("multimodal_projector_bias", True)),
            tile_canvases=_canvases(values) if kind == "llava_next" else (),
        )

    def to_dict(self) -> dict[str, Any]:
        """The `config.json` of this model, as transformers writes it."""
        if self.vision is None:
            return {"architectures": [_ARCHITECTURES[self.text.family]], **self.text.to_dict()}
        kind = "llava_next" if self.is_next else "llava"
        layers = self.feature_layers
        values: dict[str, Any] = {
            "architectures": ["LlavaNextForConditionalGeneration" if self.is_next else "LlavaForConditionalGeneration"],
            "model_type": kind,
            "image_token_index": self.image_token_id,
            "image_seq_length": self.features_per_tile,
            "vision_feature_layer": layers[0] if len(layers) == 1 else list(layers),
            "vision_feature_select_strategy": "default" if self.drop_class_token else "full",
            # One linear layer leaves as two, the second an identity: transformers has no other place for it.
            "projector_hidden_act": "linear"
            if self.projector == "linear"
            else ACTIVATION_NAMES[self.projector_activation],
            "multimodal_projector_bias": self.projector_bias,
            "tie_word_embeddings": self.text.tie_embeddings,
            "vision_config": self.vision.to_dict(),
            "text_config": self.text.to_dict(),
        }
        if self.is_next:
            values["image_grid_pinpoints"] = [list(canvas) for canvas in self.tile_canvases]
        return values


def _canvases(values: Json) -> tuple[tuple[int, int], ...]:
    """The sizes (height, width) that LLaVA-NeXT tiles pictures to."""
    pairs = values.get("image_grid_pinpoints")
    if pairs is None:
        return _DEFAULT_CANVASES
    sides = (
        [integers({"pair": pair}, "pair", "image_grid_pinpoints") for pair in pairs] if isinstance(pairs, list) else []
    )
    if not sides or any(len(pair) != 2 for pair in sides):
        raise CheckpointError("config.json: image_grid_pinpoints must be a list of heights and widths")
    return tuple((height, width) for height, width in sides)


_DEFAULT_CANVASES = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
_ARCHITECTURES = {
    "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM",
    "phi3": "Phi3ForCausalLM", "qwen2": "Qwen2ForCausalLM",
}  # fmt: skip
