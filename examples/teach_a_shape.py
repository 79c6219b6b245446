"""Teach `mini` a shape that it has never seen, from 200 drawn pictures: `python examples/teach_a_shape.py`.

An hourglass, in any colour. Beside the 200 pictures stand scenes of the kind that mini knows already, so that what it
could it still can. Prints how often it names held-out hourglasses, and its old skills, before and after.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import lapilli
from lapilli.apps.evals.mini import ExamOptions, examine
from lapilli.training.art import Art
from lapilli.training.material import ConversationLessons
from lapilli.training.recipe import Recipe
from lapilli.training.talks import open_talks
from lapilli.training.teach import prepare, teach

COLOURS = {
    "red": (206, 44, 44), "green": (46, 150, 70), "blue": (44, 80, 200), "yellow": (240, 200, 40),
    "purple": (130, 60, 170), "orange": (240, 130, 30),
}  # fmt: skip
QUESTION = "What is in this picture?"


@dataclass(frozen=True)
class Figures:
    """Hourglasses named out of those asked, and old skills' questions answered right."""

    named: int
    asked: int
    skills: dict[str, float]

    def __str__(self) -> str:
        skills = ", ".join(f"{name} {100 * share:.1f} %" for name, share in self.skills.items())
        return f"hourglasses named {self.named} of {self.asked}; {skills}"


def hourglass(rng: random.Random) -> tuple[Image.Image, str]:
    """Two triangles, point to point, somewhere on a pale ground; and what it is."""
    name = rng.choice(list(COLOURS))
    size, half = 128, rng.randint(18, 38)
    x, y = rng.randint(half + 4, size - half - 4), rng.randint(half + 4, size - half - 4)
    wide = half * rng.uniform(0.6, 0.9)
    picture = Image.new("RGB", (size * 4, size * 4), tuple(rng.randint(215, 255) for _ in range(3)))
    corners = [(x - wide, y - half), (x + wide, y - half), (x - wide, y + half), (x + wide, y + half)]
    ImageDraw.Draw(picture).polygon([(4 * a, 4 * b) for a, b in corners], fill=COLOURS[name])
    article = "An" if name[0] in "aeiou" else "A"
    return picture.reduce(4), f"{article} {name} hourglass."


def write_data(folder: Path, new: int, old: int, seed: int) -> Path:
    """The records of `new` hourglasses and `old` scenes of the kind that mini knows, pictures beside them."""
    rng, records = random.Random(seed), []
    for number in range(new):
        picture, answer = hourglass(rng)
        picture.save(folder / f"new{number}.png")
        shape = [{"from": "human", "value": "What shape is it?"}, {"from": "gpt", "value": "An hourglass."}]
        turns = [{"from": "human", "value": f"<image>\n{QUESTION}"}, {"from": "gpt", "value": answer}, *shape]
        records.append({"image": f"new{number}.png", "conversations": turns})
    lessons = ConversationLessons(Art.load(None), seed=seed + 900, questions=(), talk_share=0.0)
    for number in range(old):
        lesson = lessons(number)
        assert lesson.pixels_HWC is not None
        Image.fromarray(lesson.pixels_HWC).save(folder / f"old{number}.png")
        turns = [
            {"from": speaker, "value": text}
            for turn in lesson.dialogue.turns
            for speaker, text in zip(("human", "gpt"), turn, strict=True)
        ]
        turns[0]["value"] = f"<image>\n{turns[0]['value']}"
        records.append({"image": f"old{number}.png", "conversations": turns})
    path = folder / "hourglasses.json"
    path.write_text(json.dumps(records))
    return path


def measure(model: lapilli.LocalModel, asked: int, each: int) -> Figures:
    """How many held-out hourglasses are named, colour and all, and how the old skills stand."""
    rng, named = random.Random(77), 0
    for _ in range(asked):
        picture, answer = hourglass(rng)
        named += model.chat(QUESTION, images=[picture]).text == answer
    results = examine(model, None, ExamOptions(each=each))
    return Figures(named, asked, {score.skill: score.share for score in results.scores})


def main(
    new: int = 200, old: int = 1000, epochs: float = 4, rate: float = 2e-4, asked: int = 50, each: int = 200
) -> tuple[Figures, Figures]:
    """Measure, teach, measure again; the numbers say how much of each."""
    before = measure(lapilli.load("mini"), asked, each)
    print("before:", before)
    with tempfile.TemporaryDirectory() as name:
        folder, started = Path(name), time.monotonic()
        data = write_data(folder, new, old, seed=1)
        recipe = Recipe.read("small-tune", [f"epochs={epochs}", f"rate={rate}", "batch=32"])
        mini = Path(str(lapilli.__file__)).parent / "models" / "mini"
        teach(prepare(recipe, mini, open_talks(data), folder / "work"), folder / "taught")
        print(f"taught {new} hourglasses and {old} known scenes in {time.monotonic() - started:.0f} s")
        after = measure(lapilli.load(folder / "taught"), asked, each)
    print("after: ", after)
    change = {skill: round(100 * (after.skills[skill] - share), 1) for skill, share in before.skills.items()}
    print(
        "points gained or lost:",
        ", ".join(f"{skill} {np.sign(points) * abs(points):+.1f}" for skill, points in change.items()),
    )
    return before, after


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for option, default in (("new", 200), ("old", 1000), ("asked", 50), ("each", 200)):
        parser.add_argument(f"--{option}", type=int, default=default)
    for option, default in (("epochs", 4.0), ("rate", 2e-4)):
        parser.add_argument(f"--{option}", type=float, default=default)
    main(**vars(parser.parse_args()))
