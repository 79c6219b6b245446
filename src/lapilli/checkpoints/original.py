"""Checkpoint folders as the authors of LLaVA write them (https://github.com/haotian-liu/LLaVA).

One flat `config.json` for the decoder and what was joined to it; the tower is named there, and lies in the same files
or in a CLIP folder of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lapilli.checkpoints import names
from lapilli.checkpoints.folder import read_processor, spelt_alike
from lapilli.checkpoints.generation import GenerationDefaults
from lapilli.checkpoints.source import Source, read_object, usual_processor
from lapilli.checkpoints.weights import Weight, placed, read_safetensors
from lapilli.config import LlavaConfig, TextConfig, VisionConfig
from lapilli.errors import CheckpointError
from lapilli.inputs.processor import ImageProcessor
from lapilli.inputs.prompt import PromptBuilder
from lapilli.inputs.templates import ChatTemplate
from lapilli.inputs.tokenizer import Tokenizer

_FAMILIES = {"llava": "llama", "llava_llama": "llama", "llava_mistral": "mistral", "llava_qwen": "qwen2"}
_TEMPLATES = {"llama": "vicuna_v1", "mistral": "mistral_instruct", "qwen2": "chatml"}
_TOWER = "vision_tower.vision_model."


def is_original(values: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is of this kind."""
    return "mm_vision_tower" in values or "mm_projector_type" in values


def open_original(path: Path, values: Mapping[str, Any], vision_tower: Path | None = None) -> Source:
    """Open a folder whose `config.json` holds these values.

    The tower is looked for in `vision_tower`, then in a folder of its name inside or beside `path`.
    Raises CheckpointError where it is nowhere, TokenizerError, TemplateError.
    """
    found = spelt_alike(read_safetensors(path), path.name)
    name = _text(values, "mm_vision_tower", "")
    folder = vision_tower or _find_tower(path, name)
    vision = _read_vision(folder) if folder else _known_vision(found, name, path.name)
    if folder is not None and not any(key.startswith(_TOWER) for key in found):
        found |= _read_tower(folder)
    config = _read_config(values, vision)
    tokenizer = Tokenizer.from_folder(path)
    template = ChatTemplate.from_folder(path) or ChatTemplate.built_in(_TEMPLATES[config.text.family])
    return Source(
        config=config,
        weights=placed(found, names.hugging_face(config.text.family), config, path.name),
        prompts=PromptBuilder(config, tokenizer, _processor(values, config, vision, folder), template),
        generation=GenerationDefaults.from_dict(read_object(path / "generation_config.json")),
    )


def _read_config(values: Mapping[str, Any], vision: VisionConfig) -> LlavaConfig:
    kind = values.get("model_type")
    if kind not in _FAMILIES:
        raise CheckpointError(f"config.json: model_type {kind!r} is not one of {', '.join(_FAMILIES)}")
    if values.get("mm_use_im_start_end"):
        raise CheckpointError("config.json: mm_use_im_start_end puts tokens around pictures, which is not known here")
    text = TextConfig.from_dict({**values, "model_type": _FAMILIES[kind]})
    projector = _text(values, "mm_projector_type", "linear")
    if projector not in ("linear", "mlp2x_gelu"):
        raise CheckpointError(f"config.json: mm_projector_type {projector!r} is not linear or mlp2x_gelu")
    select = _text(values, "mm_vision_select_feature", "patch")
    if select not in ("patch", "cls_patch"):
        raise CheckpointError(f"config.json: mm_vision_select_feature {select!r} is not patch or cls_patch")
    return LlavaConfig(
        text=text,
        vision=vision,
        # This layout has no word for a picture: the first number past the vocabulary stands for one.
        image_token_id=text.vocab_size,
        feature_layers=(_layer(values),),
        drop_class_token=select == "patch" and vision.has_class_token,
        projector="linear" if projector == "linear" else "mlp",
        tile_canvases=_canvases(values),
    )


def _layer(values: Mapping[str, Any]) -> int:
    layer = values.get("mm_vision_select_layer", -2)
    if isinstance(layer, bool) or not isinstance(layer, int):
        raise CheckpointError(f"config.json: mm_vision_select_layer must be a whole number, it is {str(layer)[:40]!r}")
    return layer


def _canvases(values: Mapping[str, Any]) -> tuple[tuple[int, int], ...]:
    """The sizes (height, width) that pictures are tiled to; this layout lists them width first."""
    if values.get("image_aspect_ratio") != "anyres":
        return ()
    merge = values.get("mm_patch_merge_type", "flat")
    if merge != "spatial_unpad":
        raise CheckpointError(f"config.json: mm_patch_merge_type {str(merge)[:40]!r} with anyres is not spatial_unpad")
    pairs = values.get("image_grid_pinpoints")
    if not isinstance(pairs, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(side, int) for side in pair) for pair in pairs
    ):
        raise CheckpointError("config.json: image_grid_pinpoints must be a list of widths and heights")
    return tuple((height, width) for width, height in pairs)


def _processor(
    values: Mapping[str, Any], config: LlavaConfig, vision: VisionConfig, folder: Path | None
) -> ImageProcessor:
    own = usual_processor(config, vision)
    if folder is not None and not config.is_next:
        own = read_processor(folder, config, vision)
    ratio = values.get("image_aspect_ratio") or "square"
    if ratio == "pad":
        return ImageProcessor.square(vision.image_size, own.image_mean, own.image_std, fit="pad")
    if ratio not in ("square", "anyres"):
        raise CheckpointError(f"config.json: image_aspect_ratio {str(ratio)[:40]!r} is not square, pad or anyres")
    return own


def _find_tower(path: Path, name: str) -> Path | None:
    last = name.rstrip("/").rsplit("/", 1)[-1]
    if not last or last in (".", ".."):
        return None
    beside = path.resolve().parent
    wanted = {last, name.replace("/", "--"), name.replace("/", "_")}
    for folder in (path, beside):
        for candidate in sorted(wanted):
            if (folder / candidate / "config.json").is_file():
                return folder / candidate
    return None


def _read_vision(folder: Path) -> VisionConfig:
    values = read_object(folder / "config.json")
    if not values:
        raise CheckpointError(f"{folder.name}: holds no config.json: the folder of a CLIP or SigLIP tower is needed")
    nested = values.get("vision_config")
    if not isinstance(nested, Mapping):
        return VisionConfig.from_dict(values)
    # A whole CLIP does not repeat its family in the half for pictures.
    return VisionConfig.from_dict({"model_type": f"{values.get('model_type', 'clip')}_vision_model", **nested})


def _read_tower(folder: Path) -> dict[str, Weight]:
    """The tower's tensors out of a CLIP folder, as they would be spelt in a LLaVA."""
    tower = {f"vision_tower.{name}": weight for name, weight in read_safetensors(folder).items()}
    return spelt_alike(tower, folder.name)


def _known_vision(found: Mapping[str, Weight], name: str, where: str) -> VisionConfig:
    """The numbers of one of OpenAI's towers, by its tensors: none of those files' configurations is needed."""
    if not re.search(r"(^|/|_)clip-vit-(base|large)-patch\d\d(-336)?$", name):
        raise CheckpointError(
            f"{where}: its tower {name[:80]!r} is not here: give the folder of that model as vision_tower"
        )
    patch, position = (
        found.get(f"{_TOWER}embeddings.{part}.weight") for part in ("patch_embedding", "position_embedding")
    )
    up = found.get(f"{_TOWER}encoder.layers.0.mlp.fc1.weight")
    if patch is None or position is None or up is None or len(patch.shape) != 4 or len(position.shape) != 2:
        raise CheckpointError(
            f"{where}: holds no vision tower, and {name[:80]!r} is not beside it: give its folder as vision_tower"
        )
    size, patch_size = patch.shape[0], patch.shape[-1]
    layers = {key.removeprefix(f"{_TOWER}encoder.layers.").split(".")[0] for key in found if ".encoder.layers." in key}
    return VisionConfig(
        family="clip",
        hidden_size=size,
        intermediate_size=up.shape[0],
        num_layers=len(layers),
        num_heads=size // 64,
        image_size=round((position.shape[0] - 1) ** 0.5) * patch_size,
        patch_size=patch_size,
        activation="quick_gelu",
        norm_eps=1e-5,
    )


def _text(values: Mapping[str, Any], key: str, default: str) -> str:
    value = values.get(key)
    if value is None:
        return default
    if not isinstance(value, str):
        raise CheckpointError(f"config.json: {key} must be text, it is {str(value)[:40]!r}")
    return value
