"""Scenes: a few things, shapes and words laid out on a picture of 128 x 128, with the truth about each.

A scene is a pure function of (index, seed, split) and the loaded art, so any process can draw any one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from PIL import Image

from lapilli.training.art import LETTERS, Art, Thing
from lapilli.training.backdrop import background, finish
from lapilli.training.drawing import SIZE, Box, Colour, Pixels, between, draw_shape, draw_thing, pick, shade
from lapilli.training.lettering import draw_word
from lapilli.training.names import COLOURS, SHAPES, countable, held_out, held_out_pair, held_out_shapes

Split = Literal["train", "test"]
Slot = tuple[float, float, float]  # centre x, centre y, size
SPLITS: tuple[Split, ...] = ("train", "test")
MIX = {
    "thing": 0.23,
    "things": 0.19,
    "count": 0.15,
    "shape": 0.04,
    "shapes": 0.13,
    "thing and shape": 0.07,
    "word": 0.13,
    "word and thing": 0.06,
}
_LOOKS_THE_SAME_IN_BOTH_CASES = frozenset("cosuvwxz")


@dataclass(frozen=True)
class Item:
    """Something in a picture; `name` is "dog", "circle" or the word itself, `colour` is None for a thing.

    `letters` are the boxes of a word's letters. Boxes are (x0, y0, x1, y1) in pixels.
    """

    kind: Literal["thing", "shape", "word"]
    name: str
    colour: str | None
    box: Box
    letters: tuple[Box, ...] = ()

    @property
    def centre(self) -> tuple[float, float]:
        x0, y0, x1, y1 = self.box
        return (x0 + x1) / 2, (y0 + y1) / 2

    @property
    def label(self) -> str:
        """What tells it from other items: "dog", "red circle", 'word "planet"'."""
        if self.kind == "word":
            return f'word "{self.name}"'
        return f"{self.colour} {self.name}" if self.kind == "shape" else self.name


@dataclass(frozen=True, eq=False)
class Scene:
    """A drawn picture and what stands in it, from left to right or, if spread more that way, from top to bottom."""

    kind: str
    items: tuple[Item, ...]
    pixels_HWC: Pixels = field(repr=False)

    @property
    def image(self) -> Image.Image:
        """The picture as Pillow's RGB image."""
        return Image.fromarray(self.pixels_HWC)


def relation(one: Item, other: Item) -> str | None:
    """Where one stands seen from the other: "to the left of", "above", ..., or None where it is not plain."""
    dx, dy = one.centre[0] - other.centre[0], one.centre[1] - other.centre[1]
    if abs(dx) > 1.6 * abs(dy) and (one.box[2] <= other.box[0] + 3 or other.box[2] <= one.box[0] + 3):
        return "to the left of" if dx < 0 else "to the right of"
    if abs(dy) > 1.6 * abs(dx) and (one.box[3] <= other.box[1] + 3 or other.box[3] <= one.box[1] + 3):
        return "above" if dy < 0 else "below"
    return None


def scene_at(index: int, seed: int, art: Art, split: Split, kind: str | None = None) -> Scene:
    """The scene of that index; `kind` is one of `MIX`, or None for the mixture."""
    return draw_scene(np.random.default_rng((seed, SPLITS.index(split), index)), art, split, kind)


def draw_scene(rng: np.random.Generator, art: Art, split: Split, kind: str | None = None) -> Scene:
    """Draw one scene: the same generator state, art and split give the same picture.

    Test scenes use held-out typefaces, words and compositions, and paste things without recolouring.
    """
    if kind is None:
        kind = _kind(rng, has_things=bool(art.things))
    plan = _Plan(rng, art, split)
    _LAYOUTS[kind](plan)
    items, pixels = plan.draw()
    return Scene(kind, tuple(_in_order(items)), pixels)


def _in_order(items: list[Item]) -> list[Item]:
    """From left to right, or from top to bottom where they are spread more that way."""
    spread = [max(places) - min(places) for places in zip(*(item.centre for item in items), strict=True)]
    return sorted(items, key=lambda item: item.centre if spread[0] >= spread[1] else item.centre[::-1])


def _kind(rng: np.random.Generator, *, has_things: bool) -> str:
    kinds = {name: share for name, share in MIX.items() if has_things or "thing" not in name}
    chance = rng.random() * sum(kinds.values())
    for name, share in kinds.items():
        chance -= share
        if chance < 0:
            return name
    return name


@dataclass
class _Plan:
    """What will be drawn, collected before anything is, so that the background can stand clear of all of it."""

    rng: np.random.Generator
    art: Art
    split: Split
    things: list[tuple[Thing, Slot]] = field(default_factory=list)
    shapes: list[tuple[str, str, Colour, Slot]] = field(default_factory=list)
    words: list[tuple[str, str, Colour, Slot, float]] = field(default_factory=list)

    def draw(self) -> tuple[list[Item], Pixels]:
        rng, strong = self.rng, self.split == "train"
        sprites = [pick(rng, thing.sprites) for thing, _ in self.things]
        inks = [(sprite.tone, 50.0) for sprite in sprites]
        inks += [(ink, 95.0) for _, _, ink, _ in self.shapes] + [(ink, 130.0) for _, _, ink, _, _ in self.words]
        canvas = background(rng, inks, self.art.noise_HWC, 0.35 if strong else 0.5)
        items = []
        for (thing, (x, y, size)), sprite in zip(self.things, sprites, strict=True):
            box = draw_thing(rng, canvas, sprite, (x, y), size, strong=strong)
            items.append(Item("thing", thing.name, None, box))
        for shape, colour, ink, (x, y, size) in self.shapes:
            items.append(Item("shape", shape, colour, draw_shape(rng, canvas, shape, ink, (x, y), size)))
        for word, colour, ink, (x, y, width), height in self.words:
            face = pick(rng, self.art.faces(self.split))
            box, letters = draw_word(rng, canvas, word, face, ink, (x, y), (width, height))
            items.append(Item("word", word, colour, box, tuple(letters)))
        return items, finish(rng, canvas, self.art.noise_HWC, strong=strong and not (self.shapes or self.words))

    # --- what ---

    def choose_things(self, count: int) -> list[Thing]:
        """Different things; in training no held-out pair among them, in testing one between the first two."""
        chosen = [pick(self.rng, self.art.things)]
        while len(chosen) < count:
            thing = pick(self.rng, self.art.things)
            if thing in chosen:
                continue
            if self.split == "train" and any(held_out_pair(thing.name, other.name) for other in chosen):
                continue
            if self.split == "test" and len(chosen) == 1 and not held_out_pair(thing.name, chosen[0].name):
                continue
            chosen.append(thing)
        return chosen

    def choose_shapes(self, count: int) -> list[tuple[str, str, Colour]]:
        """(shape, colour, ink): different labels; held-out pairs never in training, half the time first in testing."""
        chosen: list[tuple[str, str, Colour]] = []
        if self.split == "test" and self.rng.random() < 0.5:
            colour, shape = pick(self.rng, sorted(held_out_shapes()))
            chosen.append((shape, colour, shade(self.rng, colour)))
        while len(chosen) < count:
            shape, colour = pick(self.rng, SHAPES), pick(self.rng, COLOURS)
            if any((shape, colour) == other[:2] for other in chosen):
                continue
            if self.split == "train" and (colour, shape) in held_out_shapes():
                continue
            chosen.append((shape, colour, shade(self.rng, colour)))
        return chosen

    def choose_word(self, longest: int = 8) -> str:
        """A word or a string of letters, in capitals, small letters or with one capital."""
        while True:
            chance = self.rng.random()
            if chance < 0.25:
                word = pick(self.rng, self.art.words.common)
            elif chance < 0.55:
                word = pick(self.rng, self.art.words.rare)
            else:
                length = 1 + int(self.rng.random() * longest)
                word = "".join(pick(self.rng, LETTERS[:26]) for _ in range(length))
            if len(word) <= longest and held_out("word", word, percent=10) == (self.split == "test"):
                break
        chance = self.rng.random()
        word = word.upper() if chance < 0.4 else word.title() if chance < 0.6 else word
        if set(word) <= {"I", "l"} or set(word.lower()) <= _LOOKS_THE_SAME_IN_BOTH_CASES:
            return word.upper() if set(word.lower()) != {"l"} else "L" * len(word)
        return word

    def add_word(self, slot: Slot, height: float, longest: int = 8) -> None:
        colour = pick(self.rng, COLOURS) if self.rng.random() < 0.7 else "black"
        self.words.append((self.choose_word(longest), colour, shade(self.rng, colour), slot, height))

    def add_shapes(self, slots: list[Slot]) -> None:
        for (shape, colour, ink), slot in zip(self.choose_shapes(len(slots)), slots, strict=True):
            self.shapes.append((shape, colour, ink, slot))

    def add_things(self, slots: list[Slot]) -> None:
        self.things += zip(self.choose_things(len(slots)), slots, strict=True)


# --- where ---


def _alone(rng: np.random.Generator, smallest: float, largest: float) -> Slot:
    size = between(rng, smallest, largest)
    reach = SIZE - size
    return size / 2 + rng.random() * reach, size / 2 + rng.random() * reach, size


def _pair(rng: np.random.Generator) -> list[Slot]:
    """Two slots beside or above each other, in random order."""
    sizes = between(rng, 32, 56), between(rng, 32, 56)
    gap = between(rng, 2, 126 - sum(sizes))
    start = between(rng, 1, 127 - sum(sizes) - gap)
    first, second = start + sizes[0] / 2, start + sizes[0] + gap + sizes[1] / 2
    drift = (second - first) * 0.5
    low, high = max(sizes) / 2 + 1, SIZE - max(sizes) / 2 - 1
    one = between(rng, low, high)
    other = min(max(one + between(rng, -drift, drift), low), high)
    slots = [(first, one, sizes[0]), (second, other, sizes[1])]
    if rng.random() < 0.5:
        slots = [(y, x, size) for x, y, size in slots]
    return slots if rng.random() < 0.5 else slots[::-1]


def _row(rng: np.random.Generator, count: int) -> list[Slot]:
    """Slots in a row or a column."""
    step = SIZE / count
    size = min(step * between(rng, 0.8, 0.97), 48)
    across = between(rng, size / 2 + 8, SIZE - size / 2 - 8)
    slots = [(step * (place + 0.5), across + between(rng, -6, 6), size) for place in range(count)]
    return slots if rng.random() < 0.5 else [(y, x, side) for x, y, side in slots]


def _cells(rng: np.random.Generator, count: int, across: int) -> list[Slot]:
    """Slots in random cells of a square grid, each off its middle a little."""
    step = SIZE / across
    slots = []
    for cell in rng.permutation(across * across)[:count].tolist():
        size = step * between(rng, 0.7, 0.96)
        slack = (step - size) / 2
        x, y = (cell % across + 0.5) * step, (cell // across + 0.5) * step
        slots.append((x + between(rng, -slack, slack), y + between(rng, -slack, slack), size))
    return slots


def _scattered(rng: np.random.Generator, count: int) -> list[Slot]:
    """Slots anywhere that do not touch; a grid where chance finds no place."""
    largest = 58 - 5 * count
    slots: list[Slot] = []
    for _ in range(12 * count):
        size = between(rng, max(largest * 0.7, 26), largest)
        x, y = between(rng, size / 2, SIZE - size / 2), between(rng, size / 2, SIZE - size / 2)
        if all(max(abs(x - ox), abs(y - oy)) > (size + side) / 2 + 2 for ox, oy, side in slots):
            slots.append((x, y, size))
            if len(slots) == count:
                return slots
    return _cells(rng, count, 3)


def _several(rng: np.random.Generator, count: int) -> list[Slot]:
    if count == 1:
        return [_alone(rng, 34, 90)]
    if count == 2:
        return _pair(rng)
    chance = rng.random()
    if count <= 4 and chance < 0.3:
        return _cells(rng, count, 2)
    if chance < 0.45:
        return _row(rng, count) if count <= 4 else _cells(rng, count, 3)
    return _scattered(rng, count)


# --- the kinds of scene ---


def _thing(plan: _Plan) -> None:
    plan.add_things([_alone(plan.rng, *((44, 126) if plan.rng.random() < 0.8 else (28, 50)))])


def _things(plan: _Plan) -> None:
    plan.add_things(_several(plan.rng, pick(plan.rng, (2, 2, 2, 3, 3, 4))))


def _count(plan: _Plan) -> None:
    """One to five of a kind, sometimes with one or two others."""
    rng = plan.rng
    count = 1 + int(rng.random() * 5)
    others = pick(rng, (0, 0, 0, 1, 2)) if count < 5 else 0
    slots = _several(rng, count + others)
    if plan.art.things and rng.random() < 0.6:
        things = plan.choose_things(1 + others)
        if countable(things[0].name):
            plan.things += [(things[0], slot) for slot in slots[:count]]
            plan.things += zip(things[1:], slots[count:], strict=True)
        else:
            plan.things += zip(things, slots[: len(things)], strict=True)
        return
    shapes = plan.choose_shapes(1 + others)
    for slot in slots[:count]:
        plan.shapes.append((*shapes[0], slot))
    for kind, slot in zip(shapes[1:], slots[count:], strict=True):
        plan.shapes.append((*kind, slot))


def _shape(plan: _Plan) -> None:
    plan.add_shapes([_alone(plan.rng, 30, 110)])


def _shapes(plan: _Plan) -> None:
    plan.add_shapes(_several(plan.rng, pick(plan.rng, (2, 2, 2, 3, 4))))


def _thing_and_shape(plan: _Plan) -> None:
    slots = _several(plan.rng, pick(plan.rng, (2, 2, 3)))
    cut = pick(plan.rng, (1, len(slots) - 1))
    plan.add_things(slots[:cut])
    plan.add_shapes(slots[cut:])


def _word(plan: _Plan) -> None:
    rng = plan.rng
    plan.add_word((between(rng, 20, 108), between(rng, 16, 112), between(rng, 112, 124)), between(rng, 24, 64))


def _word_and_thing(plan: _Plan) -> None:
    """A word above, below or (if short) beside a thing or a shape."""
    rng = plan.rng
    size = between(rng, 40, 66)
    if rng.random() < 0.25:
        x = between(rng, size / 2, 54 - size / 2) if size < 52 else size / 2
        room = SIZE - x - size / 2 - 6
        slot, word = (
            (x, between(rng, size / 2, SIZE - size / 2), size),
            (SIZE - room / 2 - 2, between(rng, 30, 98), room - 4),
        )
        if rng.random() < 0.5:
            slot, word = (SIZE - slot[0], *slot[1:]), (SIZE - word[0], *word[1:])
        longest, height = 4, between(rng, 24, 44)
    else:
        height = between(rng, 22, min(48, SIZE - size - 6))
        y = between(rng, size / 2, (SIZE - height - 4) - size / 2)
        line = between(rng, y + size / 2 + height / 2 + 3, SIZE - height / 2)
        slot, word = (
            (between(rng, size / 2, SIZE - size / 2), y, size),
            (between(rng, 50, 78), line, between(rng, 112, 122)),
        )
        if rng.random() < 0.5:
            slot, word = (slot[0], SIZE - y, size), (word[0], SIZE - line, word[2])
        longest = 8
    if plan.art.things and rng.random() < 0.75:
        plan.add_things([slot])
    else:
        plan.add_shapes([slot])
    plan.add_word(word, height, longest)


_LAYOUTS: dict[str, Callable[[_Plan], None]] = {
    "thing": _thing,
    "things": _things,
    "count": _count,
    "shape": _shape,
    "shapes": _shapes,
    "thing and shape": _thing_and_shape,
    "word": _word,
    "word and thing": _word_and_thing,
}
assert _LAYOUTS.keys() == MIX.keys()
