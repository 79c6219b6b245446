"""Drawn pictures: the truth that goes with them is true, they repeat, and the test split stays unseen."""

from __future__ import annotations

import colorsys
import json
import os
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from lapilli.errors import TrainingError
from lapilli.training.art import Art, Typeface, system_fonts
from lapilli.training.drawing import SIZE, draw_shape, shade
from lapilli.training.lettering import draw_word
from lapilli.training.names import (
    COLOUR_RANGES,
    COLOURS,
    NUMBERS,
    SHAPES,
    a,
    counted,
    held_out,
    held_out_pair,
    held_out_shapes,
    plural,
    thing_names,
)
from lapilli.training.scenes import MIX, Item, Scene, relation, scene_at
from lapilli.training.synthetic import (
    cannot_know,
    caption,
    contact_sheet,
    conversation,
    region_labels,
    regions,
    skill_questions,
)


@cache
def plain_art() -> Art:
    """Shapes and words in the built-in font: what every machine has."""
    return Art.load(None, fonts=[])


@pytest.fixture(scope="session")
def art(shared_data: Path) -> Art:
    return Art.load(shared_data, fonts=system_fonts()[:12])


def scenes(art: Art, count: int, split: str = "train", seed: int = 0, kind: str | None = None) -> list[Scene]:
    return [scene_at(index, seed, art, split, kind) for index in range(count)]  # type: ignore[arg-type]


def item(name: str, x0: float, y0: float, x1: float, y1: float) -> Item:
    return Item("shape", name, "red", (x0, y0, x1, y1))


# --- names ---


def test_names_are_many_plain_and_different() -> None:
    names = thing_names()
    assert 250 <= len(names) <= 270
    assert len(set(names)) == len(names)
    assert not [
        name for name in names if "flag" in name or "logo" in name or ("clock" in name and name != "alarm clock")
    ]
    assert not set(names) & set(SHAPES)


def test_every_name_is_a_concept_with_a_picture(shared_data: Path) -> None:
    concepts = json.loads((shared_data / "emoji" / "concepts.json").read_text())
    assert set(thing_names()) <= {concept["name"] for concept in concepts}


@pytest.mark.parametrize(
    ("name", "one", "two"),
    [
        ("dog", "a dog", "two dogs"),
        ("owl", "an owl", "two owls"),
        ("unicorn", "a unicorn", "two unicorns"),
        ("umbrella", "an umbrella", "two umbrellas"),
        ("bus", "a bus", "two buses"),
        ("butterfly", "a butterfly", "two butterflies"),
        ("turkey", "a turkey", "two turkeys"),
        ("ear of corn", "an ear of corn", "two ears of corn"),
        ("computer mouse", "a computer mouse", "two computer mice"),
        ("orange cross", "an orange cross", "two orange crosses"),
    ],
)
def test_grammar(name: str, one: str, two: str) -> None:
    assert (counted(name, 1), counted(name, 2)) == (one, two)


def test_mass_nouns_and_plurals_take_no_article() -> None:
    assert [a(name) for name in ("bread", "scissors", "french fries")] == ["bread", "scissors", "french fries"]


# --- colours and shapes ---


def colour_names(rgb: np.ndarray, slack: float = 0.05) -> list[str]:
    """The names whose range holds this colour, give or take what a finish may change."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(rgb / 255))
    found = []
    for name, ((low, high), saturations, values) in COLOUR_RANGES.items():
        degrees = hue * 360 + (360 if hue * 360 + 360 <= high else 0)
        right_hue = low - 3 <= degrees <= high + 3 or high - low == 360
        right_saturation = saturations[0] - slack <= saturation <= saturations[1] + slack or value < 0.1
        right_value = values[0] - slack <= value <= values[1] + slack
        if right_hue and right_saturation and right_value:
            found.append(name)
    return found


@pytest.mark.parametrize("colour", COLOURS)
def test_a_shade_has_one_name(colour: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        assert colour_names(np.asarray(shade(rng, colour))) == [colour]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_drawn_in_its_colour_within_its_box(shape: str) -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        canvas = np.full((SIZE, SIZE, 3), 128.0, np.float32)
        x0, y0, x1, y1 = (int(edge) for edge in draw_shape(rng, canvas, shape, (200.0, 30.0, 40.0), (64, 64), 60))
        assert 0 <= x0 < x1 <= SIZE
        assert 0 <= y0 < y1 <= SIZE
        assert 30 <= max(x1 - x0, y1 - y0) <= 84
        middle = canvas[(y0 + y1) // 2, (x0 + x1) // 2]
        assert np.abs(middle - (200, 30, 40)).max() < 50
        outside = np.abs(canvas - 128).max(-1)
        outside[max(y0 - 7, 0) : y1 + 8, max(x0 - 7, 0) : x1 + 8] = 0  # a shadow reaches a little further
        assert outside.max() == 0


def test_the_shapes_differ() -> None:
    masks = {}
    for shape in SHAPES:
        total = np.zeros((SIZE, SIZE), np.float32)
        for seed in range(12):
            canvas = np.full((SIZE, SIZE, 3), 255.0, np.float32)
            draw_shape(np.random.default_rng(seed), canvas, shape, (0.0, 0.0, 0.0), (64, 64), 80)
            total += canvas[..., 0] < 100
        masks[shape] = total / 12
    for one, other in combinations(SHAPES, 2):
        assert np.abs(masks[one] - masks[other]).sum() > 0.1 * masks[one].sum(), (one, other)


# --- scenes ---


def test_a_scene_depends_on_index_seed_and_split_alone() -> None:
    first, again = scene_at(5, 1, plain_art(), "train"), scene_at(5, 1, plain_art(), "train")
    assert first.items == again.items
    assert np.array_equal(first.pixels_HWC, again.pixels_HWC)
    others = [scene_at(6, 1, plain_art(), "train"), scene_at(5, 2, plain_art(), "train")]
    others.append(scene_at(5, 1, plain_art(), "test"))
    assert not any(np.array_equal(first.pixels_HWC, other.pixels_HWC) for other in others)


_DIGEST = """
import hashlib, numpy as np
from lapilli.training.synthetic import *
art, total = Art.load(None, fonts=[]), hashlib.sha256()
for index in range(60):
    scene, rng = scene_at(index, 3, art, "train"), np.random.default_rng(index)
    total.update(scene.pixels_HWC.tobytes())
    total.update(repr((caption(scene, rng), conversation(scene, rng), regions(scene))).encode())
print(total.hexdigest())
"""


def test_every_process_draws_and_says_the_same() -> None:
    def digest(hash_seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", _DIGEST]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout

    assert digest("1") == digest("2")


def test_pictures_are_of_one_size_and_show_something() -> None:
    for scene in scenes(plain_art(), 60):
        assert scene.pixels_HWC.shape == (SIZE, SIZE, 3)
        assert scene.pixels_HWC.dtype == np.uint8
        assert scene.items
        for thing in scene.items:
            x0, y0, x1, y1 = (int(edge) for edge in thing.box)
            assert scene.pixels_HWC[y0:y1, x0:x1].std() > 4, thing


@pytest.mark.parametrize("kind", MIX)
def test_each_kind_can_be_drawn(kind: str, art: Art) -> None:
    for scene in scenes(art, 8, kind=kind):
        assert scene.kind == kind
        assert all(min(thing.box) >= 0 and max(thing.box) <= SIZE for thing in scene.items)
        assert {region.label for region in regions(scene)} <= set(region_labels())


def test_items_hardly_overlap(art: Art) -> None:
    overlaps = 0
    for scene in scenes(art, 200):
        for one, other in combinations(scene.items, 2):
            width = min(one.box[2], other.box[2]) - max(one.box[0], other.box[0])
            height = min(one.box[3], other.box[3]) - max(one.box[1], other.box[1])
            smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (one.box, other.box))
            overlaps += width > 0 and height > 0 and width * height > 0.15 * smaller
    assert overlaps <= 4


def test_relations_are_said_only_where_they_are_plain() -> None:
    left, right = item("circle", 0, 40, 30, 70), item("square", 60, 45, 90, 75)
    assert (relation(left, right), relation(right, left)) == ("to the left of", "to the right of")
    top = item("star", 5, 0, 35, 30)
    assert (relation(top, left), relation(left, top)) == ("above", "below")
    assert relation(item("heart", 0, 0, 30, 30), item("oval", 40, 40, 70, 70)) is None
    assert relation(item("heart", 0, 0, 60, 60), item("oval", 40, 0, 100, 60)) is None


# --- the split ---


def test_one_colour_of_each_shape_is_kept_for_testing() -> None:
    assert Counter(shape for _, shape in held_out_shapes()) == dict.fromkeys(SHAPES, 1)
    assert max(Counter(colour for colour, _ in held_out_shapes()).values()) == 1


def test_training_never_shows_held_out_shapes_or_words() -> None:
    seen = [thing for scene in scenes(plain_art(), 400) for thing in scene.items]
    assert not {(thing.colour, thing.name) for thing in seen} & held_out_shapes()
    words = [thing.name.lower() for thing in seen if thing.kind == "word"]
    assert len(words) > 50
    assert not [word for word in words if held_out("word", word, percent=10)]


def test_testing_shows_held_out_shapes_and_only_held_out_words() -> None:
    seen = [thing for scene in scenes(plain_art(), 200, "test") for thing in scene.items]
    assert {(thing.colour, thing.name) for thing in seen} >= held_out_shapes()
    assert all(held_out("word", thing.name.lower(), percent=10) for thing in seen if thing.kind == "word")


def test_pairs_of_things_are_split(art: Art) -> None:
    def pairs(split: str) -> list[list[bool]]:
        found = []
        for scene in scenes(art, 80, split, kind="things"):
            names = sorted({thing.name for thing in scene.items})
            found.append([held_out_pair(*pair) for pair in combinations(names, 2)])
        return found

    assert not any(any(found) for found in pairs("train"))
    assert all(any(found) for found in pairs("test"))
    shares = np.mean([held_out_pair(*pair) for pair in combinations(thing_names()[:80], 2)])
    assert 0.08 < shares < 0.12


def test_typeface_families_are_split() -> None:
    art = Art.load(None)
    train, test = ({face.family for face in art.faces(split)} for split in ("train", "test"))
    assert "aileron" in test
    assert not train & test or train == test == {"aileron"}


def test_without_fonts_the_built_in_one_serves_both_splits() -> None:
    assert plain_art().faces("train") == plain_art().faces("test")


# --- words ---


def test_each_letter_lies_in_its_box() -> None:
    rng = np.random.default_rng(0)
    for word in ("lamp", "HELLO", "Quick", "jumpingy", "W"):
        for _ in range(10):
            canvas = np.full((SIZE, SIZE, 3), 255.0, np.float32)
            face = Typeface(None, "aileron", True)
            whole, letters = draw_word(rng, canvas, word, face, (0.0, 0.0, 0.0), (64, 64), (120, 50))
            assert len(letters) == len(word)
            assert max(whole) <= SIZE
            assert min(whole) >= 0
            covered = np.zeros((SIZE, SIZE), bool)
            for x0, y0, x1, y1 in letters:
                rows, columns = slice(int(y0), int(np.ceil(y1))), slice(int(x0), int(np.ceil(x1)))
                assert canvas[rows, columns].min() < 130
                covered[max(rows.start - 8, 0) : rows.stop + 8, max(columns.start - 5, 0) : columns.stop + 5] = True
            assert canvas[~covered].min() > 200


def test_long_words_are_wide_enough_to_read() -> None:
    words = [thing for scene in scenes(plain_art(), 500, "test", kind="word") for thing in scene.items]
    long = [word.box[2] - word.box[0] for word in words if len(word.name) == 8]
    assert len(long) > 10
    assert np.median(long) >= 85
    assert min(long) > 60


# --- what is said ---


def count_of(scene: Scene, name: str) -> int:
    names = [(thing.name, thing.label) for thing in scene.items if thing.kind != "word"]
    return sum(name in {plural(word) for word in both} | set(both) for both in names)


def the(scene: Scene, name: str) -> Item:
    if name == "word":
        return next(thing for thing in scene.items if thing.kind == "word")
    found = [thing for thing in scene.items if name in (thing.name, thing.label)]
    assert len(found) == 1, (name, scene.items)
    return found[0]


WHERE = r"(to the left of|to the right of|above|below)"


def check(scene: Scene, question: str, answer: str) -> str | None:
    """Assert that the answer is true; return the type of the question where this knows it."""
    yes = {"Yes.": True, "No.": False}.get(answer)
    if match := re.fullmatch(
        r"(?:How many|Count the) (.+?)(?: are there| are in the picture| do you see)?[?.]", question
    ):
        number = NUMBERS.index(answer[:-1].lower())
        total = match[1] in ("things", "shapes")
        assert number == (len(scene.items) if total else count_of(scene, match[1])), (question, answer)
        return "count"
    if match := re.fullmatch(rf"(?:Is|Are) the (.+) {WHERE} the (.+)\?", question):
        assert yes == (relation(the(scene, match[1]), the(scene, match[3])) == match[2]), (question, answer)
        return "relation, yes or no"
    if match := re.fullmatch(rf"The (.+) (?:is|are) {WHERE} the (.+)\.", answer):
        assert relation(the(scene, match[1]), the(scene, match[3])) == match[2], (question, answer)
        return "relation"
    match = re.fullmatch(r"(?:Is|Are) there (?:an? )?(.+?)(?: in the picture)?\?", question)
    if match and match[1] not in ("word", "any text"):
        assert yes == (count_of(scene, match[1]) > 0), (question, answer)
        return "presence"
    if match := re.fullmatch(r"What colou?r is the (.+)\?", question):
        assert answer == f"{str(the(scene, match[1]).colour).capitalize()}."
        return "colour"
    if match := re.fullmatch(r"Which is (.+), the (.+) or the (.+)\?", question):
        sides = {"on the left": (0, min), "on the right": (0, max), "higher up": (1, min), "lower down": (1, max)}
        axis, end = sides[match[1]]
        right = end(match[2], match[3], key=lambda name: the(scene, name).centre[axis])
        assert answer == f"The {right}."
        return "side"
    if answer.startswith('It says "'):
        assert answer == f'It says "{the(scene, "word").name}".'
        return "word"
    return None


def test_answers_are_true(art: Art) -> None:
    rng = np.random.default_rng(0)
    kinds: Counter[str | None] = Counter()
    yes = Counter[str]()
    for scene in scenes(art, 500):
        turns = conversation(scene, rng)
        assert 1 <= len(turns) <= 5
        assert len({question for question, _ in turns}) == len(turns)
        for question, answer in turns:
            kinds[check(scene, question, answer)] += 1
            yes[answer] += 1
            assert answer[0].isupper()
            assert answer[-1] == "."
    assert min(kinds[kind] for kind in ("count", "relation", "presence", "colour", "side", "word")) > 15, kinds
    assert kinds["relation, yes or no"] > 15
    assert 0.6 < yes["Yes."] / yes["No."] < 1.6


def test_a_caption_names_everything(art: Art) -> None:
    rng = np.random.default_rng(0)
    for scene in scenes(art, 100):
        text = caption(scene, rng)
        for label, count in Counter(thing.label for thing in scene.items).items():
            assert (label if count == 1 else f"{NUMBERS[count]} {plural(label)}") in text


def test_what_a_picture_cannot_tell_names_nobody() -> None:
    rng = np.random.default_rng(0)
    turns = {cannot_know(rng) for _ in range(600)}
    assert ("Do you know who drew this painting?", "I cannot tell from the picture who made it.") in turns
    for _, answer in turns:
        assert answer.startswith("I cannot tell from the picture")
        assert not re.search(r"[A-Z]", answer[1:])


def test_questions_of_the_examination(art: Art) -> None:
    skills: Counter[str] = Counter()
    for scene in scenes(art, 250, "test"):
        for question in skill_questions(scene):
            skills[question.skill] += 1
            check(scene, question.text, question.answer)
            assert question.answer in question.accept
            if question.skill == "naming":
                assert all(
                    thing.name in answer.lower() or thing.name in answer
                    for thing in scene.items
                    for answer in question.accept
                )
                assert len(question.accept) == (1, 2, 6, 24)[len(scene.items) - 1]
    assert set(skills) == {"colour", "shape", "count", "relation", "naming", "word"}
    assert min(skills.values()) > 30


def test_counts_reach_from_one_to_five(art: Art) -> None:
    answers = {
        question.answer
        for scene in scenes(art, 120, "test", kind="count")
        for question in skill_questions(scene)
        if question.skill == "count"
    }
    assert answers == {"One.", "Two.", "Three.", "Four.", "Five."}


# --- the art ---


def test_a_style_that_is_not_there_is_named(shared_data: Path) -> None:
    with pytest.raises(TrainingError, match="'oil paint'"):
        Art.load(shared_data, styles=("oil paint",), fonts=[])


def test_a_folder_without_emoji_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"concepts\.json"):
        Art.load(tmp_path, fonts=[])


def test_a_file_that_is_no_font_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "broken.ttf").write_bytes(b"not a font")
    assert len(Art.load(None, fonts=[tmp_path / "broken.ttf"]).typefaces) == 1


def test_test_scenes_show_things_as_they_are(art: Art) -> None:
    """A thing on a plain background keeps its colours: nothing is recoloured in testing."""
    close = 0
    for scene in scenes(art, 60, "test", kind="thing"):
        x0, y0, x1, y1 = (int(edge) for edge in scene.items[0].box)
        thing = next(thing for thing in art.things if thing.name == scene.items[0].name)
        patch = scene.pixels_HWC[y0:y1, x0:x1].reshape(-1, 3).astype(np.float32)
        tones = [np.asarray(sprite.tone) for sprite in thing.sprites]
        close += min(float(np.abs(patch - tone).mean(1).min()) for tone in tones) < 40
    assert close >= 54


def test_the_sheet_holds_every_scene() -> None:
    sheet = contact_sheet(plain_art(), "train", 0, count=9)
    assert sheet.size == (8 * 210, 2 * 190)
    assert np.array_equal(np.asarray(sheet)[190 : 190 + SIZE, :SIZE], scene_at(8, 0, plain_art(), "train").pixels_HWC)
