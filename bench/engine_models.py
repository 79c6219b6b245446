"""Checkpoints of true size with random weights, for benches; every byte is read as a real one's is."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch

from lapilli.checkpoints.generation import GenerationDefaults
from lapilli.checkpoints.load import Checkpoint, load_checkpoint
from lapilli.checkpoints.save import save_folder
from lapilli.config import LlavaConfig, TextConfig, VisionConfig
from lapilli.inputs.processor import ImageProcessor
from lapilli.inputs.prompt import PromptBuilder
from lapilli.inputs.templates import ChatTemplate
from lapilli.inputs.tokenizer import Tokenizer
from lapilli.model.llava import Llava
from lapilli.store.reference import resolve


def llava_1b(folder: Path, *, layers: int = 22, tower_layers: int = 24) -> Path:
    """LLaVA-1.5 with CLIP ViT-L/14-336 and a Llama decoder of 1.1 B (2048 wide, 32 and 4 heads), in bfloat16."""
    if (folder / "config.json").exists():
        return folder
    config = LlavaConfig(
        text=TextConfig(
            family="llama", vocab_size=32000, hidden_size=2048, intermediate_size=5632, num_layers=layers,
            num_heads=32, num_kv_heads=4, head_dim=64, norm_eps=1e-5, max_positions=4096, bos_id=1, eos_ids=(2,),
        ),
        vision=VisionConfig(
            family="clip", hidden_size=1024, intermediate_size=4096, num_layers=tower_layers, num_heads=16,
            image_size=336, patch_size=14, activation="quick_gelu", norm_eps=1e-5,
        ),
        image_token_id=3, feature_layers=(-2,), drop_class_token=True,
    )  # fmt: skip
    prompts = PromptBuilder(
        config,
        _padded(load_checkpoint(resolve("mini").path).prompts.tokenizer, config.text.vocab_size),
        ImageProcessor.square(336, (0.5,) * 3, (0.5,) * 3, fit="pad"),
        ChatTemplate.built_in("llava_hf"),
    )
    save_folder(Checkpoint(config, _random(config), prompts, GenerationDefaults()), folder, dtype=torch.bfloat16)
    return folder


def _random(config: LlavaConfig) -> Llava:
    """Weights of a normal size, so that activations stay of one; the head wide, so that no two tokens nearly tie."""
    with torch.device("meta"):
        model = Llava(config)
    model = model.to_empty(device="cpu").to(torch.bfloat16).eval()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            if parameter.ndim == 1:
                parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
            else:
                parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
    return model


def _padded(tokenizer: Tokenizer, size: int) -> Tokenizer:
    """The tokenizer with words that are never used, up to the size of the vocabulary."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        path = Path(folder, "tokenizer.json")
        document = json.loads(path.read_text(encoding="utf-8"))
        words = document["model"]["vocab"]
        for number in range(len(words), size):
            words[f"unused{number}"] = number
        path.write_text(json.dumps(document), encoding="utf-8")
        return Tokenizer.from_folder(folder)
