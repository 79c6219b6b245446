"""Our model's logits are those of transformers, in float32, from the same files, for every kind of part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from lapilli.checkpoints.load import load_checkpoint
from lapilli.model.cache import KVCache
from lapilli.model.llava import Llava

TOLERANCE = 1e-4
CANVASES = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]

DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-heads-alike-tied": ("llama", {"num_key_value_heads": 4, "tie_word_embeddings": True}),
    "llama-biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama-wide-heads": ("llama", {"head_dim": 24, "num_key_value_heads": 1}),
    "llama-linear": ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e3}}),
    "llama-dynamic": (
        "llama",
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}, "max_position_embeddings": 32},
    ),
    "llama-yarn": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 32,
            }
        },
    ),
    "llama-llama3": (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3", "factor": 8.0, "rope_theta": 5e5, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
            }
        },
    ),
    "mistral-window": ("mistral", {"sliding_window": 16}),
    "mistral": ("mistral", {"sliding_window": None}),
    "phi3": ("phi3", {"sliding_window": 24}),
    "phi3-partial": (
        "phi3", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
    ),
    "phi3-longrope-short": (
        "phi3",
        {
            "rope_parameters": {
                "rope_type": "longrope", "rope_theta": 1e4, "short_factor": tiny.FACTORS[:4] * 2,
                "long_factor": tiny.FACTORS, "original_max_position_embeddings": 64,
            },
            "original_max_position_embeddings": 64,
        },
    ),
    "phi3-longrope-long": (
        "phi3",
        {
            "rope_parameters": {
                "rope_type": "longrope", "rope_theta": 1e4, "short_factor": tiny.FACTORS[:4] * 2,
                "long_factor": tiny.FACTORS, "original_max_position_embeddings": 32,
            },
            "original_max_position_embeddings": 32,
        },
    ),
    "qwen2": ("qwen2", {}),
    "qwen2-window": ("qwen2", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}),
}  # fmt: skip

TOWERS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "clip": ("clip", {}, {}),
    "clip-gelu": ("clip", {"hidden_act": "gelu"}, {"vision_feature_layer": -1}),
    "clip-full": ("clip", {}, {"vision_feature_select_strategy": "full"}),
    "clip-layers": ("clip", {}, {"vision_feature_layer": [-3, -1, 0]}),
    "clip-layers-full": ("clip", {}, {"vision_feature_layer": [1, -2], "vision_feature_select_strategy": "full"}),
    "siglip": ("siglip", {}, {"vision_feature_select_strategy": "full", "vision_feature_layer": -1}),
    "siglip-default": ("siglip", {}, {}),
    "siglip-head": (
        "siglip", {"vision_use_head": True}, {"vision_feature_select_strategy": "full", "vision_feature_layer": -2},
    ),
    "projector-linear": ("clip", {}, {"projector_hidden_act": "linear", "multimodal_projector_bias": False}),
}  # fmt: skip


LENGTH_MATTERS = ("llama-dynamic", "phi3-longrope-long")


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
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.5, "logits too small for the tolerance to say anything"
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


@pytest.mark.parametrize("name", DECODERS)
@torch.inference_mode()
def test_decoder_equals_transformers(name: str, tmp_path: Path) -> None:
    family, changes = DECODERS[name]
    theirs = tiny.random_model(tiny.text_config(family, **changes))
    model = load_checkpoint(tiny.save(theirs, tmp_path)).model
    ids = text_ids(rows=2, length=48)
    expected = theirs(ids).logits
    worst = difference(read_all(model, ids), expected)
    # Frequencies that change with the length are another thing read in steps; the next test has those.
    steps = [48] if name in LENGTH_MATTERS else [19, 1, 1, 7, 20]
    worst = max(worst, difference(read_in_steps(model, ids, steps), expected))
    print(f"{name}: max abs difference {worst:.1e}")
    assert worst <= TOLERANCE


@pytest.mark.parametrize("name", ["llama", "mistral-window", "phi3-longrope-short", "qwen2-window", *LENGTH_MATTERS])
@torch.inference_mode()
def test_decoding_on_the_cache_equals_transformers(name: str, tmp_path: Path) -> None:
    family, changes = DECODERS[name]
    theirs = tiny.random_model(tiny.text_config(family, **changes))
    model = load_checkpoint(tiny.save(theirs, tmp_path)).model
    ids = text_ids(rows=1, length=40)
    cached = theirs(ids[:, :30], use_cache=True)
    parts, past = [cached.logits], cached.past_key_values
    for place in range(30, 40):
        step = theirs(ids[:, place : place + 1], past_key_values=past, use_cache=True)
        parts.append(step.logits)
        past = step.past_key_values
    assert difference(read_in_steps(model, ids, [30] + [1] * 10), torch.cat(parts, dim=1)) <= TOLERANCE


@pytest.mark.parametrize("name", ["llama", "mistral-window", "phi3-longrope-long", "llama-dynamic"])
@torch.inference_mode()
def test_rows_of_different_lengths_equal_transformers(name: str, tmp_path: Path) -> None:
    family, changes = DECODERS[name]
    theirs = tiny.random_model(tiny.text_config(family, **changes))
    model = load_checkpoint(tiny.save(theirs, tmp_path)).model
    lengths, longest = [40, 23, 7], 40
    rows = [text_ids(1, length, seed=length)[0] for length in lengths]
    ids = torch.stack([torch.cat((torch.zeros(longest - len(row), dtype=torch.long), row)) for row in rows])
    valid = torch.stack([torch.arange(longest) >= longest - length for length in lengths])
    positions = (valid.cumsum(1) - 1).clamp(min=0)
    hidden = model(model.embed(ids), positions, KVCache(model.config.text, rows=3), valid)
    # A row of a batch is the row alone: transformers lets a row's neighbours choose its dynamic frequencies.
    for row, length, ours in zip(rows, lengths, model.logits(hidden), strict=True):
        assert difference(ours[longest - length :][None], theirs(row[None]).logits) <= TOLERANCE


@pytest.mark.parametrize("name", TOWERS)
@torch.inference_mode()
def test_tower_and_projector_equal_transformers(name: str, tmp_path: Path) -> None:
    family, vision_changes, changes = TOWERS[name]
    theirs = tiny.random_model(tiny.llava_config(tiny.vision_config(family, **vision_changes), **changes))
    model = load_checkpoint(tiny.save(theirs, tmp_path)).model
    worst = 0.0
    for count in (0, 1, 3):
        pixels = torch.randn(count, 3, 28, 28, generator=torch.Generator().manual_seed(count))
        images = [(picture[None], (28, 28)) for picture in pixels]
        ids = prompt_ids(model, [(28, 28)] * count)
        expected = theirs(ids, pixel_values=pixels if count else None).logits
        worst = max(worst, difference(read_all(model, ids, images), expected))
        length = ids.shape[1]
        worst = max(worst, difference(read_in_steps(model, ids, [3, length - 4, 1], images), expected))
    print(f"{name}: max abs difference {worst:.1e}")
    assert worst <= TOLERANCE


@torch.inference_mode()
def test_batch_with_and_without_pictures_equals_transformers(tmp_path: Path) -> None:
    theirs = tiny.random_model(tiny.llava_config(tiny.vision_config("clip")))
    model = load_checkpoint(tiny.save(theirs, tmp_path)).model
    pixels = torch.randn(3, 3, 28, 28, generator=torch.Generator().manual_seed(5))
    rows = [prompt_ids(model, [(28, 28)] * 2)[0], text_ids(1, 9)[0], prompt_ids(model, [(28, 28)])[0]]
    longest = max(map(len, rows))
    padding = [longest - len(row) for row in rows]
    ids = torch.stack(
        [torch.cat((torch.zeros(pad, dtype=torch.long), row)) for pad, row in zip(padding, rows, strict=True)]
    )
    valid = torch.arange(longest)[None] >= torch.tensor(padding)[:, None]
    features = model.encode_images([(picture[None], (28, 28)) for picture in pixels])
    positions = (valid.cumsum(1) - 1).clamp(min=0)
    ours = model.logits(model(model.embed(ids, features), positions, KVCache(model.config.text, rows=3), valid))
    expected = theirs(ids, pixel_values=pixels, attention_mask=valid.long()).logits
    assert difference(ours[valid][None], expected[valid][None]) <= TOLERANCE


SIZES = [(28, 28), (20, 90), (90, 20), (3, 2), (31, 57), (1, 100), (57, 31), (200, 150), (37, 28)]


@pytest.mark.parametrize("family", ["clip", "siglip"])
@torch.inference_mode()
def test_any_resolution_equals_transformers(family: str, tmp_path: Path) -> None:
    strategy = {} if family == "clip" else {"vision_feature_select_strategy": "full", "vision_feature_layer": -1}
    theirs = tiny.random_model(tiny.llava_config(tiny.vision_config(family), image_grid_pinpoints=CANVASES, **strategy))
    model = load_checkpoint(tiny.save(theirs, tmp_path)).model
    worst = 0.0
    for sizes in ([size] for size in SIZES):
        worst = max(worst, next_difference(theirs, model, sizes))
    worst = max(worst, next_difference(theirs, model, SIZES))
    print(f"LLaVA-NeXT on {family}: max abs difference {worst:.1e}")
    assert worst <= TOLERANCE


def next_difference(theirs: Any, model: Llava, sizes: list[tuple[int, int]]) -> float:
    generator = torch.Generator().manual_seed(len(sizes))
    tiles = [torch.randn(1 + down * across, 3, 28, 28, generator=generator)
             for down, across in (model.config.tile_grid(*size) for size in sizes)]  # fmt: skip
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
def test_a_mistake_in_the_weights_shows(tmp_path: Path) -> None:
    """The tolerance means something: one head of one layer turned a little, and the logits are far off."""
    theirs = tiny.random_model(tiny.text_config("llama"))
    model = load_checkpoint(tiny.save(theirs, tmp_path)).model
    ids = text_ids(rows=1, length=16)
    model.language.blocks[1].attention.k.weight[:16] *= 1.01
    assert difference(read_all(model, ids), theirs(ids).logits) > 10 * TOLERANCE
