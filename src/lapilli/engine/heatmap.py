"""Relevance as a picture: warm where it is, over the picture that was shown, in grey."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from lapilli.engine.relevance import Relevance

Pixels = npt.NDArray[np.uint8]

SMALLEST, LARGEST = 512, 1280  # the longer side of a drawn picture
STRENGTH = 0.66  # of the heat over the picture
CONTRAST = 0.6  # of the picture under it, so that its own light and dark are not taken for heat
MIDDLE = 127
UNSEEN = 0.4  # how bright the parts are that were cropped away before the model saw them
GAP = 8


def draw(pictures: Sequence[Image.Image], seen: Sequence[Relevance], label: str = "") -> Image.Image:
    """Each picture with its relevance over it, one under another, and a legend below that says `label`."""
    shown = [_over(picture, each) for picture, each in zip(pictures, seen, strict=True)]
    width = max(picture.width for picture in shown)
    legend = _legend(width, label)
    height = sum(picture.height + GAP for picture in shown) + legend.height
    sheet = Image.new("RGB", (width, height), "white")
    top = 0
    for picture in (*shown, legend):
        sheet.paste(picture, (0, top))
        top += picture.height + GAP
    return sheet


def colours(values: npt.NDArray[Any]) -> Pixels:
    """Colours (..., 3) of values from 0 to 1: dark violet, through red, to light yellow.

    Equal steps in value are equal steps in lightness and in hue of Oklab, so no step looks larger than it is.
    """
    found: Pixels = _table()[np.clip(np.rint(np.asarray(values) * 255), 0, 255).astype(np.uint8)]
    return found


@lru_cache(maxsize=1)
def _table() -> Pixels:
    """The 256 colours; matrices of https://bottosson.github.io/posts/oklab/."""
    step = np.linspace(0, 1, 256)
    lightness = 0.22 + 0.74 * step
    hue = np.radians(295 + 175 * step)  # violet, red, orange, yellow
    chroma = 0.1 + 0.045 * np.sin(np.pi * step)
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1)
    cones = lab @ np.array([[1, 1, 1], [0.3963377774, -0.1055613458, -0.0894841775],
                            [0.2158037573, -0.0638541728, -1.2914855480]])  # fmt: skip
    linear = cones**3 @ np.array([[4.0767416621, -1.2684380046, -0.0041960863],
                                  [-3.3077115913, 2.6097574011, -0.7034186147],
                                  [0.2309699292, -0.3413193965, 1.7076147010]])  # fmt: skip
    linear = np.clip(linear, 0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    table: Pixels = np.rint(srgb * 255).astype(np.uint8)
    return table


def _over(picture: Image.Image, seen: Relevance) -> Image.Image:
    longer = max(picture.size)
    scale = min(max(longer, SMALLEST), LARGEST) / longer
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    grey = np.asarray(picture.convert("L").resize(size, Image.Resampling.BICUBIC), np.float32)
    grey = MIDDLE + CONTRAST * (grey - MIDDLE)
    out_HWC = np.repeat((grey * UNSEEN)[..., None], 3, axis=-1)
    left, top, right, bottom = seen.frame
    # The part that the picture and its frame have in common, in pixels of the picture.
    box = max(left, 0), max(top, 0), min(right, picture.width), min(bottom, picture.height)
    x0, y0, x1, y1 = (round(edge * scale) for edge in box)
    rows, columns = seen.grid_RC.shape
    across, down = columns / (right - left), rows / (bottom - top)
    heat = Image.fromarray(seen.grid_RC.astype(np.float32)).resize(
        (x1 - x0, y1 - y0),
        Image.Resampling.BICUBIC,
        box=((box[0] - left) * across, (box[1] - top) * down, (box[2] - left) * across, (box[3] - top) * down),
    )
    out_HWC[y0:y1, x0:x1] = _laid(grey[y0:y1, x0:x1], np.asarray(heat))
    return Image.fromarray(np.rint(out_HWC).astype(np.uint8))


def _laid(grey_HW: npt.NDArray[np.float32], heat_HW: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.asarray((1 - STRENGTH) * grey_HW[..., None] + STRENGTH * colours(heat_HW), np.float32)


def _legend(width: int, label: str) -> Image.Image:
    """A line of text, and the scale as it looks over a picture of middle grey."""
    font = ImageFont.load_default(16)
    height, bar = 40, max(60, min(200, width // 4))
    legend = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(legend)
    ramp = np.tile(np.linspace(0, 1, bar, dtype=np.float32), (14, 1))
    scale = Image.fromarray(np.rint(_laid(np.full_like(ramp, MIDDLE), ramp)).astype(np.uint8))
    more = width - 12 - pen.textlength("most", font)
    pen.text((more, height // 2), "most", "black", font, anchor="lm")
    start = int(more) - 8 - bar
    legend.paste(scale, (start, height // 2 - 7))
    least = start - 8 - pen.textlength("least", font)
    pen.text((least, height // 2), "least", "black", font, anchor="lm")
    text = " ".join(label.split())
    room = least - 32
    if pen.textlength(text, font) > room:
        while text and pen.textlength(f"{text}…", font) > room:
            text = text[:-1]
        text = f"{text}…" if text else ""
    pen.text((12, height // 2), text, "black", font, anchor="lm")
    return legend
