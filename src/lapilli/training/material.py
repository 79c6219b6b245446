"""What `mini` is taught with: drawn scenes as lessons, as text alone, and as an examination."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lapilli.training.art import Art
from lapilli.training.corpus import Dialogue
from lapilli.training.instruct import Lesson
from lapilli.training.names import COLOURS, NUMBERS, SHAPES, a, countable, plural, thing_names
from lapilli.training.scenes import Split
from lapilli.training.skills import Task
from lapilli.training.smalltalk import smalltalk, smalltalk_texts
from lapilli.training.synthetic import Scene, caption, conversation, scene_at, skill_questions

DESCRIBE = "Describe the picture."


def captioned(scene: Scene, rng: np.random.Generator) -> Dialogue:
    """The one turn of stage one: the picture described in a sentence."""
    text = caption(scene, rng)
    return Dialogue(((DESCRIBE, f"{text[0].upper()}{text[1:]}."),))


@dataclass(frozen=True)
class CaptionLessons:
    """Stage one: the n-th picture of this seed, and its description."""

    art: Art
    seed: int

    def __call__(self, number: int) -> Lesson:
        scene = scene_at(number, self.seed, self.art, "train")
        return Lesson(captioned(scene, np.random.default_rng([self.seed, number, 1])), scene.pixels_HWC)


@dataclass(frozen=True)
class ConversationLessons:
    """Stage two: the n-th picture and a conversation about it; now and then small talk without a picture.

    `questions` are some that need a picture: asked without one, the answer asks for it. Of the pictures, `word_share`
    are of a word alone, over and above those of the mixture.
    """

    art: Art
    seed: int
    questions: tuple[str, ...]
    talk_share: float = 0.08
    word_share: float = 0.2

    def __call__(self, number: int) -> Lesson:
        rng = np.random.default_rng([self.seed, number, 2])
        if rng.random() < self.talk_share:
            return Lesson(smalltalk(rng, self.questions))
        kind = "word" if rng.random() < self.word_share else None
        scene = scene_at(number, self.seed, self.art, "train", kind)
        return Lesson(Dialogue(tuple(conversation(scene, rng))), scene.pixels_HWC)


def written(art: Art, seed: int, count: int) -> list[Dialogue]:
    """Dialogues of `count` scenes as text, for a decoder that has not learnt to see yet."""
    dialogues: list[Dialogue] = []
    for number in range(count):
        rng = np.random.default_rng([seed, number, 3])
        scene = scene_at(number, seed, art, "train")
        dialogues += [Dialogue(tuple(conversation(scene, rng))), captioned(scene, rng)]
    questions = picture_questions(dialogues)
    talk = np.random.default_rng([seed, 4])
    return [*dialogues, *(smalltalk(talk, questions) for _ in range(count // 5))]


def picture_questions(dialogues: Sequence[Dialogue]) -> tuple[str, ...]:
    """The different questions that these dialogues ask about their pictures."""
    return tuple(dict.fromkeys(question for talk in dialogues if talk.pictured for question, _ in talk.turns))


@dataclass(frozen=True)
class Shuffled:
    """Any one of these dialogues, as chance has it."""

    dialogues: tuple[Dialogue, ...]

    def __call__(self, rng: np.random.Generator) -> Dialogue:
        return self.dialogues[int(rng.integers(len(self.dialogues)))]


def spoken_texts(dialogues: Sequence[Dialogue]) -> list[str]:
    """What is said in dialogues, each sentence after a blank, as it stands in a prompt."""
    return [f" {text}" for talk in dialogues for turn in talk.turns for text in turn]


def whole_words(dialogues: Sequence[Dialogue]) -> list[str]:
    """Words that must each be one token: names, colours, shapes, numbers, and what dialogues say again and again."""
    nouns = [*thing_names(), *SHAPES]
    often = Counter(word for text in spoken_texts(dialogues) for word in text.split())
    return [
        "USER ASSISTANT",
        *nouns,
        *(plural(noun) for noun in nouns if countable(noun)),
        *(a(noun).capitalize() for noun in nouns if not countable(noun)),
        *(form for word in (*COLOURS, *NUMBERS) for form in (word, word.capitalize())),
        *smalltalk_texts(),
        *(word for word, times in often.items() if times >= 10 and '"' not in word),
    ]


SKILLS = ("colour", "shape", "count", "relation", "naming", "word")


def examination(art: Art, seed: int, each: int, *, skills: Sequence[str] = SKILLS, split: Split = "test") -> list[Task]:
    """`each` questions of these skills about pictures that training never shows; no naming where the art has no things.

    The same art, seed and numbers give the same questions.
    """
    left = {skill: each for skill in skills if skill != "naming" or art.things}
    tasks = []
    for task in _questions(art, seed, split):
        if not any(left.values()):
            break
        if left.get(task.skill):
            left[task.skill] -= 1
            tasks.append(task)
    return tasks


def _questions(art: Art, seed: int, split: Split) -> Iterator[Task]:
    """At most one question of a skill for each scene, so that scores rest on many pictures."""
    for number in itertools.count():
        scene = scene_at(number, seed, art, split)
        rng = np.random.default_rng([seed, number, 5])
        questions = skill_questions(scene)
        for skill in dict.fromkeys(question.skill for question in questions):
            choices = [question for question in questions if question.skill == skill]
            chosen = choices[int(rng.integers(len(choices)))]
            yield Task(skill, scene.pixels_HWC, chosen.text, frozenset(chosen.accept))
