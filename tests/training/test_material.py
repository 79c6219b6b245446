import pickle
from pathlib import Path

import numpy as np
import pytest

from lapilli.inputs.tokenizer import Tokenizer
from lapilli.training.art import Art
from lapilli.training.material import (
    SKILLS,
    CaptionLessons,
    ConversationLessons,
    examination,
    picture_questions,
    spoken_texts,
    whole_words,
    written,
)
from lapilli.training.names import thing_names
from lapilli.training.smalltalk import NO_PICTURE, smalltalk
from lapilli.training.vocabulary import build_vocabulary


@pytest.fixture(scope="module")
def art() -> Art:
    return Art.load(None)


@pytest.fixture(scope="module")
def dialogues(art: Art):
    return written(art, seed=1, count=40)


def test_a_lesson_is_the_same_wherever_it_is_made(art: Art) -> None:
    for lessons in (CaptionLessons(art, 1), ConversationLessons(art, 1, ("What is this?",))):
        elsewhere = pickle.loads(pickle.dumps(lessons))  # noqa: S301, as a worker process is given it
        for number in range(12):
            one, other = lessons(number), elsewhere(number)
            assert one.dialogue == other.dialogue
            assert np.array_equal(one.pixels_HWC, other.pixels_HWC)


def test_lessons_show_a_picture_unless_they_are_small_talk(art: Art) -> None:
    lessons = [ConversationLessons(art, 2, ("What is this?",), talk_share=0.5)(number) for number in range(40)]

    talk = [lesson for lesson in lessons if lesson.pixels_HWC is None]
    assert 8 < len(talk) < 32
    assert all(lesson.dialogue.pictured == (lesson.pixels_HWC is not None) for lesson in lessons)
    assert not any(NO_PICTURE in dict(x.dialogue.turns).values() for x in lessons if x.dialogue.pictured)


def test_a_caption_is_one_sentence(art: Art) -> None:
    ((question, answer),) = CaptionLessons(art, 1)(3).dialogue.turns

    assert question == "Describe the picture."
    assert answer[0].isupper()
    assert answer.endswith(".")


def test_a_question_that_needs_a_picture_asks_for_one(dialogues) -> None:
    questions = picture_questions(dialogues)
    assert len(questions) > 20
    rng = np.random.default_rng(3)
    turns = [turn for _ in range(200) for turn in smalltalk(rng, questions).turns]

    assert {answer for question, answer in turns if question in questions} == {NO_PICTURE}
    assert len({answer for _, answer in turns}) > 4


def test_names_and_answers_are_whole_words(dialogues) -> None:
    tokenizer = Tokenizer.from_json(build_vocabulary(spoken_texts(dialogues), 3072, whole=whole_words(dialogues)))

    for name in thing_names():
        # What stands behind a hyphen has no blank before it, so it is spelt.
        assert "-" in name or len(tokenizer.encode(f" {name}", special=False)) == len(name.split()), name
    for text in ("Yes.", "Three.", "Purple.", "red", "circles"):
        assert len(tokenizer.encode(f" {text}", special=False)) == len(text.replace(".", " .").split()), text


def test_an_examination_is_fixed_and_has_all_that_the_art_can_show(art: Art) -> None:
    tasks, again = examination(art, 5, 6), examination(art, 5, 6)

    assert [(task.skill, task.question, task.accept) for task in tasks] == [
        (task.skill, task.question, task.accept) for task in again
    ]
    counts = {skill: sum(task.skill == skill for task in tasks) for skill in SKILLS}
    assert counts == dict.fromkeys(SKILLS, 6) | {"naming": 0}


def test_an_examination_with_things_asks_their_names(shared_data: Path) -> None:
    tasks = examination(Art.load(shared_data), 5, 8, skills=("naming",))

    assert [task.skill for task in tasks] == ["naming"] * 8
    assert all(task.pixels_HWC.shape == (128, 128, 3) for task in tasks)
