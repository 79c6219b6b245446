"""Folders as the authors of LLaVA write them, held against transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from checkpoints import CANVASES, assert_equal_logits, our_logits, respell, save_llava, their_logits
from lapilli.checkpoints.load import load_checkpoint
from lapilli.errors import CheckpointError

IMAGE = Image.fromarray(np.random.default_rng(4).integers(0, 256, (28, 28, 3), dtype=np.uint8))


def save_original(folder: Path, tower: str = "inside", **changes: Any) -> Any:
    """A LLaVA as its authors save it; the tower in the same files, or in a folder beside it."""
    next_changes = {"image_grid_pinpoints": CANVASES} if changes.get("image_aspect_ratio") == "anyres" else {}
    model = save_llava(folder, **next_changes)
    text = json.loads((folder / "config.json").read_text())["text_config"]
    spellings = {
        "language_model.lm_head.": "lm_head.",
        "language_model.": "",
        "multi_modal_projector.linear_1.": "model.mm_projector.0.",
        "multi_modal_projector.linear_2.": "model.mm_projector.2.",
        "image_newline": "model.image_newline",
        "vision_tower.": "model.vision_tower.vision_tower.vision_model.",
    }

    def rename(name: str) -> str | None:
        old = next(old for old in spellings if name.startswith(old))
        if old == "vision_tower." and tower != "inside":
            return None
        return spellings[old] + name.removeprefix(old)

    if tower != "inside":
        model.model.vision_tower.save_pretrained(folder.parent / tower)
    else:
        model.model.vision_tower.config.save_pretrained(folder / "clip-vit-large-patch14-336")
    respell(folder, rename)
    config = {
        **text,
        "model_type": "llava_llama",
        "architectures": ["LlavaLlamaForCausalLM"],
        "mm_vision_tower": "openai/clip-vit-large-patch14-336",
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_hidden_size": 48,
        "image_aspect_ratio": "pad",
        "image_grid_pinpoints": [pair[::-1] for pair in CANVASES],
        "use_mm_proj": True,
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(config))
    tiny.save_tokenizer(folder, tiny.SPECIALS[:3])
    return model


@pytest.mark.parametrize("tower", ["inside", "clip-vit-large-patch14-336", "elsewhere"])
def test_the_original_layout_is_read(tower: str, tmp_path: Path) -> None:
    theirs = save_original(tmp_path / "llava", tower)
    given = tmp_path / tower if tower == "elsewhere" else None
    checkpoint = load_checkpoint(tmp_path / "llava", vision_tower=given)
    assert checkpoint.config.image_token_id == checkpoint.config.text.vocab_size
    assert checkpoint.prompts.image_processor.pads_to_square
    assert_equal_logits(checkpoint, theirs)
    prompt = checkpoint.prompts.raw("USER: <image>\nWhat? ASSISTANT:", [IMAGE])
    assert prompt.token_ids.count(checkpoint.config.image_token_id) == 16


def test_the_first_llava_has_one_layer_between(tmp_path: Path) -> None:
    theirs = save_original(tmp_path / "llava", mm_projector_type="linear", image_aspect_ratio=None)
    spellings = {"model.mm_projector.0.": "model.mm_projector.", "model.mm_projector.2.": None}

    def rename(name: str) -> str | None:
        for old, new in spellings.items():
            if name.startswith(old):
                return None if new is None else new + name.removeprefix(old)
        return name

    respell(tmp_path / "llava", rename)
    checkpoint = load_checkpoint(tmp_path / "llava")
    assert checkpoint.config.projector == "linear"
    assert not checkpoint.prompts.image_processor.do_pad
    theirs.model.multi_modal_projector.linear_2 = torch.nn.Identity()
    theirs.model.multi_modal_projector.act = torch.nn.Identity()
    assert_equal_logits(checkpoint, theirs)


@pytest.mark.parametrize("size", [(28, 28), (20, 90), (90, 20), (57, 31)])
def test_the_original_any_resolution_is_read(size: tuple[int, int], tmp_path: Path) -> None:
    theirs = save_original(tmp_path / "llava", image_aspect_ratio="anyres", mm_patch_merge_type="spatial_unpad")
    checkpoint = load_checkpoint(tmp_path / "llava")
    assert checkpoint.config.tile_canvases == tuple(map(tuple, CANVASES))
    down, across = checkpoint.config.tile_grid(*size)
    tiles = torch.randn(1 + down * across, 3, 28, 28)
    count = checkpoint.config.image_tokens(*size)
    expected = their_logits(theirs, tiles=tiles, count=count, size=torch.tensor([size]))
    assert float((our_logits(checkpoint, tiles=tiles, size=size) - expected).abs().max()) <= 1e-4


def test_class_token_and_patches_of_the_original_layout(tmp_path: Path) -> None:
    save_original(tmp_path / "llava", mm_vision_select_feature="cls_patch")
    assert load_checkpoint(tmp_path / "llava").config.image_tokens(28, 28) == 17


def test_the_tower_of_a_known_name_needs_no_configuration(tmp_path: Path) -> None:
    wide = tiny.vision_config("clip", hidden_size=64, num_attention_heads=1)
    model = tiny.random_model(tiny.llava_config(wide))
    (tmp_path / "llava").mkdir()
    save_original(tmp_path / "llava")
    tensors = load_file(tmp_path / "llava" / "model.safetensors")
    tensors = {name: value for name, value in tensors.items() if "vision_tower" not in name and "projector" not in name}
    prefix = "model.vision_tower.vision_tower.vision_model."
    tensors |= {prefix + name: value for name, value in model.model.vision_tower.state_dict().items()}
    for number, layer in ((0, "linear_1"), (2, "linear_2")):
        for name, value in getattr(model.model.multi_modal_projector, layer).state_dict().items():
            tensors[f"model.mm_projector.{number}.{name}"] = value
    save_file(tensors, tmp_path / "llava" / "model.safetensors")
    (tmp_path / "llava" / "clip-vit-large-patch14-336" / "config.json").unlink()
    vision = load_checkpoint(tmp_path / "llava").config.vision
    assert vision.num_heads == 1
    assert (vision.image_size, vision.patch_size, vision.num_layers, vision.activation) == (28, 7, 3, "quick_gelu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mm_vision_tower": "somebody/eva"}, "tower 'somebody/eva' is not here: give the folder"),
        ({"mm_projector_type": "resampler"}, "mm_projector_type 'resampler' is not linear or mlp2x_gelu"),
        ({"image_aspect_ratio": "anyres_max_9"}, "image_aspect_ratio 'anyres_max_9'"),
        ({"image_aspect_ratio": "anyres", "mm_patch_merge_type": "flat"}, "mm_patch_merge_type 'flat'"),
        ({"mm_vision_select_feature": "cls"}, "mm_vision_select_feature 'cls'"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end"),
        ({"model_type": "llava_mpt"}, "model_type 'llava_mpt' is not one of"),
        ({"mm_vision_tower": 3}, "mm_vision_tower must be text"),
        ({"mm_vision_tower": "../../etc"}, "is not here"),
    ],
)
def test_originals_that_are_not_known_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    save_original(tmp_path / "llava", **changes)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "llava")
