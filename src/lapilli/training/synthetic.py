"""Pictures that the project draws itself, with their truth; the face of the modules that make them.

    python -m lapilli.training.synthetic --data DATA --out sheet.png

draws a sheet of scenes to look at. A scene is a pure function of (index, seed, split) and the art:

    art = Art.load(data)
    scene = scene_at(index, seed, art, "train")
    scene.pixels_HWC, caption(scene, rng), regions(scene), conversation(scene, rng)
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lapilli.training.art import Art
from lapilli.training.captions import Region, caption, region_labels, regions
from lapilli.training.drawing import SIZE
from lapilli.training.questions import Question, cannot_know, conversation, skill_questions
from lapilli.training.scenes import MIX, Item, Scene, Split, draw_scene, scene_at

__all__ = [
    "MIX",
    "Art",
    "Item",
    "Question",
    "Region",
    "Scene",
    "Split",
    "cannot_know",
    "caption",
    "contact_sheet",
    "conversation",
    "draw_scene",
    "region_labels",
    "regions",
    "scene_at",
    "skill_questions",
]


def contact_sheet(art: Art, split: Split, seed: int, count: int = 64) -> Image.Image:
    """Scenes side by side, each with its caption and a question beneath."""
    across, font = 8, ImageFont.load_default(11)
    sheet = Image.new("RGB", (across * 210, -(-count // across) * 190), "white")
    pen = ImageDraw.Draw(sheet)
    for index in range(count):
        scene = scene_at(index, seed, art, split)
        rng = np.random.default_rng((seed, index))
        lines = [caption(scene, rng), *(f"{question} {answer}" for question, answer in conversation(scene, rng, 2))]
        x, y = index % across * 210, index // across * 190
        sheet.paste(scene.image, (x, y))
        for number, line in enumerate(lines):
            pen.text((x, y + SIZE + 2 + 14 * number), line[:42], fill="black", font=font)
    return sheet


def main() -> None:
    """Draw the sheet and print what a scene costs."""
    parser = argparse.ArgumentParser(description="Draw a sheet of training pictures to look at.")
    parser.add_argument("--data", type=Path, default=None, help="folder that holds emoji/ and text/")
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    parser.add_argument("--split", choices=("train", "test"), default="train")
    parser.add_argument("--styles", default="noto,twemoji", help="emoji styles, with commas")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    started = time.process_time()
    art = Art.load(options.data, styles=options.styles.split(","))
    loaded = time.process_time()
    contact_sheet(art, options.split, options.seed).save(options.out)
    warm = time.process_time()
    count = 2000
    for index in range(count):
        scene_at(index, options.seed + 1, art, options.split)
    drawn = time.process_time()
    for index in range(count):
        scene_at(index, options.seed + 1, art, options.split)
    again = time.process_time()
    print(f"processor time: loading {loaded - started:.2f} s, first sheet {warm - loaded:.2f} s")
    first, then = (drawn - warm) / count * 1000, (again - drawn) / count * 1000
    print(f"{first:.2f} ms a scene at first, {then:.2f} ms once glyphs and looks are kept")


if __name__ == "__main__":
    main()
