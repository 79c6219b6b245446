"""What a model is, told from headers alone: of a GGUF file, or of a checkpoint folder."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lapilli.checkpoints.gguf import read_gguf
from lapilli.checkpoints.gguf_sizes import decoder_sizes, tower_sizes
from lapilli.checkpoints.objects import read_object
from lapilli.checkpoints.safetensors import TensorHeader, check_header, read_index
from lapilli.config import LlavaConfig, TextConfig, VisionConfig
from lapilli.errors import CheckpointError
from lapilli.inputs.templates import ChatTemplate

# llama.cpp's numbers for what most of a file's tensors are (`general.file_type`).
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 32: "BF16",
}  # fmt: skip
_ORIGINAL = {"llava": "llama", "llava_llama": "llama", "llava_mistral": "mistral", "llava_qwen": "qwen2"}
_MANY = 5  # values of a list that are shown without being asked for


@dataclass(frozen=True)
class Header:
    """What stands in the header of a model or of its projector.

    `info` are GGUF's keys, `tensors` (name, type, shape as GGUF has it: width first), `eyes` the keys of a folder's
    tower, `template` its own chat template in Jinja.
    """

    format: str
    architecture: str
    parameters: int
    file_type: str
    info: Mapping[str, Any]
    tensors: tuple[tuple[str, str, tuple[int, ...]], ...]
    template: str = ""
    eyes: Mapping[str, Any] | None = None

    @property
    def sees(self) -> bool:
        """Whether a tower is in here."""
        return self.eyes is not None or any(key.endswith(".vision.block_count") for key in self.info)

    @property
    def embeds(self) -> bool:
        """Whether it only turns text into vectors."""
        return f"{self.architecture}.pooling_type" in self.info

    def shown(self, verbose: bool = False) -> dict[str, Any]:
        """The keys as they are shown: long lists only where they were asked for."""
        return _shown(self.info, verbose)

    def shown_eyes(self, verbose: bool = False) -> dict[str, Any]:
        """The same of a folder's tower."""
        return _shown(self.eyes or {}, verbose)


def read_header(path: Path) -> Header:
    """The header of a GGUF file or of a checkpoint folder; read once for as long as the files do not change.

    Raises CheckpointError for what is no model, or a damaged one; TemplateError for a template that cannot be read.
    """
    try:
        parts = sorted(path.iterdir()) if path.is_dir() else [path]
        state = tuple((part.name, part.stat().st_mtime_ns, part.stat().st_size) for part in parts)
    except OSError as error:
        raise CheckpointError(f"{path.name}: cannot be read: {(error.strerror or 'unknown error').lower()}") from None
    return _read(path, state)


@lru_cache(maxsize=16)
def _read(path: Path, state: tuple[tuple[str, int, int], ...]) -> Header:
    return _read_folder(path) if path.is_dir() else _read_file(path)


def _read_file(path: Path) -> Header:
    with read_gguf(path) as file:
        tensors = tuple((t.name, str(t.type), t.shape[::-1]) for t in file.tensors.values())
        weights: Counter[str] = Counter()
        for _, type, shape in tensors:
            weights[type] += math.prod(shape)
        count = sum(weights.values())
        most = weights.most_common(1)[0][0] if weights else "unknown"
        named = file.metadata.get("general.file_type")
        kind = FILE_TYPES.get(named, most) if isinstance(named, int) else most
        info = {**file.metadata, "general.parameter_count": count}
        info.pop("general.name", None)
        template = info.pop("tokenizer.chat_template", "")
        architecture = file.text("general.architecture", "unknown")
    return Header(
        "gguf", architecture, count, kind, info, tensors, template=template if isinstance(template, str) else ""
    )


def _read_folder(path: Path) -> Header:
    values = read_object(path / "config.json")
    if not values:
        raise CheckpointError(f"{path.name}: is neither a GGUF file nor a folder with a config.json")
    text, vision, config = _configs(values)
    headers: dict[str, TensorHeader] = {}
    for shard in sorted(set(read_index(path).values())):
        headers |= check_header(shard)
    weights: Counter[str] = Counter()
    for header in headers.values():
        weights[header.dtype] += math.prod(header.shape)
    count = sum(weights.values())
    kind = weights.most_common(1)[0][0] if weights else "unknown"
    codes = {name: code for code, name in FILE_TYPES.items()}
    info = {
        "general.architecture": text.family,
        "general.parameter_count": count,
        **({"general.file_type": codes[kind]} if kind in codes else {}),
        **decoder_sizes(text, text.family),
    }
    template = ChatTemplate.from_folder(path)
    return Header(
        "safetensors",
        text.family,
        count,
        kind,
        info,
        tuple((name, header.dtype, header.shape[::-1]) for name, header in headers.items()),
        template="" if template is None else str(getattr(template.form, "source", "")),
        eyes=None if vision is None and config is not None else _tower_info(text, vision),
    )


def _configs(values: Mapping[str, Any]) -> tuple[TextConfig, VisionConfig | None, LlavaConfig | None]:
    """The decoder and the tower; of an original LLaVA, whose tower lies elsewhere, the decoder alone."""
    if "mm_vision_tower" in values or "mm_projector_type" in values:
        family = _ORIGINAL.get(str(values.get("model_type")), "llama")
        return TextConfig.from_dict({**values, "model_type": family}), None, None
    config = LlavaConfig.from_dict(values)
    return config.text, config.vision, config


def _tower_info(text: TextConfig, config: VisionConfig | None) -> dict[str, Any]:
    values: dict[str, Any] = {
        "general.architecture": "clip",
        "clip.has_vision_encoder": True,
        "clip.projector_type": "mlp",
        "clip.vision.projection_dim": text.hidden_size,
    }
    return values if config is None else values | tower_sizes(config)


def _shown(info: Mapping[str, Any], verbose: bool) -> dict[str, Any]:
    return {
        key: [] if isinstance(value, list) and len(value) > _MANY and not verbose else value
        for key, value in sorted(info.items())
    }
