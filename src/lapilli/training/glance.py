"""The frozen tower's features, computed once a picture and kept on disk for every further epoch and run.

Where a model has one tile a picture, a kept picture is not even opened again: its size changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lapilli.inputs.chat import ImagePart, show
from lapilli.inputs.processor import ImageInput, ImageProcessor
from lapilli.inputs.prompt import PromptBuilder
from lapilli.model.llava import Llava
from lapilli.store.features import FeatureCache, Features
from lapilli.training.distributed import Ranks
from lapilli.training.talks import PictureFile

_KEPT = "kept"


@dataclass(frozen=True)
class KeptPictures:
    """Features (N, D) of one tile, by what names a picture's content; see `Glance`."""

    cache: FeatureCache
    maker: str
    """What made them: the tower's weights and how pictures are prepared."""

    def key(self, file: PictureFile) -> str:
        return hashlib.sha256(f"{self.maker} {file.key}".encode()).hexdigest()

    def open(self, file: PictureFile) -> ImagePart:
        """The picture, or a mark in its place where its features are kept."""
        if self.cache.get(self.key(file)) is None:
            return show(file.read())
        mark = Image.new("RGB", (1, 1))
        mark.info[_KEPT] = True
        return ImagePart(mark)


class MarkReader:
    """An image processor that lets marks pass, and prepares all else as its own does."""

    def __init__(self, processor: ImageProcessor) -> None:
        self._processor = processor

    def prepare(self, image: Image.Image) -> ImageInput:
        if image.info.get(_KEPT):
            return ImageInput(np.empty((0, 3, 0, 0), dtype=np.float32), 1, 1, "")
        return self._processor.prepare(image)


class Glance:
    """What the tower sees of pictures, several at once; with a cache, each once for all."""

    def __init__(
        self, model: Llava, prompts: PromptBuilder, cache: FeatureCache | None, dtype: torch.dtype = torch.float32
    ) -> None:
        self.model, self.prompts, self.dtype = model, prompts, dtype
        self.together: Ranks | None = None  # who passes through a tower that is shared out, all as often
        one_tile = not model.config.is_next and prompts.image_processor is not None
        self.kept = KeptPictures(cache, self._maker) if cache is not None and one_tile else None

    @cached_property
    def reader(self) -> PromptBuilder:
        """The model's prompts, for pictures that may be marks."""
        processor = self.prompts.image_processor
        if self.kept is None or processor is None:
            return self.prompts
        passing: ImageProcessor = MarkReader(processor)  # type: ignore[assignment]
        return PromptBuilder(self.prompts.config, self.prompts.tokenizer, passing, self.prompts.chat_template)

    @torch.no_grad()
    def tiles(self, images: Sequence[ImageInput], files: Sequence[PictureFile]) -> list[Tensor]:
        """The tower's features (T, N, D) of each picture, the same whether they were kept or not."""
        found: dict[int, Tensor] = {}
        unseen: dict[int, ImageInput] = {}
        for place, (image, file) in enumerate(zip(images, files, strict=True)):
            if image.pixels_TCHW.size:
                unseen[place] = image
                continue
            assert self.kept is not None
            kept = self.kept.cache.get(self.kept.key(file))
            if kept is None:  # it was there when the sample was made, and a budget has made it give way since
                unseen[place] = self._again(file)
            else:
                found[place] = _tensor(kept)[None].to(self.model.device)
        for place, seen_TND in zip(unseen, self._see(list(unseen.values())), strict=True):
            found[place] = seen_TND
            if self.kept is not None:
                self.kept.cache.put(self.kept.key(files[place]), _features(seen_TND[0]))
        return [found[place] for place in range(len(images))]

    def _see(self, images: Sequence[ImageInput]) -> list[Tensor]:
        """On a CPU one picture at a time: there a picture's last bits depend on how many are seen together."""
        device, counts = self.model.device, [len(image.pixels_TCHW) for image in images]
        pixels = [torch.from_numpy(image.pixels_TCHW).to(device, self.model.dtype) for image in images]
        passes = pixels if device.type == "cpu" or not pixels else [torch.cat(pixels)]
        idle = 0 if self.together is None else self.together.most(len(passes)) - len(passes)
        seen = [self.model.see(pixels_TCHW) for pixels_TCHW in passes]
        for _ in range(idle):
            self._blink()
        apart = torch.split(torch.cat(seen), counts) if seen else ()
        return [tiles_TND.to(self.dtype) for tiles_TND in apart]

    def _blink(self) -> None:
        """A pass through the tower that sees nothing, for the company of processes that do."""
        assert self.model.config.vision is not None
        size = self.model.config.vision.image_size
        self.model.see(torch.zeros(1, 3, size, size, device=self.model.device, dtype=self.model.dtype))

    def _again(self, file: PictureFile) -> ImageInput:
        assert self.prompts.image_processor is not None
        return self.prompts.image_processor.prepare(show(file.read()).image)

    @property
    def _maker(self) -> str:
        assert self.model.vision is not None
        assert self.prompts.image_processor is not None
        digest = hashlib.sha256(repr((self.dtype, self.model.config, self.prompts.image_processor.to_dict())).encode())
        for name, value in self.model.vision.state_dict().items():
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


def _features(tile_ND: Tensor) -> Features:
    name, value_ND = str(tile_ND.dtype).removeprefix("torch."), tile_ND.cpu().contiguous()
    return Features.of((value_ND.view(torch.uint16) if name == "bfloat16" else value_ND).numpy(), name)


def _tensor(features: Features) -> Tensor:
    tensor = torch.from_numpy(np.array(features.array()))
    return tensor.view(torch.bfloat16) if features.dtype == "bfloat16" else tensor
