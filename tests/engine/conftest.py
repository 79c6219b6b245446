"""A model of random weights, small enough to answer in milliseconds."""

from __future__ import annotations

import pytest
import torch

from lapilli.checkpoints.generation import GenerationDefaults
from lapilli.checkpoints.load import Checkpoint
from lapilli.config import LlavaConfig, TextConfig, VisionConfig
from lapilli.engine.local import LocalModel
from lapilli.inputs.processor import ImageProcessor
from lapilli.inputs.prompt import PromptBuilder
from lapilli.inputs.templates import ChatTemplate
from lapilli.inputs.tokenizer import Tokenizer
from lapilli.model.llava import Llava
from lapilli.training.vocabulary import build_vocabulary


@pytest.fixture(scope="session")
def tiny() -> LocalModel:
    """A LLaVA that speaks nonsense, and always the same: weights drawn wide, so that no two tokens nearly tie."""
    tokenizer = Tokenizer.from_json(
        build_vocabulary(["USER: what is this picture of ASSISTANT: a cat and a dog"] * 3, 400),
        config={"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"},
    )
    config = LlavaConfig(
        text=TextConfig(
            family="llama", vocab_size=tokenizer.vocab_size, hidden_size=48, intermediate_size=96, num_layers=2,
            num_heads=4, num_kv_heads=2, head_dim=12, norm_eps=1e-5, max_positions=96, eos_ids=(2,),
        ),
        vision=VisionConfig(
            family="siglip", hidden_size=32, intermediate_size=64, num_layers=2, num_heads=2, image_size=32,
            patch_size=8, activation="gelu_tanh", norm_eps=1e-6,
        ),
        image_token_id=3, feature_layers=(-1,), drop_class_token=False,
    )  # fmt: skip
    model = Llava(config)
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name and name.endswith("weight"):
                parameter.fill_(1.0)
            else:
                parameter.normal_(0, 0.25, generator=random)
    processor = ImageProcessor.square(32, (0.5,) * 3, (0.5,) * 3, fit="stretch")
    prompts = PromptBuilder(config, tokenizer, processor, ChatTemplate.built_in("llava_hf"))
    return LocalModel(Checkpoint(config, model, prompts, GenerationDefaults()))
