"""Science QA (arXiv 2209.09513) by the protocol of LLaVA (arXiv 2304.08485): prompts, answers read, the paper's table.

problems = read_problems(Path("scienceqa"))
table = tabulate(read_outputs(Path("answers.json")), problems)
print(table)
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lapilli.apps.evals import asking
from lapilli.apps.evals.report import Item, write_report
from lapilli.errors import InputError

if TYPE_CHECKING:
    from lapilli.engine.local import LocalModel

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

DIRECTLY = "Answer with the option's letter from the given choices directly."

_MAX_FILE = 1 << 30
_SAID = re.compile(r"The answer is \(?([A-Z])\)?(?![A-Za-z])")
_SUBJECTS = {"natural science": "NAT", "social science": "SOC", "language science": "LAN"}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One question with its choices; `answer` is the number of the right one.

    `shows` says whether the question has a picture, `picture` is where it lies, None where it is not at hand.
    """

    id: str
    question: str
    choices: tuple[str, ...]
    answer: int
    hint: str
    shows: bool
    picture: Path | None
    subject: str
    grade: int
    split: str

    def ask(self) -> str:
        """The question as LLaVA 1.5 asks it: context, question and options, then how to answer."""
        options = " ".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, self.choices, strict=False))
        return f"Context: {self.hint or 'N/A'}\nQuestion: {self.question}\nOptions: {options}\n{DIRECTLY}"

    @property
    def groups(self) -> tuple[str, ...]:
        """The columns of the table that this problem counts for."""
        context = [name for name, there in (("TXT", bool(self.hint)), ("IMG", self.shows)) if there]
        grade = "G1-6" if self.grade <= 6 else "G7-12"
        return (_SUBJECTS[self.subject], *(context or ["NO"]), grade, "all")


COLUMNS = ("NAT", "SOC", "LAN", "TXT", "IMG", "NO", "G1-6", "G7-12", "all")


def read_problems(folder: Path, split: str | None = None) -> dict[str, Problem]:
    """The problems of a Science QA folder by their id: `problems*.json`, pictures under `images/SPLIT/ID/`.

    Raises InputError that names file, problem and reason.
    """
    found = sorted(folder.glob("problems*.json")) if folder.is_dir() else []
    if not found:
        raise InputError(f"{folder}: no problems.json is there; give the folder of Science QA")
    problems = {}
    for path in found:
        for number, value in _read_object(path).items():
            try:
                problem = _problem(str(number), value, folder)
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(f"{path.name}: problem {str(number)[:40]}: {_reason(error)}") from None
            if split is None or problem.split == split:
                problems[problem.id] = problem
    if not problems:
        raise InputError(f"{folder}: it has no problem of the split {split!r}; there are train, val and test")
    return problems


def _problem(number: str, value: Mapping[str, Any], folder: Path) -> Problem:
    choices = tuple(str(choice) for choice in value["choices"])
    if not 2 <= len(choices) <= len(LETTERS):
        raise ValueError(f"{len(choices)} choices, from 2 to {len(LETTERS)} are needed")
    if value["answer"] not in range(len(choices)):
        raise ValueError(f"the answer is choice {value['answer']} of {len(choices)}")
    if value["subject"] not in _SUBJECTS:
        raise ValueError(f"subject {value['subject']!r} is not one of {', '.join(_SUBJECTS)}")
    grade = re.fullmatch(r"grade(\d{1,2})", value["grade"])
    if grade is None:
        raise ValueError(f"grade {value['grade']!r} is not grade1 to grade12")
    name, split = value.get("image"), str(value["split"])
    # A number and a plain file name: nothing in a record leads out of the folder.
    plain = isinstance(name, str) and number.isalnum() and split.isalpha() and Path(name).name == name
    picture = folder / "images" / split / number / str(name)
    return Problem(
        id=number,
        question=str(value["question"]),
        choices=choices,
        answer=value["answer"],
        hint=str(value.get("hint") or ""),
        shows=bool(name),
        picture=picture if plain and picture.is_file() else None,
        subject=value["subject"],
        grade=int(grade[1]),
        split=split,
    )


def read_answer(text: str, choices: Sequence[str]) -> int | None:
    """Which choice an answer names, None where it names none, or several.

    A letter alone, a letter before a full stop or in brackets, "The answer is X.", or a choice word for word.
    """
    said = text.strip()
    letters = LETTERS[: len(choices)]
    for pattern in (r"\(?([A-Z])\)?[.:)]?", r"\(?([A-Z])[).:]\s.*"):
        if (alone := re.fullmatch(pattern, said, re.DOTALL)) and alone[1] in letters:
            return letters.index(alone[1])
    named = set(_SAID.findall(said))
    if len(named) == 1 and (letter := named.pop()) in letters:
        return letters.index(letter)
    plain = said.rstrip(".").casefold()
    same = [number for number, choice in enumerate(choices) if choice.strip().rstrip(".").casefold() == plain]
    return same[0] if len(same) == 1 else None


def read_outputs(path: Path) -> dict[str, str]:
    """What was said to each problem, by id, from an answer file; totals and results stored beside it are not read.

    Known are an object with `outputs` (the files of LLaVA's and Science QA's authors), an object of texts, and JSON
    lines with `question_id` and `text` (LLaVA 1.5). Raises InputError that names the line and the reason.
    """
    if path.suffix == ".jsonl":
        said = {}
        for number, line in enumerate(_read_text(path).splitlines(), 1):
            try:
                record = json.loads(line)
                said[str(record["question_id"])] = str(record["text"])
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{path.name}: line {number}: {_reason(error)}") from None
        return said
    outputs = _read_object(path)
    outputs = outputs.get("outputs", outputs)
    if not isinstance(outputs, dict) or not all(isinstance(text, str) for text in outputs.values()):
        raise InputError(f"{path.name}: no texts by problem are in it; an object `outputs` is needed")
    return outputs


def read_results(path: Path) -> dict[str, int]:
    """What the authors of an answer file took each answer for, by problem; empty where they do not say."""
    results = {} if path.suffix == ".jsonl" else _read_object(path).get("results", {})
    kept = results.items() if isinstance(results, dict) else ()
    return {number: choice for number, choice in kept if isinstance(choice, int)}


@dataclass(frozen=True)
class Table:
    """Right answers of those asked, by column; `unread` problems had an answer that names no choice: they are wrong."""

    right: Mapping[str, int]
    asked: Mapping[str, int]
    unread: int

    def percent(self, column: str) -> float:
        """Right answers of a hundred, NaN where nothing was asked."""
        return 100 * self.right[column] / self.asked[column] if self.asked[column] else float("nan")

    def __str__(self) -> str:
        rows = (
            ("", COLUMNS),
            ("right %", [f"{self.percent(column):.2f}" if self.asked[column] else "-" for column in COLUMNS]),
            ("right", [str(self.right[column]) for column in COLUMNS]),
            ("asked", [str(self.asked[column]) for column in COLUMNS]),
        )
        return "\n".join(f"{name:<8}" + "".join(f"{value:>8}" for value in values) for name, values in rows)

    def to_dict(self) -> dict[str, Any]:
        columns = {name: {"right": self.right[name], "asked": self.asked[name]} for name in COLUMNS}
        return {"columns": columns, "unread": self.unread}


def tabulate(chosen: Mapping[str, int | None], problems: Iterable[Problem]) -> Table:
    """The table of the paper over these problems; one that nobody answered is wrong."""
    right, asked, unread = dict.fromkeys(COLUMNS, 0), dict.fromkeys(COLUMNS, 0), 0
    for problem in problems:
        choice = chosen.get(problem.id)
        unread += choice is None
        for column in problem.groups:
            asked[column] += 1
            right[column] += choice == problem.answer
    return Table(right, asked, unread)


def chosen(outputs: Mapping[str, str], problems: Mapping[str, Problem]) -> dict[str, int | None]:
    """Which choice each output names; a problem that is not at hand is taken to have every letter."""
    return {
        number: read_answer(text, problems[number].choices if number in problems else LETTERS)
        for number, text in outputs.items()
    }


def ask_all(
    problems: Sequence[Problem],
    answer: asking.Answerer[Problem],
    kept: Path,
    *,
    batch: int = 32,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, str]:
    """What is said to every problem; `kept` is LLaVA's answer file, in which an earlier run's answers stand."""
    return asking.ask_all(
        problems,
        answer,
        kept,
        read=read_outputs,
        line=lambda problem, text: {"question_id": problem.id, "text": text},
        batch=batch,
        progress=progress,
    )


def answerer(
    model: LocalModel, *, blind: bool = False, letters: bool = False, longest: int = 64
) -> asking.Answerer[Problem]:
    """Greedy answers of a model in this process, a batch at once; with `blind`, pictures are left out.

    With `letters` nothing but an option's letter can be said. A problem too long for the model has the empty answer.
    """
    from lapilli.engine.grammar import Constraint

    def answer(problems: Sequence[Problem]) -> list[str]:
        shown = [[each.picture] if each.picture and not blind and model.prompts.sees else [] for each in problems]
        prompts = [model.prompt(each.ask(), seen) for each, seen in zip(problems, shown, strict=True)]
        forms = [Constraint.choice(list(LETTERS[: len(each.choices)])) if letters else None for each in problems]
        return asking.answers(model, prompts, longest, forms)

    return answer


def report(path: Path, title: str, table: Table, problems: Iterable[Problem], outputs: Mapping[str, str]) -> None:
    """One HTML file with the table, and every problem with its picture, what was said and what is right."""
    summary = (
        ("", *COLUMNS),
        ("right %", *(f"{table.percent(column):.1f}" if table.asked[column] else "-" for column in COLUMNS)),
        ("asked", *(str(table.asked[column]) for column in COLUMNS)),
    )
    items = (
        Item(
            question=problem.ask().removesuffix(f"\n{DIRECTLY}"),
            said=(text := outputs.get(problem.id, "")),
            expected=f"{LETTERS[problem.answer]}. {problem.choices[problem.answer]}",
            right=read_answer(text, problem.choices) == problem.answer,
            picture=problem.picture,
            tags=problem.groups[:-1],
        )
        for problem in problems
    )
    write_report(path, title, summary, items)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path.name}: no valid JSON: {str(error)[:120]}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path.name}: an object is needed, it holds a {type(values).__name__}")
    return values


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_FILE:
            raise InputError(f"{path.name}: {path.stat().st_size} bytes, at most {_MAX_FILE} are read")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path.name}: not UTF-8 text") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def _reason(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)[:120]
