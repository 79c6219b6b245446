"""Our model's logits are those of transformers, in float32, from the same files, for every kind of part."""

from __future__ import annotations

import inspect
from pathlib import Path

import parity
import pytest
import tiny
import torch
from parity import TOLERANCE, difference, read_all, read_in_steps, text_ids

from lapilli.model.cache import KVCache


@pytest.mark.parametrize("name", parity.DECODERS)
def test_decoder_equals_transformers(name: str, tmp_path: Path) -> None:
    worst = parity.decoder_difference(name, tmp_path)
    print(f"{name}: max abs difference {worst:.1e}")
    assert worst <= TOLERANCE


@pytest.mark.parametrize("name", parity.TOWERS)
def test_tower_and_projector_equal_transformers(name: str, tmp_path: Path) -> None:
    worst = parity.tower_difference(name, tmp_path)
    print(f"{name}: max abs difference {worst:.1e}")
    assert worst <= TOLERANCE


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_any_resolution_equals_transformers(family: str, tmp_path: Path) -> None:
    worst = parity.any_resolution_difference(family, tmp_path)
    print(f"LLaVA-NeXT on {family}: max abs difference {worst:.1e}")
    assert worst <= TOLERANCE


@pytest.mark.parametrize("name", ["llama", "mistral, window", "qwen2, window", *parity.LENGTH_MATTERS])
@torch.inference_mode()
def test_decoding_on_the_cache_equals_transformers(name: str, tmp_path: Path) -> None:
    """Across the length at which the frequencies of those that have one change."""
    model, theirs = parity.load_decoder(name, tmp_path)
    ids = text_ids(rows=1, length=40)
    cached = theirs(ids[:, :30], use_cache=True)
    # transformers 5.24 has another name for it.
    word = "cache" if "cache" in inspect.signature(theirs.forward).parameters else "past_key_values"
    parts, past = [cached.logits], getattr(cached, word)
    for place in range(30, 40):
        step = theirs(ids[:, place : place + 1], **{word: past}, use_cache=True)
        parts.append(step.logits)
        past = getattr(step, word)
    assert difference(read_in_steps(model, ids, [30] + [1] * 10), torch.cat(parts, dim=1)) <= TOLERANCE


@pytest.mark.parametrize("name", ["llama", "mistral, window", *parity.LENGTH_MATTERS])
@torch.inference_mode()
def test_rows_of_different_lengths_equal_transformers(name: str, tmp_path: Path) -> None:
    """Each row as it is alone; in transformers, neighbours choose a row's frequencies where the length matters."""
    model, theirs = parity.load_decoder(name, tmp_path)
    lengths, longest = [40, 23, 7], 40
    rows = [text_ids(1, length, seed=length)[0] for length in lengths]
    ids = torch.stack([torch.cat((torch.zeros(longest - len(row), dtype=torch.long), row)) for row in rows])
    valid = torch.stack([torch.arange(longest) >= longest - length for length in lengths])
    positions = (valid.cumsum(1) - 1).clamp(min=0)
    hidden = model(model.embed(ids), positions, KVCache(model.config.text, rows=3), valid)
    for row, length, ours in zip(rows, lengths, model.logits(hidden), strict=True):
        assert difference(ours[longest - length :][None], theirs(row[None]).logits) <= TOLERANCE


@torch.inference_mode()
def test_batch_with_and_without_pictures_equals_transformers(tmp_path: Path) -> None:
    model, theirs = parity.load_both(tiny.llava_config(tiny.vision_config("clip")), tmp_path)
    pixels = torch.randn(3, 3, 28, 28, generator=torch.Generator().manual_seed(5))
    sizes = [(28, 28)]
    rows = [parity.prompt_ids(model, sizes * 2)[0], text_ids(1, 9)[0], parity.prompt_ids(model, sizes)[0]]
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


@torch.inference_mode()
def test_a_mistake_in_the_weights_shows(tmp_path: Path) -> None:
    """The tolerance means something: one head's keys a hundredth longer, and the logits are far off."""
    model, theirs = parity.load_both(tiny.text_config("llama"), tmp_path)
    ids = text_ids(rows=1, length=16)
    model.language.blocks[1].attention.k.weight[:16] *= 1.01
    assert difference(read_all(model, ids), theirs(ids).logits) > 10 * TOLERANCE
