"""Checkpoint folders as transformers writes them: `llava-hf` in all its spellings, and decoders alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lapilli.checkpoints import names
from lapilli.checkpoints.generation import GenerationDefaults
from lapilli.checkpoints.source import Source, read_object, usual_preprocessing
from lapilli.checkpoints.weights import Weight, placed, read_safetensors
from lapilli.config import LlavaConfig
from lapilli.errors import CheckpointError
from lapilli.inputs.images import ImageProcessor
from lapilli.inputs.prompt import PromptBuilder
from lapilli.inputs.templates import ChatTemplate
from lapilli.inputs.tokenizer import Tokenizer


def open_folder(path: Path, values: Mapping[str, Any]) -> Source:
    """Open a folder whose `config.json` holds these values. Raises CheckpointError, TokenizerError, TemplateError."""
    config = LlavaConfig.from_dict(values)
    found = spelt_alike(read_safetensors(path), path.name)
    return Source(
        config=config,
        weights=placed(found, names.hugging_face(config.text.family), config, path.name),
        prompts=PromptBuilder(config, *_inputs(path, config)),
        generation=GenerationDefaults.from_dict(read_object(path / "generation_config.json")),
    )


def spelt_alike(found: Mapping[str, Weight], where: str) -> dict[str, Weight]:
    """The tensors under the first of the spellings that their names have had."""
    alike: dict[str, Weight] = {}
    for name, weight in found.items():
        first = names.spelt_first(name)
        if first in alike:
            raise CheckpointError(f"{where}: {first} is there twice, once as {name}")
        alike[first] = weight
    return alike


def read_preprocessing(path: Path) -> dict[str, Any]:
    """What a folder says of its pictures: in a file of its own, or (transformers 5) within the processor's."""
    own = read_object(path / "preprocessor_config.json")
    if own:
        return own
    nested = read_object(path / "processor_config.json").get("image_processor", {})
    if not isinstance(nested, dict):
        raise CheckpointError(f"processor_config.json: image_processor must be an object, it is {str(nested)[:40]!r}")
    return nested


def _inputs(path: Path, config: LlavaConfig) -> tuple[Tokenizer, ImageProcessor | None, ChatTemplate]:
    tokenizer = Tokenizer.from_folder(path)
    template = ChatTemplate.from_folder(path) or _usual_template(tokenizer, config)
    if config.vision is None:
        return tokenizer, None, template
    pixels = read_preprocessing(path) or usual_preprocessing(config, config.vision)
    return tokenizer, ImageProcessor.from_dict(pixels), template


def _usual_template(tokenizer: Tokenizer, config: LlavaConfig) -> ChatTemplate:
    if config.text.family == "mistral":
        return ChatTemplate.built_in("mistral_instruct")
    return ChatTemplate.for_vocabulary(tokenizer.special_tokens)
