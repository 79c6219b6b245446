"""What a decoder is, in numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from lapilli.config.fields import (
    ACTIVATION_NAMES,
    Activation,
    Json,
    activation,
    integer,
    integers,
    number,
    require_divisible,
    require_positive,
    shown,
)
from lapilli.config.rope import RopeConfig
from lapilli.errors import CheckpointError


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
        require_positive(self, "text_config", skip=("bos_id", "first_sliding_layer"))
        require_divisible("text_config", "num_heads", self.num_heads, "num_kv_heads", self.num_kv_heads)
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
        if family not in TEXT_DEFAULTS:
            raise CheckpointError(f"{where}: model_type {shown(family)} is not one of {', '.join(TEXT_DEFAULTS)}")
        read = {**TEXT_DEFAULTS[family], **{key: value for key, value in values.items() if value is not None}}
        hidden, heads = integer(read, "hidden_size", where), integer(read, "num_attention_heads", where)
        if heads < 1:
            raise CheckpointError(f"{where}: num_attention_heads is {heads}, it must be at least 1")
        num_layers = integer(read, "num_hidden_layers", where)
        window, first_sliding = _sliding(family, values, num_layers, where)
        bias = bool(read.get("attention_bias", False))
        return cls(
            family=family,  # type: ignore[arg-type]
            vocab_size=integer(read, "vocab_size", where),
            hidden_size=hidden,
            intermediate_size=integer(read, "intermediate_size", where),
            num_layers=num_layers,
            num_heads=heads,
            num_kv_heads=integer(read, "num_key_value_heads", where, heads),
            head_dim=integer(read, "head_dim", where, hidden // heads),
            norm_eps=number(read, "rms_norm_eps", where),
            max_positions=integer(read, "max_position_embeddings", where),
            rope=RopeConfig.from_dict(read, where),
            activation=activation(read, where),
            sliding_window=window,
            first_sliding_layer=first_sliding,
            attention_bias=family == "qwen2" or (family == "llama" and bias),
            output_bias=family == "llama" and bias,
            mlp_bias=family == "llama" and bool(read.get("mlp_bias", False)),
            tie_embeddings=bool(read.get("tie_word_embeddings", False)),
            bos_id=next(iter(integers(read, "bos_token_id", where)), None),
            eos_ids=integers(read, "eos_token_id", where),
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
            "hidden_act": ACTIVATION_NAMES[self.activation],
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


TEXT_DEFAULTS: dict[str, dict[str, Any]] = {
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


def _sliding(family: str, values: Json, num_layers: int, where: str) -> tuple[int | None, int]:
    """The window in tokens, and the first layer that it applies to."""
    if family == "llama" or (family == "qwen2" and not values.get("use_sliding_window", False)):
        return None, 0
    window = values.get(
        "sliding_window", 4096 if family in ("mistral", "qwen2") and "sliding_window" not in values else None
    )
    if window is None:
        return None, 0
    first = integer(values, "max_window_layers", where, 28) if family == "qwen2" else 0
    kinds = values.get("layer_types")
    if kinds is not None:
        if not isinstance(kinds, list) or len(kinds) != num_layers:
            raise CheckpointError(f"{where}: layer_types must be a list of {num_layers} kinds, one for each layer")
        sliding = [i for i, kind in enumerate(kinds) if kind == "sliding_attention"]
        if sliding and sliding != list(range(sliding[0], num_layers)):
            raise CheckpointError(f"{where}: layer_types mix windows in an order that is not known here")
        first = sliding[0] if sliding else num_layers
    return integer({"sliding_window": window}, "sliding_window", where), first
