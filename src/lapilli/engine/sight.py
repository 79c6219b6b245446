"""What a model sees: the projected features of a picture, encoded once and kept by content."""

from __future__ import annotations

import hashlib
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from lapilli.inputs.processor import ImageInput
from lapilli.model.llava import Llava
from lapilli.store.features import FeatureCache, Features, feature_key


class Sight:
    """Features (N, D) of pictures, from the cache or from the tower; one picture at a time, so always in one shape."""

    def __init__(self, model: Llava, cache: FeatureCache) -> None:
        self.model, self.cache = model, cache
        self.encoded = 0

    def features(self, image: ImageInput) -> Tensor:
        """What stands in the prompt for this picture."""
        key = feature_key(image.pixels_TCHW, image.height, image.width, self._digest)
        kept = self.cache.get(key)
        if kept is not None:
            return _to_tensor(kept).to(self.model.device, self.model.dtype)
        pixels_TCHW = torch.from_numpy(image.pixels_TCHW)
        (features_ND,) = self.model.encode_images([(pixels_TCHW, (image.height, image.width))])
        self.encoded += 1
        self.cache.put(key, _from_tensor(features_ND))
        return features_ND

    @cached_property
    def _digest(self) -> str:
        """What encodes and projects: the configuration and every weight of tower and projector, in their type."""
        digest = hashlib.sha256(repr(self.model.config).encode())
        for part in (self.model.vision, self.model.projector):
            if part is not None:
                for name, value in part.state_dict(keep_vars=False).items():
                    digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
                    digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        if self.model.newline is not None:
            digest.update(self.model.newline.detach().float().cpu().numpy().tobytes())
        return digest.hexdigest()


def _from_tensor(features_ND: Tensor) -> Features:
    name = str(features_ND.dtype).removeprefix("torch.")
    bits_ND = features_ND.detach().cpu().contiguous()
    array = bits_ND.view(torch.uint16).numpy() if name == "bfloat16" else bits_ND.numpy()
    return Features.of(array, name)


def _to_tensor(features: Features) -> Tensor:
    array = np.array(features.array())  # a copy that may be written on
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if features.dtype == "bfloat16" else tensor
