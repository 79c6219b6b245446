"""`mini` says the same in lapilli, transformers and llama.cpp: 50 pictures, greedy, float32, token for token.

`python bench/three_runtimes_bench.py` prints the same with its figures, and the agreement at other sizes.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import runtimes
from runtimes import Asked, LlamaCpp, Reply, Transformers

import lapilli

pytestmark = pytest.mark.reference
llama_cpp = pytest.importorskip("llama_cpp", reason="pip install llama-cpp-python")

FOLDER = Path(str(importlib.resources.files("lapilli") / "models" / "mini"))
if not (FOLDER / "model.safetensors").is_file():
    pytest.skip("mini is not trained yet: its folder has no model.safetensors", allow_module_level=True)


@dataclass(frozen=True)
class Heard:
    """What each runtime said."""

    lapilli: list[Reply]
    transformers: list[Reply]
    llama_cpp: list[Reply]

    @classmethod
    def of(cls, asked: list[Asked], theirs: Transformers, cpp: LlamaCpp) -> Heard:
        ours = runtimes.ask_lapilli(lapilli.load(FOLDER, device="cpu"), asked)
        return cls(ours, theirs.ask(asked), cpp.ask(asked))


@pytest.fixture(scope="module")
def cpp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaCpp]:
    with runtimes.llama_cpp_of(FOLDER, tmp_path_factory.mktemp("gguf")) as runtime:
        yield runtime


@pytest.fixture(scope="module")
def theirs() -> Transformers:
    return Transformers(FOLDER)


@pytest.fixture(scope="module")
def heard(theirs: Transformers, cpp: LlamaCpp) -> Heard:
    return Heard.of(runtimes.drawn(50), theirs, cpp)


def test_all_three_read_the_same_prompt(heard: Heard) -> None:
    assert [reply.prompt_ids for reply in heard.lapilli] == [reply.prompt_ids for reply in heard.transformers]
    for ours, theirs in zip(heard.lapilli, heard.llama_cpp, strict=True):
        # llama.cpp writes features over a picture's places and keeps no ids there.
        pairs = zip(ours.prompt_ids, theirs.prompt_ids, strict=True)
        assert [(own, id) for own, id in pairs if own not in (runtimes.IMAGE_ID, id)] == []


def test_all_three_say_the_same(heard: Heard) -> None:
    print(
        f"logits: transformers within {runtimes.farthest(heard.lapilli, heard.transformers):.1e}, "
        f"llama.cpp within {runtimes.farthest(heard.lapilli, heard.llama_cpp):.1e}; "
        f"nearest tie {runtimes.nearest_tie(heard.lapilli):.2f}"
    )
    assert runtimes.differences(heard.lapilli, heard.transformers) == []
    assert runtimes.differences(heard.lapilli, heard.llama_cpp) == []
    assert len({reply.token_ids for reply in heard.lapilli}) >= 20


def test_at_other_sizes_transformers_says_the_same(theirs: Transformers) -> None:
    asked = runtimes.resized(runtimes.drawn(24))
    ours = runtimes.ask_lapilli(lapilli.load(FOLDER, device="cpu"), asked)
    assert runtimes.differences(ours, theirs.ask(asked)) == []
