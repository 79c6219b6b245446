"""From a picture to what a vision tower eats, as the checkpoint's `preprocessor_config.json` says.

Shapes: T tiles, H height, W width, C the channels red, green, blue.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from lapilli.config import select_canvas
from lapilli.errors import CheckpointError
from lapilli.inputs.images import open_image
from lapilli.inputs.resample import Line, resample_window


@dataclass(frozen=True, eq=False)
class ImageInput:
    """What the vision tower eats of one picture: tiles, and the size of the picture they came from.

    `digest` is the same for two pictures only where tiles, sizes and preprocessing are the same.
    """

    pixels_TCHW: npt.NDArray[np.float32]
    height: int
    width: int
    digest: str


Kind = Literal["CLIPImageProcessor", "SiglipImageProcessor", "LlavaImageProcessor", "LlavaNextImageProcessor"]
Triple = tuple[float, float, float]

_CLIP_MEAN: Triple = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD: Triple = (0.26862954, 0.26130258, 0.27577711)
_CLIP_DEFAULTS: dict[str, Any] = {
    "size": {"shortest_edge": 224}, "crop_size": 224, "do_center_crop": True,
    "image_mean": _CLIP_MEAN, "image_std": _CLIP_STD, "do_pad": False,
}  # fmt: skip
_DEFAULTS: dict[Kind, dict[str, Any]] = {
    "CLIPImageProcessor": _CLIP_DEFAULTS,
    "SiglipImageProcessor": {
        "size": {"height": 224, "width": 224}, "crop_size": None, "do_center_crop": False,
        "image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5), "do_pad": False,
    },
    "LlavaImageProcessor": _CLIP_DEFAULTS,
    "LlavaNextImageProcessor": {
        **_CLIP_DEFAULTS, "do_pad": True,
        "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
    },
}  # fmt: skip
_COMMON_DEFAULTS: dict[str, Any] = {
    "do_resize": True, "resample": 3, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
    "default_to_square": False, "image_grid_pinpoints": (),
}  # fmt: skip
# The others pad batches alone, LLaVA-NeXT the number of tiles in one.
_PADDING_KINDS = ("LlavaImageProcessor", "LlavaNextImageProcessor")
# Keys that say nothing about one picture's pixels: names, batching, and what the text side reads.
_IDLE_KEYS = frozenset({
    "image_processor_type", "feature_extractor_type", "processor_class", "_valid_processor_keys", "do_convert_rgb",
    "data_format", "input_data_format", "return_tensors", "device", "disable_grouping", "image_seq_length",
    "patch_size", "image_token", "vision_feature_select_strategy", "num_additional_image_tokens",
})  # fmt: skip
_WHERE = "preprocessor_config.json"
_LARGEST_SIDE = 4096
_MOST_CANVASES = 256
# Padded or resized pictures beyond these are never made whole; only the window that is kept.
_WHOLE_CANVAS = 64_000_000
_WHOLE_RESIZED = 16_777_216


@dataclass(frozen=True, kw_only=True)
class ImageProcessor:
    """How a picture becomes the tiles that a vision tower was trained on, as `preprocessor_config.json` says it.

    `size` is the length of the shorter side, or (height, width). `pad` makes pictures square with the mean colour.
    `canvases` (height, width) are the sizes that LLaVA-NeXT cuts into tiles of `crop_size`.
    """

    kind: Kind
    do_resize: bool
    size: int | tuple[int, int]
    resample: int
    do_center_crop: bool
    crop_size: tuple[int, int] | None
    do_rescale: bool
    rescale_factor: float
    do_normalize: bool
    image_mean: Triple
    image_std: Triple
    do_pad: bool
    canvases: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if self.do_center_crop and self.crop_size is None:
            raise CheckpointError(f"{_WHERE}: do_center_crop needs crop_size")
        squared = self.pads_to_square or self.kind == "LlavaNextImageProcessor"
        if not self.do_center_crop and not (self.do_resize and (squared or isinstance(self.size, tuple))):
            raise CheckpointError(
                f"{_WHERE}: pictures would come out in different sizes; "
                "set do_center_crop with crop_size, or do_resize with size as height and width"
            )
        if self.kind == "LlavaNextImageProcessor":
            self._check_canvases()

    def _check_canvases(self) -> None:
        if not 1 <= len(self.canvases) <= _MOST_CANVASES:
            raise CheckpointError(
                f"{_WHERE}: image_grid_pinpoints holds {len(self.canvases)} sizes, "
                f"between 1 and {_MOST_CANVASES} are needed"
            )
        if self.crop_size is not None and self.crop_size[0] != self.crop_size[1]:
            raise CheckpointError(f"{_WHERE}: crop_size must be square, tiles are")
        for height, width in self.canvases:
            if height % self.tile_side or width % self.tile_side:
                raise CheckpointError(
                    f"{_WHERE}: image_grid_pinpoints {height} x {width} "
                    f"is no multiple of the tile side {self.tile_side}"
                )

    @property
    def pads_to_square(self) -> bool:
        return self.do_pad and self.kind == "LlavaImageProcessor"

    @property
    def tile_side(self) -> int:
        """Side in pixels of the tiles that LLaVA-NeXT cuts a canvas into."""
        return self.crop_size[0] if self.crop_size else self.size if isinstance(self.size, int) else self.size[0]

    @property
    def output_size(self) -> tuple[int, int]:
        """Height and width in pixels of every tile that `prepare` gives."""
        if self.do_center_crop and self.crop_size is not None:
            return self.crop_size
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    @classmethod
    def square(
        cls,
        image_size: int,
        image_mean: Sequence[float],
        image_std: Sequence[float],
        *,
        fit: Literal["pad", "crop", "stretch"],
        canvases: Sequence[tuple[int, int]] = (),
    ) -> ImageProcessor:
        """The processor of a tower known by plain numbers, as a GGUF `mmproj` file has them.

        A picture that is not square is padded with the mean colour (LLaVA 1.5, llama.cpp), cropped (CLIP) or stretched
        (SigLIP); with `canvases` it is cut into tiles (LLaVA-NeXT). Raises CheckpointError on impossible numbers.
        """
        kinds = {"pad": "LlavaImageProcessor", "crop": "CLIPImageProcessor", "stretch": "SiglipImageProcessor"}
        stretch = fit == "stretch" and not canvases
        side = {"height": image_size, "width": image_size}
        values: dict[str, Any] = {
            "image_processor_type": "LlavaNextImageProcessor" if canvases else kinds[fit],
            "size": side if stretch else {"shortest_edge": image_size},
            "crop_size": None if stretch else side,
            "image_mean": list(image_mean),
            "image_std": list(image_std),
            "do_pad": bool(canvases) or fit == "pad",
        }
        return cls.from_dict(values | ({"image_grid_pinpoints": [list(c) for c in canvases]} if canvases else {}))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ImageProcessor:
        """Read `preprocessor_config.json`, or the `processor_config.json` that holds it under `image_processor`.

        Raises CheckpointError at a processor or a key that we would get wrong.
        """
        nested = values.get("image_processor")
        if isinstance(nested, Mapping):
            values = nested
        kind = _kind(values)
        given = {key: value for key, value in values.items() if value is not None}
        known = {**_COMMON_DEFAULTS, **_DEFAULTS[kind]}
        strange = sorted(set(given) - set(known) - _IDLE_KEYS)
        if kind != "LlavaNextImageProcessor" and "image_grid_pinpoints" in given:
            strange.append("image_grid_pinpoints")
        if strange:
            raise CheckpointError(
                f"{_WHERE}: {kind} with {', '.join(strange)} is not known here, and might change pixels"
            )
        read = _Reader({**known, **given})
        return cls(
            kind=kind,
            do_resize=read.flag("do_resize"),
            size=read.size(),
            resample=read.resample(),
            do_center_crop=read.flag("do_center_crop"),
            crop_size=read.pair("crop_size") if read.values["crop_size"] is not None else None,
            do_rescale=read.flag("do_rescale"),
            rescale_factor=read.number("rescale_factor", read.values["rescale_factor"]),
            do_normalize=read.flag("do_normalize"),
            image_mean=read.triple("image_mean"),
            image_std=read.triple("image_std", positive=True),
            do_pad=kind in _PADDING_KINDS and read.flag("do_pad"),
            canvases=read.canvases(),
        )

    def to_dict(self) -> dict[str, Any]:
        """The `preprocessor_config.json` of this processor, as transformers reads it."""
        values: dict[str, Any] = {
            "image_processor_type": self.kind,
            "do_convert_rgb": True,
            "do_resize": self.do_resize,
            "size": {"shortest_edge": self.size} if isinstance(self.size, int) else _sides(self.size),
            "resample": self.resample,
            "do_center_crop": self.do_center_crop,
            "do_rescale": self.do_rescale,
            "rescale_factor": self.rescale_factor,
            "do_normalize": self.do_normalize,
            "image_mean": list(self.image_mean),
            "image_std": list(self.image_std),
        }
        if self.crop_size is not None:
            values["crop_size"] = _sides(self.crop_size)
        if self.kind in _PADDING_KINDS:
            values["do_pad"] = self.do_pad
        if self.canvases:
            values["image_grid_pinpoints"] = [list(canvas) for canvas in self.canvases]
        return values

    def frame(self, height: int, width: int) -> tuple[float, float, float, float]:
        """What the first tile shows of a picture of this size: left, top, right and bottom in the picture's pixels.

        It lies beyond the edges where the picture is padded, within them where it is cropped.
        """
        if self.canvases:
            return 0.0, 0.0, float(width), float(height)
        canvas = (max(height, width),) * 2 if self.pads_to_square else (height, width)
        target = self._resized(*canvas) if self.do_resize else canvas
        sides = []
        for length, on, to, keep in zip((height, width), canvas, target, self.output_size, strict=True):
            start = (to - keep) // 2
            sides.append([edge * on / to - (on - length) // 2 for edge in (start, start + keep)])
        (top, bottom), (left, right) = sides
        return left, top, right, bottom

    def prepare(self, image: Image.Image) -> ImageInput:
        """Turn a picture into tiles: one, or for LLaVA-NeXT the whole picture first and then its tiles, row by row.

        Raises ImageError where a Pillow image that did not come from `open_image` cannot be read.
        """
        if image.mode != "RGB" or image.info:
            image = open_image(image)
        tiles_THWC = np.stack(self._cut(image) if self.canvases else [self._fit(image)])
        return ImageInput(self._normalise(tiles_THWC), image.height, image.width, self._digest(tiles_THWC, image.size))

    def _cut(self, image: Image.Image) -> list[npt.NDArray[np.uint8]]:
        canvas_height, canvas_width = select_canvas(image.height, image.width, self.canvases)
        if canvas_width / image.width < canvas_height / image.height:
            width, height = canvas_width, min(math.ceil(image.height * (canvas_width / image.width)), canvas_height)
        else:
            width, height = min(math.ceil(image.width * (canvas_height / image.height)), canvas_width), canvas_height
        canvas = Image.new("RGB", (canvas_width, canvas_height))
        shrunk = image.resize((width, height), self.resample)
        canvas.paste(shrunk, ((canvas_width - width) // 2, (canvas_height - height) // 2))
        side = self.tile_side
        whole = (self.size, self.size) if isinstance(self.size, int) else self.size
        tiles = [image.resize(whole[::-1], self.resample)]
        for top in range(0, canvas_height, side):
            tiles += [canvas.crop((left, top, left + side, top + side)) for left in range(0, canvas_width, side)]
        return [self._fit(tile) for tile in tiles]

    def _fit(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """Pad, resize and crop one picture to `output_size`, [H, W, C]."""
        width, height = image.size
        square = max(width, height)
        canvas = (square, square) if self.pads_to_square else (height, width)
        target = self._resized(*canvas) if self.do_resize else canvas
        kept = self.output_size
        padded_too_large = canvas != (height, width) and square * square > _WHOLE_CANVAS
        if not padded_too_large and (
            not self.do_resize or target[0] * target[1] <= max(_WHOLE_RESIZED, height * width)
        ):
            if canvas != (height, width):
                padded = Image.new("RGB", canvas[::-1], self._padding)
                padded.paste(image, ((square - width) // 2, (square - height) // 2))
                image = padded
            if self.do_resize:
                image = image.resize(target[::-1], self.resample)
            return _crop(np.asarray(image), kept)
        rows, columns = (
            Line(on, (on - length) // 2, to, max((to - keep) // 2, 0), max((to - keep) // 2, 0) + min(keep, to))
            for on, length, to, keep in zip(canvas, (height, width), target, kept, strict=True)
        )
        return _crop(resample_window(np.asarray(image), rows, columns, self._padding, self.resample), kept)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if isinstance(self.size, tuple):
            return self.size
        long = int(self.size * max(height, width) / min(height, width))
        return (long, self.size) if width <= height else (self.size, long)

    @property
    def _padding(self) -> tuple[int, int, int]:
        red, green, blue = (min(max(int(mean * 255), 0), 255) for mean in self.image_mean)
        return red, green, blue

    def _normalise(self, tiles_THWC: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        # 256 values a channel: computed once each, in the reference's precision, then looked up.
        shades_VC = np.repeat(np.arange(256, dtype=np.float64)[:, None], 3, axis=1)
        if self.do_rescale:
            shades_VC *= self.rescale_factor
        shades = shades_VC.astype(np.float32)
        if self.do_normalize:
            shades -= np.array(self.image_mean, np.float32)
            shades /= np.array(self.image_std, np.float32)
        return np.stack([shades[:, channel][tiles_THWC[..., channel]] for channel in range(3)], axis=1)

    def _digest(self, tiles_THWC: npt.NDArray[np.uint8], size: tuple[int, int]) -> str:
        told = json.dumps([self.to_dict(), tiles_THWC.shape, size], sort_keys=True)
        return hashlib.sha256(told.encode() + b"\0" + tiles_THWC.tobytes()).hexdigest()


def _crop(pixels_HWC: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The middle of a picture; a smaller one is set on black, the odd pixel of the margin above and to the left."""
    height, width, _ = pixels_HWC.shape
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    if top >= 0 and left >= 0:
        return pixels_HWC[top : top + size[0], left : left + size[1]]
    out_HWC = np.zeros((*size, 3), np.uint8)
    kept_HWC = pixels_HWC[max(top, 0) : max(top, 0) + size[0], max(left, 0) : max(left, 0) + size[1]]
    down, across = (math.ceil(max(on - length, 0) / 2) for on, length in zip(size, (height, width), strict=True))
    out_HWC[down : down + kept_HWC.shape[0], across : across + kept_HWC.shape[1]] = kept_HWC
    return out_HWC


def _sides(size: tuple[int, int]) -> dict[str, int]:
    return {"height": size[0], "width": size[1]}


def _kind(values: Mapping[str, Any]) -> Kind:
    name = values.get("image_processor_type") or values.get("feature_extractor_type")
    plain = str(name).replace("FeatureExtractor", "ImageProcessor")
    plain = plain.removesuffix("Fast").removesuffix("Pil")
    for kind in get_args(Kind):
        if plain == kind:
            return kind  # type: ignore[no-any-return]
    known = ", ".join(get_args(Kind))
    raise CheckpointError(f"{_WHERE}: image_processor_type {_short(name)} is not known here; known are {known}")


def _short(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


@dataclass(frozen=True)
class _Reader:
    """Values of a `preprocessor_config.json`, each checked as it is read."""

    values: Mapping[str, Any]

    def refuse(self, key: str, needed: str) -> CheckpointError:
        return CheckpointError(f"{_WHERE}: {key} must be {needed}, it is {_short(self.values[key])}")

    def flag(self, key: str) -> bool:
        value = self.values[key]
        if not isinstance(value, bool):
            raise self.refuse(key, "true or false")
        return value

    def number(self, key: str, value: Any, *, positive: bool = True) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= 1e6:
            raise self.refuse(key, "made of finite numbers")
        if positive and value < 1e-6:
            raise self.refuse(key, "above zero")
        return float(value)

    def triple(self, key: str, *, positive: bool = False) -> Triple:
        value = self.values[key]
        items = list(value) if isinstance(value, (list, tuple)) else [value] * 3
        if len(items) != 3:
            raise self.refuse(key, "one number or three")
        red, green, blue = (self.number(key, item, positive=positive) for item in items)
        return red, green, blue

    def side(self, key: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LARGEST_SIDE:
            raise self.refuse(key, f"made of whole numbers between 1 and {_LARGEST_SIDE}")
        return value

    def pair(self, key: str) -> tuple[int, int]:
        """Height and width, from a number, two of them, or an object."""
        value = self.values[key]
        if isinstance(value, Mapping) and set(value) == {"height", "width"}:
            value = [value["height"], value["width"]]
        items = list(value) if isinstance(value, (list, tuple)) else [value] * 2
        if len(items) != 2:
            raise self.refuse(key, "a whole number or an object with height and width")
        return self.side(key, items[0]), self.side(key, items[1])

    def size(self) -> int | tuple[int, int]:
        value = self.values["size"]
        if isinstance(value, Mapping):
            value = {key: side for key, side in value.items() if side is not None}
            if set(value) == {"shortest_edge"}:
                return self.side("size", value["shortest_edge"])
            if set(value) != {"height", "width"}:
                raise self.refuse("size", "an object with shortest_edge, or with height and width")
            return self.side("size", value["height"]), self.side("size", value["width"])
        if isinstance(value, int) and not self.flag("default_to_square"):
            return self.side("size", value)
        return self.pair("size")

    def resample(self) -> int:
        value = self.values["resample"]
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 5:
            raise self.refuse("resample", "a filter of Pillow, 0 to 5")
        return value

    def canvases(self) -> tuple[tuple[int, int], ...]:
        value = self.values["image_grid_pinpoints"]
        if not isinstance(value, (list, tuple)):
            raise self.refuse("image_grid_pinpoints", "a list of heights and widths")
        for pair in value:
            if not isinstance(pair, (list, tuple)) or len(pair) != 2:
                raise self.refuse("image_grid_pinpoints", "a list of heights and widths")
        key = "image_grid_pinpoints"
        return tuple((self.side(key, height), self.side(key, width)) for height, width in value)
