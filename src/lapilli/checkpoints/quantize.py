"""Quantizing a checkpoint into GGUF files, one tensor after another, and what that cost.

report = quantize_checkpoint("llava-1.5-7b-hf", "llava.gguf", "Q4_K_M")
print(report.table())
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lapilli.checkpoints.ggml import Bytes, TensorType, dequantize, quantize
from lapilli.checkpoints.gguf import TensorSource, write_gguf
from lapilli.checkpoints.load import open_source
from lapilli.checkpoints.mixture import Mixture
from lapilli.checkpoints.save import gguf_contents
from lapilli.errors import InputError
from lapilli.ground.files import publish

_PIECE = 1 << 21  # weights that one thread works on at a time
_KINDS = {
    "token_embd": "embeddings", "output": "head", "attn": "attention", "ffn": "feed-forward", "v": "tower",
    "mm": "projector",
}  # fmt: skip

Watch = Callable[[str, int], None]
"""Told the name of each tensor that was written, and its bytes."""


@dataclass(frozen=True)
class Group:
    """What became of tensors of one kind: `error` is the root mean square of what rounding changed, over that of all.

    Tensors whose numbers were kept as they were have an error of 0.
    """

    name: str
    types: tuple[str, ...]
    weights: int
    nbytes: int
    error: float

    @property
    def bits(self) -> float:
        """Bits that a weight takes."""
        return 8 * self.nbytes / self.weights


@dataclass(frozen=True)
class Report:
    """What quantizing cost: the files that were written, and each kind of tensor in them."""

    files: tuple[Path, ...]
    groups: tuple[Group, ...]

    @property
    def file_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files)

    @property
    def bits(self) -> float:
        """Bits that a weight takes, over all of them."""
        return 8 * sum(group.nbytes for group in self.groups) / sum(group.weights for group in self.groups)

    def table(self) -> str:
        """A line for each kind of tensor, one for each file."""
        lines = [f"{'':<13}{'weights':>9}{'bits':>7}{'error':>9}  types"]
        for group in self.groups:
            error = f"{100 * group.error:7.3f} %"
            lines.append(f"{group.name:<13}{_short(group.weights):>9}{group.bits:7.2f}{error}  {' '.join(group.types)}")
        lines.append(f"{'all':<13}{_short(sum(group.weights for group in self.groups)):>9}{self.bits:7.2f}")
        return "\n".join([*lines, *(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB" for path in self.files)])

    def to_dict(self) -> dict[str, Any]:
        groups = [{**dataclasses.asdict(group), "bits": round(group.bits, 4)} for group in self.groups]
        files = {str(path): path.stat().st_size for path in self.files}
        return {"files": files, "bits": round(self.bits, 4), "groups": groups}


def mmproj_beside(path: str | Path) -> Path:
    """Where tower and projector of the model at `path` are written, and looked for."""
    path = Path(path)
    return path.with_name(f"mmproj-{path.name}")


def quantize_checkpoint(
    source: str | Path,
    out: str | Path,
    mixture: Mixture | str = "Q4_K_M",
    *,
    projector: str | Path | None = None,
    adapter: str | Path | None = None,
    vision_tower: str | Path | None = None,
    replace: bool = False,
    begin: Callable[[int], None] | None = None,
    watch: Watch | None = None,
) -> Report:
    """Write a checkpoint as quantized GGUF: the decoder to `out`, tower and projector to `mmproj_beside(out)`.

    No more than a tensor is in memory at a time, and both files are whole or not there. Tensors that a GGUF file holds
    in the wanted type already are copied bit for bit. `begin` is told how many bytes will be written, `watch` each
    tensor. Raises InputError for an `out` that may not be written or a disk without the room, and whatever
    `load_checkpoint` and `save_gguf` raise.
    """
    kind = Mixture.named(mixture) if isinstance(mixture, str) else mixture
    out = Path(out)
    if out.suffix != ".gguf" or "mmproj" in out.name.lower():
        raise InputError(f"{out.name}: must end in .gguf, and not be named as a projector (mmproj) is")
    opened = open_source(source, projector=projector, adapter=adapter, vision_tower=vision_tower)
    model, eyes = gguf_contents(opened.config, opened.prompts, opened.weights, kind)
    files = {out: model} if eyes is None else {mmproj_beside(out): eyes, out: model}
    for path in files:
        if path.is_dir() or (path.exists() and not replace):
            raise InputError(f"{path}: is there already; give another name, or replace it on purpose (--force)")
    needed = sum(_nbytes(source) for contents in files.values() for source in contents.tensors)
    _require_room(out, needed)
    if begin is not None:
        begin(needed)
    tally = _Tally(watch)
    with ExitStack() as stack, ThreadPoolExecutor(os.cpu_count()) as pool:
        fresh = {path: stack.enter_context(publish(path)) for path in files}
        for path, contents in files.items():
            tensors = [tally.counted(source, pool) for source in contents.tensors]
            write_gguf(fresh[path], contents.metadata, tensors, name=path.name)
    return Report(tuple(sorted(files, key=lambda path: path != out)), tally.groups())


def _require_room(out: Path, needed: int) -> None:
    folder = next(parent for parent in out.absolute().parents if parent.is_dir())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(f"{out}: {needed / 1e9:.2f} GB are needed, the disk has {free / 1e9:.2f} GB free")


def _nbytes(source: TensorSource) -> int:
    return TensorType(source.type).nbytes(source.shape)


class _Tally:
    """Quantizes tensors as they are asked for, and keeps count of what that changed."""

    def __init__(self, watch: Watch | None) -> None:
        self.watch = watch
        self.kinds: dict[str, list[tuple[TensorSource, float, float]]] = {}

    def counted(self, source: TensorSource, pool: ThreadPoolExecutor) -> TensorSource:
        """The same tensor; asked for, it is quantized on all cores and its error is noted."""

        def values() -> npt.NDArray[Any]:
            given = source.values()
            raw, wrong, whole = (given, 0.0, 0.0) if given.dtype == np.uint8 else _quantized(given, source.type, pool)
            self.kinds.setdefault(_kind(source.name), []).append((source, wrong, whole))
            if self.watch is not None:
                self.watch(source.name, _nbytes(source))
            return raw

        return dataclasses.replace(source, values=values)

    def groups(self) -> tuple[Group, ...]:
        found = []
        for name in [*dict.fromkeys(_KINDS.values()), "norms, biases"]:
            tensors = self.kinds.get(name, [])
            if not tensors:
                continue
            sizes = {source.name: math.prod(source.shape) for source, _, _ in tensors}
            by_type: dict[str, int] = {}
            for source, _, _ in tensors:
                by_type[str(source.type)] = by_type.get(str(source.type), 0) + sizes[source.name]
            whole = sum(whole for _, _, whole in tensors)
            error = math.sqrt(sum(wrong for _, wrong, _ in tensors) / whole) if whole else 0.0
            types = tuple(sorted(by_type, key=lambda type: -by_type[type]))
            nbytes = sum(_nbytes(source) for source, _, _ in tensors)
            found.append(Group(name, types, sum(sizes.values()), nbytes, error))
        return tuple(found)


def _kind(name: str) -> str:
    part = re.sub(r"^blk\.\d+\.", "", name)
    if part.endswith(".bias") or "norm" in part or re.match(r"v\.(.*\.)?(ln\d|pre_ln|post_ln)\.", part):
        return "norms, biases"
    return _KINDS.get(
        re.split(r"[._]", part)[0] if not part.startswith("token_embd") else "token_embd", "norms, biases"
    )


def _quantized(
    values: npt.NDArray[Any], type: TensorType | str, pool: ThreadPoolExecutor
) -> tuple[Bytes, float, float]:
    """The blocks; the sum of squares of what they differ by, and that of all."""
    rows = values.reshape(-1, values.shape[-1]) if values.ndim > 1 else values.reshape(1, -1)
    done = list(pool.map(lambda part: _piece(part, type), _pieces(rows)))
    raw = np.concatenate([raw for raw, _, _ in done])
    return raw, sum(wrong for _, wrong, _ in done), sum(whole for _, _, whole in done)


def _pieces(rows: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    step = max(1, _PIECE // rows.shape[1])
    for start in range(0, len(rows), step):
        yield rows[start : start + step]


def _piece(rows: npt.NDArray[Any], type: TensorType | str) -> tuple[Bytes, float, float]:
    raw = quantize(rows, type)
    if type == TensorType.F32:
        return raw, 0.0, 0.0
    given = rows.astype(np.float32, copy=False).reshape(-1)
    with np.errstate(invalid="ignore"):  # of F16 and BF16 some may be infinite
        difference = dequantize(raw, type, rows.shape).reshape(-1) - given
    return raw, float(np.dot(difference, difference)), float(np.dot(given, given))


def _short(count: int) -> str:
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.2f} {letter}"
    return str(count)
