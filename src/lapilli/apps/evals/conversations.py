"""Any dataset of conversations as an examination: what a model says beside what the assistant says there.

questions = questions_of(open_talks(Path("held-out.json")))
said = ask_all(questions, answerer(lapilli.load("mini")), Path("predictions.jsonl"))
print(measure(questions, said))
"""

from __future__ import annotations

import importlib
import json
import re
import statistics
import string
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lapilli.apps.evals import asking
from lapilli.apps.evals.report import Item, write_report
from lapilli.errors import InputError
from lapilli.inputs.chat import Message, TextPart, show
from lapilli.training.talks import PictureFile, Speaker, Talk, Talks

if TYPE_CHECKING:
    from lapilli.engine.local import LocalModel

_MARKS = str.maketrans("", "", string.punctuation)
_ARTICLES = {"a", "an", "the"}


@dataclass(frozen=True)
class Question:
    """One turn of an assistant to be said again, from all that stands before it.

    `id` is the record's place and the number of the turn; `expected` are the answers that count as right.
    """

    id: str
    turns: tuple[tuple[Speaker, str], ...]
    expected: tuple[str, ...]
    pictures: tuple[PictureFile, ...]

    @property
    def asked(self) -> str:
        """The words that the answer is to."""
        return self.turns[-1][1].replace("<image>", "").strip()

    def messages(self) -> list[Message]:
        """The conversation up to the question, its pictures opened. Raises ImageError for what is no picture."""
        talk = Talk((*self.turns, ("assistant", "…")), self.pictures)
        return talk.messages(lambda file: show(file.read()))[:-1]


def questions_of(talks: Talks, limit: int | None = None) -> list[Question]:
    """Every turn of the assistant's as a question; earlier turns stand as they are in the record.

    A record may have `answers`, a list of texts, for its last turn: VQA's ten. Raises TrainingError that names the
    record that cannot be read, InputError where there is no question at all.
    """
    found: list[Question] = []
    for number in range(len(talks)):
        found += _questions(talks[number], talks.where(number))
        if limit is not None and len(found) >= limit:
            break
    if not found:
        raise InputError("the data asks nothing: no assistant's turn follows a user's")
    return found[:limit]


def _questions(talk: Talk, where: str) -> Iterator[Question]:
    last = max(number for number, (speaker, _) in enumerate(talk.turns) if speaker == "assistant")
    for number, (speaker, text) in enumerate(talk.turns):
        if speaker != "assistant" or not text.strip() or number == 0 or talk.turns[number - 1][0] != "user":
            continue
        before = talk.turns[:number]
        shown = sum(said.count("<image>") for who, said in before if who == "user")
        expected = talk.answers if talk.answers and number == last else (text.strip(),)
        yield Question(f"{where}, turn {number + 1}", before, expected, talk.pictures[:shown])


# --- asking ---


def answerer(model: LocalModel, *, blind: bool = False, longest: int = 128) -> asking.Answerer[Question]:
    """Greedy answers of a model in this process, a batch at once; with `blind`, pictures are left out.

    A question too long for the model has the empty answer.
    """

    def answer(questions: Sequence[Question]) -> list[str]:
        asked = [question.messages() for question in questions]
        if blind or not model.prompts.sees:
            asked = [[Message(each.role, (TextPart(each.text),)) for each in messages] for messages in asked]
        return asking.answers(model, [model.prompts.chat(messages) for messages in asked], longest, [None] * len(asked))

    return answer


def ask_all(
    questions: Sequence[Question],
    answer: asking.Answerer[Question],
    kept: Path,
    *,
    batch: int = 32,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, str]:
    """What is said to every question; `kept` has a line for each: id, text, and what was expected."""
    return asking.ask_all(
        questions,
        answer,
        kept,
        read=read_predictions,
        line=lambda question, text: {"id": question.id, "text": text, "expected": list(question.expected)},
        batch=batch,
        progress=progress,
    )


def read_predictions(path: Path) -> dict[str, str]:
    """What was said, by question; a last line that a cut has torn is left out. Raises InputError for other lines."""
    said: dict[str, str] = {}
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        if not line.endswith("\n"):
            path.write_text("".join(lines[:-1]), encoding="utf-8")
            break
        try:
            record = json.loads(line)
            said[str(record["id"])] = str(record["text"])
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{path.name}: line {number}: an object with id and text is needed") from None
    return said


# --- measuring ---


@dataclass(frozen=True)
class Scores:
    """Mean scores of a hundred by their names, of so many questions; `notes` say what could not be measured."""

    asked: int
    means: Mapping[str, float]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        rows = [f"{name:<12}{value:>8.2f}" for name, value in self.means.items()]
        return "\n".join([*rows, f"{'asked':<12}{self.asked:>8}"])

    def to_dict(self) -> dict[str, Any]:
        return {
            "asked": self.asked,
            "scores": {name: round(value, 4) for name, value in self.means.items()},
            "notes": list(self.notes),
        }


def measure(questions: Sequence[Question], said: Mapping[str, str]) -> Scores:
    """Exact match, token F1 and VQA accuracy, and of captions BLEU, chrF and ROUGE-L where their packages are here.

    BLEU and chrF are sacrebleu's (arXiv 1804.08771), ROUGE-L the F-measure of rouge-score.
    """
    texts = [said.get(question.id, "") for question in questions]
    pairs = [(text, question.expected) for text, question in zip(texts, questions, strict=True)]
    means = {
        "exact": 100 * statistics.fmean(is_exact(*pair) for pair in pairs),
        "F1": 100 * statistics.fmean(token_f1(*pair) for pair in pairs),
    }
    if any(len(expected) > 1 for _, expected in pairs):
        means["VQA"] = 100 * statistics.fmean(vqa_accuracy(*pair) for pair in pairs)
    notes = []
    for package, measured in (("sacrebleu", _translation_scores), ("rouge-score", _rouge_scores)):
        try:
            means |= measured(pairs)
        except ModuleNotFoundError:
            notes.append(f"{package} is not installed, its scores are left out: pip install {package}")
    return Scores(len(pairs), means, tuple(notes))


def plain(text: str) -> list[str]:
    """The words that count, as SQuAD's evaluation has them: lower case, no punctuation, no articles."""
    return [word for word in text.lower().translate(_MARKS).split() if word not in _ARTICLES]


def is_exact(said: str, expected: Sequence[str]) -> bool:
    """Whether it is one of the right answers, word for word."""
    return any(plain(said) == plain(right) for right in expected)


def token_f1(said: str, expected: Sequence[str]) -> float:
    """The harmonic mean of precision and recall over words, against the nearest right answer (arXiv 1606.05250)."""
    return max(_f1(plain(said), plain(right)) for right in expected)


def _f1(said: list[str], right: list[str]) -> float:
    if not said or not right:
        return float(said == right)
    common = sum((Counter(said) & Counter(right)).values())
    return 2 * common / (len(said) + len(right))


def vqa_accuracy(said: str, expected: Sequence[str]) -> float:
    """VQA's accuracy (arXiv 1505.00468): min(people who say it / 3, 1), the mean over leaving each person out."""
    answer = _as_vqa(said)
    agreeing = [_as_vqa(right) == answer for right in expected]
    if len(expected) == 1:
        return float(agreeing[0])
    return statistics.fmean(min((sum(agreeing) - own) / 3, 1.0) for own in agreeing)


_VQA_NUMBERS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6",
    "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip


def _as_vqa(text: str) -> str:
    """An answer as VQA's rule has it before it is compared (visualqa.org/evaluation.html).

    Lower case, numbers as digits, no articles, periods and commas within numbers alone, other punctuation but colons as
    blanks. Apostrophes are left out altogether: the rule puts them in where they are missing.
    """
    bare = re.sub(r"(?<=\d),(?=\d)|\.(?!\d)|'", "", text.lower())
    words = re.sub(r"[^\w\s:.]|_", " ", bare).split()
    return " ".join(_VQA_NUMBERS.get(word, word) for word in words if word not in _ARTICLES)


def _translation_scores(pairs: Sequence[tuple[str, Sequence[str]]]) -> dict[str, float]:
    sacrebleu = importlib.import_module("sacrebleu")
    most = max(len(expected) for _, expected in pairs)
    references = [[expected[n] if n < len(expected) else None for _, expected in pairs] for n in range(most)]
    texts = [said for said, _ in pairs]
    return {
        "BLEU": float(sacrebleu.corpus_bleu(texts, references).score),
        "chrF": float(sacrebleu.corpus_chrf(texts, references).score),
    }


def _rouge_scores(pairs: Sequence[tuple[str, Sequence[str]]]) -> dict[str, float]:
    scorer = importlib.import_module("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    best = [max(scorer.score(right, said)["rougeL"].fmeasure for right in expected) for said, expected in pairs]
    return {"ROUGE-L": 100 * statistics.fmean(best)}


def report(path: Path, title: str, scores: Scores, questions: Iterable[Question], said: Mapping[str, str]) -> None:
    """One HTML file with the scores, and every question with its first picture, what was said and what is right."""
    summary = (("score", "of 100"), *((name, f"{value:.1f}") for name, value in scores.means.items()))
    items = (
        Item(
            question=question.asked,
            said=(text := said.get(question.id, "")),
            expected=" / ".join(dict.fromkeys(question.expected)),
            right=is_exact(text, question.expected),
            picture=question.pictures[0] if question.pictures else None,
            tags=("with a picture" if question.pictures else "words alone",),
        )
        for question in questions
    )
    write_report(path, title, summary, items)
