"""Ollama's package `llava`, layer by layer, with random weights: at its true size, or small enough for a test.

The layers, their order and the two short texts are the package's own; weights, words and licence are not. The projector
is one of the first converter's: no `clip.projector_type`, its last block cut off, the names of up and down exchanged.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import mmap
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from faulty_registry import CONFIG, LICENSE, MANIFEST, MODEL, FaultyRegistry

from lapilli.checkpoints.gguf import TensorSource, write_gguf

PROJECTOR = "application/vnd.ollama.image.projector"
TEMPLATE = "application/vnd.ollama.image.template"
PARAMS = "application/vnd.ollama.image.params"
TEMPLATE_TEXT = "[INST] {{ if .System }}{{ .System }} {{ end }}{{ .Prompt }} [/INST]"
PARAMS_TEXT = '{"stop":["[INST]","[/INST]"]}\n'
LICENSE_TEXT = "These weights are random numbers: do with them what you like.\n"


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The decoder's and the tower's shapes; `grid` are the sides of the canvases that pictures are tiled to."""

    layers: int = 32
    hidden: int = 4096
    ffn: int = 14336
    heads: int = 32
    kv_heads: int = 8
    words: int = 32000
    context: int = 32768
    tower_layers: int = 23
    tower_hidden: int = 1024
    tower_ffn: int = 4096
    tower_heads: int = 16
    image: int = 336
    patch: int = 14
    grid: tuple[int, ...] = (336, 672, 672, 336, 672, 672, 1008, 336, 336, 1008)


FULL = Sizes()
SMALL = Sizes(
    layers=2, hidden=256, ffn=512, heads=4, kv_heads=2, words=512, context=2048,
    tower_layers=2, tower_hidden=64, tower_ffn=128, tower_heads=2, image=56, grid=(56, 112, 112, 56, 112, 112),
)  # fmt: skip


def write_model(path: Path, sizes: Sizes) -> None:
    """Mistral's decoder in Q4_0, its head in Q6_K; a tensor at a time."""
    random, hidden, narrow = np.random.default_rng(1), sizes.hidden, sizes.hidden // sizes.heads * sizes.kv_heads
    metadata: dict[str, object] = {
        "general.architecture": "llama",
        "general.name": "liuhaotian",
        "general.file_type": 2,
        "general.quantization_version": 2,
        "llama.context_length": sizes.context,
        "llama.embedding_length": hidden,
        "llama.block_count": sizes.layers,
        "llama.feed_forward_length": sizes.ffn,
        "llama.rope.dimension_count": hidden // sizes.heads,
        "llama.rope.freq_base": 1e6,
        "llama.attention.head_count": sizes.heads,
        "llama.attention.head_count_kv": sizes.kv_heads,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        **vocabulary(sizes.words),
    }

    def q4_0(name: str, *shape: int) -> TensorSource:
        return TensorSource(f"{name}.weight", shape, "Q4_0", lambda: _q4_0(random, shape))

    def ones(name: str) -> TensorSource:
        return TensorSource.of(f"{name}.weight", np.ones(hidden, np.float32), "F32")

    def tensors() -> Iterator[TensorSource]:
        yield q4_0("token_embd", sizes.words, hidden)
        for n in range(sizes.layers):
            yield from (q4_0(f"blk.{n}.ffn_{part}", sizes.ffn, hidden) for part in ("gate", "up"))
            yield q4_0(f"blk.{n}.ffn_down", hidden, sizes.ffn)
            yield from (q4_0(f"blk.{n}.attn_{part}", hidden, hidden) for part in ("q", "output"))
            yield from (q4_0(f"blk.{n}.attn_{part}", narrow, hidden) for part in ("k", "v"))
            yield from (ones(f"blk.{n}.{part}_norm") for part in ("attn", "ffn"))
        yield ones("output_norm")
        shape = (sizes.words, hidden)
        yield TensorSource("output.weight", shape, "Q6_K", lambda: _q6_k(random, shape))

    write_gguf(path, metadata, tensors())


def write_projector(path: Path, sizes: Sizes) -> None:
    """The tower and its projector in half precision, as the first converter wrote them."""
    random, width, wide = np.random.default_rng(2), sizes.tower_hidden, sizes.tower_ffn
    metadata: dict[str, object] = {
        "general.architecture": "clip",
        "clip.has_text_encoder": False,
        "clip.has_vision_encoder": True,
        "clip.has_llava_projector": True,
        "general.file_type": 1,
        "general.name": "vit-large336-custom",
        "general.description": "image encoder for LLaVA",
        "clip.vision.image_size": sizes.image,
        "clip.vision.patch_size": sizes.patch,
        "clip.vision.embedding_length": width,
        "clip.vision.feed_forward_length": wide,
        "clip.vision.projection_dim": 768,
        "clip.vision.attention.head_count": sizes.tower_heads,
        "clip.vision.attention.layer_norm_epsilon": 1e-5,
        "clip.vision.block_count": sizes.tower_layers,
        "clip.vision.image_aspect_ratio": "anyres",
        "clip.vision.image_crop_resolution": 224,
        "clip.vision.image_grid_pinpoints": list(sizes.grid),
        "clip.vision.mm_patch_merge_type": "spatial_unpad",
        "clip.vision.image_mean": [0.48145466, 0.4578275, 0.40821073],
        "clip.vision.image_std": [0.26862954, 0.26130258, 0.27577711],
        "clip.use_gelu": False,
    }

    def halves(name: str, *shape: int) -> TensorSource:
        scale = np.float32(np.prod(shape[1:]) ** -0.5)
        return TensorSource(name, shape, "F16", lambda: random.standard_normal(shape, np.float32) * scale)

    def floats(name: str, count: int, value: float) -> TensorSource:
        return TensorSource.of(name, np.full(count, value, np.float32), "F32")

    def both(name: str, *shape: int) -> Iterator[TensorSource]:
        yield halves(f"{name}.weight", *shape)
        yield floats(f"{name}.bias", shape[0], 0.0)

    def norm(name: str) -> Iterator[TensorSource]:
        yield floats(f"{name}.weight", width, 1.0)
        yield floats(f"{name}.bias", width, 0.0)

    def tensors() -> Iterator[TensorSource]:
        yield floats("v.class_embd", width, 0.5)
        yield halves("v.patch_embd.weight", width, 3, sizes.patch, sizes.patch)
        yield halves("v.position_embd.weight", (sizes.image // sizes.patch) ** 2 + 1, width)
        yield from norm("v.pre_ln")
        for n in range(sizes.tower_layers):
            for part in ("k", "v", "q", "out"):
                yield from both(f"v.blk.{n}.attn_{part}", width, width)
            yield from norm(f"v.blk.{n}.ln1")
            yield from both(f"v.blk.{n}.ffn_down", wide, width)
            yield from both(f"v.blk.{n}.ffn_up", width, wide)
            yield from norm(f"v.blk.{n}.ln2")
        yield from both("mm.0", sizes.hidden, width)
        yield from both("mm.2", sizes.hidden, sizes.hidden)
        yield floats("model.image_newline", sizes.hidden, 0.01)

    write_gguf(path, metadata, tensors())


def serve(registry: FaultyRegistry, name: str, model: Path, projector: Path) -> int:
    """Offer the package as `namespace/model:tag`, the two files as they lie on disk; returns its size in bytes."""
    layers = [_file_layer(registry, MODEL, model), _file_layer(registry, PROJECTOR, projector)]
    texts = ((LICENSE, LICENSE_TEXT), (TEMPLATE, TEMPLATE_TEXT), (PARAMS, PARAMS_TEXT))
    layers += [registry.layer(kind, text.encode()) for kind, text in texts]
    config = {
        "model_format": "gguf",
        "model_family": "llama",
        "model_families": ["llama", "clip"],
        "model_type": "7B",
        "file_type": "Q4_0",
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
    }
    head = registry.layer(CONFIG, json.dumps(config).encode())
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": head, "layers": layers}
    registry.manifests[name] = json.dumps(manifest).encode()
    return sum(int(str(layer["size"])) for layer in (head, *layers))


def _file_layer(registry: FaultyRegistry, media_type: str, path: Path) -> dict[str, object]:
    with path.open("rb") as file:
        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    registry.blobs[digest] = memoryview(pages)  # type: ignore[assignment]
    return {"mediaType": media_type, "digest": digest, "size": len(pages)}


def vocabulary(count: int) -> dict[str, Any]:
    """A sentencepiece vocabulary in GGUF's words."""
    words = list(itertools.islice(_words(), count))
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.scores": np.array([-float(place) for place in range(count)], np.float32),
        "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * (count - 259)],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
    }


def _words() -> Iterator[str]:
    """A vocabulary in sentencepiece's manner: every longer word is two shorter ones."""
    yield from ("<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁")
    signs = [sign for sign in string.printable if not sign.isspace()]
    yield from signs
    yield from ("▁" + sign for sign in signs)
    letters = string.ascii_lowercase
    for count in (2, 3):
        for word in map("".join, itertools.product(letters, repeat=count)):
            yield word
            yield "▁" + word


def _q4_0(random: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Blocks of 32 weights: a scale, then 16 bytes of nibbles."""
    blocks = _bytes(random, int(np.prod(shape)) // 32, 18)
    # Nibbles from -8 to 7 have a spread of 4.6: with this scale a row sums up to about 1.
    blocks[:, :2] = np.array([shape[-1] ** -0.5 / 4.6], np.float16).view(np.uint8)
    return blocks.reshape(-1)


def _q6_k(random: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Blocks of 256 weights: 192 bytes of bits, 16 scales, and one for them."""
    blocks = _bytes(random, int(np.prod(shape)) // 256, 210)
    blocks[:, 192:208] = 1
    blocks[:, 208:] = np.array([shape[-1] ** -0.5 / 18.5], np.float16).view(np.uint8)
    return blocks.reshape(-1)


def _bytes(random: np.random.Generator, rows: int, width: int) -> npt.NDArray[np.uint8]:
    return np.frombuffer(bytearray(random.bytes(rows * width)), np.uint8).reshape(rows, width)
