"""LoRA adapters (arXiv 2106.09685) in PEFT's layout: merged into the weights as these are read, or kept beside them.

Follows https://huggingface.co/docs/peft/developer_guides/checkpoint.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lapilli.checkpoints import names
from lapilli.checkpoints.source import Source, read_object
from lapilli.checkpoints.weights import Shape, Weight, read_safetensors, shapes_of
from lapilli.config import LlavaConfig
from lapilli.errors import CheckpointError
from lapilli.model.lora import Adapter, Factors

# Keys of adapter_config.json that do not change what a merged weight is, beside those that are read below.
_IDLE_KEYS = {
    "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode", "r",
    "target_modules", "exclude_modules", "lora_dropout", "fan_in_fan_out", "bias", "modules_to_save",
    "layers_to_transform", "layers_pattern", "rank_pattern", "megatron_config", "megatron_core", "loftq_config",
    "eva_config", "corda_config", "lora_ga_config", "qalora_group_size", "lora_bias", "ensure_weight_tying",
}  # fmt: skip
_READ_KEYS = {"peft_type", "lora_alpha", "use_rslora", "alpha_pattern", "init_lora_weights"}
# Names of what PEFT wraps a module in; they stand in the way of the module's own.
_WRAPPERS = re.compile(r"(?<=\.)(modules_to_save|base_layer)\.")
# Other ways to begin change the base model too, which the adapter's file then does not hold.
_PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class Strength:
    """How much of an adapter is added: alpha / rank, or alpha / sqrt(rank) (rsLoRA, arXiv 2312.03732)."""

    alpha: float
    rooted: bool
    exceptions: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Strength:
        """Read an `adapter_config.json`. Raises CheckpointError for kinds of adapter that would be merged wrongly."""
        if values.get("peft_type", "LORA") != "LORA":
            raise CheckpointError(f"adapter_config.json: peft_type {str(values['peft_type'])[:40]!r} is not LORA")
        if values.get("use_dora"):
            raise CheckpointError("adapter_config.json: use_dora: DoRA adapters are not read, merge it with PEFT first")
        if values.get("init_lora_weights") not in _PLAIN_STARTS:
            start = str(values["init_lora_weights"])[:40]
            raise CheckpointError(f"adapter_config.json: init_lora_weights {start!r} changes the base model as well")
        strange = sorted(key for key in values.keys() - _IDLE_KEYS - _READ_KEYS if values[key])
        if strange:
            raise CheckpointError(f"adapter_config.json: {', '.join(strange)[:200]}: not known here")
        patterns = values.get("alpha_pattern") or {}
        if not isinstance(patterns, Mapping) or not all(re.fullmatch(r"[\w.]+", str(key)) for key in patterns):
            raise CheckpointError("adapter_config.json: alpha_pattern must go from plain module names to numbers")
        exceptions = {str(key): _number(value, "alpha_pattern") for key, value in patterns.items()}
        return cls(_number(values.get("lora_alpha", 8), "lora_alpha"), bool(values.get("use_rslora")), exceptions)

    def of(self, module: str, rank: int) -> float:
        """The factor for a module whose matrices have this rank."""
        alpha = self.alpha
        for name, exception in self.exceptions.items():
            if module == name or module.endswith(f".{name}"):
                alpha = exception
                break
        return alpha / math.sqrt(rank) if self.rooted else alpha / rank


def merge_adapter(source: Source, folder: Path) -> Source:
    """The checkpoint with an adapter's matrices added (in float32) and its whole tensors put in place.

    Raises CheckpointError that names the tensor without a place, or of the wrong shape.
    """
    opened = _open(folder)
    merging = _Merging(source, opened.strength, folder.name)
    for name, weight in opened.whole.items():
        merging.put(name, weight)
    for module, matrices in opened.matrices.items():
        merging.add(module, matrices)
    return dataclasses.replace(source, weights=merging.weights)


def read_adapter(folder: Path, config: LlavaConfig, device: str | torch.device = "cpu") -> Adapter:
    """An adapter as what it adds to the linear layers of the decoder, for models that are loaded already.

    Raises CheckpointError as `merge_adapter` does, and for an adapter that changes anything else than those.
    """
    opened = _open(folder)
    places = _Places(config, folder.name)
    if whole := opened.whole.keys() - opened.untrained:
        raise CheckpointError(
            f"{folder.name}: holds {min(whole)[:200]} as a whole, {len(whole)} such tensors: "
            "only what adds to the decoder's linear layers is chosen by request; merge it with the model"
        )
    layers: dict[str, Factors] = {}
    for module, matrices in opened.matrices.items():
        up, down = _pair(module, matrices, folder.name)
        scale = opened.strength.of(module, down.shape[0])
        bias = matrices["B.bias"].read().float() if "B.bias" in matrices else None
        if bias is not None:
            places.rows_of(f"{module}.bias", tuple(bias.shape))
        for ours, start, end in places.rows_of(f"{module}.weight", (up.shape[0], *down.shape[1:])):
            if not _LINEAR.fullmatch(ours):
                raise CheckpointError(
                    f"{folder.name}: {module} is no linear layer of the decoder: only those are chosen by request; "
                    "merge it with the model"
                )
            layers[ours.removeprefix("language.").removesuffix(".weight")] = Factors(
                down.float().to(device),
                (up[start:end].float() * scale).to(device),
                None if bias is None else (bias[start:end] * scale).to(device),
            )
    if not layers:
        raise CheckpointError(f"{folder.name}: holds no matrices of an adapter")
    return Adapter(folder.name, layers)


_LINEAR = re.compile(r"language\.(head|blocks\.\d+\.(attention\.(q|k|v|out)|mlp\.(gate|up|down)))\.weight")


@dataclass(frozen=True)
class _Opened:
    """What an adapter's folder holds: matrices by module and kind, and tensors that replace the model's own.

    Those that are `untrained` are copies of what the model had, which PEFT saves with some adapters.
    """

    strength: Strength
    matrices: Mapping[str, Mapping[str, Weight]]
    whole: Mapping[str, Weight]
    untrained: frozenset[str]


def _open(folder: Path) -> _Opened:
    config = read_object(folder / "adapter_config.json")
    if not config:
        raise CheckpointError(f"{folder.name}: holds no adapter_config.json: a LoRA adapter in PEFT's layout is needed")
    if (folder / "non_lora_trainables.bin").exists():
        raise CheckpointError(
            f"{folder.name}: non_lora_trainables.bin is a pickle, which can run code, and holds part of this adapter; "
            "merge it with the program that made it"
        )
    matrices: dict[str, dict[str, Weight]] = defaultdict(dict)
    whole: dict[str, Weight] = {}
    untrained: set[str] = set()
    for name, weight in read_safetensors(folder, "adapter_model").items():
        plain = _WRAPPERS.sub("", name.removeprefix("base_model.model."))
        module, mark, kind = plain.partition(".lora_")
        if mark:
            matrices[module][kind] = weight
        else:
            whole[plain] = weight
            if ".base_layer." in name:
                untrained.add(plain)
    return _Opened(Strength.from_dict(config), matrices, whole, frozenset(untrained))


def _pair(module: str, matrices: Mapping[str, Weight], where: str) -> tuple[Tensor, Tensor]:
    """A module's two matrices (N, R) and (R, K, ...), once it is sure that they are a plain LoRA pair."""
    kinds = set(matrices)
    if "magnitude_vector" in kinds or "magnitude_vector.weight" in kinds:
        raise CheckpointError(f"{where}: {module} has a magnitude: DoRA adapters are not read")
    if kinds == {"embedding_A", "embedding_B"}:
        # A table is looked up by row: its matrices are stored the other way round.
        up, down = matrices["embedding_A"].read().T, matrices["embedding_B"].read().T
    elif kinds - {"B.bias"} == {"A.weight", "B.weight"}:
        up, down = matrices["B.weight"].read(), matrices["A.weight"].read()
    else:
        raise CheckpointError(f"{where}: {module} has lora_{', lora_'.join(sorted(kinds))}: not a LoRA pair")
    rank = down.shape[0]
    if up.ndim not in (2, 4) or up.shape[1] != rank or rank == 0:
        raise CheckpointError(
            f"{where}: {module} has matrices of {tuple(up.shape)} and {tuple(down.shape)}: their ranks differ"
        )
    return up, down


class _Places:
    """Which of our parameters a tensor of an adapter belongs to."""

    def __init__(self, config: LlavaConfig, where: str) -> None:
        self.where = where
        self.shapes = shapes_of(config)
        self.layout = names.hugging_face(config.text.family)
        self.places = names.tensors_of(self.layout, self.shapes)

    def rows_of(self, name: str, shape: Shape) -> list[tuple[str, int, int]]:
        """Our parameters in that tensor, each with its rows [start, end); a shape that differs is refused."""
        foreign = names.spelt_first(name)
        ours = self.places.get(foreign)
        if ours is None:
            raise CheckpointError(f"{self.where}: {name[:200]} has no place in this model: is it another model's?")
        heights = [self.shapes[part][0] for part in ours]
        expected = (sum(heights), *self.shapes[ours[0]][1:])
        if shape != expected:
            raise CheckpointError(f"{self.where}: {name} has shape {shape}, the model's has {expected}")
        ends = [sum(heights[: place + 1]) for place in range(len(heights))]
        return [(part, end - height, end) for part, end, height in zip(ours, ends, heights, strict=True)]


class _Merging:
    """The weights of a model while an adapter is worked into them."""

    def __init__(self, source: Source, strength: Strength, where: str) -> None:
        self.weights = dict(source.weights)
        self.strength, self.where = strength, where
        self.places = _Places(source.config, where)

    def put(self, name: str, weight: Weight) -> None:
        """Put a whole tensor in the place of the model's own (`modules_to_save`, and biases that were trained)."""
        if self._repeats_embeddings(name, weight):
            return
        for ours, start, end in self.places.rows_of(name, weight.shape):
            self.weights[ours] = weight.rows(start, end)

    def add(self, module: str, matrices: Mapping[str, Weight]) -> None:
        """Add the product of a module's two matrices, and of its bias where it has one."""
        up, down = _pair(module, matrices, self.where)
        scale = self.strength.of(module, down.shape[0])
        for ours, start, end in self.places.rows_of(f"{module}.weight", (up.shape[0], *down.shape[1:])):
            self.weights[ours] = self.weights[ours].mapped(_Addition(up[start:end], down, scale))
        if "B.bias" in matrices:
            bias = matrices["B.bias"].read()
            for ours, start, end in self.places.rows_of(f"{module}.bias", tuple(bias.shape)):
                self.weights[ours] = self.weights[ours].mapped(_Shift(bias[start:end], scale))

    def _repeats_embeddings(self, name: str, weight: Weight) -> bool:
        """Whether this is the head of a tied model, and nothing but its embeddings."""
        head = f"{self.places.layout['language.head']}.weight"
        if head in self.places.places or names.spelt_first(name) != head:
            return False
        embeddings = self.weights["language.embed.weight"].read()
        if weight.shape == tuple(embeddings.shape) and torch.equal(weight.read().to(embeddings.dtype), embeddings):
            return True
        raise CheckpointError(f"{self.where}: {name} differs from the embeddings, to which this model's head is tied")


@dataclass(frozen=True)
class _Addition:
    """Adds scale * up @ down; both may be the four-dimensional ones of a convolution."""

    up: Tensor
    down: Tensor
    scale: float

    def __call__(self, base: Tensor) -> Tensor:
        product = self.up.flatten(1).float() @ self.down.flatten(1).float()
        return base.float() + self.scale * product.view(base.shape)


@dataclass(frozen=True)
class _Shift:
    """Adds a bias times scale."""

    bias: Tensor
    scale: float

    def __call__(self, base: Tensor) -> Tensor:
        return base.float() + self.scale * self.bias.float()


def _number(value: object, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise CheckpointError(f"adapter_config.json: {key} must be a finite number, it is {str(value)[:40]!r}")
    return float(value)
