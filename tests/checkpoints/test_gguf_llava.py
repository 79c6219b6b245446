"""GGUF models and their mmproj files, held against transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from checkpoints import CANVASES, assert_equal_logits, our_logits, save_llava, their_logits
from lapilli.checkpoints.gguf import TensorSource, read_gguf, write_gguf
from lapilli.checkpoints.load import load_checkpoint
from lapilli.checkpoints.save import save_gguf
from lapilli.errors import CheckpointError


def test_a_clip_tower_from_gguf_equals_transformers(tmp_path: Path) -> None:
    theirs = save_llava(tmp_path / "theirs")
    save_gguf(load_checkpoint(tmp_path / "theirs"), tmp_path / "model.gguf", tmp_path / "mmproj.gguf", type="F32")
    checkpoint = load_checkpoint(tmp_path / "model.gguf", projector=tmp_path / "mmproj.gguf")
    assert checkpoint.config.image_token_id == tiny.IMAGE_TOKEN
    assert checkpoint.prompts.image_processor.pads_to_square
    assert_equal_logits(checkpoint, theirs)


def rewrite(path: Path, metadata: dict[str, Any], rename: Callable[[str], str | None] = lambda name: name) -> None:
    """Write a GGUF file again, with other keys (None takes one out) and other names of tensors."""
    file = read_gguf(path)
    values = {key: value for key, value in {**file.metadata, **metadata}.items() if value is not None}
    tensors = [
        TensorSource(name, tensor.shape, tensor.type, lambda tensor=tensor: tensor.data)
        for old, tensor in file.tensors.items()
        if (name := rename(old)) is not None
    ]
    write_gguf(path, values, tensors)


def test_the_first_converters_files_equal_transformers(tmp_path: Path) -> None:
    """It cut the last block off, named up and down the wrong way round, and said has_llava_projector."""
    theirs = save_llava(tmp_path / "theirs")
    model, mmproj = tmp_path / "model.gguf", tmp_path / "mmproj.gguf"
    save_gguf(load_checkpoint(tmp_path / "theirs"), model, mmproj, type="F32")

    def rename(name: str) -> str | None:
        if name.startswith("v.blk.2."):
            return None
        swapped = {"ffn_up": "ffn_down", "ffn_down": "ffn_up"}
        return ".".join(swapped.get(part, part) for part in name.split("."))

    old = {"clip.has_llava_projector": True, "clip.vision.block_count": 2, "clip.vision.feature_layer": None}
    rewrite(mmproj, {**old, "clip.use_silu": None}, rename)
    assert_equal_logits(load_checkpoint(model, projector=mmproj), theirs)
    # A file that does not say so holds one block more than is used.
    rewrite(mmproj, {"clip.has_llava_projector": None})
    assert load_checkpoint(model, projector=mmproj).config.feature_layers == (1,)


@pytest.mark.parametrize("size", [(28, 28), (20, 90), (57, 31)])
def test_any_resolution_from_gguf_equals_transformers(size: tuple[int, int], tmp_path: Path) -> None:
    theirs = save_llava(tmp_path / "theirs", image_grid_pinpoints=CANVASES)
    save_gguf(load_checkpoint(tmp_path / "theirs"), tmp_path / "model.gguf", tmp_path / "mmproj.gguf", type="F32")
    checkpoint = load_checkpoint(tmp_path / "model.gguf", projector=tmp_path / "mmproj.gguf")
    assert checkpoint.prompts.image_processor.canvases == checkpoint.config.tile_canvases
    down, across = checkpoint.config.tile_grid(*size)
    tiles = torch.randn(1 + down * across, 3, 28, 28)
    count = checkpoint.config.image_tokens(*size)
    expected = their_logits(theirs, tiles=tiles, count=count, size=torch.tensor([size]))
    assert float((our_logits(checkpoint, tiles=tiles, size=size) - expected).abs().max()) <= 1e-4


def test_a_gguf_model_alone_reads_text(tmp_path: Path) -> None:
    theirs = save_llava(tmp_path / "theirs")
    save_gguf(load_checkpoint(tmp_path / "theirs"), tmp_path / "model.gguf", tmp_path / "mmproj.gguf", type="F32")
    checkpoint = load_checkpoint(tmp_path / "model.gguf")
    assert checkpoint.config.vision is None
    assert float((our_logits(checkpoint) - their_logits(theirs)).abs().max()) <= 1e-4


@pytest.mark.parametrize(
    ("model", "mmproj", "message"),
    [
        ({"general.architecture": "mamba"}, {}, "architecture 'mamba' is not known here"),
        ({"llama.expert_count": 8}, {}, "mixtures of experts"),
        ({"llama.block_count": 0}, {}, "llama.block_count is 0, must be at least 1"),
        ({"llama.block_count": 3}, {}, r"9 tensors missing: blk.2.attn_k.weight \(language.blocks.2"),
        ({"llama.block_count": 1}, {}, "9 tensors not known here: blk.1."),
        ({"llama.embedding_length": 1 << 30}, {}, "must be at most"),
        ({"llama.rope.scaling.type": "magic"}, {}, "rope scaling 'magic'"),
        ({"llama.rope.dimension_count": 7}, {}, "must be even"),
        ({}, {"clip.projector_type": "resampler"}, "projector 'resampler' is not known here"),
        ({}, {"general.architecture": "llama"}, "is no projector file"),
        ({}, {"clip.vision.feature_layer": [9]}, "9 is outside a tower of 3 layers"),
        ({}, {"clip.vision.image_grid_pinpoints": [1, 2]}, "mm_patch_merge_type 'flat'"),
        ({}, {"clip.vision.image_size": 56}, r"v.position_embd.weight has shape \(17, 48\), must have \(65, 48\)"),
        ({}, {"clip.vision.attention.head_count": 5}, "not divisible"),
    ],
)
def test_gguf_that_does_not_fit_is_refused(
    model: dict[str, Any], mmproj: dict[str, Any], message: str, tmp_path: Path
) -> None:
    save_llava(tmp_path / "theirs")
    save_gguf(load_checkpoint(tmp_path / "theirs"), tmp_path / "model.gguf", tmp_path / "mmproj.gguf", type="F32")
    rewrite(tmp_path / "model.gguf", model)
    rewrite(tmp_path / "mmproj.gguf", mmproj)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "model.gguf", projector=tmp_path / "mmproj.gguf")


def test_a_projector_is_not_a_model(tmp_path: Path) -> None:
    save_llava(tmp_path / "theirs")
    save_gguf(load_checkpoint(tmp_path / "theirs"), tmp_path / "model.gguf", tmp_path / "mmproj.gguf")
    with pytest.raises(CheckpointError, match="is a projector: give the model's file"):
        load_checkpoint(tmp_path / "mmproj.gguf")
    with pytest.raises(CheckpointError, match="goes with a GGUF model"):
        load_checkpoint(tmp_path / "theirs", projector=tmp_path / "mmproj.gguf")
