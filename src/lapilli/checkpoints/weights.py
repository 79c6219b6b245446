"""Weights where they lie in their files, and a model made of them without a second copy."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from lapilli.checkpoints.ggml import TensorType, q5_0_as_q8_0, quantize
from lapilli.checkpoints.names import Layout, is_unread, spelt_first, tensors_of
from lapilli.checkpoints.safetensors import TensorHeader, check_header, read_index
from lapilli.config import LlavaConfig
from lapilli.errors import CheckpointError
from lapilli.ground.memory import give_back
from lapilli.kernels.quantized import QuantizedWeight, supports
from lapilli.model.llava import Llava
from lapilli.model.quantized import QuantizedEmbedding, QuantizedLinear, blocks_of, fuse, layer_of

Shape = tuple[int, ...]

_PIECE = 1 << 18  # weights that a thread quantizes at a time
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def _keep() -> None:
    """Nothing to give back."""


@dataclass(frozen=True)
class Weight:
    """A tensor in a file: its shape and type are known, its numbers are read when they are asked for.

    `release` gives the file's pages back once a copy was made of them; they would be read again. `type` is the ggml
    type that a quantized one has, or shall have; `packed` gives its blocks (rows, bytes of a row) where they are there
    already, and `read` gives the same numbers as floats.
    """

    shape: Shape
    dtype: torch.dtype
    read: Callable[[], Tensor]
    release: Callable[[], None] = _keep
    type: TensorType | None = None
    packed: Callable[[], Tensor] | None = None

    def rows(self, start: int, end: int) -> Weight:
        """These rows of it."""
        packed = self.packed
        return replace(
            self,
            shape=(end - start, *self.shape[1:]),
            read=lambda: self.read()[start:end],
            packed=packed and (lambda: packed()[start:end]),
        )

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Weight:
        """It after `change`, which makes a new tensor of the same shape; a quantized one is quantized again after."""
        return replace(self, read=self._after(change, self.read), release=_keep, packed=None)

    def reordered(self, change: Callable[[Tensor], Tensor]) -> Weight:
        """It after `change`, which puts whole rows in another order; quantized ones stay exact."""
        packed = self.packed and self._after(change, self.packed)
        return replace(self, read=self._after(change, self.read), release=_keep, packed=packed)

    def _after(self, change: Callable[[Tensor], Tensor], read: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def changed() -> Tensor:
            value = change(read())
            self.release()
            return value

        return changed


def constant(shape: Shape, value: float) -> Weight:
    """A weight that no file holds: the same number everywhere."""
    return Weight(shape, torch.float32, lambda: torch.full(shape, value))


def read_safetensors(folder: Path, stem: str = "model") -> dict[str, Weight]:
    """The tensors of a folder's safetensors files, by their names there; memory-mapped.

    Raises CheckpointError for files that are damaged or hold no floating-point numbers.
    """
    found: dict[str, Weight] = {}
    headers: dict[Path, dict[str, TensorHeader]] = {}
    for name, path in read_index(folder, stem).items():
        if path not in headers:
            headers[path] = check_header(path)
        head = headers[path][name]
        if head.dtype in _DTYPES:
            found[name] = Weight(head.shape, _DTYPES[head.dtype], partial(_read_mapped, path, name))
        elif not is_unread(spelt_first(name)):
            raise CheckpointError(f"{path.name}: tensor {name} is of type {head.dtype}, read are {', '.join(_DTYPES)}")
    return found


def _read_mapped(path: Path, name: str) -> Tensor:
    """A tensor that maps the file, and lets go of it when it is itself let go."""
    try:
        with safe_open(path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path.name}: cannot be read: {str(error)[:200]}") from None
    return tensor


def shapes_of(config: LlavaConfig) -> dict[str, Shape]:
    """Our parameters of such a model, and their shapes. Raises CheckpointError for sizes that nothing could hold."""
    try:
        with torch.device("meta"):
            return {name: tuple(value.shape) for name, value in Llava(config).named_parameters()}
    except (RuntimeError, OverflowError):
        raise CheckpointError("the sizes of this model, multiplied, are beyond any memory") from None


def placed(found: Mapping[str, Weight], layout: Layout, config: LlavaConfig, where: str) -> dict[str, Weight]:
    """Our parameters out of the tensors of a file, once each has its place and its shape.

    Raises CheckpointError that names the missing, extra or misshapen tensors, the latter with both shapes.
    """
    layers = config.text.num_layers + (config.vision.num_layers if config.vision else 0)
    if layers > len(found):
        # Seen before a model of so many layers is laid out.
        raise CheckpointError(f"{where}: {layers} layers are described, the files hold {len(found)} tensors")
    shapes = shapes_of(config)
    wanted = tensors_of(layout, shapes)
    missing = [f"{foreign} ({', '.join(wanted[foreign])})" for foreign in wanted.keys() - found.keys()]
    extra = [name for name in found.keys() - wanted.keys() if not _may_stay(name, layout, config)]
    if missing:
        raise CheckpointError(f"{where}: {_listed('missing', missing)}")
    if extra:
        raise CheckpointError(f"{where}: {_listed('not known here', extra)}")
    weights: dict[str, Weight] = {}
    for foreign, ours in wanted.items():
        weight = found[foreign]
        heights = [shapes[name][0] for name in ours]
        expected = (sum(heights), *shapes[ours[0]][1:])
        if weight.shape != expected:
            raise CheckpointError(f"{where}: tensor {foreign} has shape {weight.shape}, must have {expected}")
        if len(ours) == 1:
            weights[ours[0]] = weight
            continue
        end = 0
        for name, height in zip(ours, heights, strict=True):
            weights[name] = weight.rows(end, end + height)
            end += height
    return weights


def _may_stay(name: str, layout: Layout, config: LlavaConfig) -> bool:
    """Whether a tensor without a place does no harm: a tied model's head is its embeddings."""
    return is_unread(name) or (config.text.tie_embeddings and name == f"{layout['language.head']}.weight")


def stored_dtype(weights: Iterable[Weight]) -> torch.dtype:
    """The type that most of the numbers are stored in; float32 for float64."""
    sizes: Counter[torch.dtype] = Counter()
    for weight in weights:
        sizes[weight.dtype] += max(1, torch.Size(weight.shape).numel())
    dtype = max(sizes, key=lambda dtype: sizes[dtype])
    return torch.float32 if dtype == torch.float64 else dtype


def assemble(
    config: LlavaConfig,
    weights: Mapping[str, Weight],
    dtype: torch.dtype | None,
    device: str | torch.device,
    *,
    quantized: bool = False,
) -> Llava:
    """A model whose parameters are the files' own memory, or each converted on its own.

    `dtype` None keeps the type that most weights are stored in. With `quantized`, matrices that have a quantized type
    with a kernel keep it, and those that shall have one are brought to it; without, all become floats.
    """
    kind = dtype or stored_dtype(weights.values())
    with torch.device("meta"):
        model = Llava(config)
    layers = dict(_quantizable(model, weights)) if quantized else {}
    if layers and kind not in (torch.float32, torch.bfloat16):
        kind = torch.float32  # what the kernels take
    values = {}
    for name, _ in model.named_parameters():
        module, _, part = name.rpartition(".")
        if module not in layers or part != "weight":
            values[name] = _ready(weights[name], device, kind)
    for path, layer in layers.items():
        weight = _quantized(f"{path}.weight", weights[f"{path}.weight"])
        bias = values.pop(f"{path}.bias", None)
        made: nn.Module = QuantizedLinear(weight, bias)
        if isinstance(layer, nn.Embedding):
            made = QuantizedEmbedding(weight, kind)
            if config.text.tie_embeddings:
                setattr(model.language, "head", QuantizedLinear(weight))  # noqa: B010 (it is declared a plain one)
        parent, _, name = path.rpartition(".")
        owner = model.get_submodule(parent)
        setattr(owner, name, made)
        # At once, so that the memory of the parts is there for the next.
        fuse(owner)
        give_back()
    model.load_state_dict(values, strict=False, assign=True)
    assert not any(value.is_meta for value in model.parameters()), "a parameter without a weight"
    return model.eval()


def _quantizable(model: Llava, weights: Mapping[str, Weight]) -> Iterator[tuple[str, nn.Module]]:
    """The layers whose matrices have, or shall have, a type that there is a kernel for."""
    for path, layer in model.named_modules():
        weight = weights.get(f"{path}.weight")
        if weight is None or weight.type is None or not isinstance(layer, nn.Linear | nn.Embedding):
            continue
        type = TensorType.Q8_0 if _widens(weight) else weight.type
        if supports(type, weight.shape):
            yield path, layer


def _widens(weight: Weight) -> bool:
    """Whether it is stored as Q5_0, whose levels fit into Q8_0 with the same scales."""
    return weight.type is TensorType.Q5_0 and weight.packed is not None


def _quantized(name: str, weight: Weight) -> QuantizedWeight:
    """Its blocks as they are stored, or made of its floats. Raises CheckpointError for floats that no block holds."""
    assert weight.type is not None
    type = weight.type
    if weight.packed is None:
        try:
            raw = _rounded(weight.read(), type)
        except CheckpointError as error:
            raise CheckpointError(f"{name}: {error}") from None
    elif _widens(weight):
        type, raw = TensorType.Q8_0, torch.from_numpy(q5_0_as_q8_0(weight.packed().numpy()))
    else:
        raw = weight.packed()
    rows, width = weight.shape
    made = QuantizedWeight.from_ggml(raw, type, (rows, width))
    weight.release()
    return made


def _rounded(values_NK: Tensor, type: TensorType) -> Tensor:
    """The blocks of a matrix, some rows at a time on each core, so that few are in memory as floats."""
    rows, width = values_NK.shape
    raw = np.empty((rows, type.nbytes((width,))), dtype=np.uint8)
    step = max(1, _PIECE // width)

    def fill(start: int) -> None:
        piece = quantize(values_NK[start : start + step].float().numpy(), type)
        raw[start : start + step] = piece.reshape(-1, raw.shape[1])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(fill, range(0, rows, step)))
    return torch.from_numpy(raw)


def weights_of(model: Llava) -> dict[str, Weight]:
    """The weights of a model that is in memory, by the names of its parameters before it was quantized.

    Quantized ones are expanded to float32 as they are read, and give their blocks as well.
    """
    shapes = shapes_of(model.config)
    values = {name: value.detach() for name, value in model.named_parameters()}
    found = {}
    for name, shape in shapes.items():
        if name in values:
            found[name] = Weight(shape, values[name].dtype, partial(_itself, values[name]))
            continue
        layer, rows = layer_of(model, name)
        if name.endswith(".bias"):
            assert isinstance(layer, QuantizedLinear)
            assert layer.bias is not None
            bias: Tensor = layer.bias.detach()[rows]
            found[name] = Weight(shape, bias.dtype, partial(_itself, bias))
        else:
            found[name] = Weight(
                shape,
                torch.float32,
                read=partial(_expanded, layer.weight, rows),
                type=TensorType(layer.weight.type),
                packed=partial(_blocks, layer.weight, rows),
            )
    return found


def _expanded(weight: QuantizedWeight, rows: slice) -> Tensor:
    return weight.dequantize()[rows]


def _blocks(weight: QuantizedWeight, rows: slice) -> Tensor:
    return blocks_of(weight)[rows]


def _itself(value: Tensor) -> Tensor:
    return value


def _ready(weight: Weight, device: str | torch.device, dtype: torch.dtype) -> Tensor:
    value = weight.read()
    ready = value.to(device, dtype)
    if ready is not value:
        weight.release()
    return ready


def _listed(what: str, names: list[str]) -> str:
    names = sorted(names)
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{len(names)} tensor{'s' * (len(names) > 1)} {what}: {', '.join(name[:160] for name in names[:5])}{more}"
