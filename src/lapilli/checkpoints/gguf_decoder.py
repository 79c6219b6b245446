"""A decoder in GGUF's words, both ways: the metadata that llama.cpp reads, and the order of its rotary rows.

Follows https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; architectures llama (Mistral too), phi3 and qwen2.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lapilli.checkpoints.gguf import GGUFFile
from lapilli.checkpoints.gguf_sizes import decoder_sizes
from lapilli.config import RopeConfig, TextConfig
from lapilli.errors import CheckpointError
from lapilli.model.rope import attention_factor, frequencies

_ARCHITECTURES: dict[str, Literal["llama", "phi3", "qwen2"]] = {"llama": "llama", "phi3": "phi3", "qwen2": "qwen2"}
_FACTORS = ("rope_factors_short.weight", "rope_factors_long.weight")
_FREQUENCIES = "rope_freqs.weight"
ROPE_TENSORS = frozenset((*_FACTORS, _FREQUENCIES))
_LARGEST = 1 << 24


def read_decoder(file: GGUFFile) -> TextConfig:
    """The decoder that a GGUF file describes. Raises CheckpointError for one that is not known here."""
    arch = file.text("general.architecture")
    if arch not in _ARCHITECTURES:
        what = "a projector: give the model's file, and this one as projector" if arch == "clip" else "not known here"
        raise CheckpointError(
            f"{file.name}: architecture {arch[:40]!r} is {what}; read are {', '.join(_ARCHITECTURES)}"
        )
    if file.integer(f"{arch}.expert_count", 0):
        raise CheckpointError(f"{file.name}: mixtures of experts are not known here")

    def size(key: str, default: int | None = None) -> int:
        return file.integer(f"{arch}.{key}", default, minimum=1, maximum=_LARGEST)

    hidden, heads = size("embedding_length"), size("attention.head_count")
    head_dim = size("attention.key_length", hidden // heads or 1)
    if size("attention.value_length", head_dim) != head_dim:
        raise CheckpointError(f"{file.name}: keys and values of different lengths are not known here")
    window = file.integer(f"{arch}.attention.sliding_window", 0, minimum=0, maximum=_LARGEST) or None
    rotary = size("rope.dimension_count", head_dim)
    config = TextConfig(
        family="mistral" if arch == "llama" and window else _ARCHITECTURES[arch],
        vocab_size=file.tensor("token_embd.weight").shape[0],
        hidden_size=hidden,
        intermediate_size=size("feed_forward_length"),
        num_layers=size("block_count"),
        num_heads=heads,
        num_kv_heads=size("attention.head_count_kv", heads),
        head_dim=head_dim,
        norm_eps=_short(file.number(f"{arch}.attention.layer_norm_rms_epsilon")),
        max_positions=size("context_length"),
        rope=RopeConfig(
            theta=_short(file.number(f"{arch}.rope.freq_base", 10_000.0)), partial=_share(rotary, head_dim)
        ),
        sliding_window=window,
        first_sliding_layer=file.integer(f"{arch}.attention.sliding_window_first_layer", 0, minimum=0),
        attention_bias="blk.0.attn_q.bias" in file.tensors,
        output_bias="blk.0.attn_output.bias" in file.tensors,
        mlp_bias="blk.0.ffn_up.bias" in file.tensors,
        tie_embeddings="output.weight" not in file.tensors,
        bos_id=file.metadata.get("tokenizer.ggml.bos_token_id"),  # type: ignore[arg-type]
        eos_ids=tuple(file.integer(key) for key in ("tokenizer.ggml.eos_token_id",) if key in file.metadata),
    )
    return dataclasses.replace(config, rope=_read_rope(file, arch, config))


def _read_rope(file: GGUFFile, arch: str, config: TextConfig) -> RopeConfig:
    """How positions are stretched: by numbers in the metadata, or by a factor a frequency in a tensor."""
    rope, half = config.rope, config.rotary_dim // 2
    factor = _short(file.number(f"{arch}.rope.scaling.factor", file.number(f"{arch}.rope.scale_linear", 1.0)))
    kind = file.text(f"{arch}.rope.scaling.type", "linear" if factor != 1.0 else "none")
    original = file.integer(f"{arch}.rope.scaling.original_context_length", config.max_positions, minimum=1)
    sharper = _short(file.number(f"{arch}.rope.scaling.attn_factor", 1.0))
    if all(name in file.tensors for name in _FACTORS):
        short, long = (_floats(file, name, half) for name in _FACTORS)
        return dataclasses.replace(
            rope,
            kind="longrope",
            factor=config.max_positions / original,
            original_max_positions=original,
            attention_factor=sharper,
            short_factor=short,
            long_factor=long,
        )
    if _FREQUENCIES in file.tensors:
        return _named_factors(config, _floats(file, _FREQUENCIES, half))
    if kind == "linear":
        return dataclasses.replace(rope, kind="linear", factor=factor)
    if kind == "yarn":
        usual = 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0
        return dataclasses.replace(
            rope,
            kind="yarn",
            factor=factor,
            original_max_positions=original,
            attention_factor=None if sharper == 1.0 else sharper * usual,
            beta_fast=_short(file.number(f"{arch}.rope.scaling.yarn_beta_fast", 32.0)),
            beta_slow=_short(file.number(f"{arch}.rope.scaling.yarn_beta_slow", 1.0)),
        )
    if kind != "none":
        raise CheckpointError(f"{file.name}: rope scaling {kind[:40]!r} is not known here")
    return rope


def _named_factors(config: TextConfig, factors: tuple[float, ...]) -> RopeConfig:
    """Llama 3's numbers where they explain the factors, else the factors themselves."""
    for original in (8192, config.max_positions):
        named = dataclasses.replace(
            config.rope, kind="llama3", factor=_short(max(factors)), original_max_positions=original
        )
        if np.allclose(_factors_of(dataclasses.replace(config, rope=named)), factors, rtol=1e-5):
            return named
    return dataclasses.replace(
        config.rope,
        kind="longrope",
        original_max_positions=config.max_positions,
        attention_factor=1.0,
        short_factor=factors,
        long_factor=factors,
    )


def write_decoder(config: TextConfig) -> tuple[dict[str, object], dict[str, npt.NDArray[np.float32]]]:
    """The metadata of a decoder, and the tensors that say how its positions are stretched.

    Raises CheckpointError for one that llama.cpp would compute otherwise.
    """
    arch = "llama" if config.family == "mistral" else config.family
    rope = config.rope
    if arch == "llama" and config.rotary_dim != config.head_dim:
        raise CheckpointError(
            f"llama.cpp turns whole heads, this model {config.rotary_dim} of {config.head_dim} dimensions: "
            "save it as a folder instead"
        )
    if config.activation != "silu":
        raise CheckpointError(f"llama.cpp knows these decoders with silu only, this one has {config.activation}")
    values: dict[str, object] = {"general.architecture": arch, **decoder_sizes(config, arch)}
    if config.sliding_window is not None:
        values[f"{arch}.attention.sliding_window"] = config.sliding_window
        values[f"{arch}.attention.sliding_window_first_layer"] = config.first_sliding_layer
    original = rope.original_max_positions or config.max_positions
    sharper = attention_factor(rope, config.max_positions)
    if rope.kind == "linear":
        values |= {f"{arch}.rope.scaling.type": "linear", f"{arch}.rope.scaling.factor": rope.factor}
    elif rope.kind == "yarn":
        if not rope.truncate:
            raise CheckpointError("llama.cpp knows YaRN with truncate only: save this model as a folder instead")
        usual = 0.1 * math.log(rope.factor) + 1.0 if rope.factor > 1 else 1.0
        values |= {
            f"{arch}.rope.scaling.type": "yarn",
            f"{arch}.rope.scaling.factor": rope.factor,
            f"{arch}.rope.scaling.original_context_length": original,
            f"{arch}.rope.scaling.attn_factor": sharper / usual,
            f"{arch}.rope.scaling.yarn_beta_fast": rope.beta_fast,
            f"{arch}.rope.scaling.yarn_beta_slow": rope.beta_slow,
        }
    elif rope.kind == "llama3":
        return values, {_FREQUENCIES: _factors_of(config)}
    elif rope.kind == "longrope":
        values |= {
            f"{arch}.rope.scaling.type": "longrope",
            f"{arch}.rope.scaling.original_context_length": original,
            f"{arch}.rope.scaling.attn_factor": sharper,
        }
        factors = (rope.short_factor, rope.long_factor)
        return values, {name: np.array(f, np.float32) for name, f in zip(_FACTORS, factors, strict=True)}
    # `dynamic` changes nothing up to the context length, which is as far as llama.cpp goes.
    return values, {}


def _factors_of(config: TextConfig) -> npt.NDArray[np.float32]:
    """What each frequency is divided by."""
    plain = dataclasses.replace(config, rope=dataclasses.replace(config.rope, kind="default"))
    factors: npt.NDArray[np.float32] = (frequencies(plain, 0) / frequencies(config, 0)).numpy()
    return factors


def pair_rows(rows: Tensor, heads: int) -> Tensor:
    """Rows of a query or key projection as llama.cpp has them: the two of each rotated pair side by side."""
    return rows.view(heads, 2, -1, *rows.shape[1:]).transpose(1, 2).flatten(0, 2)


def unpair_rows(rows: Tensor, heads: int) -> Tensor:
    """The reverse of `pair_rows`."""
    return rows.view(heads, -1, 2, *rows.shape[1:]).transpose(1, 2).flatten(0, 2)


def paired_heads(name: str, config: TextConfig) -> int | None:
    """How many heads one of our parameters has where llama.cpp pairs its rows, else None."""
    if config.family not in ("llama", "mistral") or not name.startswith("language."):
        return None
    if ".attention.q." in name:
        return config.num_heads
    return config.num_kv_heads if ".attention.k." in name else None


def _floats(file: GGUFFile, name: str, count: int) -> tuple[float, ...]:
    values = torch.from_numpy(file.tensor(name, (count,)).dequantize())
    if not bool(torch.isfinite(values).all()) or not bool((values > 0).all()):
        raise CheckpointError(f"{file.name}: tensor {name} must hold numbers above 0")
    return tuple(_short(value) for value in values.tolist())


def _short(value: float) -> float:
    """The shortest number that is this one in float32: 1e-05, not 9.99999974e-06."""
    return float(str(np.float32(value)))


def _share(part: int, whole: int) -> float:
    """The fraction part / whole, such that int(whole * fraction) gives the part again."""
    share = part / whole
    return share if int(whole * share) == part else math.nextafter(share, math.inf)
