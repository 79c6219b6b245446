"""What a text encoder of BERT's kind is, in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from lapilli.config.fields import (
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

_WHERE = "config.json"
_FAMILIES: tuple[Literal["bert", "distilbert"], ...] = ("bert", "distilbert")
_DISTILBERT = {
    "hidden_size": "dim",
    "intermediate_size": "hidden_dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "hidden_act": "activation",
}


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """BERT (arXiv 1810.04805) or DistilBERT (arXiv 1910.01108): norms after each part, learned absolute positions.

    `num_kinds` are the token types, 0 where there are none.
    """

    family: Literal["bert", "distilbert"]
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    max_positions: int
    num_kinds: int
    activation: Activation
    norm_eps: float

    def __post_init__(self) -> None:
        require_positive(self, _WHERE, skip=("num_kinds",))
        require_divisible(_WHERE, "hidden_size", self.hidden_size, "num_attention_heads", self.num_heads)
        if not 0 <= self.num_kinds <= 1 << 16:
            raise CheckpointError(f"{_WHERE}: type_vocab_size is {self.num_kinds}, it must be between 0 and {1 << 16}")

    @classmethod
    def from_dict(cls, values: Json) -> EncoderConfig:
        """Read a Hugging Face `config.json`. Raises CheckpointError for another kind of model, naming it."""
        family = next((known for known in _FAMILIES if known == values.get("model_type")), None)
        if family is None:
            raise CheckpointError(
                f"{_WHERE}: model_type {shown(values.get('model_type'))} is no text encoder that is read here; "
                f"read are {', '.join(_FAMILIES)}"
            )
        read: dict[str, Any] = {key: value for key, value in values.items() if value is not None}
        if family == "distilbert":
            read |= {ours: read[theirs] for ours, theirs in _DISTILBERT.items() if theirs in read}
            read |= {"layer_norm_eps": 1e-12, "type_vocab_size": 0}
        kind = read.get("position_embedding_type", "absolute")
        if kind != "absolute":
            raise CheckpointError(f"{_WHERE}: position_embedding_type {shown(kind)} is not read, only 'absolute' is")
        return cls(
            family=family,
            vocab_size=integer(read, "vocab_size", _WHERE, 30522),
            hidden_size=integer(read, "hidden_size", _WHERE, 768),
            intermediate_size=integer(read, "intermediate_size", _WHERE, 3072),
            num_layers=integer(read, "num_hidden_layers", _WHERE, 12 if family == "bert" else 6),
            num_heads=integer(read, "num_attention_heads", _WHERE, 12),
            max_positions=integer(read, "max_position_embeddings", _WHERE, 512),
            num_kinds=integer(read, "type_vocab_size", _WHERE, 2),
            activation=activation(read, _WHERE, default="gelu"),
            norm_eps=number(read, "layer_norm_eps", _WHERE, 1e-12),
        )
