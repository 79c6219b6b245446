"""Loading takes the memory of the weights, and no more."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch

from lapilli.checkpoints.load import load_checkpoint
from lapilli.checkpoints.save import save_folder, save_gguf
from lapilli.model.llava import Llava

MEASURE = """
import sys
import torch
from lapilli.checkpoints.load import load_checkpoint

def kilobytes(name):
    return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1])

path, small, how = sys.argv[1:]
options = {"quantize": how} if how.startswith("int") else {"dtype": getattr(torch, how, None)}
load_checkpoint(small, **options)
# The peak so far, not what is used now: a kernel short of memory may have taken pages of libraries back.
before = kilobytes("VmHWM")
model = load_checkpoint(path, **options).model
values = [*model.parameters(), *model.buffers()]
total = sum(float(value.detach().max()) for value in values)
# Quantizing has a tensor in floats at a time, and makes its blocks before it arranges them.
largest = 3 * 768 * 3072 * 4 if how.startswith("int") else 0
print((kilobytes("VmHWM") - before) / ((sum(value.nbytes for value in values) + largest) / 1024))
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model of 217 MB in float32 in several files, and a small one."""
    folder = tmp_path_factory.mktemp("large")
    small = load_checkpoint(tiny.save(tiny.random_model(tiny.text_config("llama")), folder / "small"))
    text = replace(
        small.config.text,
        hidden_size=768,
        intermediate_size=3072,
        num_layers=6,
        num_heads=12,
        num_kv_heads=12,
        head_dim=64,
    )
    config = replace(small.config, text=text)
    model = Llava(config)
    checkpoint = replace(small, config=config, model=model)
    save_folder(checkpoint, folder / "float32")
    save_folder(checkpoint, folder / "bfloat16", dtype=torch.bfloat16)
    for type in ("F16", "Q8_0", "Q4_K"):
        save_gguf(checkpoint, folder / f"{type}.gguf", type=type)
        save_gguf(small, folder / f"small-{type}.gguf", type=type)
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("float32", "as stored"), ("bfloat16", "float32"), ("F16.gguf", "float32"), ("Q8_0.gguf", "float32"),
        ("Q8_0.gguf", "as stored"), ("Q4_K.gguf", "as stored"), ("bfloat16", "int8"), ("F16.gguf", "int4"),
    ],
)  # fmt: skip
def test_loading_takes_the_memory_of_the_weights(name: str, how: str, large: Path) -> None:
    small = large / (name if name.endswith(".gguf") else "small")
    small = small.with_name(f"small-{small.name}") if name.endswith(".gguf") else small
    command = [sys.executable, "-c", MEASURE, str(large / name), str(small), how]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    print(f"{name} as {how}: peak memory {float(run.stdout):.2f} of the weights'")
    assert float(run.stdout) <= 1.25
