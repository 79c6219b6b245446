"""Our GGUF in llama.cpp, and llama.cpp's GGUF in ours."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tiny
import torch

from lapilli.checkpoints.gguf import read_gguf
from lapilli.checkpoints.load import Checkpoint, load_checkpoint
from lapilli.checkpoints.save import save_gguf

pytestmark = pytest.mark.reference
llama_cpp = pytest.importorskip("llama_cpp", reason="pip install llama-cpp-python")

LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "rope_theta": 5e5, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 1e4, "short_factor": tiny.FACTORS[:4] * 2, "long_factor": tiny.FACTORS,
    "original_max_position_embeddings": 32,
}  # fmt: skip
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 32}
DECODERS: dict[str, Any] = {
    "llama": tiny.text_config("llama"),
    "llama-tied": tiny.text_config("llama", tie_word_embeddings=True),
    "llama-biases": tiny.text_config("llama", attention_bias=True),
    "llama-linear": tiny.text_config(
        "llama", rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
    ),
    "llama-yarn": tiny.text_config("llama", rope_parameters=YARN),
    "llama-llama3": tiny.text_config("llama", rope_parameters=LLAMA3),
    "mistral": tiny.text_config("mistral", sliding_window=128),
    "phi3": tiny.text_config("phi3", sliding_window=None),
    "phi3-partial": tiny.text_config(
        "phi3", rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
    ),
    "phi3-longrope": tiny.text_config("phi3", rope_parameters=LONGROPE, original_max_position_embeddings=32),
    "qwen2": tiny.text_config("qwen2"),
}


@contextlib.contextmanager
def opened(path: Path, context: int = 128) -> Iterator[Any]:
    model = llama_cpp.Llama(
        str(path), n_ctx=context, n_threads=1, logits_all=True, verbose=False, type_k=0, type_v=0, n_gpu_layers=0
    )
    with contextlib.closing(model):
        yield model


def their_logits(path: Path, ids: list[int]) -> npt.NDArray[np.float32]:
    with opened(path) as model:
        model.eval(ids)
        return np.array(model.scores[: len(ids)])


@torch.inference_mode()
def our_logits(checkpoint: Checkpoint, ids: list[int]) -> npt.NDArray[np.float32]:
    model = checkpoint.model.float()
    hidden = model(model.embed(torch.tensor([ids])), torch.arange(len(ids))[None])
    return model.logits(hidden)[0].numpy()


def some_ids(length: int = 48) -> list[int]:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(len(tiny.SPECIALS), tiny.VOCABULARY, (length,), generator=generator).tolist()


def cosine(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> float:
    """The least agreement of any position."""
    scale = np.linalg.norm(left, axis=-1) * np.linalg.norm(right, axis=-1)
    return float(((left * right).sum(-1) / scale).min())


@pytest.mark.parametrize("name", DECODERS)
def test_our_gguf_gives_the_same_logits_in_llama_cpp(name: str, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny.save(tiny.random_model(DECODERS[name]), tmp_path / "theirs"))
    save_gguf(checkpoint, tmp_path / "model.gguf", type="F32")
    ids = some_ids()
    theirs, ours = their_logits(tmp_path / "model.gguf", ids), our_logits(checkpoint, ids)
    print(f"{name}: max abs difference {np.abs(theirs - ours).max():.1e} of {np.abs(ours).max():.1f}")
    assert np.abs(theirs - ours).max() <= 1e-3


def quantized(source: Path, target: Path, kind: int) -> None:
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype, options.nthread = kind, 1
    assert llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(options)) == 0


@pytest.mark.parametrize(
    ("kind", "types"),
    [("Q8_0", {"Q8_0"}), ("Q4_K_M", {"Q4_K", "Q6_K"}), ("Q5_K_M", {"Q5_K", "Q6_K"}), ("Q6_K", {"Q6_K"}),
     ("Q4_0", {"Q4_0"}), ("Q4_1", {"Q4_1"}), ("Q5_0", {"Q5_0"}), ("Q5_1", {"Q5_1"}), ("F16", {"F16"}),
     ("BF16", {"BF16"})],
)  # fmt: skip
def test_what_llama_cpp_quantizes_agrees(kind: str, types: set[str], tmp_path: Path) -> None:
    # Two layers: llama.cpp rounds activations to 8 bits as well, and every random layer makes more of that.
    config = tiny.text_config("llama", hidden_size=256, intermediate_size=512)
    checkpoint = load_checkpoint(tiny.save(tiny.random_model(config), tmp_path / "theirs"))
    save_gguf(checkpoint, tmp_path / "f32.gguf", type="F32")
    number = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    quantized(tmp_path / "f32.gguf", tmp_path / "small.gguf", number)
    assert types <= {str(tensor.type) for tensor in read_gguf(tmp_path / "small.gguf").tensors.values()}
    ids = some_ids()
    theirs = their_logits(tmp_path / "small.gguf", ids)
    ours = our_logits(load_checkpoint(tmp_path / "small.gguf"), ids)
    far = cosine(our_logits(checkpoint, ids), theirs)
    print(f"{kind}: least cosine {cosine(ours, theirs):.6f} (of the unquantized weights {far:.6f})")
    assert cosine(ours, theirs) >= 0.999


@pytest.mark.parametrize("type", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"])
def test_what_we_quantize_agrees_in_llama_cpp(type: str, tmp_path: Path) -> None:
    config = tiny.text_config("llama", hidden_size=256, intermediate_size=512)
    checkpoint = load_checkpoint(tiny.save(tiny.random_model(config), tmp_path / "theirs"))
    save_gguf(checkpoint, tmp_path / "ours.gguf", type=type)
    ids = some_ids()
    theirs = their_logits(tmp_path / "ours.gguf", ids)
    ours = our_logits(load_checkpoint(tmp_path / "ours.gguf"), ids)
    print(f"{type}: least cosine {cosine(ours, theirs):.6f}")
    assert cosine(ours, theirs) >= 0.999
