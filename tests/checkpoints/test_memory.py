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

path, small, dtype = sys.argv[1:]
load_checkpoint(small)
# The peak so far, not what is used now: a kernel short of memory may have taken pages of libraries back.
before = kilobytes("VmHWM")
model = load_checkpoint(path, dtype=getattr(torch, dtype, None)).model
total = sum(float(value.detach().sum()) for value in model.parameters())
weights = sum(value.nbytes for value in model.parameters()) / 1024
print((kilobytes("VmHWM") - before) / weights)
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
    save_gguf(checkpoint, folder / "F16.gguf", type="F16")
    save_gguf(checkpoint, folder / "Q8_0.gguf", type="Q8_0")
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize(
    ("name", "dtype"),
    [("float32", "as stored"), ("bfloat16", "float32"), ("F16.gguf", "float32"), ("Q8_0.gguf", "as stored")],
)
def test_loading_takes_the_memory_of_the_weights(name: str, dtype: str, large: Path) -> None:
    command = [sys.executable, "-c", MEASURE, str(large / name), str(large / "small"), dtype]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    print(f"{name} as {dtype}: peak memory {float(run.stdout):.2f} of the weights'")
    assert float(run.stdout) <= 1.25
