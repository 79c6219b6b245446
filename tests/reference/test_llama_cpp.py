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


def their_features(model: Path, mmproj: Path, pixels_HWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """What llama.cpp puts into the prompt for a picture of the tower's own size."""
    from llama_cpp import mtmd_cpp as mtmd

    height, width, _ = pixels_HWC.shape
    with opened(model) as llama, contextlib.ExitStack() as stack:
        options = mtmd.mtmd_context_params_default()
        options.use_gpu, options.print_timings, options.n_threads, options.warmup = False, False, 1, False
        options.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        context = mtmd.mtmd_init_from_file(str(mmproj).encode(), llama._model.model, options)
        assert context is not None, "llama.cpp does not open the mmproj"
        stack.callback(mtmd.mtmd_free, context)
        data = (ctypes.c_uint8 * pixels_HWC.size)(*pixels_HWC.tobytes())
        bitmap = mtmd.mtmd_bitmap_init(width, height, data)
        stack.callback(mtmd.mtmd_bitmap_free, bitmap)
        chunks = mtmd.mtmd_input_chunks_init()
        stack.callback(mtmd.mtmd_input_chunks_free, chunks)
        marker = mtmd.mtmd_default_marker()
        asked = mtmd.mtmd_input_text(marker, len(marker), False, True)
        pictures = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
        assert mtmd.mtmd_tokenize(context, chunks, ctypes.byref(asked), pictures, 1) == 0
        kinds = [mtmd.mtmd_input_chunks_get(chunks, i) for i in range(mtmd.mtmd_input_chunks_size(chunks))]
        shown = next(c for c in kinds if mtmd.mtmd_input_chunk_get_type(c) == mtmd.MTMD_INPUT_CHUNK_TYPE_IMAGE)
        assert mtmd.mtmd_encode_chunk(context, shown) == 0
        size = (mtmd.mtmd_input_chunk_get_n_tokens(shown), llama.n_embd())
        return np.ctypeslib.as_array(mtmd.mtmd_get_output_embd(context), size).copy()


@pytest.mark.parametrize("layers", [-1, -2, [1, 3]])
@pytest.mark.parametrize("tower", [{}, {"hidden_act": "quick_gelu"}, {"intermediate_size": 48}])
def test_our_mmproj_gives_the_same_features_in_llama_cpp(layers: Any, tower: dict[str, Any], tmp_path: Path) -> None:
    """With a SigLIP tower; llama.cpp misplaces CLIP's class token. Its GELU reads a table in half precision."""
    config = tiny.llava_config(
        tiny.vision_config("siglip", **tower), vision_feature_layer=layers, vision_feature_select_strategy="full"
    )
    checkpoint = load_checkpoint(tiny.save(tiny.random_model(config), tmp_path / "theirs"))
    model, mmproj = tmp_path / "model.gguf", tmp_path / "mmproj.gguf"
    save_gguf(checkpoint, model, mmproj, type="F32")
    pixels_HWC = np.random.default_rng(1).integers(0, 256, (28, 28, 3), dtype=np.uint8)
    theirs = their_features(model, mmproj, pixels_HWC)
    pixels_TCHW = torch.from_numpy(pixels_HWC / np.float32(127.5) - 1).permute(2, 0, 1)[None]
    with torch.inference_mode():
        ours = checkpoint.model.encode_images([(pixels_TCHW, (28, 28))])[0].numpy()
    print(f"layers {layers}, {tower}: max abs difference {np.abs(theirs - ours).max():.1e} of {np.abs(ours).max():.1f}")
    assert theirs.shape == ours.shape
    assert np.abs(theirs - ours).max() <= 1e-2
    assert cosine(ours, theirs) >= 0.9999
