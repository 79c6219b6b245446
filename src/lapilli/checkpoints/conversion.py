"""Turning a checkpoint into GGUF files in a process of its own, which knows torch and can be killed.

Its one argument and each line that it prints is a JSON object: {"begin": bytes}, {"wrote": bytes}, then
{"files": [...]} or {"error": kind, "message": text}. It ends when its standard input does: its parent is gone then.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from lapilli.checkpoints.ggml import TensorType
from lapilli.checkpoints.load import open_source
from lapilli.checkpoints.mixture import Mixture
from lapilli.checkpoints.quantize import quantize_checkpoint
from lapilli.errors import LapilliError

_PLAIN = {"F32": TensorType.F32, "F16": TensorType.F16, "BF16": TensorType.BF16}


def convert(source: Path, out: Path, kind: str | None) -> tuple[Path, ...]:
    """Write the checkpoint at `source` to `out`, and its tower and projector beside it.

    `kind` is F32, F16, BF16 or the name of a mixture for the decoder; None keeps it as precise as it is stored, in 16
    bits at most. Tower and projector are never quantized. Raises whatever `quantize_checkpoint` raises.
    """
    report = quantize_checkpoint(source, out, _mixture(source, kind), begin=_begin, watch=_watch)
    return report.files


def _mixture(source: Path, kind: str | None) -> Mixture:
    if kind is not None and kind not in _PLAIN:
        return replace(Mixture.named(kind), tower=TensorType.F16)
    if kind is not None:
        return Mixture.pure(_PLAIN[kind])
    weights = open_source(source).weights.values()
    halves = sum(str(weight.dtype) == "torch.bfloat16" for weight in weights)
    return Mixture.pure(TensorType.BF16 if 2 * halves > len(weights) else TensorType.F16)


def _begin(nbytes: int) -> None:
    _tell({"begin": nbytes})


def _watch(name: str, nbytes: int) -> None:
    _tell({"wrote": nbytes})


def _tell(values: dict[str, Any]) -> None:
    print(json.dumps(values), flush=True)


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(1)


def main() -> None:
    """Do what the one argument asks: {"source": path, "out": path, "kind": name or null}."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    order = json.loads(sys.argv[1])
    try:
        files = convert(Path(order["source"]), Path(order["out"]), order["kind"])
        _tell({"files": [str(path) for path in files]})
    except LapilliError as error:
        _tell({"error": type(error).__name__, "message": str(error)})
    except OSError as error:
        _tell({"error": "StoreError", "message": (error.strerror or "unknown error").lower()})
