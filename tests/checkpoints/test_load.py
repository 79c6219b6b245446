"""Folders as transformers writes them, held against it; and what is said of those that do not fit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from checkpoints import assert_equal_logits, our_logits, respell, save_llava, their_logits
from lapilli.checkpoints.load import load_checkpoint
from lapilli.errors import CheckpointError, TokenizerError
from lapilli.inputs.chat import conversation

IMAGE = Image.fromarray(np.random.default_rng(4).integers(0, 256, (28, 28, 3), dtype=np.uint8))


def test_a_folder_of_either_layout_is_read(tmp_path: Path) -> None:
    theirs = save_llava(tmp_path / "first")
    tiny.save(theirs, tmp_path / "newer", save_original_format=False)
    names = load_file(tmp_path / "newer" / "model.safetensors")
    assert "model.language_model.norm.weight" in names
    for folder in ("first", "newer"):
        assert_equal_logits(load_checkpoint(tmp_path / folder), theirs)


@pytest.mark.parametrize(
    "spelling",
    [
        {"vision_tower.": "vision_tower.vision_model."},
        {"vision_tower.": "model.vision_tower.vision_model.", "language_model.model.": "model.language_model."},
        {"language_model.model.": "model.language_model.", "language_model.lm_head.": "lm_head."},
        {"language_model.model.": "language_model."},
        {"multi_modal_projector.": "model.multi_modal_projector."},
    ],
)
def test_every_spelling_is_read(spelling: dict[str, str], tmp_path: Path) -> None:
    def rename(name: str) -> str:
        for old, new in spelling.items():
            if name.startswith(old):
                return new + name.removeprefix(old)
        return name

    theirs = save_llava(tmp_path)
    respell(tmp_path, rename)
    assert_equal_logits(load_checkpoint(tmp_path), theirs)


def test_shards_are_read(tmp_path: Path) -> None:
    theirs = tiny.random_model(tiny.llava_config(tiny.vision_config("clip")))
    tiny.save(theirs, tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert_equal_logits(load_checkpoint(tmp_path), theirs)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_keep_their_type_unless_asked(stored: torch.dtype, tmp_path: Path) -> None:
    tiny.save(tiny.random_model(tiny.text_config("llama")).to(stored), tmp_path)
    kept = load_checkpoint(tmp_path)
    assert {value.dtype for value in kept.model.parameters()} == {stored}
    wide = load_checkpoint(tmp_path, dtype=torch.float32)
    assert {value.dtype for value in wide.model.parameters()} == {torch.float32}
    assert torch.equal(wide.model.language.norm.weight, kept.model.language.norm.weight.float())


def test_a_window_of_null_is_no_window(tmp_path: Path) -> None:
    tiny.save(tiny.random_model(tiny.text_config("mistral", sliding_window=None)), tmp_path)
    assert load_checkpoint(tmp_path).config.text.sliding_window is None


def test_a_conversation_can_be_held(tmp_path: Path) -> None:
    save_llava(tmp_path)
    checkpoint = load_checkpoint(tmp_path)
    prompt = checkpoint.prompts.chat(conversation("What is this?", [IMAGE]))
    assert prompt.token_ids.count(tiny.IMAGE_TOKEN) == checkpoint.config.image_tokens(28, 28)
    assert prompt.token_ids[0] == 1


# What does not fit is named


def change_tensors(folder: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda tensors: tensors.pop("language_model.model.layers.1.mlp.up_proj.weight"),
            r"1 tensor missing: language_model.model.layers.1.mlp.up_proj.weight \(language.blocks.1.mlp.up.weight\)",
        ),
        (
            lambda tensors: [tensors.pop(name) for name in list(tensors) if "self_attn" in name],
            r"\d+ tensors missing: .* and \d+ more",
        ),
        (
            lambda tensors: tensors.update({"language_model.model.layers.2.mlp.up_proj.weight": torch.zeros(96, 64)}),
            "1 tensor not known here: language_model.model.layers.2.mlp.up_proj.weight",
        ),
        (
            lambda tensors: tensors.update({"multi_modal_projector.linear_1.weight": torch.zeros(64, 47)}),
            r"multi_modal_projector.linear_1.weight has shape \(64, 47\), must have \(64, 48\)",
        ),
        (
            lambda tensors: tensors.update({"lm_head.weight": torch.zeros(1)}),
            "language_model.lm_head.weight is there twice, once as lm_head.weight",
        ),
        (
            lambda tensors: tensors.update({"multi_modal_projector.linear_1.bias": torch.zeros(64, dtype=torch.int8)}),
            "multi_modal_projector.linear_1.bias is of type I8",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    change: Callable[[dict[str, Tensor]], Any], message: str, tmp_path: Path
) -> None:
    save_llava(tmp_path)
    change_tensors(tmp_path, change)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path.parent) not in str(caught.value)


def test_harmless_extras_are_passed_over(tmp_path: Path) -> None:
    theirs = save_llava(tmp_path)
    extras = {
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(8),
        "vision_tower.vision_model.embeddings.position_ids": torch.arange(17)[None],
        "vision_tower.vision_model.head.probe": torch.zeros(1, 1, 48),
    }
    change_tensors(tmp_path, lambda tensors: tensors.update(extras))
    assert_equal_logits(load_checkpoint(tmp_path), theirs)


def test_a_tied_head_may_be_there_too(tmp_path: Path) -> None:
    theirs = tiny.random_model(tiny.text_config("llama", tie_word_embeddings=True))
    tiny.save(theirs, tmp_path)
    change_tensors(tmp_path, lambda tensors: tensors.update({"lm_head.weight": torch.zeros(tiny.ROWS, 64)}))
    ours = our_logits(load_checkpoint(tmp_path))
    assert float((ours - their_logits(theirs)).abs().max()) <= 1e-3


@pytest.mark.parametrize(
    ("file", "text", "error", "message"),
    [
        ("config.json", "[]", CheckpointError, "config.json: an object is needed"),
        ("config.json", "{", CheckpointError, "config.json: is no valid JSON"),
        ("config.json", "[" * 100_000, CheckpointError, "config.json: is no valid JSON"),
        ("config.json", '{"model_type": "gpt2"}', CheckpointError, "model_type 'gpt2' is not known"),
        ("generation_config.json", '{"do_sample": true, "top_p": "x"}', CheckpointError, "top_p must be a number"),
        ("tokenizer.json", "{}", TokenizerError, "."),
        (
            "preprocessor_config.json",
            '{"image_processor_type": "CLIPImageProcessor", "crop_size": 336}',
            CheckpointError,
            "makes pictures of 336x336, the tower sees 28x28",
        ),
    ],
)
def test_files_that_do_not_fit_are_named(
    file: str, text: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    save_llava(tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(error, match=message):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 1 << 24}, "16777216 layers are described, the files hold 21 tensors"),
        ({"head_dim": 1 << 24, "num_attention_heads": 1 << 24, "hidden_size": 1 << 24}, "beyond any memory"),
        ({"vocab_size": 1 << 24}, r"has shape \(264, 64\), must have \(16777216, 64\)"),
    ],
)
def test_sizes_that_no_file_holds_cost_nothing(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    tiny.save(tiny.random_model(tiny.text_config("llama")), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path)


def test_a_folder_that_is_no_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"neither a GGUF file nor a folder with a config.json"):
        load_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match=r"neither a GGUF file nor a folder with a config.json"):
        load_checkpoint(tmp_path / "nowhere")


def test_errors_tell_no_paths(tmp_path: Path) -> None:
    (tmp_path / "secret" / "model").mkdir(parents=True)
    (tmp_path / "secret" / "model" / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "secret" / "model")
    assert not re.search("secret|tmp", str(caught.value))
