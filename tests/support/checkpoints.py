"""Folders that are almost what transformers saves, and the logits of what is read from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lapilli.checkpoints.load import Checkpoint

CANVASES = [[28, 56], [56, 28], [56, 56], [28, 84], [84, 28]]


@torch.inference_mode()
def our_logits(checkpoint: Checkpoint, tokens: int = 12, tiles: Tensor | None = None, size: Any = (28, 28)) -> Tensor:
    model, config = checkpoint.model, checkpoint.config
    pictures = [] if tiles is None else [(tiles, size)]
    count = config.image_tokens(*size) if pictures else 0
    ids = torch.tensor([[*range(5, 5 + tokens), *[config.image_token_id] * count, 7, 8]])
    embeds = model.embed(ids, model.encode_images(pictures))
    return model.logits(model(embeds, torch.arange(ids.shape[1])[None]))


@torch.inference_mode()
def their_logits(model: Any, tokens: int = 12, tiles: Tensor | None = None, count: int = 0, size: Any = None) -> Tensor:
    ids = torch.tensor([[*range(5, 5 + tokens), *[tiny.IMAGE_TOKEN] * count, 7, 8]])
    options: dict[str, Any] = {}
    if tiles is not None:
        options = {"pixel_values": tiles} if size is None else {"pixel_values": tiles[None], "image_sizes": size}
    return model(ids, **options).logits


def assert_equal_logits(checkpoint: Checkpoint, theirs: Any) -> None:
    tiles = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    count = checkpoint.config.image_tokens(28, 28)
    expected = their_logits(theirs, tiles=tiles, count=count)
    assert float((our_logits(checkpoint, tiles=tiles) - expected).abs().max()) <= 1e-4


def respell(folder: Path, rename: Callable[[str], str | None]) -> None:
    """Write the folder's tensors under other names, leaving out those without one."""
    path = folder / "model.safetensors"
    tensors = {rename(name): value for name, value in load_file(path).items()}
    save_file({name: value for name, value in tensors.items() if name}, path)


def save_llava(folder: Path, **changes: Any) -> Any:
    model = tiny.random_model(tiny.llava_config(tiny.vision_config("clip"), **changes))
    tiny.save(model, folder)
    return model
