"""Which tensor is kept in which type: the mixtures of quantized types that a model is written or loaded in.

Follows llama.cpp's choices (https://github.com/ggml-org/ggml, https://github.com/ggml-org/llama.cpp,
src/llama-quant.cpp), but where it names a Q5 type for a mixture of four bits: those run expanded here, Q6_K does not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from lapilli.checkpoints.ggml import TensorType, dequantize, quantize
from lapilli.checkpoints.names import gguf, tensors_of
from lapilli.checkpoints.weights import Weight
from lapilli.config import LlavaConfig, TextConfig
from lapilli.errors import InputError
from lapilli.kernels.quantized import supports

_PLAIN = (TensorType.F32, TensorType.F16, TensorType.BF16)
# Where a row is no whole number of blocks: the next type up with smaller ones.
_SMALLER = {TensorType.Q4_K: TensorType.Q5_0, TensorType.Q5_K: TensorType.Q5_1, TensorType.Q6_K: TensorType.Q8_0}


@dataclass(frozen=True)
class Mixture:
    """Types for a model's matrices: most, the head (or a tied model's embeddings), the tower, and a careful few.

    The careful few are values and second feed-forward matrices: of the `first` layers, or of about `half` of them.
    """

    type: TensorType
    head: TensorType
    tower: TensorType
    file_type: int  # llama.cpp's number for it, `general.file_type`
    careful: Literal["none", "first", "half"] = "none"

    @classmethod
    def pure(cls, type: TensorType) -> Mixture:
        """One type for the whole decoder; tower and projector in F16 where that is a quantized one."""
        return cls(type, type, type if type in _PLAIN else TensorType.F16, _FILE_TYPES[type])

    @classmethod
    def named(cls, name: str) -> Mixture:
        """The mixture of that name. Raises InputError that lists them."""
        found = MIXTURES.get(name.upper())
        if found is None:
            raise InputError(f"no type {name[:40]!r} to quantize to; there are {', '.join(MIXTURES)}")
        return found

    def type_of(self, names: Sequence[str], shape: Sequence[int], config: TextConfig) -> TensorType:
        """The type of a tensor that holds these of our parameters; F32 for what is no matrix."""
        name = names[0]
        if len(shape) < 2 or name == "vision.position":
            return TensorType.F32
        if name == "vision.patch.weight":
            # A convolution's kernel: llama.cpp has these in two types only.
            return TensorType.F32 if self.tower in (TensorType.F32, TensorType.BF16) else TensorType.F16
        type = self._wanted(names, config)
        while shape[-1] % type.block_weights:
            type = _SMALLER[type] if type.block_weights > 32 else TensorType.F16
        return type

    def _wanted(self, names: Sequence[str], config: TextConfig) -> TensorType:
        name = names[0]
        if not name.startswith("language."):
            return self.tower
        if name == "language.head.weight" or (name == "language.embed.weight" and config.tie_embeddings):
            return self.head
        sensitive = any(".attention.v." in part or ".mlp.down." in part for part in names)
        number = re.search(r"\.(\d+)\.", name)
        if not sensitive or number is None:
            return self.type
        more = self._has_more_bits(int(number[1]), config.num_layers, values=".mlp.down." not in name)
        return TensorType.Q6_K if more else self.type

    def _has_more_bits(self, layer: int, layers: int, *, values: bool) -> bool:
        """llama.cpp's `use_more_bits` and, for Q4_K_S, its rule of the first layers."""
        if self.careful == "half":
            eighth = layers // 8
            return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2
        return self.careful == "first" and layer < (4 if values else layers // 8)


# llama.cpp's numbers for what most of a file's tensors are.
_FILE_TYPES = {
    TensorType.F32: 0, TensorType.F16: 1, TensorType.Q4_0: 2, TensorType.Q4_1: 3, TensorType.Q8_0: 7,
    TensorType.Q5_0: 8, TensorType.Q5_1: 9, TensorType.Q4_K: 14, TensorType.Q5_K: 16, TensorType.Q6_K: 18,
    TensorType.BF16: 32,
}  # fmt: skip

MIXTURES = {
    "Q8_0": Mixture(TensorType.Q8_0, TensorType.Q8_0, TensorType.Q8_0, 7),
    "Q6_K": Mixture(TensorType.Q6_K, TensorType.Q6_K, TensorType.Q8_0, 18),
    "Q4_K_M": Mixture(TensorType.Q4_K, TensorType.Q6_K, TensorType.Q8_0, 15, careful="half"),
    "Q4_K_S": Mixture(TensorType.Q4_K, TensorType.Q6_K, TensorType.Q8_0, 14, careful="first"),
    "Q4_1": Mixture(TensorType.Q4_1, TensorType.Q6_K, TensorType.Q8_0, 3),
    "Q4_0": Mixture(TensorType.Q4_0, TensorType.Q6_K, TensorType.Q8_0, 2),
}


Quantization = Literal["int8", "int4"]


def planned(
    weights: Mapping[str, Weight], config: LlavaConfig, bits: Quantization | Mixture
) -> tuple[dict[str, Weight], tuple[str, ...]]:
    """The weights with the types that their matrices shall have, and the names of those that no type fits.

    What has no more bits already stays as it is. Raises InputError for `bits` that are not known.
    """
    mixture = bits if isinstance(bits, Mixture) else _LOADED.get(bits)
    if mixture is None:
        raise InputError(f"quantize is {str(bits)[:40]!r}, it may be {' or '.join(map(repr, _LOADED))}")
    found, left = dict(weights), []
    # What a GGUF file has in one tensor (Phi-3's queries, keys and values) has one type in memory too.
    for names in tensors_of(gguf(config.text.family), weights).values():
        wanted = mixture.type_of(names, weights[names[0]].shape, config.text)
        for name in names:
            weight = weights[name]
            if len(weight.shape) != 2 or name == "vision.position" or _is_kept(weight, wanted):
                continue
            type = _better(weight, (TensorType.Q4_0, TensorType.Q4_1)) if wanted is TensorType.Q5_0 else wanted
            found[name] = replace(weight, type=type, packed=None)
            if not supports(type, weight.shape):
                found[name] = replace(weight, type=None, packed=None)
                left.append(name)
    return found, tuple(left)


def _is_kept(weight: Weight, wanted: TensorType) -> bool:
    """Whether it is stored in a type that has a kernel and no more bits than the wanted one."""
    if weight.packed is None or weight.type is None or not supports(weight.type, weight.shape):
        return False
    return _bits(weight.type) <= _bits(wanted)


def _bits(type: TensorType) -> float:
    return 8 * type.block_bytes / type.block_weights


def _better(weight: Weight, types: Sequence[TensorType]) -> TensorType:
    """The type that changes some rows, taken from everywhere, the least."""
    floats = weight.read()
    some = floats[:: max(1, len(floats) // 256)].float().numpy()
    weight.release()

    def error(type: TensorType) -> float:
        return float(np.square(dequantize(quantize(some, type), type, some.shape) - some).sum())

    return min(types, key=error)


_LOADED = {"int8": MIXTURES["Q8_0"], "int4": MIXTURES["Q4_K_M"]}
