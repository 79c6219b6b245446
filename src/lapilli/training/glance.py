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

    def __init__(self, model: Llava, prompts: PromptBuilder, cache: FeatureCache | None) -> None:
        self.model, self.prompts = model, prompts
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
        """The tower's features (T, N, D) of each picture."""
        device = self.model.device
        fresh = [place for place, image in enumerate(images) if image.pixels_TCHW.size]
        found: dict[int, Tensor] = {}
        if fresh:
            pixels_TCHW = torch.from_numpy(np.concatenate([images[place].pixels_TCHW for place in fresh]))
            seen_TND = self.model.see(pixels_TCHW.to(device, self.model.dtype))
            parts = torch.split(seen_TND, [len(images[place].pixels_TCHW) for place in fresh])
            found = dict(zip(fresh, parts, strict=True))
            if self.kept is not None:
                for place in fresh:
                    values_ND = found[place][0].to(torch.bfloat16).cpu().contiguous()
                    features = Features.of(values_ND.view(torch.uint16).numpy(), "bfloat16")
                    self.kept.cache.put(self.kept.key(files[place]), features)
        for place in range(len(images)):
            if place not in found:
                assert self.kept is not None
                kept = self.kept.cache.get(self.kept.key(files[place]))
                # It was there when the sample was made, and a budget may have made it give way since.
                found[place] = self._again(files[place]) if kept is None else _tensor(kept)[None].to(device)
        return [found[place] for place in range(len(images))]

    def _again(self, file: PictureFile) -> Tensor:
        assert self.prompts.image_processor is not None
        image = self.prompts.image_processor.prepare(show(file.read()).image)
        return self.model.see(torch.from_numpy(image.pixels_TCHW).to(self.model.device, self.model.dtype))

    @property
    def _maker(self) -> str:
        assert self.model.vision is not None
        assert self.prompts.image_processor is not None
        digest = hashlib.sha256(repr((self.model.config, self.prompts.image_processor.to_dict())).encode())
        for name, value in self.model.vision.state_dict().items():
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


def _tensor(features: Features) -> Tensor:
    return torch.from_numpy(np.array(features.array())).view(torch.bfloat16)
