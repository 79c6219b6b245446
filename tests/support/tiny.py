"""Tiny random models of transformers, saved as real folders: what our own are held against."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    MistralConfig,
    Phi3Config,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    SiglipVisionConfig,
)

SPECIALS = ("<unk>", "<s>", "</s>", "<image>", "<pad>")
VOCABULARY = 256 + len(SPECIALS)
ROWS = 264  # rows of embeddings: a few more than tokens, as in published models
IMAGE_TOKEN = SPECIALS.index("<image>")
FACTORS = [1.0, 1.1, 1.3, 2.0, 3.5, 4.0, 6.0, 7.5]


def text_config(family: str, **changes: Any) -> PretrainedConfig:
    """A decoder of two layers; `changes` are transformers' own names."""
    kind = {"llama": LlamaConfig, "mistral": MistralConfig, "phi3": Phi3Config, "qwen2": Qwen2Config}[family]
    common = {
        "vocab_size": ROWS, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": 1,
        "eos_token_id": 2, "pad_token_id": None, "tie_word_embeddings": False,
    }  # fmt: skip
    return kind(**(common | changes))


def vision_config(family: str, **changes: Any) -> PretrainedConfig:
    """A tower of three layers that sees 28 x 28 pixels in patches of 7."""
    kind = {"clip": CLIPVisionConfig, "siglip": SiglipVisionConfig}[family]
    common = {
        "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 3,
        "image_size": 28, "patch_size": 7,
    }  # fmt: skip
    return kind(**(common | ({"vision_use_head": False} if family == "siglip" else {}) | changes))


def llava_config(vision: PretrainedConfig, text: PretrainedConfig | None = None, **changes: Any) -> PretrainedConfig:
    """A LLaVA, or with `image_grid_pinpoints` a LLaVA-NeXT."""
    kind = LlavaNextConfig if "image_grid_pinpoints" in changes else LlavaConfig
    return kind(
        vision_config=vision, text_config=text or text_config("llama"), image_token_index=IMAGE_TOKEN, **changes
    )


def random_model(config: PretrainedConfig, seed: int = 0) -> PreTrainedModel:
    """A model whose weights are large enough that a mistake anywhere shows in its logits."""
    kinds = {"llava": LlavaForConditionalGeneration, "llava_next": LlavaNextForConditionalGeneration}
    torch.manual_seed(seed)
    config._attn_implementation = "eager"
    kind = kinds.get(config.model_type)
    model = kind(config) if kind else AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                value.copy_(1 + 0.2 * torch.randn_like(value))
            elif value.ndim < 2:
                value.normal_(0, 0.2)
            elif "embed" in name and value.ndim == 2:
                value.normal_(0, 1)
            else:
                value.normal_(0, 1.2 * value[0].numel() ** -0.5)
    model.tie_weights()
    return model.eval()


def save_tokenizer(folder: Path, specials: Sequence[str] = SPECIALS) -> None:
    """A byte-level vocabulary of bytes alone, with the special tokens first."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*specials, *alphabet])}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in specials])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    values: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False, "add_bos_token": True,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(values))


def save(model: PreTrainedModel, folder: Path, **options: Any) -> Path:
    """The model as transformers saves it, with a tokenizer beside it."""
    model.save_pretrained(folder, **options)
    save_tokenizer(folder)
    return folder
