"""Checkpoints of every layout, held against transformers; and what is said of those that do not fit."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from lapilli.checkpoints.gguf import TensorSource, read_gguf, write_gguf
from lapilli.checkpoints.load import Checkpoint, load_checkpoint
from lapilli.checkpoints.save import save_folder, save_gguf
from lapilli.errors import CheckpointError, TokenizerError
from lapilli.inputs.chat import conversation
from lapilli.model.llava import Llava

CANVASES = [[28, 56], [56, 28], [56, 56], [28, 84], [84, 28]]
IMAGE = Image.fromarray(np.random.default_rng(4).integers(0, 256, (28, 28, 3), dtype=np.uint8))


@torch.inference_mode()
def our_logits(checkpoint: Checkpoint, tokens: int = 12, tiles: Tensor | None = None, size: Any = (28, 28)) -> Tensor:
    model, config = checkpoint.model, checkpoint.config
    pictures = [] if tiles is None else [(tiles, size)]
    count = config.image_tokens(*size) if pictures else 0
    ids = torch.tensor([[*range(5, 5 + tokens), *[config.image_token_id] * count, 7, 8]])
    embeds = model.embed(ids, model.encode_images(pictures))
    return model.logits(model(embeds, torch.arange(ids.shape[1])[None]))


@torch.inference_mode()
def their_logits(model: Any, tokens: int = 12, tiles: Tensor | None = None, count: int = 0, size: Any = None) -> Tensor:
    ids = torch.tensor([[*range(5, 5 + tokens), *[tiny.IMAGE_TOKEN] * count, 7, 8]])
    options: dict[str, Any] = {}
    if tiles is not None:
        options = {"pixel_values": tiles} if size is None else {"pixel_values": tiles[None], "image_sizes": size}
    return model(ids, **options).logits


def assert_equal_logits(checkpoint: Checkpoint, theirs: Any) -> None:
    tiles = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    count = checkpoint.config.image_tokens(28, 28)
    expected = their_logits(theirs, tiles=tiles, count=count)
    assert float((our_logits(checkpoint, tiles=tiles) - expected).abs().max()) <= 1e-4


def respell(folder: Path, rename: Callable[[str], str | None]) -> None:
    """Write the folder's tensors under other names, leaving out those without one."""
    path = folder / "model.safetensors"
    tensors = {rename(name): value for name, value in load_file(path).items()}
    save_file({name: value for name, value in tensors.items() if name}, path)


def save_llava(folder: Path, **changes: Any) -> Any:
    model = tiny.random_model(tiny.llava_config(tiny.vision_config("clip"), **changes))
    tiny.save(model, folder)
    return model


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


# The original layout


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


# GGUF


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


# Memory

MEASURE = """
import sys
import torch
from lapilli.checkpoints.load import load_checkpoint

def kilobytes(name):
    return int(next(line for line in open("/proc/self/status") if line.startswith(name)).split()[1])

path, small, dtype = sys.argv[1:]
load_checkpoint(small)
# The peak so far, not what is used now: a kernel short of memory may have taken pages of libraries back.
before = kilobytes("VmHWM")
model = load_checkpoint(path, dtype=getattr(torch, dtype, None)).model
total = sum(float(value.detach().sum()) for value in model.parameters())
weights = sum(value.nbytes for value in model.parameters()) / 1024
print((kilobytes("VmHWM") - before) / weights)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model of 217 MB in float32 in several files, and a small one."""
    folder = tmp_path_factory.mktemp("large")
    small = load_checkpoint(tiny.save(tiny.random_model(tiny.text_config("llama")), folder / "small"))
    text = replace(
        small.config.text,
        hidden_size=768,
        intermediate_size=3072,
        num_layers=6,
        num_heads=12,
        num_kv_heads=12,
        head_dim=64,
    )
    config = replace(small.config, text=text)
    model = Llava(config)
    checkpoint = replace(small, config=config, model=model)
    save_folder(checkpoint, folder / "float32")
    save_folder(checkpoint, folder / "bfloat16", dtype=torch.bfloat16)
    save_gguf(checkpoint, folder / "F16.gguf", type="F16")
    save_gguf(checkpoint, folder / "Q8_0.gguf", type="Q8_0")
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize(
    ("name", "dtype"),
    [("float32", "as stored"), ("bfloat16", "float32"), ("F16.gguf", "float32"), ("Q8_0.gguf", "as stored")],
)
def test_loading_takes_the_memory_of_the_weights(name: str, dtype: str, large: Path) -> None:
    command = [sys.executable, "-c", MEASURE, str(large / name), str(large / "small"), dtype]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    print(f"{name} as {dtype}: peak memory {float(run.stdout):.2f} of the weights'")
    assert float(run.stdout) <= 1.25


def test_errors_tell_no_paths(tmp_path: Path) -> None:
    (tmp_path / "secret" / "model").mkdir(parents=True)
    (tmp_path / "secret" / "model" / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(tmp_path / "secret" / "model")
    assert not re.search("secret|tmp", str(caught.value))
