"""How much memory a model will take, told from the headers of its files before anything is loaded."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

from lapilli.checkpoints.ggml import TensorType
from lapilli.engine.ask import ModelFacts
from lapilli.errors import CheckpointError
from lapilli.ground.settings import Settings
from lapilli.store.package import Package

PROCESS_BYTES = 320 << 20
"""What a model's process takes before it has loaded anything: Python, torch, and room to work in."""

_FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
_ROUNDED = {"int8": 1.13, "int4": 0.63}  # bytes a weight, its scales among them
_BLOCK = 32


def engine_options(settings: Settings) -> dict[str, Any]:
    """The engine's numbers, as the settings have them: a step's rows are a multiple of eight."""
    return {
        "running": settings.num_parallel,
        "rows": -(-settings.num_parallel // 8) * 8,
        "cache_bytes": settings.cache_memory,
        "feature_bytes": settings.feature_memory,
        "feature_folder": None if settings.features is None else str(settings.features),
    }


def footprint(package: Package, settings: Settings) -> int:
    """Bytes that the model's process will take: weights, keys and values, features, and the process itself."""
    headers = [package.header, *([] if package.eyes is None else [package.eyes])]
    tensors = [tensor for header in headers for tensor in header.tensors]
    weights = sum(_bytes(type, shape, settings.quantize) for _, type, shape in tensors)
    features = settings.feature_memory if "vision" in package.capabilities else 0
    return PROCESS_BYTES + weights + _cache(package.header.info, package.header.architecture, settings) + features


def taken(facts: ModelFacts, settings: Settings) -> int:
    """The same of a model that is loaded, which knows itself."""
    features = settings.feature_memory if facts.sees else 0
    return PROCESS_BYTES + facts.weight_bytes + facts.cache_tokens * facts.bytes_a_token + features


def computes_elsewhere(settings: Settings) -> bool:
    """Whether weights go to an accelerator's memory, which is not this machine's."""
    return settings.device != "cpu" and any(map(os.path.exists, ("/dev/nvidia0", "/dev/kfd")))


def _bytes(type: str, shape: tuple[int, ...], quantize: str | None) -> int:
    """A tensor in memory: floats are computed with in four bytes, blocks of quantized weights as they are."""
    count = math.prod(shape)
    if type not in _FLOATS:
        try:
            kind = TensorType(type)
        except CheckpointError:
            return count * 4
        return -(-count // kind.block_weights) * kind.block_bytes
    if quantize in _ROUNDED and len(shape) == 2 and min(shape) >= 64:
        return math.ceil(count * _ROUNDED[quantize])
    return count * 4


def _cache(info: Mapping[str, Any], family: str, settings: Settings) -> int:
    """Keys and values in four bytes a number, for as many whole contexts as there are places, or as is allowed."""

    def number(name: str, default: int = 0) -> int:
        value = info.get(f"{family}.{name}")
        return value if isinstance(value, int) and 0 < value < 1 << 32 else default

    heads = number("attention.head_count")
    width = number("attention.key_length", number("embedding_length") // heads if heads else 0)
    a_token = 8 * number("block_count") * number("attention.head_count_kv", heads) * width
    if not a_token:
        return settings.cache_memory
    context = -(-number("context_length", 1 << 20) // _BLOCK) * _BLOCK
    return min(settings.cache_memory, settings.num_parallel * context * a_token)
