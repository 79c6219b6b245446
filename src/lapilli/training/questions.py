"""Questions about a scene with their answers: conversations to learn from, plain questions to be scored by.

An answer follows from the type of its question alone, so that a model can be scored by exact match.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from lapilli.training.captions import contents, description, groups, listed, names_of, phrase, relations, sentence
from lapilli.training.drawing import pick
from lapilli.training.names import COLOURS, NUMBERS, SHAPES, a, countable, plural, thing_names, verb
from lapilli.training.scenes import Item, Scene, relation

OPPOSITE = {
    "to the left of": "to the right of",
    "to the right of": "to the left of",
    "above": "below",
    "below": "above",
}
Turn = tuple[str, str]


@dataclass(frozen=True)
class Question:
    """A question that tests one skill, its answer, and every other answer that is as right."""

    skill: str
    text: str
    answer: str
    accept: tuple[str, ...]


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
        topics += [_ask_word] * 5 + [_ask_colour]
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
    return pick(rng, _WHAT), sentence(contents(scene))


def _ask_description(scene: Scene, rng: np.random.Generator) -> Turn:
    return pick(rng, _DESCRIBE), sentence(description(scene))


def _ask_word(scene: Scene, rng: np.random.Generator) -> Turn:
    word = next(item for item in scene.items if item.kind == "word")
    return pick(rng, _READ), f'It says "{word.name}".'


def _related(scene: Scene, rng: np.random.Generator) -> tuple[Item, str, str, Item, str] | None:
    """Two items that can be named and stand plainly to each other: (one, its name, relation, other, its name)."""
    choices = list(relations(scene))
    if not choices:
        return None
    one, where, other = pick(rng, choices)
    return one, pick(rng, names_of(one, scene)), where, other, pick(rng, names_of(other, scene))


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
    return f"What is {where} the {name}?", sentence(phrase(one))


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
    only_words = all(item.kind != "shape" for item in scene.items)
    kinds = ("shape", "word") if only_words or rng.random() < 0.2 else ("shape",)
    choices = [
        (item, name)
        for item in scene.items
        if item.kind in kinds
        for name in names_of(item, scene)
        if name != item.label
    ]
    colours = {item.colour for item in scene.items if item.kind == "shape"}
    names = {item.name for item in scene.items if item.kind == "shape"}
    if not choices and len(colours) == len(names) == 1:
        name = next(iter(names))
        return f"What {spelling} are the {plural(name)}?", sentence(next(iter(colours)) or "")
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
    return pick(rng, questions), sentence(item.colour or "")


def _ask_colour_yes_no(scene: Scene, rng: np.random.Generator) -> Turn | None:
    choices = [item for item in scene.items if item.kind == "shape" and item.name in names_of(item, scene)]
    if not choices:
        return None
    item = pick(rng, choices)
    true = rng.random() < 0.5
    said = item.colour if true else pick(rng, [colour for colour in COLOURS if colour != item.colour])
    return f"Is the {item.name} {said}?", "Yes." if true else "No."


def _ask_shape(scene: Scene, rng: np.random.Generator) -> Turn | None:
    shapes = [item for item in scene.items if item.kind == "shape"]
    if len(scene.items) == 1 and rng.random() < 0.6:
        return pick(rng, ("What shape is this?", "What shape is it?", "Which shape do you see?")), sentence(
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
    return question, sentence(a(item.name))


def _ask_count(scene: Scene, rng: np.random.Generator) -> Turn | None:
    if rng.random() < 0.08:
        name = _absent(scene, rng)
        return (f"How many {plural(name)} are there?", "None.") if countable(name) else None
    if rng.random() < 0.12 and all(countable(item.name) and item.kind != "word" for item in scene.items):
        noun = "shapes" if all(item.kind == "shape" for item in scene.items) else "things"
        return f"How many {noun} are there?", _number(len(scene.items))
    counts = Counter(
        name
        for item in scene.items
        if item.kind != "word"
        for name in dict.fromkeys((item.name, item.label))
        if countable(item.name)
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
    return sentence(NUMBERS[count])


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
            answer = sentence(item.colour or "")
            found.append(
                _question(
                    "colour", f"What colour is the {item.name}?", answer, "Grey." if answer == "Gray." else answer
                )
            )
        if sum(other.colour == item.colour for other in shapes) == 1:
            found.append(_question("shape", f"What shape is {item.colour}?", sentence(a(item.name))))
    if scene.kind == "count":
        item, count = max(groups(scene), key=lambda group: group[1])
        if countable(item.name):
            found.append(_question("count", f"How many {plural(item.label)} are there?", _number(count)))
    if len(items) == 2:
        for one, where, other in relations(scene):
            first, second = names_of(one, scene)[0], names_of(other, scene)[0]
            text = f"Where {verb(first)} the {first} relative to the {second}?"
            found.append(_question("relation", text, f"The {first} {verb(first)} {where} the {second}."))
    if scene.kind in ("thing", "things"):
        answer = sentence(contents(scene))
        phrases = [phrase(item) for item in items]
        orders = [sentence(listed(order)) for order in _orders(phrases)]
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
    for place, first in enumerate(phrases):
        for rest in _orders(phrases[:place] + phrases[place + 1 :]):
            yield [first, *rest]
