"""Adapters of low rank (LoRA, arXiv 2106.09685), chosen row by row over weights that all of them share.

    adaptable = Adaptable(model)                       # no weight is copied, and `model` itself stays as it is
    adaptable.all(adapter)(embeds, positions)          # every row with the same one
    adaptable.rows([None, adapter, other], least=8)    # rows of one batch, each with its own or with none

A row's sums must not depend on its company: what is added is computed in float32, in pieces whose shapes the caller
fixes. Shapes: M rows, K numbers in, N numbers out, R rank.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lapilli.model.attention import CausalAttention
from lapilli.model.llava import Llava
from lapilli.model.quantized import QuantizedLinear


@dataclass(frozen=True, eq=False)
class Factors:
    """What is added to one linear layer: x @ down.T @ up.T, plus a bias where there is one; the scale is in both."""

    down_RK: Tensor
    up_NR: Tensor
    bias_N: Tensor | None = None

    def added(self, x_MK: Tensor) -> Tensor:
        product_MN = (x_MK @ self.down_RK.T) @ self.up_NR.T
        return product_MN if self.bias_N is None else product_MN + self.bias_N


@dataclass(frozen=True, eq=False)
class Adapter:
    """The factors (float32) of one adapter, by the name of the decoder's linear layer: `blocks.0.attention.q`."""

    name: str
    layers: Mapping[str, Factors]


@dataclass(frozen=True, eq=False)
class _Use:
    """An adapter, and which rows (M) use it; None is all of them."""

    adapter: Adapter
    rows_M: Tensor | None = None


class _Choice:
    """What the next forward adds to which rows; every adapted layer of one model looks here."""

    def __init__(self) -> None:
        self.uses: tuple[_Use, ...] = ()
        self.edges: tuple[int, ...] = ()
        self.least = 0

    def add(self, parts: Sequence[tuple[str, int]], x: Tensor, y: Tensor) -> Tensor:
        """y (..., N) with what the adapters add; `parts` are the layers that stand side by side in it, with widths."""
        x_MK = x.reshape(-1, x.shape[-1]).float()
        for use in self.uses:
            if not any(name in use.adapter.layers for name, _ in parts):
                continue
            added = torch.cat([self._added(use.adapter.layers.get(name), width, x_MK) for name, width in parts], dim=-1)
            changed = (y.float() + added.view(y.shape)).to(y.dtype)
            mine = None if use.rows_M is None else use.rows_M.view(*y.shape[:-1], 1)
            y = changed if mine is None else torch.where(mine, changed, y)
        return y

    def _added(self, factors: Factors | None, width: int, x_MK: Tensor) -> Tensor:
        if factors is None:
            return x_MK.new_zeros(len(x_MK), width)
        # Scores are computed for fewer rows than were read: those are one piece.
        edges = self.edges if self.edges and self.edges[-1] == len(x_MK) else (0, len(x_MK))
        pieces = []
        for start, stop in itertools.pairwise(edges):
            missing = max(0, self.least - (stop - start))
            pieces.append(factors.added(F.pad(x_MK[start:stop], (0, 0, 0, missing)))[: stop - start])
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


class _Adapted(nn.Module):
    """A linear layer, and what the chosen adapters add to it."""

    def __init__(self, base: nn.Module, parts: Sequence[tuple[str, int]], choice: _Choice) -> None:
        super().__init__()
        self.base, self.parts, self.choice = base, tuple(parts), choice

    def forward(self, x: Tensor) -> Tensor:
        return self.choice.add(self.parts, x, self.base(x))


class Adaptable:
    """A model with the weights of another, whose rows may each use an adapter. One thread at a time may use it."""

    def __init__(self, model: Llava) -> None:
        self._choice = _Choice()
        self._model = _twin(model)
        for path, owner in list(self._model.language.named_modules()):
            for name, layer, parts in list(linear_layers(owner)):
                named = [(f"{path}.{part}" if path else part, width) for part, width in parts]
                setattr(owner, name, _Adapted(layer, named, self._choice))

    def all(self, adapter: Adapter) -> Llava:
        """The model, every row with this adapter."""
        return self._choose((_Use(adapter),), (), 0)

    def chunk(self, adapter: Adapter, start: int, stop: int, tile: int) -> Llava:
        """The model for positions [start, stop) of one sequence, in tiles at absolute positions."""
        edges = (start, *range((start // tile + 1) * tile, stop, tile), stop)
        return self._choose((_Use(adapter),), tuple(edge - start for edge in edges), 0)

    def rows(self, adapters: Sequence[Adapter | None], least: int) -> Llava:
        """The model for rows with an adapter each, or none; what is added is computed for `least` rows or more."""
        uses = []
        for adapter in dict.fromkeys(each for each in adapters if each is not None):
            chosen = torch.tensor([each is adapter for each in adapters], device=self._model.device)
            uses.append(_Use(adapter, chosen))
        return self._choose(tuple(uses), (), least)

    def _choose(self, uses: tuple[_Use, ...], edges: tuple[int, ...], least: int) -> Llava:
        self._choice.uses, self._choice.edges, self._choice.least = uses, edges, least
        return self._model


def _twin(model: Llava) -> Llava:
    """The same model, its decoder's modules new and every weight the same."""
    memo: dict[int, Any] = {id(x): x for x in (*model.language.parameters(), *model.language.buffers())}
    twin = copy.copy(model)
    twin._modules = dict(model._modules)
    twin.language = copy.deepcopy(model.language, memo)
    return twin


def linear_layers(owner: nn.Module) -> Iterator[tuple[str, nn.Module, list[tuple[str, int]]]]:
    """A module's own linear layers, each with the layers that it stands for and their widths."""
    for name, layer in owner.named_children():
        if not isinstance(layer, nn.Linear | QuantizedLinear):
            continue
        width = layer.out_features if isinstance(layer, nn.Linear) else layer.weight.shape[0]
        if name == "qkv" and isinstance(owner, CausalAttention):
            yield name, layer, list(zip(("q", "k", "v"), owner.widths, strict=True))
        elif name == "gate_up":
            yield name, layer, [("gate", width // 2), ("up", width // 2)]
        else:
            yield name, layer, [(name, width)]
