"""Opening a checkpoint of any kind: `checkpoint = load_checkpoint("llava-1.5-7b-hf")`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from lapilli.checkpoints.folder import open_folder
from lapilli.checkpoints.generation import GenerationDefaults
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
) -> Checkpoint:
    """Load a checkpoint folder. Where `dtype` is None, weights stay as most of them are stored.

    On a CPU and without conversion, the weights are the file's own pages, read when they are touched.
    Raises CheckpointError.
    """
    source = _open(Path(path))
    return Checkpoint(
        source.config, assemble(source.config, source.weights, dtype, device), source.prompts, source.generation
    )


def _open(path: Path) -> Source:
    values = read_object(path / "config.json")
    if not values:
        raise CheckpointError(f"{path.name}: holds no config.json")
    return open_folder(path, values)
