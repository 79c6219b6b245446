"""Opening a checkpoint of any kind.

checkpoint = load_checkpoint("llava-1.5-7b-hf")
checkpoint = load_checkpoint("llava-v1.5-7b.Q4_K_M.gguf", projector="mmproj-model-f16.gguf")
checkpoint = load_checkpoint("llava-1.5-7b-hf", quantize="int4")
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
from lapilli.checkpoints.mixture import Quantization, planned
from lapilli.checkpoints.original import is_original, open_original
from lapilli.checkpoints.source import Source, read_object
from lapilli.checkpoints.weights import assemble
from lapilli.config import LlavaConfig
from lapilli.errors import CheckpointError, InputError
from lapilli.inputs.prompt import PromptBuilder
from lapilli.model.llava import Llava


@dataclass(frozen=True)
class Checkpoint:
    """A model with all that is needed to ask it something, and to save it again.

    `left_in_float` are the matrices that `quantize` found no type for.
    """

    config: LlavaConfig
    model: Llava
    prompts: PromptBuilder
    generation: GenerationDefaults
    left_in_float: tuple[str, ...] = ()


def load_checkpoint(
    path: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    projector: str | Path | None = None,
    adapter: str | Path | None = None,
    vision_tower: str | Path | None = None,
    quantize: Quantization | None = None,
    expand: bool | None = None,
) -> Checkpoint:
    """Load a model from a checkpoint folder, or from a GGUF file.

    Where `dtype` is None, weights stay as most of them are stored; on a CPU and without conversion they are the file's
    own pages, read when they are touched. `quantize` brings the matrices of decoder, tower and projector to 8 or 4 bits
    ("int8", "int4") as they are read, one at a time. Quantized ones of a GGUF file stay as they are, unless `expand`
    makes floats of them: by default where a `dtype` is named, and on any device but a CPU. `projector` is the mmproj
    file of a GGUF model, `adapter` a LoRA folder in PEFT's layout, merged in float32 (a quantized matrix is quantized
    again after), and `vision_tower` the CLIP folder that an original LLaVA names.

    Raises CheckpointError, TokenizerError or TemplateError for files that are damaged, incomplete or not known here,
    InputError for a `quantize` that is not to be had.
    """
    on_cpu = torch.device(device).type == "cpu"
    source = open_source(path, projector=projector, adapter=adapter, vision_tower=vision_tower)
    weights, in_float = source.weights, tuple[str, ...]()
    if quantize is not None:
        if not on_cpu:
            raise InputError(f"quantize={quantize!r} runs on a CPU, the device is {device}: leave it out there")
        weights, in_float = planned(weights, source.config, quantize)
    elif expand is None:
        expand = dtype is not None or not on_cpu
    model = assemble(source.config, weights, dtype, device, quantized=not expand)
    return Checkpoint(source.config, model, source.prompts, source.generation, in_float)


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
