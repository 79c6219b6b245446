"""What can be said about a drawn scene: captions, labelled regions, questions and answers; and a sheet to look at.

    python -m lapilli.training.synthetic --data DATA --out sheet.png

Answers follow from the question's type alone, so that a model can be scored by exact match.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lapilli.training.art import Art
from lapilli.training.drawing import SIZE, Box, pick
from lapilli.training.names import COLOURS, NUMBERS, SHAPES, a, countable, counted, plural, thing_names, verb
from lapilli.training.scenes import Item, Scene, Split, draw_scene, relation, scene_at

__all__ = [
    "Art",
    "Question",
    "Region",
    "Scene",
    "caption",
    "conversation",
    "draw_scene",
    "regions",
    "scene_at",
    "skill_questions",
]

OPPOSITE = {
    "to the left of": "to the right of",
    "to the right of": "to the left of",
    "above": "below",
    "below": "above",
}
Turn = tuple[str, str]


@dataclass(frozen=True)
class Region:
    """A part of the picture and what it shows: a thing's name, "red circle", "letter K"."""

    label: str
    box: Box


@dataclass(frozen=True)
class Question:
    """A question that tests one skill, its answer, and every other answer that is as right."""

    skill: str
    text: str
    answer: str
    accept: tuple[str, ...]


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


def _groups(scene: Scene) -> list[tuple[Item, int]]:
    """Each different label once, left to right by its first item, with its count."""
    counts = Counter(item.label for item in scene.items)
    first = {item.label: item for item in reversed(scene.items)}
    return [(first[label], counts[label]) for label in dict.fromkeys(item.label for item in scene.items)]


def _phrase(item: Item, count: int = 1) -> str:
    return f"the {item.label}" if item.kind == "word" else counted(item.label, count)


def _listed(phrases: list[str]) -> str:
    return phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _contents(scene: Scene) -> str:
    return _listed([_phrase(item, count) for item, count in _groups(scene)])


def _description(scene: Scene) -> str:
    """All that is there, with the relation of two single items: "a red circle to the left of a blue square"."""
    groups = _groups(scene)
    if len(groups) == 2 and all(count == 1 for _, count in groups):
        (one, _), (other, _) = groups
        where = relation(one, other)
        if where in ("to the left of", "above"):
            return f"{_phrase(one)} {where} {_phrase(other)}"
        if where == "below":
            return f"{_phrase(other)} above {_phrase(one)}"
    return _contents(scene)


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """One dense line on the scene, without a capital or a full stop: "three dogs", "an owl above a bus"."""
    groups = _groups(scene)
    if len(groups) == 2 and all(count == 1 for _, count in groups) and rng.random() < 0.85:
        (one, _), (other, _) = groups if rng.random() < 0.5 else groups[::-1]
        where = relation(one, other)
        if where is not None:
            return f"{_phrase(one)} {where} {_phrase(other)}"
    phrases = [_phrase(item, count) for item, count in groups]
    if rng.random() < 0.5:
        phrases = phrases[::-1]
    return _listed(phrases)


# --- questions and answers ---

_WHAT = (
    "What is in this picture?",
    "What is in this picture?",
    "What is this?",
    "What do you see?",
    "What can you see in this picture?",
    "What does the picture show?",
    "What is shown here?",
    "Name what is in the picture.",
    "What's in the image?",
    "What is in this image?",
    "What is in the photo?",
)
_DESCRIBE = (
    "Describe the picture.",
    "Describe this image.",
    "Describe what you see.",
    "Can you describe this picture?",
    "Give a short description of the image.",
)
_READ = (
    "What does it say?",
    "What is written here?",
    "What word is this?",
    "Read the word.",
    "What does the text say?",
    "Which word do you see?",
    "What word is printed in the picture?",
    "Can you read the text?",
)
_CANNOT_KNOW = {
    "I cannot tell from the picture who made it.": (
        "Do you know who drew this painting?",
        "Who drew this painting?",
        "Who painted this?",
        "Who is the artist?",
        "Who made this picture?",
        "Which painter made this?",
        "Who drew this?",
        "Who took this photo?",
        "Do you know who painted this picture?",
        "Can you tell me who the artist is?",
    ),
    "I cannot tell from the picture where it was made.": (
        "Where was this photo taken?",
        "Where was this picture taken?",
        "In which city is this?",
        "Which country is this?",
        "Where is this place?",
    ),
    "I cannot tell from the picture when it was made.": (
        "When was this photo taken?",
        "When was this painted?",
        "How old is this picture?",
        "What year is it from?",
        "Which day was this taken?",
    ),
    "I cannot tell from the picture who that is.": (
        "Who is this person?",
        "What is his name?",
        "What is her name?",
        "Who is in this photo?",
        "Do you know this person?",
        "What is the name of the person?",
        "Who is that?",
    ),
    "I cannot tell from the picture.": (
        "How much does this cost?",
        "Who owns this?",
        "What happened before this?",
        "What will happen next?",
        "How heavy is it?",
        "What is this person thinking?",
        "Why was this picture made?",
        "What does it smell like?",
    ),
}


def cannot_know(rng: np.random.Generator) -> Turn:
    """A question that no picture answers, and the honest reply, which names nobody."""
    answer = pick(rng, tuple(_CANNOT_KNOW))
    if rng.random() < 0.35:
        answer = next(iter(_CANNOT_KNOW))
    return pick(rng, _CANNOT_KNOW[answer]), answer


def conversation(scene: Scene, rng: np.random.Generator, turns: int | None = None) -> list[Turn]:
    """Questions about the scene with their answers, 3 to 5 of them unless told, none asked twice."""
    wanted = turns or 3 + int(rng.random() * 3)
    topics = _topics(scene)
    asked: dict[str, str] = {}
    for _ in range(8 * wanted):
        turn = cannot_know(rng) if rng.random() < 0.06 else pick(rng, topics)(scene, rng)
        if turn is not None:
            asked.setdefault(*turn)
        if len(asked) >= wanted:
            break
    return list(asked.items())


Topic = Callable[[Scene, np.random.Generator], "Turn | None"]


def _topics(scene: Scene) -> list[Topic]:
    """What can be asked of this scene, the more important topics more than once."""
    topics: list[Topic] = [_ask_what, _ask_what, _ask_description, _ask_presence, _ask_count]
    kinds = {item.kind for item in scene.items}
    if "word" in kinds:
        topics += [_ask_word] * 5
    if len(scene.items) >= 2:
        topics += [_ask_where, _ask_where_yes_no, _ask_neighbour, _ask_which_side] + [_ask_where] * (
            len(scene.items) == 2
        )
    if "shape" in kinds:
        topics += [_ask_colour, _ask_colour, _ask_shape, _ask_shape, _ask_colour_yes_no]
    if scene.kind == "count":
        topics += [_ask_count] * 5
    return topics


def _ask_what(scene: Scene, rng: np.random.Generator) -> Turn:
    return pick(rng, _WHAT), _sentence(_contents(scene))


def _ask_description(scene: Scene, rng: np.random.Generator) -> Turn:
    return pick(rng, _DESCRIBE), _sentence(_description(scene))


def _ask_word(scene: Scene, rng: np.random.Generator) -> Turn:
    word = next(item for item in scene.items if item.kind == "word")
    return pick(rng, _READ), f'It says "{word.name}".'


def _names(item: Item, scene: Scene) -> list[str]:
    """The names that point at this item and no other: "circle" if it is the only circle, "red circle"."""
    if item.kind == "word":
        return ["word"] if sum(other.kind == "word" for other in scene.items) == 1 else []
    alone = sum(other.name == item.name and other.kind == item.kind for other in scene.items) == 1
    if item.kind == "thing":
        return [item.name] if alone else []
    names = [item.name] if alone else []
    return [*names, item.label] if sum(other.label == item.label for other in scene.items) == 1 else names


def _pointed(
    scene: Scene, rng: np.random.Generator, kinds: tuple[str, ...] = ("thing", "shape", "word")
) -> tuple[Item, str] | None:
    choices = [(item, name) for item in scene.items if item.kind in kinds for name in _names(item, scene)]
    return pick(rng, choices) if choices else None


def _related(scene: Scene, rng: np.random.Generator) -> tuple[Item, str, str, Item, str] | None:
    """Two items that can be named and stand plainly to each other: (one, its name, relation, other, its name)."""
    choices = list(_relations(scene))
    if not choices:
        return None
    one, where, other = pick(rng, choices)
    return one, pick(rng, _names(one, scene)), where, other, pick(rng, _names(other, scene))


def _relations(scene: Scene) -> Iterator[tuple[Item, str, Item]]:
    named = [item for item in scene.items if _names(item, scene)]
    for one in named:
        for other in named:
            where = relation(one, other) if one is not other else None
            if where is not None:
                yield one, where, other


def _ask_where(scene: Scene, rng: np.random.Generator) -> Turn | None:
    found = _related(scene, rng)
    if found is None:
        return None
    _, one, where, _, other = found
    questions = [f"Where is the {one} relative to the {other}?", f"Where is the {one} compared with the {other}?"]
    if len(scene.items) == 2:
        questions = [f"Where is the {one}?", *questions]
    question = pick(rng, questions).replace("Where is", f"Where {verb(one)}")
    return question, f"The {one} {verb(one)} {where} the {other}."


def _ask_where_yes_no(scene: Scene, rng: np.random.Generator) -> Turn | None:
    found = _related(scene, rng)
    if found is None:
        return None
    _, one, where, _, other = found
    true = rng.random() < 0.5
    said = where if true else OPPOSITE[where] if rng.random() < 0.7 else pick(rng, [w for w in OPPOSITE if w != where])
    return f"{verb(one).title()} the {one} {said} the {other}?", "Yes." if true else "No."


def _ask_neighbour(scene: Scene, rng: np.random.Generator) -> Turn | None:
    """ "What is above the dog?", asked where there is one answer only."""
    found = _related(scene, rng)
    if found is None:
        return None
    one, _, where, other, name = found
    if any(item is not one and relation(item, other) in (where, None) for item in scene.items if item is not other):
        return None
    return f"What is {where} the {name}?", _sentence(_phrase(one))


def _ask_which_side(scene: Scene, rng: np.random.Generator) -> Turn | None:
    found = _related(scene, rng)
    if found is None:
        return None
    _, one, where, _, other = found
    first, second = (one, other) if rng.random() < 0.5 else (other, one)
    side = {
        "to the left of": "on the left",
        "to the right of": "on the right",
        "above": "higher up",
        "below": "lower down",
    }[where]
    return f"Which is {side}, the {first} or the {second}?", f"The {one}."


def _ask_colour(scene: Scene, rng: np.random.Generator) -> Turn | None:
    spelling = "colour" if rng.random() < 0.5 else "color"
    kinds = ("shape", "word") if rng.random() < 0.2 else ("shape",)
    choices = [
        (item, name) for item in scene.items if item.kind in kinds for name in _names(item, scene) if name != item.label
    ]
    colours = {item.colour for item in scene.items if item.kind == "shape"}
    names = {item.name for item in scene.items if item.kind == "shape"}
    if not choices and len(colours) == len(names) == 1:
        name = next(iter(names))
        return f"What {spelling} are the {plural(name)}?", _sentence(next(iter(colours)) or "")
    if not choices:
        return None
    item, name = pick(rng, choices)
    questions = [
        f"What {spelling} is the {name}?",
        f"What {spelling} is the {name}?",
        f"Which {spelling} does the {name} have?",
    ]
    if len(scene.items) == 1:
        questions += [f"What {spelling} is it?", f"What {spelling} is this?"]
    return pick(rng, questions), _sentence(item.colour or "")


def _ask_colour_yes_no(scene: Scene, rng: np.random.Generator) -> Turn | None:
    choices = [item for item in scene.items if item.kind == "shape" and item.name in _names(item, scene)]
    if not choices:
        return None
    item = pick(rng, choices)
    true = rng.random() < 0.5
    said = item.colour if true else pick(rng, [colour for colour in COLOURS if colour != item.colour])
    return f"Is the {item.name} {said}?", "Yes." if true else "No."


def _ask_shape(scene: Scene, rng: np.random.Generator) -> Turn | None:
    shapes = [item for item in scene.items if item.kind == "shape"]
    if len(scene.items) == 1 and rng.random() < 0.6:
        return pick(rng, ("What shape is this?", "What shape is it?", "Which shape do you see?")), _sentence(
            a(shapes[0].name)
        )
    choices = [item for item in shapes if sum(other.colour == item.colour for other in shapes) == 1]
    if not choices:
        return None
    item = pick(rng, choices)
    question = pick(
        rng,
        (f"What shape is {item.colour}?", f"Which shape is {item.colour}?", f"What shape is the {item.colour} one?"),
    )
    return question, _sentence(a(item.name))


def _ask_count(scene: Scene, rng: np.random.Generator) -> Turn | None:
    if rng.random() < 0.08:
        name = _absent(scene, rng)
        return (f"How many {plural(name)} are there?", "None.") if countable(name) else None
    if rng.random() < 0.12 and all(countable(item.name) and item.kind != "word" for item in scene.items):
        noun = "shapes" if all(item.kind == "shape" for item in scene.items) else "things"
        return f"How many {noun} are there?", _number(len(scene.items))
    counts = Counter(
        name for item in scene.items if item.kind != "word" for name in {item.name, item.label} if countable(item.name)
    )
    if not counts:
        return None
    most = max(counts.values())
    name = pick(rng, [name for name, count in counts.items() if count == most or rng.random() < 0.5])
    questions = (
        f"How many {plural(name)} are there?",
        f"How many {plural(name)} are there?",
        f"How many {plural(name)} are in the picture?",
        f"How many {plural(name)} do you see?",
        f"Count the {plural(name)}.",
    )
    return pick(rng, questions), _number(counts[name])


def _number(count: int) -> str:
    return _sentence(NUMBERS[count])


def _absent(scene: Scene, rng: np.random.Generator) -> str:
    """A name of something that is not there, as like to what is there as the scene allows."""
    names = {item.name for item in scene.items} | {item.label for item in scene.items}
    while True:
        if any(item.kind == "shape" for item in scene.items) and rng.random() < 0.75:
            name = f"{pick(rng, COLOURS)} {pick(rng, SHAPES)}" if rng.random() < 0.6 else pick(rng, SHAPES)
        else:
            name = pick(rng, thing_names())
        if name not in names:
            return name


def _ask_presence(scene: Scene, rng: np.random.Generator) -> Turn | None:
    items = [item for item in scene.items if item.kind != "word"]
    true = bool(items) and rng.random() < 0.5
    if true:
        item = pick(rng, items)
        name = item.name if rng.random() < 0.5 else item.label
    elif items or rng.random() < 0.4:
        name = _absent(scene, rng)
    else:
        return pick(rng, ("Is there a word in the picture?", "Is there any text?")), "Yes."
    question = f"{verb(name).title()} there {a(name)}"
    return pick(
        rng, (f"{question}?", f"{question} in the picture?", f"Do you see {a(name)}?")
    ), "Yes." if true else "No."


# --- scoring ---


def skill_questions(scene: Scene) -> list[Question]:
    """One plain question for each skill that the scene can test: colour, shape, count, relation, naming, word."""
    found: list[Question] = []
    items = scene.items
    shapes = [item for item in items if item.kind == "shape"]
    for item in shapes:
        if sum(other.name == item.name for other in shapes) == 1:
            answer = _sentence(item.colour or "")
            found.append(
                _question(
                    "colour", f"What colour is the {item.name}?", answer, "Grey." if answer == "Gray." else answer
                )
            )
        if sum(other.colour == item.colour for other in shapes) == 1:
            found.append(_question("shape", f"What shape is {item.colour}?", _sentence(a(item.name))))
    if scene.kind == "count":
        item, count = max(_groups(scene), key=lambda group: group[1])
        if countable(item.name):
            found.append(_question("count", f"How many {plural(item.label)} are there?", _number(count)))
    if len(items) == 2:
        for one, where, other in _relations(scene):
            first, second = _names(one, scene)[0], _names(other, scene)[0]
            text = f"Where {verb(first)} the {first} relative to the {second}?"
            found.append(_question("relation", text, f"The {first} {verb(first)} {where} the {second}."))
    if scene.kind in ("thing", "things"):
        answer = _sentence(_contents(scene))
        phrases = [_phrase(item) for item in items]
        orders = [_sentence(_listed(order)) for order in _orders(phrases)]
        found.append(_question("naming", "What is in this picture?", answer, *orders))
    for item in items:
        if item.kind == "word":
            found.append(_question("word", "What does it say?", f'It says "{item.name}".'))
    return found


def _question(skill: str, text: str, answer: str, *others: str) -> Question:
    return Question(skill, text, answer, tuple(dict.fromkeys((answer, *others))))


def _orders(phrases: list[str]) -> Iterator[list[str]]:
    if len(phrases) <= 1:
        yield phrases
        return
    for place, phrase in enumerate(phrases):
        for rest in _orders(phrases[:place] + phrases[place + 1 :]):
            yield [phrase, *rest]


# --- the sheet ---


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
    started = time.perf_counter()
    art = Art.load(options.data, styles=options.styles.split(","))
    loaded = time.perf_counter()
    contact_sheet(art, options.split, options.seed).save(options.out)
    warm = time.perf_counter()
    count = 2000
    for index in range(count):
        scene_at(index, options.seed + 1, art, options.split)
    drawn = time.perf_counter()
    for index in range(count):
        scene_at(index, options.seed + 1, art, options.split)
    again = time.perf_counter()
    print(f"loading {loaded - started:.2f} s, first sheet {warm - loaded:.2f} s")
    print(
        f"{(drawn - warm) / count * 1000:.2f} ms a scene at first, {(again - drawn) / count * 1000:.2f} ms once glyphs are kept"
    )


if __name__ == "__main__":
    main()
