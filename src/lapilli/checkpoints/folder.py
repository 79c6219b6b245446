"""Checkpoint folders as transformers writes them: `llava-hf` in all its spellings, and decoders alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lapilli.checkpoints import names
from lapilli.checkpoints.generation import GenerationDefaults
from lapilli.checkpoints.source import Source, read_object, require_fit, usual_processor, usual_template
from lapilli.checkpoints.weights import Weight, placed, read_safetensors
from lapilli.config import LlavaConfig, VisionConfig
from lapilli.errors import CheckpointError
from lapilli.inputs.processor import ImageProcessor
from lapilli.inputs.prompt import PromptBuilder
from lapilli.inputs.templates import ChatTemplate
from lapilli.inputs.tokenizer import Tokenizer


def open_folder(path: Path, values: Mapping[str, Any]) -> Source:
    """Open a folder whose `config.json` holds these values. Raises CheckpointError, TokenizerError, TemplateError."""
    config = LlavaConfig.from_dict(values)
    found = spelt_alike(read_safetensors(path), path.name)
    weights = placed(found, names.hugging_face(config.text.family), config, path.name)
    tokenizer = Tokenizer.from_folder(path)
    template = ChatTemplate.from_folder(path) or usual_template(tokenizer, config.text)
    processor = read_processor(path, config, config.vision) if config.vision else None
    return Source(
        config=config,
        weights=weights,
        prompts=PromptBuilder(config, tokenizer, processor, template),
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


def read_processor(path: Path, config: LlavaConfig, vision: VisionConfig) -> ImageProcessor:
    """How a folder wants its pictures: in a file of its own, or (transformers 5) within the processor's."""
    own = read_object(path / "preprocessor_config.json")
    values = own or read_object(path / "processor_config.json").get("image_processor")
    if values is None:
        return usual_processor(config, vision)
    if not isinstance(values, Mapping):
        raise CheckpointError(f"processor_config.json: image_processor must be an object, it is {str(values)[:40]!r}")
    return require_fit(ImageProcessor.from_dict(values), config, vision)
