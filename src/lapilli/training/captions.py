"""What a scene shows, in words: labelled regions, captions, and the names by which an item can be called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lapilli.training.art import LETTERS
from lapilli.training.drawing import Box
from lapilli.training.names import COLOURS, SHAPES, counted, held_out_shapes, thing_names
from lapilli.training.scenes import Item, Scene, relation


@dataclass(frozen=True)
class Region:
    """A part of the picture and what it shows: a thing's name, "red circle", "letter K"."""

    label: str
    box: Box


def region_labels() -> list[str]:
    """Every label that the regions of training scenes can have: things, coloured shapes, letters."""
    shapes = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES if (colour, shape) not in held_out_shapes()]
    return [*thing_names(), *shapes, *(f"letter {letter}" for letter in LETTERS)]


def regions(scene: Scene) -> list[Region]:
    """Each thing and shape, and each letter of each word, with its box."""
    found = []
    for item in scene.items:
        if item.kind == "word":
            found += [Region(f"letter {letter}", box) for letter, box in zip(item.name, item.letters, strict=True)]
        else:
            found.append(Region(item.label, item.box))
    return found


# --- naming ---


def groups(scene: Scene) -> list[tuple[Item, int]]:
    """Each different label once, in the order of its first item, with its count."""
    counts = Counter(item.label for item in scene.items)
    first = {item.label: item for item in reversed(scene.items)}
    return [(first[label], counts[label]) for label in dict.fromkeys(item.label for item in scene.items)]


def phrase(item: Item, count: int = 1) -> str:
    return f"the {item.label}" if item.kind == "word" else counted(item.label, count)


def listed(phrases: list[str]) -> str:
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def contents(scene: Scene) -> str:
    return listed([phrase(item, count) for item, count in groups(scene)])


def description(scene: Scene) -> str:
    """All that is there, with the relation of two single items: "a red circle to the left of a blue square"."""
    found = groups(scene)
    if len(found) == 2 and all(count == 1 for _, count in found):
        (one, _), (other, _) = found
        where = relation(one, other)
        if where is not None:
            return f"{phrase(one)} {where} {phrase(other)}"
    return contents(scene)


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """One dense line on the scene, without a capital or a full stop: "three dogs", "an owl above a bus"."""
    found = groups(scene)
    if len(found) == 2 and all(count == 1 for _, count in found) and rng.random() < 0.85:
        (one, _), (other, _) = found if rng.random() < 0.5 else found[::-1]
        where = relation(one, other)
        if where is not None:
            return f"{phrase(one)} {where} {phrase(other)}"
    phrases = [phrase(item, count) for item, count in found]
    if rng.random() < 0.5:
        phrases = phrases[::-1]
    return listed(phrases)


def names_of(item: Item, scene: Scene) -> list[str]:
    """The names that point at this item and no other: "circle" if it is the only circle, "red circle"."""
    if item.kind == "word":
        return ["word"] if sum(other.kind == "word" for other in scene.items) == 1 else []
    alone = sum(other.name == item.name and other.kind == item.kind for other in scene.items) == 1
    if item.kind == "thing":
        return [item.name] if alone else []
    names = [item.name] if alone else []
    return [*names, item.label] if sum(other.label == item.label for other in scene.items) == 1 else names


def relations(scene: Scene) -> Iterator[tuple[Item, str, Item]]:
    named = [item for item in scene.items if names_of(item, scene)]
    for one in named:
        for other in named:
            where = relation(one, other) if one is not other else None
            if where is not None:
                yield one, where, other
