"""Draw the example pictures: `python examples/draw.py` writes them beside this file."""

from __future__ import annotations

import math
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SIZE, SCALE = 384, 4
FOLDER = Path(__file__).resolve().parent


def canvas(top: tuple[int, int, int], bottom: tuple[int, int, int]) -> Image.Image:
    """A square with a soft gradient, larger than it will be, so that edges come out smooth."""
    strip = Image.new("RGB", (1, 2))
    strip.putdata([top, bottom])
    return strip.resize((SIZE * SCALE, SIZE * SCALE), Image.Resampling.BICUBIC)


def box(x: float, y: float, radius: float) -> list[float]:
    return [(x - radius) * SCALE, (y - radius) * SCALE, (x + radius) * SCALE, (y + radius) * SCALE]


def star(x: float, y: float, radius: float) -> list[tuple[float, float]]:
    turns = [(-math.pi / 2 + step * math.pi / 5, radius if step % 2 == 0 else radius * 0.42) for step in range(10)]
    return [((x + math.cos(turn) * reach) * SCALE, (y + math.sin(turn) * reach) * SCALE) for turn, reach in turns]


def shapes() -> Image.Image:
    """A red circle to the left of a blue square."""
    picture = canvas((250, 246, 236), (232, 224, 205))
    pen = ImageDraw.Draw(picture)
    pen.ellipse(box(108, 190, 74), fill=(214, 40, 40))
    pen.rectangle(box(280, 196, 66), fill=(36, 84, 200))
    return picture


def stars() -> Image.Image:
    """Three yellow stars."""
    picture = canvas((24, 30, 72), (52, 40, 98))
    pen = ImageDraw.Draw(picture)
    for x, y, radius in ((96, 120, 62), (272, 104, 58), (196, 274, 66)):
        pen.polygon(star(x, y, radius), fill=(250, 210, 40))
    return picture


def word() -> Image.Image:
    """The word "stone"."""
    picture = canvas((255, 255, 255), (238, 242, 238))
    pen = ImageDraw.Draw(picture)
    pen.text(
        (SIZE * SCALE / 2, SIZE * SCALE / 2), "stone", (24, 92, 60), ImageFont.load_default(118 * SCALE), anchor="mm"
    )
    return picture


if __name__ == "__main__":
    for draw in (shapes, stars, word):
        draw().reduce(SCALE).save(FOLDER / f"{draw.__name__}.png", optimize=True)
        print(FOLDER / f"{draw.__name__}.png", draw.__doc__)
