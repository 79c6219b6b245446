"""What `mini-text` learns from: exercises of several kinds, each a question and what is to be said.

Training knows nothing of the apps: how a trial is asked about, and which real records may be learnt from, is handed in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lapilli.training.cloze import ClozeQuestions, sentences
from lapilli.training.invented import pick
from lapilli.training.passages import MadePassages, PassageQuestions
from lapilli.training.records import Given, MadeRecord, made_record


@dataclass(frozen=True)
class Exercise:
    """A question to the model, with the instruction before it if any, and the answer that is right."""

    question: str
    answer: str
    instruction: str = ""


Exercises = Callable[[np.random.Generator], Exercise]


@dataclass(frozen=True)
class TrialMaterial:
    """How trials are asked about, in pieces of so many characters at most, and the real ones that may train."""

    instruction: str
    questions: Callable[[Mapping[str, str], int], Sequence[str]]
    records: tuple[MadeRecord, ...] = ()


LONGEST_PIECE = 1300
"""Characters of a trial in one exercise: with instruction and answer they fit a row of training."""

_TALK = (
    ("Hello! Give me a passage and a question, or a record of a trial.", "Hello|Hi|Hi there!|Good morning|Hey|Hi!"),
    ("I am mini-text, a small model that answers from the text you give it.",
     "Who are you?|What are you?|What is your name?|Are you a person?|Tell me about yourself."),
    ("I answer questions from a passage, and find the interventions of a clinical trial.",
     "What can you do?|How can you help me?|Help|Help me|What are you good at?|What should I ask you?"),
    ("You are welcome.", "Thank you|Thanks|Thank you!|Thanks a lot!"),
    ("Goodbye!", "Bye|Goodbye|See you later.|Good night"),
    ("Please give me a passage.",
     "What is the capital of France?|Tell me a joke.|Who wrote Hamlet?|What year is it?|Write a poem.|What is love?"),
)  # fmt: skip


@dataclass(frozen=True)
class Mixture:
    """Exercises of several kinds, each with its share."""

    kinds: tuple[tuple[float, Exercises], ...]

    def __call__(self, rng: np.random.Generator) -> Exercise:
        shares = np.array([share for share, _ in self.kinds])
        return self.kinds[int(rng.choice(len(shares), p=shares / shares.sum()))][1](rng)


@dataclass(frozen=True)
class Cloze:
    """Questions that prose asks about itself."""

    questions: ClozeQuestions

    def __call__(self, rng: np.random.Generator) -> Exercise:
        question, answer = self.questions(rng).turns[0]
        return Exercise(question, answer)


@dataclass(frozen=True)
class Copies:
    """Words to say again."""

    words: tuple[str, ...]

    def __call__(self, rng: np.random.Generator) -> Exercise:
        text = " ".join(pick(rng, self.words) for _ in range(int(rng.integers(3, 14))))
        return Exercise(f"Repeat: {text}", text)


@dataclass(frozen=True)
class Passages:
    """Made passages."""

    questions: PassageQuestions

    def __call__(self, rng: np.random.Generator) -> Exercise:
        return Exercise(*self.questions(rng))


@dataclass(frozen=True)
class MadeTrials:
    """Made records, asked about as the trials' extractor asks."""

    material: TrialMaterial

    def __call__(self, rng: np.random.Generator) -> Exercise:
        while not (found := trial_exercises(made_record(rng), self.material)):
            pass
        return pick(rng, found)


@dataclass(frozen=True)
class Among:
    """Exercises that are there already."""

    exercises: tuple[Exercise, ...]

    def __call__(self, rng: np.random.Generator) -> Exercise:
        return pick(rng, self.exercises)


def trial_exercises(record: MadeRecord, material: TrialMaterial) -> list[Exercise]:
    """A record's pieces, each with those interventions whose name stands in it, spelt as it stands there."""
    found = []
    for question in material.questions(record.fields, LONGEST_PIECE):
        told = [spelt for one in record.interventions if (spelt := _spelt(one, question)) is not None]
        found.append(Exercise(question, trial_answer(told), material.instruction))
    return found


def trial_answer(told: Sequence[Given]) -> str:
    """Interventions as the JSON that is asked for, without blanks."""
    rows = [one.to_dict() for one in told]
    return json.dumps({"interventions": rows}, separators=(",", ":"), ensure_ascii=False)


def _spelt(one: Given, text: str) -> Given | None:
    name = one.name.strip()
    place = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE)
    if place is None:
        return None
    slots = {key: value for key, value in one.slots.items() if value in text}
    return Given(place.group(), one.type, one.role, slots)


def mixture(texts: Sequence[str], trials: TrialMaterial, *, absent: float) -> Mixture:
    """All kinds; `texts` are English prose, `absent` is the share of questions whose passage does not tell."""
    records = ["\n".join(record.fields.values()) for record in trials.records]
    prose = [found for text in texts if len(found := sentences(text)) > 10]
    words = {word for text in (*records, *texts[:3]) for word in re.findall(r"[A-Za-z][A-Za-z-]{2,}", text)}
    filler = tuple(sentence for text in prose for sentence in text if len(sentence) < 120)
    # Where a piece has none of a trial's names, people named them in other words: nothing to learn copying from.
    pieces = (one for record in trials.records for one in trial_exercises(record, trials))
    real = tuple(one for one in pieces if one.answer != trial_answer(()))
    talk = tuple(Exercise(question, answer) for answer, asked in _TALK for question in asked.split("|"))
    kinds: list[tuple[float, Exercises]] = [
        (0.03, Copies(tuple(sorted(words)))),
        (0.24, Cloze(ClozeQuestions(prose, absent / 2))),
        (0.36, Passages(PassageQuestions(MadePassages("train", filler, absent=absent)))),
        (0.2, MadeTrials(trials)),
        (0.02, Among(talk)),
    ]
    if real:
        split = [found for text in records if len(found := sentences(text)) > 3]
        kinds += [(0.1, Cloze(ClozeQuestions(split, absent / 2))), (0.13, Among(real))]
    return Mixture(tuple(kinds))


def heard_of(exercises: Exercises, seed: int, count: int) -> list[Exercise]:
    """The first so many exercises of a seed."""
    rng = np.random.default_rng(seed)
    return [exercises(rng) for _ in range(count)]


def written(exercises: Exercises, seed: int, count: int) -> list[str]:
    """Many exercises as text, for a vocabulary."""
    found = heard_of(exercises, seed, count)
    return [f"{one.instruction} USER: {one.question} ASSISTANT: {one.answer}" for one in found]
