"""What is saved here opens elsewhere, and comes back the same bit for bit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoProcessor,
    AutoTokenizer,
    LlavaForConditionalGeneration,
    LlavaNextForConditionalGeneration,
)
from transformers.utils.chat_template_utils import render_jinja_template

from lapilli.checkpoints.generation import GenerationDefaults
from lapilli.checkpoints.gguf import read_gguf
from lapilli.checkpoints.load import Checkpoint, load_checkpoint
from lapilli.checkpoints.save import save_folder, save_gguf
from lapilli.checkpoints.template import jinja_source
from lapilli.errors import CheckpointError, InputError
from lapilli.inputs.chat import Message, TextPart, conversation
from lapilli.inputs.formats import FORMATS
from lapilli.inputs.prompt import PromptBuilder
from lapilli.inputs.templates import ChatTemplate
from lapilli.model.llava import Llava

CANVASES = [[28, 56], [56, 28], [56, 56]]
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 1e4, "short_factor": tiny.FACTORS, "long_factor": tiny.FACTORS,
    "original_max_position_embeddings": 32,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 32}
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "rope_theta": 5e5, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip

FAMILIES: dict[str, Any] = {
    "llama": tiny.text_config("llama"),
    "llama-tied": tiny.text_config("llama", tie_word_embeddings=True),
    "llama-biases": tiny.text_config("llama", attention_bias=True, mlp_bias=True),
    "llama-llama3": tiny.text_config("llama", rope_parameters=LLAMA3),
    "llama-yarn": tiny.text_config("llama", rope_parameters=YARN),
    "mistral": tiny.text_config("mistral", sliding_window=16),
    "phi3": tiny.text_config("phi3", rope_parameters=LONGROPE, original_max_position_embeddings=32),
    "qwen2": tiny.text_config("qwen2", use_sliding_window=True, sliding_window=16, max_window_layers=1),
    "clip": tiny.llava_config(tiny.vision_config("clip")),
    "clip-layers": tiny.llava_config(tiny.vision_config("clip"), vision_feature_layer=[-3, -1]),
    "clip-full": tiny.llava_config(tiny.vision_config("clip"), vision_feature_select_strategy="full"),
    "siglip": tiny.llava_config(
        tiny.vision_config("siglip"), vision_feature_layer=-1, vision_feature_select_strategy="full"
    ),
    "siglip-phi3": tiny.llava_config(
        tiny.vision_config("siglip"), tiny.text_config("phi3"), vision_feature_select_strategy="full"
    ),
    "next": tiny.llava_config(tiny.vision_config("clip"), image_grid_pinpoints=CANVASES),
}
GGUF_FAMILIES = [name for name in FAMILIES if name != "clip-full"]


def load_tiny(name: str, folder: Path) -> Checkpoint:
    return load_checkpoint(tiny.save(tiny.random_model(FAMILIES[name]), folder))


def assert_same(ours: Llava, theirs: Llava, *, but: str = "none") -> None:
    left, right = dict(ours.named_parameters()), dict(theirs.named_parameters())
    assert left.keys() == right.keys()
    for name, value in left.items():
        if but not in name:
            assert value.dtype == right[name].dtype
            assert torch.equal(value, right[name]), name


def picture(height: int, width: int) -> Image.Image:
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@torch.inference_mode()
def our_logits(checkpoint: Checkpoint, text: str, image: Image.Image | None) -> Tensor:
    model = checkpoint.model
    prompt = checkpoint.prompts.raw(text, [image] if image else [])
    ids = torch.tensor([prompt.token_ids])
    pictures = [(torch.from_numpy(item.pixels_TCHW), (item.height, item.width)) for item in prompt.images]
    embeds = model.embed(ids, model.encode_images(pictures))
    return model.logits(model(embeds, torch.arange(ids.shape[1])[None]))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_saved_folder_comes_back_the_same(name: str, tmp_path: Path) -> None:
    checkpoint = load_tiny(name, tmp_path / "theirs")
    save_folder(checkpoint, tmp_path / "ours")
    again = load_checkpoint(tmp_path / "ours")
    assert again.config == checkpoint.config
    assert again.generation == checkpoint.generation
    assert_same(again.model, checkpoint.model)


@pytest.mark.parametrize("name", FAMILIES)
@torch.inference_mode()
def test_a_saved_folder_opens_in_transformers(name: str, tmp_path: Path) -> None:
    checkpoint = load_tiny(name, tmp_path / "theirs")
    save_folder(checkpoint, tmp_path / "ours")
    text, image = "USER: <image>\nWhat is this? ASSISTANT:", picture(40, 31)
    if checkpoint.config.vision is None:
        model, loading = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
        text = text.replace("<image>", "")
        ids = AutoTokenizer.from_pretrained(tmp_path / "ours")(text, return_tensors="pt").input_ids
        assert ids[0].tolist() == checkpoint.prompts.raw(text).token_ids
        expected, ours = model(ids).logits, our_logits(checkpoint, text, None)
    else:
        kind = LlavaNextForConditionalGeneration if name == "next" else LlavaForConditionalGeneration
        model, loading = kind.from_pretrained(tmp_path / "ours", output_loading_info=True)
        inputs = AutoProcessor.from_pretrained(tmp_path / "ours")(images=image, text=text, return_tensors="pt")
        assert inputs.input_ids[0].tolist() == checkpoint.prompts.raw(text, [image]).token_ids
        expected, ours = model(**inputs).logits, our_logits(checkpoint, text, image)
    assert not any(loading.values()), loading
    assert float((ours - expected).abs().max()) <= 1e-4


@pytest.mark.parametrize("name", GGUF_FAMILIES)
def test_saved_gguf_comes_back_the_same(name: str, tmp_path: Path) -> None:
    checkpoint = load_tiny(name, tmp_path / "theirs")
    mmproj = tmp_path / "mmproj.gguf" if checkpoint.config.vision else None
    save_gguf(checkpoint, tmp_path / "model.gguf", mmproj, type="F32")
    again = load_checkpoint(tmp_path / "model.gguf", projector=mmproj)
    # The last norm of a tower is not read, and not written.
    assert_same(again.model, checkpoint.model, but="norm_post")
    text, image = "USER: <image>\nWhat is this? ASSISTANT:", picture(28, 28)
    text, image = (text, image) if mmproj else (text.replace("<image>", ""), None)
    ours = our_logits(again, text, image)
    assert float((ours - our_logits(checkpoint, text, image)).abs().max()) <= 1e-5


@pytest.mark.parametrize("type", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"])
def test_each_type_is_near_what_it_stores(type: str, tmp_path: Path) -> None:
    config = tiny.text_config("llama", hidden_size=256, intermediate_size=256, num_hidden_layers=1)
    checkpoint = load_checkpoint(tiny.save(tiny.random_model(config), tmp_path / "theirs"))
    save_gguf(checkpoint, tmp_path / "model.gguf", type=type)
    stored = {tensor.type for tensor in read_gguf(tmp_path / "model.gguf").tensors.values()}
    assert stored == {type, "F32"}
    again = load_checkpoint(tmp_path / "model.gguf", expand=True)
    assert again.model.dtype == {"F16": torch.float16, "BF16": torch.bfloat16}.get(type, torch.float32)
    bits = {"F16": 11, "BF16": 8}.get(type) or int(type[1])
    for name, value in checkpoint.model.state_dict().items():
        found = again.model.state_dict()[name].float()
        largest = value.abs().max()
        assert float((found - value).abs().max()) <= 4 * largest / 2**bits, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_type_asked_for_is_saved(dtype: torch.dtype, tmp_path: Path) -> None:
    checkpoint = load_tiny("clip", tmp_path / "theirs")
    save_folder(checkpoint, tmp_path / "ours", dtype=dtype)
    again = load_checkpoint(tmp_path / "ours")
    assert again.model.dtype == dtype
    assert_same(again.model, checkpoint.model.to(dtype))
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["dtype"] == str(dtype)[6:]


def test_shards_hold_all_and_come_back(tmp_path: Path) -> None:
    checkpoint = load_tiny("clip", tmp_path / "theirs")
    save_folder(checkpoint, tmp_path / "ours", shard_bytes=100_000)
    sizes = [path.stat().st_size for path in (tmp_path / "ours").glob("model-*-of-*.safetensors")]
    assert len(sizes) > 2
    assert max(sizes) < 110_000
    assert_same(load_checkpoint(tmp_path / "ours").model, checkpoint.model)
    assert LlavaForConditionalGeneration.from_pretrained(tmp_path / "ours") is not None


def test_a_folder_is_replaced_only_when_asked(tmp_path: Path) -> None:
    checkpoint = load_tiny("llama", tmp_path / "theirs")
    with pytest.raises(InputError, match="already holds files"):
        save_folder(checkpoint, tmp_path / "theirs")
    save_folder(checkpoint, tmp_path / "theirs", dtype=torch.bfloat16, replace=True)
    assert load_checkpoint(tmp_path / "theirs").model.dtype == torch.bfloat16
    assert float(our_logits(checkpoint, "still mapped", None).abs().max()) > 0


def test_what_a_checkpoint_recommends_is_kept(tmp_path: Path) -> None:
    checkpoint = load_tiny("llama", tmp_path / "theirs")
    drawn = GenerationDefaults(temperature=0.6, top_k=40, top_p=0.9, min_p=0.05, repetition_penalty=1.1)
    save_folder(replace(checkpoint, generation=drawn), tmp_path / "ours")
    assert load_checkpoint(tmp_path / "ours").generation == drawn


def single_linear(checkpoint: Checkpoint) -> Checkpoint:
    """The same model, with the projector of the first LLaVA."""
    config = replace(checkpoint.config, projector="linear")
    model = Llava(config)
    model.load_state_dict({k: v for k, v in checkpoint.model.state_dict().items() if "linear_2" not in k})
    prompts = checkpoint.prompts
    builder = PromptBuilder(config, prompts.tokenizer, prompts.image_processor, prompts.chat_template)
    return Checkpoint(config, model.eval(), builder, checkpoint.generation)


@torch.inference_mode()
def test_a_single_linear_projector_leaves_as_two_and_as_one(tmp_path: Path) -> None:
    checkpoint = single_linear(load_tiny("siglip", tmp_path / "theirs"))
    save_folder(checkpoint, tmp_path / "ours")
    text, image = "<image> Well?", picture(28, 28)
    theirs = LlavaForConditionalGeneration.from_pretrained(tmp_path / "ours")
    inputs = AutoProcessor.from_pretrained(tmp_path / "ours")(images=image, text=text, return_tensors="pt")
    expected = our_logits(checkpoint, text, image)
    assert float((theirs(**inputs).logits - expected).abs().max()) <= 1e-4
    twofold = load_checkpoint(tmp_path / "ours")
    assert torch.equal(our_logits(twofold, text, image), expected)
    for source in (checkpoint, twofold):
        save_gguf(source, tmp_path / "model.gguf", tmp_path / "mmproj.gguf", type="F32")
        assert not any(name.startswith("mm.2") for name in read_gguf(tmp_path / "mmproj.gguf").tensors)
        again = load_checkpoint(tmp_path / "model.gguf", projector=tmp_path / "mmproj.gguf")
        assert again.config.projector == "linear"
        assert float((our_logits(again, text, image) - expected).abs().max()) <= 1e-5


@pytest.mark.parametrize("tokens", [tiny.SPECIALS[:3], ("<unk>", "<s>", "</s>", "<a>", "<b>", "<c>", "<d>", "<e>")])
@torch.inference_mode()
def test_a_vocabulary_without_a_word_for_pictures_gets_one(tokens: tuple[str, ...], tmp_path: Path) -> None:
    """Where there are unused rows one is taken, else rows are added; the answer is the same."""
    named = load_tiny("clip", tmp_path / "theirs")
    tiny.save_tokenizer(tmp_path / "theirs", tokens)
    (tmp_path / "theirs" / "config.json").write_text(
        json.dumps({**named.config.to_dict(), "image_token_index": tiny.ROWS})
    )
    checkpoint = load_checkpoint(tmp_path / "theirs")
    assert checkpoint.config.image_token_id == tiny.ROWS == checkpoint.config.text.vocab_size
    save_folder(checkpoint, tmp_path / "ours")
    again = load_checkpoint(tmp_path / "ours")
    assert again.prompts.tokenizer.token_id("<image>") == again.config.image_token_id == len(tokens) + 256
    text, image = "<image> Well?", picture(28, 28)
    expected = our_logits(checkpoint, text, image)
    ours = our_logits(again, text, image)
    assert torch.equal(ours.argmax(-1), expected.argmax(-1))
    assert float((ours[..., : tiny.ROWS] - expected).abs().max()) <= 1e-4
    inputs = AutoProcessor.from_pretrained(tmp_path / "ours")(images=image, text=text, return_tensors="pt")
    theirs = LlavaForConditionalGeneration.from_pretrained(tmp_path / "ours")(**inputs).logits
    assert float((theirs - ours).abs().max()) <= 1e-4


@pytest.mark.parametrize("name", FORMATS)
def test_a_built_in_format_leaves_as_a_template(name: str) -> None:
    form = ChatTemplate.built_in(name)
    asked = conversation("What is {{ this }}?\n", [picture(3, 3), picture(4, 4)])
    answered = [*asked, Message("assistant", (TextPart("A cat."),)), *conversation("Sure?", [])]
    for messages in (asked, answered, [Message("system", (TextPart("Be brief."),)), *answered]):
        for cue in (True, False):
            [written], _ = render_jinja_template(
                conversations=[[as_transformers_has_it(message) for message in messages]],
                chat_template=jinja_source(form),
                add_generation_prompt=cue,
            )
            segments = form.render(messages, add_generation_prompt=cue)
            assert written == "".join(getattr(segment, "text", "<image>") for segment in segments)


def as_transformers_has_it(message: Message) -> dict[str, Any]:
    parts = [
        {"type": "text", "text": part.text} if isinstance(part, TextPart) else {"type": "image"}
        for part in message.parts
    ]
    alone = len(parts) == 1 and "text" in parts[0]
    return {"role": message.role, "content": parts[0]["text"] if alone else parts}


def test_a_saved_format_is_read_again(tmp_path: Path) -> None:
    checkpoint = load_tiny("clip", tmp_path / "theirs")
    save_folder(checkpoint, tmp_path / "ours")
    asked = conversation("What is this?", [picture(28, 28)])
    expected = checkpoint.prompts.chat(asked).token_ids
    assert load_checkpoint(tmp_path / "ours").prompts.chat(asked).token_ids == expected


def test_what_llama_cpp_would_compute_otherwise_is_refused(tmp_path: Path) -> None:
    full = load_tiny("clip-full", tmp_path / "full")
    with pytest.raises(CheckpointError, match="class token"):
        save_gguf(full, tmp_path / "model.gguf", tmp_path / "mmproj.gguf")
    with pytest.raises(InputError, match="mmproj_path"):
        save_gguf(full, tmp_path / "model.gguf")
    assert not list(tmp_path.glob("*.gguf"))
