"""The things, shapes and colours that drawn pictures show: names, grammar, and what training never sees."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.resources import files

SHAPES = ("circle", "square", "triangle", "rectangle", "oval", "diamond", "pentagon", "star", "heart", "cross")

# Hue in degrees, saturation and value in 0..1; the ranges keep clear of each other.
COLOUR_RANGES = {
    "red": ((350, 367), (0.80, 1.0), (0.70, 1.0)),
    "orange": ((24, 36), (0.88, 1.0), (0.92, 1.0)),
    "yellow": ((50, 60), (0.75, 1.0), (0.92, 1.0)),
    "green": ((95, 150), (0.55, 1.0), (0.40, 0.85)),
    "blue": ((206, 240), (0.65, 1.0), (0.55, 1.0)),
    "purple": ((268, 290), (0.50, 0.90), (0.45, 0.85)),
    "pink": ((322, 346), (0.28, 0.60), (0.94, 1.0)),
    "brown": ((18, 30), (0.55, 0.80), (0.32, 0.52)),
    "black": ((0, 360), (0.0, 0.3), (0.0, 0.12)),
    "white": ((0, 360), (0.0, 0.04), (0.96, 1.0)),
    "gray": ((0, 360), (0.0, 0.06), (0.42, 0.64)),
}
COLOURS = tuple(COLOUR_RANGES)
NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight")

_MASS = frozenset({"bacon", "bread", "broccoli", "popcorn", "soap", "spaghetti", "fire", "luggage", "yarn"})
# fmt: off
_PLURAL_ONLY = frozenset({
    "blueberries", "books", "cherries", "fireworks", "french fries", "glasses", "gloves",
    "grapes", "jeans", "peanuts", "scissors", "shorts", "socks", "sunglasses",
})
# fmt: on
_PLURALS = {
    "computer mouse": "computer mice",
    "deer": "deer",
    "ear of corn": "ears of corn",
    "fish": "fish",
    "foot": "feet",
    "glass of milk": "glasses of milk",
    "kitchen knife": "kitchen knives",
    "mouse": "mice",
    "potato": "potatoes",
    "scarf": "scarves",
    "snowman": "snowmen",
    "tomato": "tomatoes",
    "tooth": "teeth",
    "tropical fish": "tropical fish",
}


@cache
def thing_names() -> tuple[str, ...]:
    """The names that `mini` knows, in the fixed order of `models/mini/names.json`."""
    text = files("lapilli").joinpath("models/mini/names.json").read_text(encoding="utf-8")
    return tuple(json.loads(text))


def countable(name: str) -> bool:
    """Whether "two ..." can be said of it: neither a mass noun nor one that is always plural."""
    return name not in _MASS and name not in _PLURAL_ONLY


def verb(name: str) -> str:
    """ "are" for names that are always plural, else "is"."""
    return "are" if name in _PLURAL_ONLY else "is"


def a(name: str) -> str:
    """The name with its indefinite article, where it takes one: "an owl", "a unicorn", "bread"."""
    if not countable(name):
        return name
    return f"an {name}" if name[0] in "aeio" or name.startswith("um") else f"a {name}"


def plural(name: str) -> str:
    """The plural of a name or of "red circle": "two ..." can stand before it."""
    if name in _PLURALS or not countable(name):
        return _PLURALS.get(name, name)
    if name.endswith(("s", "x", "ch", "sh")):
        return f"{name}es"
    if name.endswith("y") and name[-2] not in "aeou":
        return f"{name[:-1]}ies"
    return f"{name}s"


def counted(name: str, count: int) -> str:
    """ "a dog", "two dogs"."""
    return a(name) if count == 1 else f"{NUMBERS[count]} {plural(name)}"


def held_out(kind: str, *parts: str, percent: int) -> bool:
    """Whether these parts, in any order, belong to the fixed `percent` of their kind that training never shows."""
    key = "|".join([kind, *sorted(parts)])
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest()) % 100 < percent


@cache
def held_out_pair(one: str, other: str) -> bool:
    """Whether two things may stand in one picture only in the test split."""
    return one != other and held_out("things", one, other, percent=10)


@cache
def held_out_shapes() -> frozenset[tuple[str, str]]:
    """The (colour, shape) pairs of the test split: one for each shape, no colour twice, drawn by hash."""
    colours = sorted(COLOURS, key=lambda colour: hashlib.blake2b(f"colour|{colour}".encode()).digest())
    return frozenset(zip(colours, SHAPES, strict=False))
