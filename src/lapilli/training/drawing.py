"""Ink on a canvas: warped pictures of things, and shapes.

A canvas is float32 H x W x 3 in 0..255. Everything pasted returns the box of its ink as (x0, y0, x1, y1) in pixels.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from lapilli.training.art import Floats, Sprite
from lapilli.training.names import COLOUR_RANGES

SIZE = 128
Box = tuple[float, float, float, float]
Colour = tuple[float, float, float]
Pixels = npt.NDArray[np.uint8]
T = TypeVar("T")


def pick(rng: np.random.Generator, choices: Sequence[T]) -> T:
    """One of the choices, each as likely."""
    return choices[int(rng.random() * len(choices))]


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """A number from low to high."""
    return low + (high - low) * rng.random()


def shade(rng: np.random.Generator, colour: str) -> Colour:
    """One of the many shades that a colour name covers, as RGB in 0..255."""
    hue, saturation, value = (between(rng, *limits) for limits in COLOUR_RANGES[colour])
    red, green, blue = colorsys.hsv_to_rgb(hue / 360 % 1, saturation, value)
    return red * 255, green * 255, blue * 255


def apart(one: Colour, other: Colour) -> float:
    """How well two colours are told apart, 0..765: difference of light counts more than of hue."""
    red, green, blue = (a - b for a, b in zip(one, other, strict=True))
    light = 0.3 * red + 0.59 * green + 0.11 * blue
    return abs(light) * 1.5 + 0.5 * math.sqrt(red * red + green * green + blue * blue)


# --- pasting ---


def paste(canvas: Floats, ink_HWC: Floats, alpha_HW: Floats, left: int, top: int) -> Box:
    """Lay premultiplied ink (0..255) over the canvas through its alpha (0..1); what hangs over the edge is cut off."""
    height, width = alpha_HW.shape
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + width, SIZE), min(top + height, SIZE)
    if x1 <= x0 or y1 <= y0:
        return (0.0, 0.0, 0.0, 0.0)
    alpha = alpha_HW[y0 - top : y1 - top, x0 - left : x1 - left]
    region = canvas[y0:y1, x0:x1]
    region *= 1 - alpha[..., None]
    region += ink_HWC[y0 - top : y1 - top, x0 - left : x1 - left]
    seen = alpha > 0.1
    rows: npt.NDArray[np.bool_] = np.any(seen, axis=1)
    columns: npt.NDArray[np.bool_] = np.any(seen, axis=0)
    if not rows.any():
        return (0.0, 0.0, 0.0, 0.0)
    first_y, last_y = int(rows.argmax()), len(rows) - int(rows[::-1].argmax())
    first_x, last_x = int(columns.argmax()), len(columns) - int(columns[::-1].argmax())
    return (x0 + first_x, y0 + first_y, x0 + last_x, y0 + last_y)


def drop_shadow(rng: np.random.Generator, canvas: Floats, alpha_HW: Floats, left: int, top: int) -> None:
    """A soft shadow of what will be pasted there."""
    soft = Image.fromarray((alpha_HW * 255).astype(np.uint8)).filter(ImageFilter.BoxBlur(between(rng, 1, 4)))
    shadow = np.asarray(soft, np.float32) * (between(rng, 0.15, 0.45) / 255)
    reach = max(2, alpha_HW.shape[0] // 16)
    dark = np.zeros((*shadow.shape, 3), np.float32)
    paste(canvas, dark, shadow, left + int(between(rng, -reach, reach + 1)), top + int(between(rng, 1, reach + 1)))


# --- things ---


def draw_thing(
    rng: np.random.Generator, canvas: Floats, sprite: Sprite, centre: tuple[float, float], size: float, *, strong: bool
) -> Box:
    """Paste a picture of a thing, its longer side about `size` pixels; `strong` warps and recolours it for training."""
    if strong:
        full, half = pick(rng, sprite.looks)
    else:
        full, half = sprite.image, sprite.half
    patch = warp(rng, full if size > 40 else half, size, strong=strong)
    if strong and rng.random() < 0.12:  # a part is hidden
        hole = max(1, int(size * between(rng, 0.15, 0.35)))
        x, y = (int(rng.random() * (patch.shape[0] - hole)) for _ in range(2))
        patch[y : y + hole, x : x + hole] = 0
    ink_HWC, alpha_HW = patch[..., :3], patch[..., 3] * np.float32(1 / 255)
    if strong:
        ink_HWC = recolour(rng, ink_HWC, alpha_HW)
    left, top = round(centre[0] - patch.shape[1] / 2), round(centre[1] - patch.shape[0] / 2)
    if rng.random() < (0.3 if strong else 0.1):
        drop_shadow(rng, canvas, alpha_HW, left, top)
    return paste(canvas, ink_HWC, alpha_HW, left, top)


def warp(rng: np.random.Generator, source: Image.Image, size: float, *, strong: bool) -> Floats:
    """The source rotated, sheared, put in perspective and bent, as a float32 patch with premultiplied alpha."""
    side = math.ceil(size * 1.12)
    edge = np.linspace(-1.12, 1.12, 4, dtype=np.float32)
    v, u = np.meshgrid(edge, edge, indexing="ij")
    angle = math.radians(float(np.clip(rng.normal() * (9 if strong else 5), -22, 22)))
    mirror = -1 if rng.random() < 0.5 else 1
    if strong:
        stretch = math.exp(between(rng, -0.16, 0.16))
        shear = between(rng, -0.12, 0.12)
        depth = 1 + between(rng, -0.14, 0.14) * u + between(rng, -0.14, 0.14) * v
        bend = rng.standard_normal((2, 4, 4)).astype(np.float32) * (between(rng, 0, 0.055))
    else:
        stretch, shear, depth, bend = 1.0, 0.0, np.ones_like(u), np.zeros((2, 4, 4), np.float32)
    across, down = (u * stretch + shear * v) / depth, v / stretch / depth
    half = source.width / 2
    x = half + half * mirror * (across * math.cos(angle) + down * math.sin(angle) + bend[0])
    y = half + half * (down * math.cos(angle) - across * math.sin(angle) + bend[1])
    stops = [round(side * step / 3) for step in range(4)]
    corners = np.stack(
        [x[:-1, :-1], y[:-1, :-1], x[1:, :-1], y[1:, :-1], x[1:, 1:], y[1:, 1:], x[:-1, 1:], y[:-1, 1:]], -1
    ).tolist()
    mesh = [
        ((stops[column], stops[row], stops[column + 1], stops[row + 1]), corners[row][column])
        for row in range(3)
        for column in range(3)
    ]
    warped = source.transform((side, side), Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)
    if strong and size > 36 and rng.random() < 0.15:
        warped = warped.filter(ImageFilter.BoxBlur(between(rng, 0.4, 1.4)))
    return np.asarray(warped, np.uint8).astype(np.float32)


def recolour(rng: np.random.Generator, ink_HWC: Floats, alpha_HW: Floats) -> Floats:
    """Other light, saturation and tint, a little hue; perhaps light from one side, perhaps a highlight."""
    saturation = 0.0 if rng.random() < 0.04 else between(rng, 0.55, 1.45)
    turn = math.radians(float(rng.normal()) * 7)
    gains = np.asarray([between(rng, 0.9, 1.1) for _ in range(3)], np.float32) * between(rng, 0.75, 1.2)
    ink_HWC = ink_HWC @ (_hue_and_saturation(turn, saturation) * gains)
    height, width = alpha_HW.shape
    if rng.random() < 0.5:
        x, y = _patch_grid(height, width)
        ink_HWC *= (1 + between(rng, -0.4, 0.4) * x + between(rng, -0.45, 0.3) * y)[..., None]
    if rng.random() < 0.35:
        lift = between(rng, -40, 60)
        ink_HWC += alpha_HW[..., None] * lift
    if rng.random() < 0.3:
        x, y = _patch_grid(height, width)
        cx, cy, spread = between(rng, -0.5, 0.5), between(rng, -0.6, 0.2), between(rng, 0.12, 0.45)
        glow = (
            np.exp(((x - cx) ** 2 + (y - cy) ** 2) * np.float32(-1 / spread**2))
            * alpha_HW
            * np.float32(between(rng, 40, 170))
        )
        ink_HWC += glow[..., None]
    return np.clip(ink_HWC, 0, alpha_HW[..., None] * 255)


@lru_cache(maxsize=128)
def _patch_grid(height: int, width: int) -> tuple[Floats, Floats]:
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    return x, y


def _hue_and_saturation(turn: float, saturation: float) -> Floats:
    """A matrix on RGB rows: rotation about the gray axis, then a pull towards gray (or away)."""
    cos, sin = math.cos(turn), math.sin(turn)
    third, root = (1 - cos) / 3, sin / math.sqrt(3)
    rotation = np.asarray(
        [
            [cos + third, third - root, third + root],
            [third + root, cos + third, third - root],
            [third - root, third + root, cos + third],
        ],
        np.float32,
    )
    gray = np.asarray([[0.3], [0.59], [0.11]], np.float32) @ np.ones((1, 3), np.float32)
    return rotation @ (gray * (1 - saturation) + np.eye(3, dtype=np.float32) * saturation)


# --- shapes ---


def _around(count: int, start: float) -> list[tuple[float, float]]:
    turns = [start + 2 * math.pi * step / count for step in range(count)]
    return [(math.cos(turn), math.sin(turn)) for turn in turns]


def _star() -> list[tuple[float, float]]:
    outer, inner = _around(5, -math.pi / 2), _around(5, -math.pi / 2 + math.pi / 5)
    return [point for tip, (x, y) in zip(outer, inner, strict=True) for point in (tip, (x * 0.42, y * 0.42))]


def _heart() -> list[tuple[float, float]]:
    turns = [2 * math.pi * step / 40 for step in range(40)]
    return [
        (
            math.sin(t) ** 3,
            -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16 - 0.08,
        )
        for t in turns
    ]


def _cross() -> list[tuple[float, float]]:
    arm = 0.34
    quarter = [(arm, -1), (arm, -arm), (1, -arm)]
    points = []
    for _ in range(4):
        points += quarter
        quarter = [(-y, x) for x, y in quarter]
    return points


# Each shape in the square from -1 to 1, and how far it may be turned (degrees) and keep its name.
OUTLINES: dict[str, tuple[list[tuple[float, float]], float]] = {
    "circle": (_around(48, 0), 180),
    "square": ([(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)], 11),
    "triangle": ([(0, -0.95), (1, 0.8), (-1, 0.8)], 25),
    "rectangle": ([(-1, -0.5), (1, -0.5), (1, 0.5), (-1, 0.5)], 11),
    "oval": ([(x, y * 0.58) for x, y in _around(48, 0)], 25),
    "diamond": ([(0, -1), (0.7, 0), (0, 1), (-0.7, 0)], 9),
    "pentagon": (_around(5, -math.pi / 2), 30),
    "star": (_star(), 36),
    "heart": (_heart(), 20),
    "cross": (_cross(), 12),
}


def draw_shape(
    rng: np.random.Generator, canvas: Floats, shape: str, colour: Colour, centre: tuple[float, float], size: float
) -> Box:
    """A shape filled with a colour, `size` pixels wide or high, with one of several finishes."""
    points, limit = OUTLINES[shape]
    angle = math.radians(between(rng, -limit, limit))
    if shape in ("rectangle", "oval") and rng.random() < 0.4:
        angle += math.pi / 2
    cos, sin = math.cos(angle), math.sin(angle)
    squash = between(rng, 0.82, 1.05) if shape in ("rectangle", "oval", "diamond") else between(rng, 0.95, 1.05)
    half = size / 2
    spots = [(half * (x * cos - y * squash * sin), half * (x * sin + y * squash * cos)) for x, y in points]
    side = math.ceil(size * 1.3)
    scale, middle = 3, side / 2
    outline = [((x + middle) * scale, (y + middle) * scale) for x, y in spots]
    mask = Image.new("L", (side * scale, side * scale))
    ImageDraw.Draw(mask).polygon(outline, fill=255)
    alpha = np.asarray(mask.reduce(scale), np.float32) * np.float32(1 / 255)
    ink = np.empty((side, side, 3), np.float32)
    ink[:] = colour
    finish = rng.random()
    if finish < 0.22:  # a light that moves across, too weak to change the colour's name
        x, y = _patch_grid(side, side)
        turn = between(rng, 0, 2 * math.pi)
        ink *= (1 + between(rng, 0.05, 0.16) * (x * math.cos(turn) + y * math.sin(turn)))[..., None]
    elif finish < 0.42:  # a line around it
        edge = Image.new("L", mask.size)
        width = max(2, int(between(rng, 0.03, 0.07) * size * scale))
        ImageDraw.Draw(edge).line([*outline, outline[0], outline[1]], fill=255, width=width, joint="curve")
        line = np.asarray(edge.reduce(scale), np.float32)[..., None] * np.float32(1 / 255)
        ink += line * ((0.0 if sum(colour) > 300 else 255.0) - ink)
    ink = np.clip(ink, 0, 255) * alpha[..., None]
    left, top = round(centre[0] - middle), round(centre[1] - middle)
    if rng.random() < 0.2:
        drop_shadow(rng, canvas, alpha, left, top)
    return paste(canvas, ink, alpha, left, top)
