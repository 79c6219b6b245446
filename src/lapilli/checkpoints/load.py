"""Opening a checkpoint of any kind.

checkpoint = load_checkpoint("llava-1.5-7b-hf")
checkpoint = load_checkpoint("llava-v1.5-7b.Q4_K_M.gguf", projector="mmproj-model-f16.gguf")
checkpoint = load_checkpoint("llava-v1.5-7b", vision_tower="clip-vit-large-patch14-336", adapter="my-lora")
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from lapilli.checkpoints.adapter import merge_adapter
from lapilli.checkpoints.folder import open_folder
from lapilli.checkpoints.generation import GenerationDefaults
from lapilli.checkpoints.gguf_llava import open_gguf
from lapilli.checkpoints.original import is_original, open_original
from lapilli.checkpoints.source import Source, read_object
from lapilli.checkpoints.weights import assemble
from lapilli.config import LlavaConfig
from lapilli.errors import CheckpointError
from lapilli.inputs.prompt import PromptBuilder
from lapilli.model.llava import Llava


@dataclass(frozen=True)
class Checkpoint:
    """A model with all that is needed to ask it something, and to save it again."""

    config: LlavaConfig
    model: Llava
    prompts: PromptBuilder
    generation: GenerationDefaults


def load_checkpoint(
    path: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    projector: str | Path | None = None,
    adapter: str | Path | None = None,
    vision_tower: str | Path | None = None,
) -> Checkpoint:
    """Load a model from a checkpoint folder, or from a GGUF file.

    Where `dtype` is None, weights stay as most of them are stored; quantized ones become float32. On a CPU and without
    conversion they are the file's own pages, read when they are touched. `projector` is the mmproj file of a GGUF
    model, `adapter` a LoRA folder in PEFT's layout, merged in float32, and `vision_tower` the CLIP folder that an
    original LLaVA names.

    Raises CheckpointError, TokenizerError or TemplateError for files that are damaged, incomplete or not known here.
    """
    source = open_source(path, projector=projector, adapter=adapter, vision_tower=vision_tower)
    model = assemble(source.config, source.weights, dtype, device)
    return Checkpoint(source.config, model, source.prompts, source.generation)


def open_source(
    path: str | Path,
    *,
    projector: str | Path | None = None,
    adapter: str | Path | None = None,
    vision_tower: str | Path | None = None,
) -> Source:
    """Open a checkpoint of any kind, its weights left where they lie; the arguments are those of `load_checkpoint`."""
    source = _open(Path(path), _path(projector), _path(vision_tower))
    return source if adapter is None else merge_adapter(source, Path(adapter))


def _open(path: Path, projector: Path | None, vision_tower: Path | None) -> Source:
    if path.is_file():
        return open_gguf(path, projector)
    if projector is not None:
        raise CheckpointError(f"{path.name}: a projector file goes with a GGUF model, a folder holds its own")
    values = read_object(path / "config.json")
    if not values:
        raise CheckpointError(f"{path.name}: is neither a GGUF file nor a folder with a config.json")
    if is_original(values):
        return open_original(path, values, vision_tower)
    if vision_tower is not None:
        raise CheckpointError(f"{path.name}: holds its own vision tower, none can be given beside it")
    return open_folder(path, values)


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)
