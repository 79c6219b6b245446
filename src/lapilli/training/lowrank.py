"""Adapters of low rank that learn (LoRA, arXiv 2106.09685), over weights that do not, in floats or in few bits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from lapilli.checkpoints import names
from lapilli.config import LlavaConfig
from lapilli.errors import TrainingError
from lapilli.ground.files import publish
from lapilli.kernels.quantized import QuantizedWeight, linear
from lapilli.model.llava import Llava
from lapilli.model.lora import linear_layers
from lapilli.model.quantized import QuantizedLinear
from lapilli.training.recipe import LoraOptions


class _Through(torch.autograd.Function):
    """A product with a quantized matrix, through which gradients pass to the activations."""

    @staticmethod
    def forward(context: Any, x: Tensor, weight: QuantizedWeight) -> Tensor:
        context.weight = weight
        return linear(x, weight)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        return gradient @ context.weight.dequantize().to(gradient.dtype), None


class Passing(nn.Module):
    """A quantized layer that stays as it is and lets gradients through."""

    def __init__(self, base: QuantizedLinear) -> None:
        super().__init__()
        self.base = base

    def forward(self, x: Tensor) -> Tensor:
        product: Tensor = _Through.apply(x, self.base.weight)  # type: ignore[no-untyped-call]
        return product if self.base.bias is None else product + self.base.bias


class LowRank(nn.Module):
    """A linear layer that stays as it is, and x @ down.T @ up.T * scale beside it; `up` begins as zeros.

    `parts` are the layers that stand side by side in it, with their widths: one, or several where they were fused.
    """

    def __init__(self, base: nn.Module, parts: Sequence[tuple[str, int]], options: LoraOptions) -> None:
        super().__init__()
        self.base, self.parts = Passing(base) if isinstance(base, QuantizedLinear) else base, tuple(parts)
        self.scale, self.dropout = options.alpha / options.rank, options.dropout
        wide, device = _width_and_device(base)
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()
        for name, width in parts:
            if name in options.targets:
                self.down[name] = nn.Parameter(torch.zeros(options.rank, wide, device=device))
                self.up[name] = nn.Parameter(torch.zeros(width, options.rank, device=device))

    def forward(self, x: Tensor) -> Tensor:
        dropped = F.dropout(x, self.dropout, self.training)
        added = [self._added(name, width, dropped) for name, width in self.parts]
        out: Tensor = self.base(x)
        return out + (added[0] if len(added) == 1 else torch.cat(added, dim=-1))

    def _added(self, name: str, width: int, x: Tensor) -> Tensor:
        if name not in self.down:
            return x.new_zeros(*x.shape[:-1], width)
        return F.linear(F.linear(x.to(self.down[name].dtype), self.down[name]), self.up[name]) * self.scale


def _width_and_device(layer: nn.Module) -> tuple[int, torch.device]:
    if isinstance(layer, QuantizedLinear):
        return layer.weight.shape[1], layer.data.device
    assert isinstance(layer, nn.Linear)
    return layer.in_features, layer.weight.device


def add_adapters(model: Llava, options: LoraOptions, seed: int) -> None:
    """Put adapters beside the decoder's linear layers that `options` names; its own weights learn nothing then."""
    model.language.requires_grad_(False)
    for owner in list(model.language.blocks.modules()):
        for name, layer, parts in list(linear_layers(owner)):
            if any(part in options.targets for part, _ in parts):
                setattr(owner, name, LowRank(layer, parts, options))
    for owner in list(model.language.modules()):
        for name, layer in list(owner.named_children()):
            if isinstance(layer, QuantizedLinear) and not isinstance(owner, Passing):
                setattr(owner, name, Passing(layer))
    generator = torch.Generator().manual_seed(seed)
    # In the order of names, which is the same whether layers are fused or not.
    for _, down_RK, _ in sorted(adapters_of(model), key=lambda adapter: adapter[0]):
        bound = down_RK.shape[1] ** -0.5  # PEFT's start: that of nn.Linear
        down_RK.data.copy_(torch.empty(down_RK.shape).uniform_(-bound, bound, generator=generator))


def adapters_of(model: Llava) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Each adapter by the name of its layer, `language.blocks.0.attention.q`, with down (R, K) and up (N, R)."""
    for path, module in model.named_modules():
        if isinstance(module, LowRank):
            owner = path.rpartition(".")[0]
            for name, down in module.down.items():
                yield f"{owner}.{name}", down, module.up[name]


def save_adapter(model: Llava, options: LoraOptions, folder: Path, *, base: str, projector: bool) -> None:
    """Write what was learnt as a folder in PEFT's layout; with `projector`, its tensors whole beside the adapters.

    Raises TrainingError for a decoder whose layers PEFT's layout has fused (Phi-3).
    """
    config = model.config
    layout = names.hugging_face(config.text.family)
    if config.text.family == "phi3":
        raise TrainingError("adapters for Phi-3 cannot be saved: its layers are fused in PEFT's layout; train it whole")
    tensors: dict[str, Tensor] = {}
    for name, down_RK, up_NR in adapters_of(model):
        foreign = _foreign(layout, f"{name}.weight", config).removesuffix(".weight")
        tensors[f"base_model.model.{foreign}.lora_A.weight"] = down_RK.detach().float().cpu().contiguous()
        tensors[f"base_model.model.{foreign}.lora_B.weight"] = up_NR.detach().float().cpu().contiguous()
    if projector and model.projector is not None:
        for name, value in model.projector.state_dict().items():
            foreign = _foreign(layout, f"projector.{name}", config)
            tensors[f"base_model.model.{foreign}"] = value.detach().float().cpu().contiguous()
    foreign_names = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "out": "o_proj", "gate": "gate_proj", "up": "up_proj",
                     "down": "down_proj"}  # fmt: skip
    modules = "|".join(foreign_names[target] for target in options.targets)
    values = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": options.rank,
        "lora_alpha": options.alpha,
        "lora_dropout": options.dropout,
        "bias": "none",
        # A tower's layers have the same names: only the decoder's are meant.
        "target_modules": rf"(.*\.)?{'language_model' if config.vision is not None else 'layers'}\..*\.({modules})",
        "modules_to_save": ["multi_modal_projector"] if projector else None,
    }
    with publish(folder, replace_folder=True) as fresh:
        fresh.mkdir()
        save_file(tensors, fresh / "adapter_model.safetensors", metadata={"format": "pt"})
        (fresh / "adapter_config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _foreign(layout: names.Layout, ours: str, config: LlavaConfig) -> str:
    """The name that transformers gives it today: all of a LLaVA but its head below `model`."""
    (foreign,) = names.tensors_of(layout, [ours])
    if config.vision is None:
        return foreign.removeprefix("language_model.")
    return f"model.{foreign.replace('language_model.model.', 'language_model.', 1)}"
