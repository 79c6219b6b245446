"""What lies behind everything and what lies over it: backgrounds, then grain, softness and compression."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageFilter

from lapilli.training.art import Floats
from lapilli.training.drawing import SIZE, Colour, Pixels, apart, between, pick

Ink = tuple[Colour, float]
"""A colour that must be seen, and how far (see `apart`) a background must keep from it."""


@cache
def _grid() -> tuple[Floats, Floats]:
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    return x, y


def background(rng: np.random.Generator, inks: Sequence[Ink], noise_HWC: Floats, plain: float) -> Floats:
    """A canvas on which no ink gets lost; `plain` is the chance that it has one colour only."""
    base = ground_colour(rng, inks)
    canvas = np.empty((SIZE, SIZE, 3), np.float32)
    canvas[:] = base
    if rng.random() < plain:
        return canvas
    change = _change(rng, base, inks)
    if change is not None:
        mix = pick(rng, (_gradient, _stripes, _checks, _blobs, _blobs, _texture))(rng)
        canvas += mix[..., None] * np.asarray(change, np.float32)
    if rng.random() < 0.35:
        canvas += crop_noise(rng, noise_HWC) * between(rng, 3, 16)
    return canvas


def _change(rng: np.random.Generator, base: Colour, inks: Sequence[Ink]) -> Colour | None:
    """What leads from the base to another colour, so that no mixture of the two comes near an ink."""
    for _ in range(5):
        strength = between(rng, 0.3, 1)
        red, green, blue = ((a - b) * strength for a, b in zip(ground_colour(rng, inks), base, strict=True))
        mixtures = [(base[0] + red * t, base[1] + green * t, base[2] + blue * t) for t in (0.3, 0.6, 1.0)]
        if all(apart(mixture, ink) > distance * 0.9 for mixture in mixtures for ink, distance in inks):
            return red, green, blue
    return None


def ground_colour(rng: np.random.Generator, inks: Sequence[Ink]) -> Colour:
    """A colour that stands clear of the inks, often white or pale."""
    for _ in range(14):
        chance = rng.random()
        if chance < 0.14:
            light = between(rng, 245, 255)
            colour = (light, light, light)
        elif chance < 0.20:
            light = between(rng, 0, 25)
            colour = (light, light, light)
        elif chance < 0.5:
            colour = tuple(255 - between(rng, 0, 70) for _ in range(3))  # type: ignore[assignment]
        else:
            colour = tuple(between(rng, 0, 255) for _ in range(3))  # type: ignore[assignment]
        if all(apart(colour, ink) > distance for ink, distance in inks):
            return colour
    grays = [(light, light, light) for light in (255.0, 0.0, 128.0, 70.0, 190.0)]
    return max(grays, key=lambda gray: min((apart(gray, ink) for ink, _ in inks), default=0.0))


def _gradient(rng: np.random.Generator) -> Floats:
    x, y = _grid()
    if rng.random() < 0.3:
        cx, cy, reach = between(rng, 0, SIZE), between(rng, 0, SIZE), between(rng, 60, 150)
        return np.asarray(np.minimum(np.hypot(x - cx, y - cy) / reach, 1), np.float32)
    angle = between(rng, 0, 2 * math.pi)
    along = x * math.cos(angle) + y * math.sin(angle)
    low = float(along.min())
    return np.asarray((along - low) / (float(along.max()) - low), np.float32)


def _stripes(rng: np.random.Generator) -> Floats:
    x, y = _grid()
    angle, period = between(rng, 0, math.pi), between(rng, 6, 30)
    along = (x * math.cos(angle) + y * math.sin(angle)) * (2 * math.pi / period)
    return np.asarray(np.clip(np.sin(along) * pick(rng, (0.7, 4.0)) * 0.5 + 0.5, 0, 1), np.float32)


def _checks(rng: np.random.Generator) -> Floats:
    x, y = _grid()
    side = between(rng, 6, 26)
    return np.asarray((x // side + y // side) % 2, np.float32)


def _blobs(rng: np.random.Generator) -> Floats:
    cells = int(between(rng, 3, 12))
    small = Image.fromarray((rng.random((cells, cells)) * 255).astype(np.uint8))
    return np.asarray(small.resize((SIZE, SIZE), Image.Resampling.BICUBIC), np.float32) * np.float32(1 / 255)


def _texture(rng: np.random.Generator) -> Floats:
    """Noise at several scales, like stone, grass or a photograph out of focus."""
    total = np.zeros((SIZE, SIZE), np.float32)
    for cells, weight in ((5, 0.5), (14, 0.3), (40, 0.2)):
        small = Image.fromarray((rng.random((cells, cells)) * 255).astype(np.uint8))
        total += np.asarray(small.resize((SIZE, SIZE), Image.Resampling.BILINEAR), np.float32) * (weight / 255)
    return total


def crop_noise(rng: np.random.Generator, noise_HWC: Floats) -> Floats:
    """A random window of the noise, of the canvas's size."""
    x, y = int(rng.random() * (noise_HWC.shape[1] - SIZE)), int(rng.random() * (noise_HWC.shape[0] - SIZE))
    return noise_HWC[y : y + SIZE, x : x + SIZE]


def finish(rng: np.random.Generator, canvas: Floats, noise_HWC: Floats, *, strong: bool) -> Pixels:
    """Light, grain, softness and compression as cameras and files add them; weak where colours are asked about."""
    if rng.random() < 0.5:
        canvas = canvas * between(rng, 0.9, 1.06) + between(rng, -8, 8)
    if rng.random() < (0.35 if strong else 0.15):
        canvas = canvas + crop_noise(rng, noise_HWC) * between(rng, 2, 14 if strong else 6)
    pixels = np.clip(canvas, 0, 255).astype(np.uint8)
    chance = rng.random()
    if chance < 0.12:
        return _compress(pixels, between(rng, 1.5, 7))
    if chance < 0.18:
        return np.asarray(Image.fromarray(pixels).filter(ImageFilter.BoxBlur(between(rng, 0.3, 0.8))))
    return pixels


@cache
def _cosines() -> Floats:
    frequency, place = np.mgrid[0:8, 0:8].astype(np.float32)
    waves = np.cos((2 * place + 1) * frequency * math.pi / 16) / 2
    waves[0] /= math.sqrt(2)
    return np.asarray(waves, np.float32)


def _compress(pixels_HWC: Pixels, step: float) -> Pixels:
    """The blocks and ripples that JPEG leaves: 8 x 8 cosine transforms, rounded more coarsely the finer the wave."""
    waves = _cosines()
    cells = SIZE // 8
    blocks = pixels_HWC.astype(np.float32).reshape(cells, 8, cells, 8, 3).transpose(0, 2, 4, 1, 3)
    frequency = np.arange(8, dtype=np.float32)
    steps = step * (1 + frequency[:, None] + frequency[None, :])
    rounded = np.round(waves @ blocks @ waves.T / steps) * steps
    restored = (waves.T @ rounded @ waves).transpose(0, 3, 1, 4, 2).reshape(SIZE, SIZE, 3)
    return np.asarray(np.clip(restored, 0, 255), np.uint8)
