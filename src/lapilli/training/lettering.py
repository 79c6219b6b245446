"""Words printed letter by letter, so that the box of each letter is known."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageFilter

from lapilli.training.art import GLYPH_SIZES, Floats, Typeface
from lapilli.training.drawing import SIZE, Box, Colour, Pixels, between, drop_shadow, paste


def draw_word(
    rng: np.random.Generator,
    canvas: Floats,
    word: str,
    face: Typeface,
    colour: Colour,
    centre: tuple[float, float],
    room: tuple[float, float],
) -> tuple[Box, list[Box]]:
    """Print a word within `room` (width, height) around `centre`; return its box and one for each letter."""
    width, height = room
    reference = face.glyphs(GLYPH_SIZES[3])
    em = sum(reference[letter].advance for letter in word) / GLYPH_SIZES[3]
    tracking = between(rng, 0.0, 0.14) if rng.random() < 0.5 else 0.02
    em += tracking * (len(word) - 1)
    slant = math.radians(float(np.clip(rng.normal() * 3.5, -9, 9))) if rng.random() < 0.6 else 0.0
    tallest = (height - abs(math.sin(slant)) * width * 0.8) / 1.05
    widest = min(width / em, tallest)
    size = between(rng, max(min(widest, 15), widest * 0.62), widest)
    drawn = next((step for step in GLYPH_SIZES if step >= size), GLYPH_SIZES[-1])
    glyphs = face.glyphs(drawn)
    top = min(glyphs[letter].top for letter in word)
    bottom = max(glyphs[letter].top + glyphs[letter].mask_HW.shape[0] for letter in word)
    pen, margin = 0.0, 4
    marks = []
    for letter in word:
        glyph = glyphs[letter]
        marks.append((glyph, round(pen) + glyph.left, glyph.top - top))
        pen += glyph.advance + tracking * drawn
    start = min(x for _, x, _ in marks)
    length = max(x + glyph.mask_HW.shape[1] for glyph, x, _ in marks) - start
    sheet = np.zeros((bottom - top + 2 * margin, length + 2 * margin), np.uint8)
    boxes: list[Box] = []
    for glyph, x, y in marks:
        rows, columns = glyph.mask_HW.shape
        x0, y0 = x - start + margin, y + margin
        spot = sheet[y0 : y0 + rows, x0 : x0 + columns]
        np.maximum(spot, glyph.mask_HW, out=spot)
        boxes.append((x0, y0, x0 + columns, y0 + rows))
    return _print(rng, canvas, sheet, boxes, colour, centre, size / drawn, slant)


def _print(
    rng: np.random.Generator,
    canvas: Floats,
    sheet: Pixels,
    boxes: list[Box],
    colour: Colour,
    centre: tuple[float, float],
    scale: float,
    slant: float,
) -> tuple[Box, list[Box]]:
    """Turn, scale and shear the sheet of letters, and lay its ink on the canvas."""
    shear = between(rng, -0.14, 0.14) if rng.random() < 0.3 else 0.0
    cos, sin = math.cos(slant) * scale, math.sin(slant) * scale
    # forward: sheet point (from its middle) -> canvas point (from the centre)
    a, b, c, d = cos, cos * shear - sin, sin, sin * shear + cos
    rows, columns = sheet.shape
    half_x, half_y = (abs(a) * columns + abs(b) * rows) / 2, (abs(c) * columns + abs(d) * rows) / 2
    cx = float(np.clip(centre[0], min(half_x, SIZE / 2), max(SIZE - half_x, SIZE / 2)))
    cy = float(np.clip(centre[1], min(half_y, SIZE / 2), max(SIZE - half_y, SIZE / 2)))
    left, top = math.floor(cx - half_x), math.floor(cy - half_y)
    width, height = math.ceil(2 * half_x) + 1, math.ceil(2 * half_y) + 1
    det = a * d - b * c
    ia, ib, ic, id_ = d / det, -b / det, -c / det, a / det
    ox, oy = left - cx, top - cy
    inverse = (ia, ib, ia * ox + ib * oy + columns / 2, ic, id_, ic * ox + id_ * oy + rows / 2)
    image = Image.fromarray(sheet).transform(
        (width, height), Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR
    )
    alpha = np.asarray(image, np.float32) * np.float32(1 / 255)
    finish = rng.random()
    if finish < 0.12:
        drop_shadow(rng, canvas, alpha, left, top)
    elif finish < 0.2:  # a halo in black or white, whichever differs more
        halo = np.asarray(image.filter(ImageFilter.MaxFilter(3)), np.float32) * np.float32(1 / 255)
        ink = np.empty((*halo.shape, 3), np.float32)
        ink[:] = 0.0 if sum(colour) > 380 else 255.0
        paste(canvas, ink * halo[..., None], halo, left, top)
    ink = alpha[..., None] * np.asarray(colour, np.float32)
    whole = paste(canvas, ink, alpha, left, top)
    placed = []
    for x0, y0, x1, y1 in boxes:
        xs = [x - columns / 2 for x in (x0, x1)]
        ys = [y - rows / 2 for y in (y0, y1)]
        px = [a * x + b * y + cx for x in xs for y in ys]
        py = [c * x + d * y + cy for x in xs for y in ys]
        placed.append((max(min(px), 0.0), max(min(py), 0.0), min(max(px), float(SIZE)), min(max(py), float(SIZE))))
    return whole, placed
