"""`llava-hf/llava-1.5-7b-hf` as its repository lays it out, with random weights; a tensor at a time is in memory."""

from __future__ import annotations

import dataclasses
import itertools
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from llava_package import Sizes, vocabulary

from lapilli.inputs.tokenizer import Tokenizer

FULL = Sizes(ffn=11008, kv_heads=32, context=4096, tower_layers=24, grid=())
SMALL = Sizes(
    layers=2, hidden=64, ffn=128, heads=4, kv_heads=4, words=512, context=512,
    tower_layers=3, tower_hidden=32, tower_ffn=64, tower_heads=2, image=56, grid=(),
)  # fmt: skip
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' ' }}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
_SHARD = 5 << 30


def write_folder(folder: Path, sizes: Sizes) -> None:
    """The repository's files: configurations, tokenizer, template, weights in shards with their index."""
    folder.mkdir(parents=True, exist_ok=True)
    metadata = vocabulary(sizes.words)
    metadata["tokenizer.ggml.tokens"] += ["<image>", "<pad>"]
    metadata["tokenizer.ggml.scores"] = np.array([-float(place) for place in range(sizes.words + 2)], np.float32)
    metadata["tokenizer.ggml.token_type"] += [3, 3]
    Tokenizer.from_gguf(metadata).save(folder, image_token="<image>")
    rows = sizes.words + 64
    for name, value in {
        "config.json": _config(sizes, rows),
        "generation_config.json": {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": sizes.words + 1},
        "preprocessor_config.json": _processor(sizes.image),
        "chat_template.json": {"chat_template": TEMPLATE},
    }.items():
        (folder / name).write_text(json.dumps(value, indent=2))
    _write_shards(folder, list(_tensors(sizes, rows)))


def _config(sizes: Sizes, rows: int) -> dict[str, Any]:
    text = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "max_position_embeddings": sizes.context,
        "rms_norm_eps": 1e-5, "vocab_size": rows, "torch_dtype": "float16",
    }  # fmt: skip
    if sizes != dataclasses.replace(FULL, layers=sizes.layers):
        text |= {
            "hidden_size": sizes.hidden, "intermediate_size": sizes.ffn, "num_attention_heads": sizes.heads,
            "num_key_value_heads": sizes.kv_heads,
        }  # fmt: skip
    if sizes.layers != FULL.layers:
        text["num_hidden_layers"] = sizes.layers
    vision = {
        "hidden_size": sizes.tower_hidden, "image_size": sizes.image, "intermediate_size": sizes.tower_ffn,
        "model_type": "clip_vision_model", "num_attention_heads": sizes.tower_heads,
        "num_hidden_layers": sizes.tower_layers, "patch_size": sizes.patch, "projection_dim": 768, "vocab_size": 32000,
    }  # fmt: skip
    return {
        "architectures": ["LlavaForConditionalGeneration"], "ignore_index": -100, "image_token_index": sizes.words,
        "model_type": "llava", "pad_token_id": sizes.words + 1, "projector_hidden_act": "gelu", "text_config": text,
        "tie_word_embeddings": False, "torch_dtype": "float16", "vision_config": vision, "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
    }  # fmt: skip


def _processor(side: int) -> dict[str, Any]:
    return {
        "crop_size": {"height": side, "width": side}, "do_center_crop": True, "do_convert_rgb": True,
        "do_normalize": True, "do_rescale": True, "do_resize": True, "image_processor_type": "CLIPImageProcessor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
        "processor_class": "LlavaProcessor", "resample": 3, "rescale_factor": 1 / 255, "size": {"shortest_edge": side},
    }  # fmt: skip


def _tensors(sizes: Sizes, rows: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, width, narrow = sizes.hidden, sizes.tower_hidden, sizes.hidden // sizes.heads * sizes.kv_heads

    def both(name: str, *shape: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield f"{name}.weight", shape
        yield f"{name}.bias", shape[:1]

    language, tower = "language_model.model", "vision_tower.vision_model"
    yield f"{language}.embed_tokens.weight", (rows, hidden)
    for n in range(sizes.layers):
        layer = f"{language}.layers.{n}"
        for part, count in (("q", hidden), ("k", narrow), ("v", narrow), ("o", hidden)):
            yield f"{layer}.self_attn.{part}_proj.weight", (count, hidden)
        yield from ((f"{layer}.mlp.{part}_proj.weight", (sizes.ffn, hidden)) for part in ("gate", "up"))
        yield f"{layer}.mlp.down_proj.weight", (hidden, sizes.ffn)
        yield from ((f"{layer}.{part}_layernorm.weight", (hidden,)) for part in ("input", "post_attention"))
    yield f"{language}.norm.weight", (hidden,)
    yield "language_model.lm_head.weight", (rows, hidden)
    yield f"{tower}.embeddings.class_embedding", (width,)
    yield f"{tower}.embeddings.patch_embedding.weight", (width, 3, sizes.patch, sizes.patch)
    yield f"{tower}.embeddings.position_embedding.weight", ((sizes.image // sizes.patch) ** 2 + 1, width)
    yield from both(f"{tower}.pre_layrnorm", width)
    for n in range(sizes.tower_layers):
        layer = f"{tower}.encoder.layers.{n}"
        for part in ("k", "v", "q", "out"):
            yield from both(f"{layer}.self_attn.{part}_proj", width, width)
        yield from both(f"{layer}.layer_norm1", width)
        yield from both(f"{layer}.mlp.fc1", sizes.tower_ffn, width)
        yield from both(f"{layer}.mlp.fc2", width, sizes.tower_ffn)
        yield from both(f"{layer}.layer_norm2", width)
    yield from both(f"{tower}.post_layernorm", width)
    yield from both("multi_modal_projector.linear_1", hidden, width)
    yield from both("multi_modal_projector.linear_2", hidden, hidden)


def _write_shards(folder: Path, tensors: list[tuple[str, tuple[int, ...]]]) -> None:
    ends = itertools.accumulate(2 * int(np.prod(shape)) for _, shape in tensors)
    shards = [
        [tensor for tensor, _ in group]
        for _, group in itertools.groupby(zip(tensors, ends, strict=True), key=lambda pair: (pair[1] - 1) // _SHARD)
    ]
    random, places = np.random.default_rng(3), {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        places |= {tensor: name for tensor, _ in shard}
        header, at = {}, 0
        for tensor, shape in shard:
            size = 2 * int(np.prod(shape))
            header[tensor] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at + size]}
            at += size
        text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
        text += b" " * (-len(text) % 8)
        with (folder / name).open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for tensor, shape in shard:
                file.write(_values(random, tensor, shape).data)
    total = sum(2 * int(np.prod(shape)) for _, shape in tensors)
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _values(random: np.random.Generator, name: str, shape: tuple[int, ...]) -> Any:
    if len(shape) == 1:
        return np.full(shape, 1 if "norm" in name and name.endswith("weight") else 0, np.float16)
    scale = np.float32(np.prod(shape[1:]) ** -0.5)
    return (random.standard_normal(shape, np.float32) * scale).astype(np.float16)
