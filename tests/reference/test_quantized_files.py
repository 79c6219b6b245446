"""What `lapilli quantize` writes opens in llama.cpp, tower included, and says much the same there."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

import pytest
import runtimes

import lapilli

pytestmark = pytest.mark.reference
llama_cpp = pytest.importorskip("llama_cpp", reason="pip install llama-cpp-python")

FOLDER = Path(str(importlib.resources.files("lapilli") / "models" / "mini"))


@pytest.mark.parametrize("mixture", ["Q8_0", "Q4_K_M", "Q4_0"])
def test_llama_cpp_reads_quantized_files(mixture: str, tmp_path: Path) -> None:
    asked = runtimes.drawn(20)
    with runtimes.llama_cpp_of(FOLDER, tmp_path, mixture) as runtime:
        theirs = runtime.ask(asked)
    ours = runtimes.ask_lapilli(lapilli.load(tmp_path / f"mini-{mixture}.gguf", device="cpu"), asked)
    same = sum(one.token_ids == other.token_ids for one, other in zip(ours, theirs, strict=True))
    first = sum(one.token_ids[:1] == other.token_ids[:1] for one, other in zip(ours, theirs, strict=True))
    print(f"{mixture}: {same} of {len(asked)} answers the same, {first} first tokens")
    # Both round activations to 8 bits, each in its own blocks: near ties may fall either way.
    assert first >= 19
    assert same >= 16
