"""What a model is, in numbers: frozen, nested, derived once, and free of torch.

`from_dict` reads a Hugging Face `config.json`, `to_dict` writes one that transformers opens.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lapilli.errors import CheckpointError

Json = Mapping[str, Any]

Activation = Literal["quick_gelu", "gelu", "gelu_tanh", "silu", "identity"]
_ACTIVATIONS: dict[str, Activation] = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
    "linear": "identity",
}
_ACTIVATION_NAMES: dict[Activation, str] = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "silu": "silu",
    "identity": "linear",
}


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
        _require_positive(self, "vision_config")
        _require_divisible("vision_config", "hidden_size", self.hidden_size, "num_heads", self.num_heads)
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
            raise CheckpointError(f"{where}: model_type {values.get('model_type')!r} is not CLIP or SigLIP")
        large = _CLIP_DEFAULTS if family == "clip" else _SIGLIP_DEFAULTS
        read = {**large, **{key: value for key, value in values.items() if value is not None}}
        if _integer(read, "num_channels", where, 3) != 3:
            raise CheckpointError(f"{where}: num_channels is {read['num_channels']}, only 3 (RGB) is read")
        return cls(
            family=family,
            hidden_size=_integer(read, "hidden_size", where),
            intermediate_size=_integer(read, "intermediate_size", where),
            num_layers=_integer(read, "num_hidden_layers", where),
            num_heads=_integer(read, "num_attention_heads", where),
            image_size=_integer(read, "image_size", where),
            patch_size=_integer(read, "patch_size", where),
            activation=_activation(read, where),
            norm_eps=_number(read, "layer_norm_eps", where),
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
            "hidden_act": _ACTIVATION_NAMES[self.activation],
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


@dataclass(frozen=True, kw_only=True)
class RopeConfig:
    """Rotary position embedding (arXiv 2104.09864) and the way it is stretched past the trained length."""

    kind: Literal["default", "linear", "dynamic", "yarn", "longrope", "llama3"] = "default"
    theta: float = 10_000.0
    factor: float = 1.0
    partial: float = 1.0
    original_max_positions: int | None = None
    attention_factor: float | None = None
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True
    short_factor: tuple[float, ...] = ()
    long_factor: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("theta", "factor", "partial"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise CheckpointError(f"rope_parameters: {name} is {value}, it must be a positive number")

    @classmethod
    def from_dict(cls, values: Json, where: str) -> RopeConfig:
        """Read `rope_parameters` (transformers 5) or `rope_theta` + `rope_scaling` (before)."""
        nested = values.get("rope_parameters") or values.get("rope_scaling") or {}
        if not isinstance(nested, Mapping):
            raise CheckpointError(f"{where}: rope_scaling must be an object, it is {type(nested).__name__}")
        kind = str(nested.get("rope_type", nested.get("type", "default")))
        kind = {"su": "longrope"}.get(kind, kind)
        if kind not in ("default", "linear", "dynamic", "yarn", "longrope", "llama3"):
            raise CheckpointError(f"{where}: rope type {kind!r} is not known here")
        merged: dict[str, Any] = {
            "rope_theta": values.get("rope_theta", 10_000.0),
            "partial_rotary_factor": values.get("partial_rotary_factor", 1.0),
            "original_max_position_embeddings": values.get("original_max_position_embeddings"),
            **{key: value for key, value in nested.items() if value is not None},
        }
        original = merged.get("original_max_position_embeddings")
        # Phi-3's files omit the factor: it is the ratio of the two context lengths.
        if "factor" not in merged and kind in ("longrope", "yarn") and original:
            merged["factor"] = values.get("max_position_embeddings", original) / original
        attention = merged.get("attention_factor")
        return cls(
            kind=kind,  # type: ignore[arg-type]
            theta=_number(merged, "rope_theta", where),
            factor=_number(merged, "factor", where, 1.0),
            partial=_number(merged, "partial_rotary_factor", where, 1.0),
            original_max_positions=None
            if original is None
            else _integer(merged, "original_max_position_embeddings", where),
            attention_factor=None if attention is None else float(attention),
            low_freq_factor=_number(merged, "low_freq_factor", where, 1.0),
            high_freq_factor=_number(merged, "high_freq_factor", where, 4.0),
            beta_fast=_number(merged, "beta_fast", where, 32.0),
            beta_slow=_number(merged, "beta_slow", where, 1.0),
            mscale=merged.get("mscale"),
            mscale_all_dim=merged.get("mscale_all_dim"),
            truncate=bool(merged.get("truncate", True)),
            short_factor=tuple(float(x) for x in merged.get("short_factor", ())),
            long_factor=tuple(float(x) for x in merged.get("long_factor", ())),
        )

    def to_dict(self) -> dict[str, Any]:
        values: dict[str, Any] = {"rope_type": self.kind, "rope_theta": self.theta}
        if self.partial != 1.0:
            values["partial_rotary_factor"] = self.partial
        if self.kind == "default":
            return values
        values["factor"] = self.factor
        if self.original_max_positions is not None:
            values["original_max_position_embeddings"] = self.original_max_positions
        if self.attention_factor is not None:
            values["attention_factor"] = self.attention_factor
        if self.kind == "llama3":
            values |= {"low_freq_factor": self.low_freq_factor, "high_freq_factor": self.high_freq_factor}
        if self.kind == "yarn":
            values |= {"beta_fast": self.beta_fast, "beta_slow": self.beta_slow, "truncate": self.truncate}
            values |= {k: v for k in ("mscale", "mscale_all_dim") if (v := getattr(self, k)) is not None}
        if self.kind == "longrope":
            values |= {"short_factor": list(self.short_factor), "long_factor": list(self.long_factor)}
        return values


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """A decoder of the Llama kind: Llama and Vicuna, Mistral, Phi-3, Qwen2."""

    family: Literal["llama", "mistral", "phi3", "qwen2"]
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    norm_eps: float
    max_positions: int
    rope: RopeConfig = field(default_factory=RopeConfig)
    activation: Activation = "silu"
    sliding_window: int | None = None
    first_sliding_layer: int = 0
    attention_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    tie_embeddings: bool = False
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _require_positive(self, "text_config", skip=("bos_id", "first_sliding_layer"))
        _require_divisible("text_config", "num_heads", self.num_heads, "num_kv_heads", self.num_kv_heads)
        if self.rotary_dim % 2 or self.rotary_dim == 0:
            raise CheckpointError(f"text_config: the rotary part of a head must be even, it is {self.rotary_dim}")
        for name in ("short_factor", "long_factor"):
            factors = getattr(self.rope, name)
            if self.rope.kind == "longrope" and len(factors) != self.rotary_dim // 2:
                raise CheckpointError(
                    f"text_config: {name} has {len(factors)} entries, longrope needs {self.rotary_dim // 2}"
                )

    @property
    def rotary_dim(self) -> int:
        """Dimensions of a head that are rotated."""
        return int(self.head_dim * self.rope.partial)

    def window_of(self, layer: int) -> int | None:
        """The sliding window of one layer in tokens, None where it sees everything before it."""
        return self.sliding_window if layer >= self.first_sliding_layer else None

    @classmethod
    def from_dict(cls, values: Json) -> TextConfig:
        """Read a Hugging Face decoder configuration, with that family's own defaults for what is left out."""
        where = "text_config"
        family = str(values.get("model_type", "llama"))
        if family not in _TEXT_DEFAULTS:
            raise CheckpointError(f"{where}: model_type {family!r} is not one of {', '.join(_TEXT_DEFAULTS)}")
        read = {**_TEXT_DEFAULTS[family], **{key: value for key, value in values.items() if value is not None}}
        hidden, heads = _integer(read, "hidden_size", where), _integer(read, "num_attention_heads", where)
        if heads < 1:
            raise CheckpointError(f"{where}: num_attention_heads is {heads}, it must be at least 1")
        num_layers = _integer(read, "num_hidden_layers", where)
        window, first_sliding = _sliding(family, values, num_layers, where)
        eos = read.get("eos_token_id")
        bias = bool(read.get("attention_bias", False))
        return cls(
            family=family,  # type: ignore[arg-type]
            vocab_size=_integer(read, "vocab_size", where),
            hidden_size=hidden,
            intermediate_size=_integer(read, "intermediate_size", where),
            num_layers=num_layers,
            num_heads=heads,
            num_kv_heads=_integer(read, "num_key_value_heads", where, heads),
            head_dim=_integer(read, "head_dim", where, hidden // heads),
            norm_eps=_number(read, "rms_norm_eps", where),
            max_positions=_integer(read, "max_position_embeddings", where),
            rope=RopeConfig.from_dict(read, where),
            activation=_activation(read, where),
            sliding_window=window,
            first_sliding_layer=first_sliding,
            attention_bias=family == "qwen2" or (family == "llama" and bias),
            output_bias=family == "llama" and bias,
            mlp_bias=family == "llama" and bool(read.get("mlp_bias", False)),
            tie_embeddings=bool(read.get("tie_word_embeddings", False)),
            bos_id=read.get("bos_token_id"),
            eos_ids=tuple(eos) if isinstance(eos, Sequence) else () if eos is None else (int(eos),),
        )

    def to_dict(self) -> dict[str, Any]:
        values: dict[str, Any] = {
            "model_type": self.family,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "rms_norm_eps": self.norm_eps,
            "max_position_embeddings": self.max_positions,
            "rope_parameters": self.rope.to_dict(),
            # Readers of the older layout look for these two.
            "rope_theta": self.rope.theta,
            "hidden_act": _ACTIVATION_NAMES[self.activation],
            "tie_word_embeddings": self.tie_embeddings,
            "bos_token_id": self.bos_id,
            "eos_token_id": self.eos_ids[0] if len(self.eos_ids) == 1 else list(self.eos_ids) or None,
            "pad_token_id": None,
        }
        if self.family == "llama":
            values |= {"attention_bias": self.attention_bias, "mlp_bias": self.mlp_bias}
        if self.family in ("mistral", "phi3"):
            values["sliding_window"] = self.sliding_window
        if self.family == "qwen2":
            values["use_sliding_window"] = self.sliding_window is not None
            if self.sliding_window is not None:
                values |= {"sliding_window": self.sliding_window, "max_window_layers": self.first_sliding_layer}
        if self.family == "phi3" and self.rope.original_max_positions is not None:
            values["original_max_position_embeddings"] = self.rope.original_max_positions
        return values


_TEXT_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "hidden_act": "silu", "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
        "bos_token_id": 1, "eos_token_id": 2,
    },
    "mistral": {
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "hidden_act": "silu",
        "max_position_embeddings": 131072, "rms_norm_eps": 1e-6, "bos_token_id": 1, "eos_token_id": 2,
    },
    "phi3": {
        "vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 32,
        "num_attention_heads": 32, "hidden_act": "silu", "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
        "original_max_position_embeddings": 4096, "bos_token_id": 1, "eos_token_id": 32000,
    },
    "qwen2": {
        "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "hidden_act": "silu",
        "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
    },
}  # fmt: skip


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
        kind = values.get("model_type", "llava" if "vision_config" in values else None)
        if kind not in ("llava", "llava_next"):
            if kind not in _TEXT_DEFAULTS:
                known = ", ".join(["llava", "llava_next", *_TEXT_DEFAULTS])
                raise CheckpointError(f"config.json: model_type {kind!r} is not known here; known are {known}")
            return cls(text=TextConfig.from_dict(values), image_token_id=-1)
        for part in ("vision_config", "text_config"):
            if not isinstance(values.get(part), Mapping):
                raise CheckpointError(f"config.json: {part} must be an object")
        text = dict(values["text_config"])
        text.setdefault("tie_word_embeddings", values.get("tie_word_embeddings", False))
        layers = values.get("vision_feature_layer", -2)
        select = values.get("vision_feature_select_strategy", "default")
        if select not in ("default", "full"):
            raise CheckpointError(f"config.json: vision_feature_select_strategy {select!r} is not default or full")
        canvases = values.get("image_grid_pinpoints", _DEFAULT_CANVASES) if kind == "llava_next" else ()
        return cls(
            text=TextConfig.from_dict(text),
            vision=VisionConfig.from_dict(values["vision_config"]),
            image_token_id=_integer(values, "image_token_index", "config.json", values.get("image_token_id") or 32000),
            feature_layers=tuple(int(x) for x in layers) if isinstance(layers, Sequence) else (int(layers),),
            drop_class_token=select == "default",
            projector_activation=_activation(values, "config.json", "projector_hidden_act", "gelu"),
            projector_bias=bool(values.get("multimodal_projector_bias", True)),
            tile_canvases=tuple((int(h), int(w)) for h, w in canvases),
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
            else _ACTIVATION_NAMES[self.projector_activation],
            "multimodal_projector_bias": self.projector_bias,
            "tie_word_embeddings": self.text.tie_embeddings,
            "vision_config": self.vision.to_dict(),
            "text_config": self.text.to_dict(),
        }
        if self.is_next:
            values["image_grid_pinpoints"] = [list(canvas) for canvas in self.tile_canvases]
        return values


_DEFAULT_CANVASES = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
_ARCHITECTURES = {
    "llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM",
    "phi3": "Phi3ForCausalLM", "qwen2": "Qwen2ForCausalLM",
}  # fmt: skip


def select_canvas(height: int, width: int, canvases: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The canvas (height, width) that keeps most of a picture, then wastes least (LLaVA-NeXT)."""
    best, best_kept, best_waste = canvases[0], -1, 0
    for canvas_height, canvas_width in canvases:
        scale = min(canvas_width / width, canvas_height / height)
        kept = min(int(width * scale) * int(height * scale), width * height)
        waste = canvas_width * canvas_height - kept
        if kept > best_kept or (kept == best_kept and waste < best_waste):
            best, best_kept, best_waste = (canvas_height, canvas_width), kept, waste
    return best


def unpadded_grid(height: int, width: int, tiles: tuple[int, int], grid: int) -> tuple[int, int]:
    """Rows and columns of features left when the padding of a tiled picture is cut off (LLaVA-NeXT)."""
    rows, columns = tiles[0] * grid, tiles[1] * grid
    if width / height > columns / rows:
        kept = int(round(height * (columns / width), 7))
        return rows - 2 * ((rows - kept) // 2), columns
    kept = int(round(width * (rows / height), 7))
    return rows, columns - 2 * ((columns - kept) // 2)


def _sliding(family: str, values: Json, num_layers: int, where: str) -> tuple[int | None, int]:
    """The window in tokens, and the first layer that it applies to."""
    if family == "llama" or (family == "qwen2" and not values.get("use_sliding_window", False)):
        return None, 0
    window = values.get(
        "sliding_window", 4096 if family in ("mistral", "qwen2") and "sliding_window" not in values else None
    )
    if window is None:
        return None, 0
    first = _integer(values, "max_window_layers", where, 28) if family == "qwen2" else 0
    kinds = values.get("layer_types")
    if kinds is not None:
        sliding = [i for i, kind in enumerate(kinds) if kind == "sliding_attention"]
        if sliding and sliding != list(range(sliding[0], num_layers)):
            raise CheckpointError(f"{where}: layer_types mix windows in an order that is not known here")
        first = sliding[0] if sliding else num_layers
    return int(window), first


def _activation(values: Json, where: str, key: str = "hidden_act", default: str | None = None) -> Activation:
    name = values.get(key, default)
    if name not in _ACTIVATIONS:
        raise CheckpointError(f"{where}: {key} {name!r} is not one of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


_MISSING = object()


def _integer(values: Json, key: str, where: str, default: Any = _MISSING) -> int:
    value = values.get(key)
    if value is None:
        value = default
    if value is _MISSING:
        raise CheckpointError(f"{where}: {key} is missing")
    if isinstance(value, bool) or not isinstance(value, int):
        raise CheckpointError(f"{where}: {key} must be a whole number, it is {value!r}")
    return value


def _number(values: Json, key: str, where: str, default: Any = _MISSING) -> float:
    value = values.get(key)
    if value is None:
        value = default
    if value is _MISSING:
        raise CheckpointError(f"{where}: {key} is missing")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise CheckpointError(f"{where}: {key} must be a finite number, it is {value!r}")
    return float(value)


# Far above any real model, far below what would overflow a product of two sizes.
_LARGEST = 1 << 24


def _require_positive(config: Any, where: str, skip: tuple[str, ...] = ()) -> None:
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if isinstance(value, bool) or not isinstance(value, int) or item.name in skip:
            continue
        if not 1 <= value <= _LARGEST:
            raise CheckpointError(f"{where}: {item.name} is {value}, it must be between 1 and {_LARGEST}")


def _require_divisible(where: str, name: str, value: int, by_name: str, by: int) -> None:
    if value % by:
        raise CheckpointError(f"{where}: {name} {value} is not divisible by {by_name} {by}")
