"""What `mini-text` is made for, examined: answers from passages, and the interventions of trials set aside.

print(examine(lapilli.load("mini-text"), Path("data")))
"""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lapilli.apps.backend.call import Reply
from lapilli.apps.trials.answers import read_answer
from lapilli.apps.trials.labels import Labelled, read_labelled
from lapilli.apps.trials.prompt import INSTRUCTION, questions
from lapilli.apps.trials.rules import rule_based
from lapilli.apps.trials.schema import model_schema
from lapilli.apps.trials.score import Hits, normal
from lapilli.apps.trials.trial import Trial
from lapilli.engine.grammar import Constraint
from lapilli.engine.local import LocalModel
from lapilli.engine.sampler import SamplingOptions
from lapilli.errors import InputError, PromptError
from lapilli.inputs.chat import conversation
from lapilli.training.cloze import NOT_THERE, asked
from lapilli.training.exercises import LONGEST_PIECE, TrialMaterial
from lapilli.training.passages import Asked, MadePassages
from lapilli.training.records import Given, MadeRecord

LABELLED = Path("trials") / "ctgov_labelled.jsonl"
_PLACEBO = re.compile(r"placebo|sham", re.IGNORECASE)
_COMPARED = re.compile(r"standard|usual|control|conventional", re.IGNORECASE)
_ARTICLE = re.compile(r"\b(a|an|the)\b")
_SIGNS = str.maketrans("", "", string.punctuation)
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True, kw_only=True)
class TextExamOptions:
    """How many made passages are asked about, with which seed, and how many questions go together."""

    each: int = 200
    seed: int = 0
    batch: int = 16

    def __post_init__(self) -> None:
        for name, least in (("each", 1), ("seed", 0), ("batch", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}, it must be at least {least}")


@dataclass(frozen=True)
class TextResults:
    """Measures by skill and name, each a share, and how many were asked for each skill."""

    measures: Mapping[str, Mapping[str, float]]
    asked: Mapping[str, int]
    notes: tuple[str, ...] = ()
    said: Mapping[str, Sequence[tuple[str, str, str]]] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        rows = [
            f"{skill:10} {name:34} {share:6.1%}"
            for skill, shares in self.measures.items()
            for name, share in shares.items()
        ]
        return "\n".join([*rows, *(f"{skill:10} asked {count:>29}" for skill, count in self.asked.items())])

    def to_dict(self) -> dict[str, Any]:
        rounded = {skill: {name: round(x, 4) for name, x in found.items()} for skill, found in self.measures.items()}
        return {"measures": rounded, "asked": dict(self.asked), "notes": list(self.notes)}


def trial_material(data: Path) -> TrialMaterial:
    """How trials are asked about, and those of `data/trials/ctgov_labelled.jsonl` that may train, if it is there."""
    records = []
    for trial in read_labelled(data / LABELLED, "train") if (data / LABELLED).is_file() else ():
        given = tuple(
            Given(label.name, label.type, _role(label.name, n)) for n, label in enumerate(trial.interventions)
        )
        records.append(MadeRecord(trial.fields, given))
    return TrialMaterial(INSTRUCTION, trial_questions, tuple(records))


def trial_questions(fields: Mapping[str, str], most: int) -> list[str]:
    """A trial's text without its interventions' own field, as the pieces that are asked about."""
    hidden = {name: text for name, text in fields.items() if name != "interventions"}
    return [question.text for question in questions(hidden, most=most)]


def _role(name: str, number: int) -> str:
    """What an intervention most likely is in its trial: registries do not say, names do."""
    if _PLACEBO.search(name):
        return "placebo"
    return "comparator" if number and _COMPARED.search(name) else "experimental"


def examine(
    model: LocalModel,
    data: Path | None = None,
    qa: Path | None = None,
    options: TextExamOptions = TextExamOptions(),
) -> TextResults:
    """Ask about made passages whose names were never trained on; with `data`, about the trials set aside.

    `qa` is a file in SQuAD's form, asked as it stands. Beside each real set stands what a simple rule says: the
    sentence that shares most words with the question, the baseline of `apps/trials/rules.py`.
    Raises InputError where a file is not of its form.
    """
    measures: dict[str, Mapping[str, float]] = {}
    counts: dict[str, int] = {}
    said: dict[str, list[tuple[str, str, str]]] = {}
    notes = []
    made = MadePassages("test", absent=0.2)
    rng = np.random.default_rng([options.seed, 977])
    asked_now = [made(rng) for _ in range(options.each)]
    answers = _ask(model, [asked(one.passage, one.question) for one in asked_now], options.batch)
    measures["passages"], counts["passages"] = passage_measures(asked_now, answers), len(asked_now)
    said["passages"] = [(one.question, s, one.answer) for one, s in zip(asked_now, answers, strict=True)]
    if qa is not None:
        found = list(read_squad(qa))
        answers = _ask(model, [asked(passage, question) for passage, question, _ in found], options.batch)
        best = [best_sentence(passage, question) for passage, question, _ in found]
        measures["qa"] = {
            "F1": _mean(most_f1(s, right) for s, (_, _, right) in zip(answers, found, strict=True)),
            "exact": _mean(most_exact(s, right) for s, (_, _, right) in zip(answers, found, strict=True)),
            "F1 of the best sentence": _mean(most_f1(s, right) for s, (_, _, right) in zip(best, found, strict=True)),
        }
        counts["qa"] = len(found)
        said["qa"] = [(question, s, right[0]) for (_, question, right), s in zip(found, answers, strict=True)]
    if data is not None and (data / LABELLED).is_file():
        trials = list(read_labelled(data / LABELLED, "held"))
        names = ask_trials(model, trials, options.batch)
        ruled = [[one.name for one in rule_based(_trial(trial), True) if one.name] for trial in trials]
        measures["trials"] = {
            **trial_measures(trials, names),
            **{f"{name}, rules": share for name, share in trial_measures(trials, ruled).items()},
        }
        counts["trials"] = len(trials)
        said["trials"] = [
            (trial.id, "; ".join(found), "; ".join(label.name for label in trial.interventions))
            for trial, found in zip(trials, names, strict=True)
        ]
    elif data is not None:
        notes.append(f"trials are left out: {data / LABELLED} is not there")
    return TextResults(measures, counts, tuple(notes), said)


def passage_measures(asked_now: Sequence[Asked], answers: Sequence[str]) -> dict[str, float]:
    """F1 and exact match where the answer is in the passage, and how often it is known that it is not."""
    pairs = list(zip(asked_now, answers, strict=True))
    there = [(said, one.answer) for one, said in pairs if one.answer != NOT_THERE]
    absent = [said for one, said in pairs if one.answer == NOT_THERE]
    return {
        "F1": _mean(most_f1(said, [right]) for said, right in there),
        "exact": _mean(most_exact(said, [right]) for said, right in there),
        "not there, and said so": _mean(float(said == NOT_THERE) for said in absent),
        "there, and denied": _mean(float(said == NOT_THERE) for said, _ in there),
    }


def trial_measures(trials: Sequence[Labelled], names: Sequence[Sequence[str]]) -> dict[str, float]:
    """F1 of the names that stand in the text, and recall over all names; each name counts once a trial."""
    there, every = Hits(), Hits()
    for trial, found in zip(trials, names, strict=True):
        text = f" {normal(' '.join(trial.fields.values()))} "
        wanted = {normal(label.name) for label in trial.interventions}
        standing = {name for name in wanted if f" {name} " in text}
        said = {normal(name) for name in found} - {""}
        # A right name that the text does not have is no mistake: it is not counted at all.
        there.add(len(standing), len(said - (wanted - standing)), len(said & standing))
        every.add(len(wanted), len(said), len(said & wanted))
    return {
        "F1 of names in the text": there.micro,
        "precision": there.precision,
        "recall": there.recall,
        "recall over all names": every.recall,
    }


def ask_trials(model: LocalModel, trials: Sequence[Labelled], batch: int) -> list[list[str]]:
    """The names that the model finds in each trial, asked piece by piece under the schema of the extractor."""
    constraint = Constraint.json_schema(model_schema())
    pieces = [(n, text) for n, trial in enumerate(trials) for text in trial_questions(trial.fields, LONGEST_PIECE)]
    names: list[list[str]] = [[] for _ in trials]
    replies = _ask(model, [text for _, text in pieces], batch, instruction=INSTRUCTION, constraint=constraint, most=256)
    for (number, _), text in zip(pieces, replies, strict=True):
        reply = Reply(text=text, finish="stop", prompt_tokens=0, tokens=0)
        for said in read_answer(reply).said:
            if said.values["name"] not in names[number]:
                names[number].append(said.values["name"])
    return names


def _trial(labelled: Labelled) -> Trial:
    return Trial(ids=(labelled.id,), register=labelled.register, fields=labelled.fields)


def _ask(
    model: LocalModel,
    texts: Sequence[str],
    batch: int,
    *,
    instruction: str = "",
    constraint: Constraint | None = None,
    most: int = 48,
) -> list[str]:
    """Greedy answers, many together; what does not fit the model has the answer ""."""
    options = SamplingOptions(max_tokens=most)
    said = [""] * len(texts)
    system = [{"role": "system", "content": instruction}] if instruction else []
    for start in range(0, len(texts), batch):
        prompts = {}
        for number in range(start, min(start + batch, len(texts))):
            try:
                prompt = model.prompts.chat(conversation([*system, {"role": "user", "content": texts[number]}]))
            except PromptError:
                continue
            if len(prompt.token_ids) + most <= model.config.text.max_positions:
                prompts[number] = prompt
        for number, answer in zip(prompts, model.complete(list(prompts.values()), options, constraint), strict=True):
            said[number] = answer.text.strip()
    return said


def read_squad(path: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Passage, question and right answers of a file in the form of SQuAD 1.1. Raises InputError for another form."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        for article in document["data"]:
            for paragraph in article["paragraphs"]:
                for one in paragraph["qas"]:
                    yield paragraph["context"], one["question"], [answer["text"] for answer in one["answers"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a file in SQuAD's form ({error!r})") from None


def best_sentence(passage: str, question: str) -> str:
    """The sentence that shares most words with the question."""
    wanted = set(_plain(question))
    return max(_SENTENCE.split(passage), key=lambda sentence: len(wanted & set(_plain(sentence))))


def most_f1(said: str, right: Sequence[str]) -> float:
    """The F1 of words with the nearest right answer, as SQuAD's own script has it (arXiv 1606.05250)."""
    return max(_f1(_plain(said), _plain(one)) for one in right)


def most_exact(said: str, right: Sequence[str]) -> float:
    """1 where it is a right answer but for case, punctuation and articles, else 0."""
    return max(float(_plain(said) == _plain(one)) for one in right)


def _plain(text: str) -> list[str]:
    return _ARTICLE.sub(" ", text.lower().translate(_SIGNS)).split()


def _f1(said: Sequence[str], right: Sequence[str]) -> float:
    shared = sum((Counter(said) & Counter(right)).values())
    return 2 * shared / (len(said) + len(right)) if said or right else 1.0


def _mean(values: Iterator[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0
