"""What every kind of checkpoint gives: all but the numbers read, and those waiting where they lie."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lapilli.checkpoints.generation import GenerationDefaults
from lapilli.checkpoints.weights import Weight
from lapilli.config import LlavaConfig, VisionConfig
from lapilli.errors import CheckpointError
from lapilli.ground.files import open_regular
from lapilli.inputs.prompt import PromptBuilder

_MAX_JSON = 1 << 24
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_HALF = (0.5, 0.5, 0.5)
BICUBIC = 3


@dataclass(frozen=True)
class Source:
    """A checkpoint that is open: `weights` are named as ours, and read when a model is made of them."""

    config: LlavaConfig
    weights: Mapping[str, Weight]
    prompts: PromptBuilder
    generation: GenerationDefaults


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file, empty where there is no such file.

    Raises CheckpointError for what is no JSON object, or larger than any real one.
    """
    try:
        with open_regular(path) as file:
            raw = file.read(_MAX_JSON + 1)
        if len(raw) > _MAX_JSON:
            raise CheckpointError(f"{path.name}: has more than {_MAX_JSON} bytes")
        values = json.loads(raw)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise CheckpointError(f"{path.name}: cannot be read: {(error.strerror or 'unknown error').lower()}") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.name}: is no valid JSON: {str(error)[:120]}") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{path.name}: an object is needed, it holds a {type(values).__name__}")
    return values


def usual_preprocessing(config: LlavaConfig, vision: VisionConfig) -> dict[str, Any]:
    """The `preprocessor_config.json` that a tower of this kind is published with."""
    side, clip = vision.image_size, vision.family == "clip"
    values: dict[str, Any] = {
        "image_processor_type": "CLIPImageProcessor" if clip else "SiglipImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": side} if clip else {"height": side, "width": side},
        "resample": BICUBIC,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(_CLIP_MEAN if clip else _HALF),
        "image_std": list(_CLIP_STD if clip else _HALF),
    }
    if clip:
        values |= {"do_center_crop": True, "crop_size": {"height": side, "width": side}}
    if config.is_next:
        values |= {
            "image_processor_type": "LlavaNextImageProcessor",
            "size": {"shortest_edge": side},
            "do_center_crop": True,
            "crop_size": {"height": side, "width": side},
            "image_grid_pinpoints": [list(canvas) for canvas in config.tile_canvases],
        }
    return values
