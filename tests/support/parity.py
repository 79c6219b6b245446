"""How far our logits are from those of transformers: the same weights from the same files, in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny
import torch
from torch import Tensor

from lapilli.checkpoints.load import load_checkpoint
from lapilli.model.cache import KVCache
from lapilli.model.llava import Llava

TOLERANCE = 1e-4
CANVASES = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]
SIZES = [(28, 28), (20, 90), (90, 20), (3, 2), (31, 57), (1, 100), (57, 31), (200, 150), (37, 28)]


def rope(kind: str, **values: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 1e4, **values}}


def longrope(original: int) -> dict[str, Any]:
    """Phi-3's way, which changes at this length."""
    factors = {"short_factor": tiny.FACTORS[:4] * 2, "long_factor": tiny.FACTORS}
    lengths = {"original_max_position_embeddings": original}
    return rope("longrope", **factors, **lengths) | lengths


DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama, tied": ("llama", {"num_key_value_heads": 4, "tie_word_embeddings": True}),
    "llama, biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, wide heads": ("llama", {"head_dim": 24, "num_key_value_heads": 1}),
    "llama, linear": ("llama", rope("linear", factor=4.0)),
    "llama, dynamic": ("llama", rope("dynamic", factor=2.0) | {"max_position_embeddings": 32}),
    "llama, YaRN": ("llama", rope("yarn", factor=4.0, original_max_position_embeddings=32)),
    "llama, Llama 3.1": (
        "llama",
        rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32),
    ),
    "mistral, window": ("mistral", {"sliding_window": 16}),
    "mistral": ("mistral", {"sliding_window": None}),
    "phi3, window": ("phi3", {"sliding_window": 24}),
    "phi3, partial": ("phi3", rope("default", partial_rotary_factor=0.5)),
    "phi3, long rope below": ("phi3", longrope(64)),
    "phi3, long rope above": ("phi3", longrope(32)),
    "qwen2": ("qwen2", {}),
    "qwen2, window": ("qwen2", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}),
}
# Their frequencies change with the length, so that reading in steps is another thing than reading at once.
LENGTH_MATTERS = ("llama, dynamic", "phi3, long rope above")

FULL = {"vision_feature_select_strategy": "full"}
TOWERS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "CLIP": ("clip", {}, {}),
    "CLIP, GELU": ("clip", {"hidden_act": "gelu"}, {"vision_feature_layer": -1}),
    "CLIP, class token kept": ("clip", {}, FULL),
    "CLIP, three layers": ("clip", {}, {"vision_feature_layer": [-3, -1, 0]}),
    "CLIP, two layers, class token kept": ("clip", {}, {"vision_feature_layer": [1, -2], **FULL}),
    "SigLIP": ("siglip", {}, {"vision_feature_layer": -1, **FULL}),
    "SigLIP, first patch dropped": ("siglip", {}, {}),
    "SigLIP, unused head": ("siglip", {"vision_use_head": True}, {"vision_feature_layer": -2, **FULL}),
    "linear projector": ("clip", {}, {"projector_hidden_act": "linear", "multimodal_projector_bias": False}),
}


def read_all(model: Llava, ids_BT: Tensor, images: list[Any] | None = None) -> Tensor:
    """Logits (B, T, V) of whole rows, without a cache."""
    embeds = model.embed(ids_BT, model.encode_images(images or []))
    positions = torch.arange(ids_BT.shape[1]).expand_as(ids_BT)
    return model.logits(model(embeds, positions))


def read_in_steps(model: Llava, ids_BT: Tensor, steps: list[int], images: list[Any] | None = None) -> Tensor:
    """The same through a cache, so many tokens at a time."""
    embeds = model.embed(ids_BT, model.encode_images(images or []))
    cache = KVCache(model.config.text, rows=len(ids_BT), capacity=8)
    parts, start = [], 0
    for step in steps:
        positions = torch.arange(start, start + step).expand(len(ids_BT), -1)
        parts.append(model.logits(model(embeds[:, start : start + step], positions, cache)))
        start += step
    assert start == ids_BT.shape[1]
    return torch.cat(parts, dim=1)


def difference(ours: Tensor, theirs: Tensor) -> float:
    """The largest of any logit; refuses logits too small for the tolerance to say anything."""
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.5
    return float((ours - theirs).abs().max())


def text_ids(rows: int, length: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(len(tiny.SPECIALS), tiny.ROWS, (rows, length), generator=generator)


def prompt_ids(model: Llava, sizes: list[tuple[int, int]]) -> Tensor:
    """One row: some text, then each picture's placeholders with text after it."""
    pieces = [text_ids(1, 5)[0]]
    for number, size in enumerate(sizes):
        pieces.append(torch.full((model.config.image_tokens(*size),), tiny.IMAGE_TOKEN))
        pieces.append(text_ids(1, 4, seed=number + 2)[0])
    return torch.cat(pieces)[None]


def load_both(config: Any, folder: Path) -> tuple[Llava, Any]:
    """Our model and theirs, of the same files."""
    theirs = tiny.random_model(config)
    return load_checkpoint(tiny.save(theirs, folder)).model, theirs


def load_decoder(name: str, folder: Path) -> tuple[Llava, Any]:
    family, changes = DECODERS[name]
    return load_both(tiny.text_config(family, **changes), folder)


@torch.inference_mode()
def decoder_difference(name: str, folder: Path) -> float:
    """Two rows at once, without a cache and with one, in steps."""
    model, theirs = load_decoder(name, folder)
    ids = text_ids(rows=2, length=48)
    expected = theirs(ids).logits
    steps = [48] if name in LENGTH_MATTERS else [19, 1, 1, 7, 20]
    return max(difference(read_all(model, ids), expected), difference(read_in_steps(model, ids, steps), expected))


@torch.inference_mode()
def tower_difference(name: str, folder: Path) -> float:
    """No picture, one, and three, without a cache and with one, in steps."""
    family, vision, changes = TOWERS[name]
    model, theirs = load_both(tiny.llava_config(tiny.vision_config(family, **vision), **changes), folder)
    return max(pictures_difference(model, theirs, count) for count in (0, 1, 3))


def pictures_difference(model: Llava, theirs: Any, count: int) -> float:
    side = model.config.vision.image_size if model.config.vision else 0
    pixels = torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(count))
    images = [(picture[None], (side, side)) for picture in pixels]
    ids = prompt_ids(model, [(side, side)] * count)
    expected = theirs(ids, pixel_values=pixels if count else None).logits
    steps = [3, ids.shape[1] - 4, 1]
    return max(
        difference(read_all(model, ids, images), expected),
        difference(read_in_steps(model, ids, steps, images), expected),
    )


@torch.inference_mode()
def any_resolution_difference(family: str, folder: Path) -> float:
    """Pictures of many shapes, one by one and all in one prompt."""
    strategy = {} if family == "clip" else {"vision_feature_layer": -1, **FULL}
    config = tiny.llava_config(tiny.vision_config(family), image_grid_pinpoints=CANVASES, **strategy)
    model, theirs = load_both(config, folder)
    return max(tiles_difference(model, theirs, sizes) for sizes in [*([size] for size in SIZES), SIZES])


def tiles_difference(model: Llava, theirs: Any, sizes: list[tuple[int, int]]) -> float:
    generator = torch.Generator().manual_seed(len(sizes))
    grids = [model.config.tile_grid(*size) for size in sizes]
    tiles = [torch.randn(1 + down * across, 3, 28, 28, generator=generator) for down, across in grids]
    most = max(map(len, tiles))
    padded = torch.stack([torch.cat((part, part.new_zeros(most - len(part), 3, 28, 28))) for part in tiles])
    ids = prompt_ids(model, sizes)
    expected = theirs(ids, pixel_values=padded, image_sizes=torch.tensor(sizes)).logits
    images = list(zip(tiles, sizes, strict=True))
    steps = [11, ids.shape[1] - 12, 1]
    return max(
        difference(read_all(model, ids, images), expected),
        difference(read_in_steps(model, ids, steps, images), expected),
    )


@torch.inference_mode()
def full_width_difference(folder: Path) -> float:
    """LLaVA-1.5-7B's own widths, vocabulary and picture, with two layers in tower and decoder."""
    text = tiny.text_config(
        "llama", vocab_size=32064, hidden_size=4096, intermediate_size=11008, num_attention_heads=32,
        num_key_value_heads=32, max_position_embeddings=4096, rms_norm_eps=1e-5,
    )  # fmt: skip
    vision = tiny.vision_config(
        "clip", hidden_size=1024, intermediate_size=4096, num_hidden_layers=2, num_attention_heads=16,
        image_size=336, patch_size=14, projection_dim=768,
    )  # fmt: skip
    model, theirs = load_both(tiny.llava_config(vision, text), folder)
    return max(pictures_difference(model, theirs, count) for count in (0, 1))
