"""`lapilli doctor`: what this machine offers, and what lapilli makes of it."""

from __future__ import annotations

import json
import platform
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from lapilli.ground import machine

# Of the many flags a processor has, those that decide how fast a model runs.
_TELLING_FLAGS = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16",
    "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Say what this machine offers.

    Device, instruction sets, threads, memory, kernels in use, and where models lie.
    """
    report = examine()
    if as_json:
        print(json.dumps(report, indent=2))
        return
    width = max(len(name) for room in report.values() for name in room)
    for title, room in report.items():
        print(title)
        for name, value in room.items():
            print(f"  {name.replace('_', ' '):<{width}}  {_text(value)}")


def examine() -> dict[str, dict[str, Any]]:
    """What was found, by room; every value fits into JSON."""
    import torch

    import lapilli

    return {
        "software": {
            "lapilli": lapilli.__version__,
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        },
        "processor": {
            "name": machine.processor(),
            "cores": machine.cores(),
            "threads": torch.get_num_threads(),
            "instruction_sets": _instruction_sets(),
            "torch_dispatch": torch.backends.cpu.get_cpu_capability(),
            **_memory(),
        },
        "device": _device(),
        "kernels": _kernels(),
        "models": _models(),
    }


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    return "unknown" if value is None else str(value)


def _proc(name: str) -> str:
    try:
        return Path("/proc", name).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _instruction_sets() -> list[str]:
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _proc("cpuinfo"), re.MULTILINE)
    flags = set(found[1].split()) if found else set()
    return [flag for flag in _TELLING_FLAGS if flag in flags]


def _memory() -> dict[str, Any]:
    lines = dict(re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB$", _proc("meminfo"), re.MULTILINE))
    total, free = (round(int(lines[key]) / 2**20, 1) if key in lines else None for key in ("MemTotal", "MemAvailable"))
    return {"memory_gib": total, "memory_free_gib": free}


def _device() -> dict[str, Any]:
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return {
            "in_use": "cuda",
            "name": properties.name,
            "count": torch.cuda.device_count(),
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "compute_capability": f"{properties.major}.{properties.minor}",
        }
    return {"in_use": "cpu", "name": "no accelerator found", "count": 0}


def _kernels() -> dict[str, Any]:
    """Which library does the heavy work of each kind, on the device that `--device auto` takes."""
    import torch

    from lapilli.kernels.library import implementation

    if torch.cuda.is_available():
        attention = "torch scaled_dot_product_attention (flash, memory-efficient or math, chosen by shape)"
        return {"matmul": "torch cuBLAS", "quantized": "torch, in floats", "attention": attention}
    libraries = {"MKL": torch.backends.mkl, "oneDNN": torch.backends.mkldnn, "OpenMP": torch.backends.openmp}
    found = [name for name, library in libraries.items() if library.is_available()]
    return {
        "matmul": " ".join(["torch", *found]),
        "quantized": implementation(),
        "attention": "torch scaled_dot_product_attention",
    }


def _models() -> dict[str, Any]:
    from importlib.resources import files

    builtin = files("lapilli") / "models"
    names = (
        sorted(item.name for item in builtin.iterdir() if (item / "config.json").is_file()) if builtin.is_dir() else []
    )
    return {"built_in": names, "built_in_folder": str(builtin)}
