"""What every kind of checkpoint gives: all but the numbers read, and those waiting where they lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lapilli.checkpoints.generation import GenerationDefaults
from lapilli.checkpoints.objects import read_object as read_object
from lapilli.checkpoints.weights import Weight
from lapilli.config import LlavaConfig, TextConfig, VisionConfig
from lapilli.errors import CheckpointError
from lapilli.inputs.processor import ImageProcessor
from lapilli.inputs.prompt import PromptBuilder
from lapilli.inputs.templates import ChatTemplate
from lapilli.inputs.tokenizer import Tokenizer

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Source:
    """A checkpoint that is open: `weights` are named as ours, and read when a model is made of them."""

    config: LlavaConfig
    weights: Mapping[str, Weight]
    prompts: PromptBuilder
    generation: GenerationDefaults


def usual_processor(config: LlavaConfig, vision: VisionConfig) -> ImageProcessor:
    """How pictures were prepared for a tower of this kind, where a checkpoint does not say."""
    if vision.family == "siglip":
        half = (0.5, 0.5, 0.5)
        return ImageProcessor.square(vision.image_size, half, half, fit="stretch", canvases=config.tile_canvases)
    return ImageProcessor.square(vision.image_size, CLIP_MEAN, CLIP_STD, fit="crop", canvases=config.tile_canvases)


def require_fit(processor: ImageProcessor, config: LlavaConfig, vision: VisionConfig) -> ImageProcessor:
    """The processor, once its pictures are of the size that the tower sees. Raises CheckpointError with both sizes."""
    height, width = processor.output_size
    if (height, width) != (vision.image_size, vision.image_size):
        raise CheckpointError(
            f"preprocessor_config.json makes pictures of {height}x{width}, "
            f"the tower sees {vision.image_size}x{vision.image_size}"
        )
    if processor.canvases != config.tile_canvases:
        raise CheckpointError(
            f"preprocessor_config.json has {len(processor.canvases)} image_grid_pinpoints, "
            f"config.json has {len(config.tile_canvases)} or others: they must be the same"
        )
    return processor


def usual_template(tokenizer: Tokenizer, text: TextConfig) -> ChatTemplate:
    """The format that a model of this kind was most likely taught, where its checkpoint does not say."""
    if text.family == "mistral":
        return ChatTemplate.built_in("mistral_instruct")
    return ChatTemplate.for_vocabulary(tokenizer.special_tokens)
