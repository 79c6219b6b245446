"""`lapilli eval`: how well a model does, on material that it has not seen."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lapilli.errors import InputError
from lapilli.faces.terminal import printable

if TYPE_CHECKING:
    from lapilli.apps.evals.scienceqa import Problem

evaluate = typer.Typer(name="eval", help="Measure a model.", rich_markup_mode=None)


@evaluate.callback(invoke_without_command=True)
def _evaluate(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@evaluate.command()
def mini(
    model: Annotated[str, typer.Option(help="A model's name, a checkpoint folder, or a .gguf file.")] = "mini",
    data: Annotated[Path | None, typer.Option(help="The folder with emoji/ and text/; without it, no naming.")] = None,
    each: Annotated[int, typer.Option(help="Questions of each skill.")] = 200,
    seed: Annotated[int, typer.Option(help="Another seed, other pictures.")] = 0,
    batch: Annotated[int, typer.Option(help="Questions asked together.")] = 32,
    unseen: Annotated[bool, typer.Option("--unseen", help="Score naming in the unseen style instead, and log it.")] = (
        False
    ),
    log: Annotated[Path, typer.Option(help="Where each scoring of the unseen style leaves a line.")] = Path(
        "docs/unseen-style.jsonl"
    ),
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show a few wrong answers of each skill.")] = False,
) -> None:
    """Exact match per skill: colour, shape, count, relation, naming, word.

    The pictures are drawn: compositions, words and typefaces that training never shows.
    """
    if data is not None and not data.is_dir():
        raise InputError(f"--data {data}: there is no such folder")
    if unseen and data is None:
        raise InputError("--unseen needs --data, the folder with emoji/ and text/")

    from lapilli.apps.evals.mini import ExamOptions, examine, examine_unseen
    from lapilli.engine.local import load

    options = ExamOptions(each=each, seed=seed, batch=batch, misses=5 if verbose else 0)
    asked = load(model, device=device)
    if unseen:
        assert data is not None
        results = examine_unseen(asked, data, log, options, name=model)
    else:
        results = examine(asked, data, options)
    if as_json:
        print(json.dumps({"model": model, "each": each, "seed": seed, "unseen": unseen, **results.to_dict()}))
    else:
        print(results.table())
        for note in results.notes:
            print("lapilli: note:", note, file=sys.stderr)
    for score in results.scores if verbose else ():
        for question, said, right in score.misses:
            lines = (f"{score.skill}: {question}", f"    said   {said}", f"    right  {right}")
            print(printable("\n".join(lines)), file=sys.stderr)


@evaluate.command(name="mini-text")
def mini_text(
    model: Annotated[str, typer.Option(help="A model's name, a checkpoint folder, or a .gguf file.")] = "mini-text",
    data: Annotated[Path | None, typer.Option(help="The folder with trials/; without it, made passages only.")] = None,
    qa: Annotated[Path | None, typer.Option(help="Questions about passages, a file in SQuAD's form.")] = None,
    each: Annotated[int, typer.Option(help="Made passages asked about.")] = 200,
    seed: Annotated[int, typer.Option(help="Another seed, other passages.")] = 0,
    batch: Annotated[int, typer.Option(help="Questions asked together.")] = 16,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show a few answers of each skill.")] = False,
) -> None:
    """Answers from passages, and the interventions of trials set aside, beside what simple rules find.

    lapilli eval mini-text --data data --qa qa.json
    """
    for path, name in ((data, "--data"), (qa, "--qa")):
        if path is not None and not path.exists():
            raise InputError(f"{name} {path}: it is not there")

    from lapilli.apps.evals.mini_text import TextExamOptions, examine
    from lapilli.engine.local import load

    options = TextExamOptions(each=each, seed=seed, batch=batch)
    results = examine(load(model, device=device), data, qa, options)
    print(json.dumps({"model": model, "seed": seed, **results.to_dict()}) if as_json else results)
    for note in () if as_json else results.notes:
        _note(note)
    for skill, answers in results.said.items() if verbose else ():
        for question, said, right in answers[:8]:
            print(printable(f"{skill}: {question}\n    said   {said}\n    right  {right}"), file=sys.stderr)


@evaluate.command()
def scienceqa(
    data: Annotated[Path, typer.Option(help="The folder with problems.json and images/.")],
    model: Annotated[str | None, typer.Option(help="Ask this model: its name, a folder, or a .gguf file.")] = None,
    answers: Annotated[Path | None, typer.Option(help="Score this answer file instead.")] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    limit: Annotated[int | None, typer.Option(min=1, help="Ask the first so many problems.")] = None,
    blind: Annotated[bool, typer.Option("--blind", help="Ask without the pictures.")] = False,
    letters: Annotated[bool, typer.Option("--letters", help="Let it say nothing but an option's letter.")] = False,
    out: Annotated[Path | None, typer.Option(help="Keep answers and the report here; an earlier run goes on.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Problems asked together.")] = 16,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Science QA by the protocol of LLaVA: right answers by subject, context and grade.

    lapilli eval scienceqa --data scienceqa --model mini --out runs/scienceqa

    lapilli eval scienceqa --data scienceqa --answers answers.json
    """
    if (model is None) == (answers is None):
        raise InputError("give either --model, to ask it, or --answers, a file to score")

    from lapilli.apps.evals import scienceqa as exam

    problems = exam.read_problems(data, split)
    asked = dict(list(problems.items())[:limit])
    if answers is not None:
        outputs, results = exam.read_outputs(answers), exam.read_results(answers)
    else:
        assert model is not None
        outputs, results = _ask_scienceqa(model, list(asked.values()), out, batch, device, blind, letters), {}
    chosen = exam.chosen(outputs, problems)
    table = exam.tabulate(chosen, asked.values())
    same = sum(chosen[number] == choice for number, choice in results.items() if number in chosen)
    if as_json:
        print(json.dumps({"asked": len(asked), **table.to_dict(), "stored": len(results), "same_as_stored": same}))
    else:
        print(table)
        _note(f"{table.unread} of {len(asked)} answers name no choice; they count as wrong")
        if results:
            _note(f"the file's own reading of its answers agrees in {same} of {len(results)}")
    if out is not None:
        report = out / "report.html"
        exam.report(report, f"Science QA: {model or (answers and answers.name)}", table, asked.values(), outputs)
        _note(f"the report is {report}")


def _ask_scienceqa(
    model: str, problems: Sequence[Problem], out: Path | None, batch: int, device: str, blind: bool, letters: bool
) -> dict[str, str]:
    """What the model says to each problem, the answers of an earlier run in `out` taken over."""
    from lapilli.apps.evals.scienceqa import answerer, ask_all
    from lapilli.engine.local import load

    answer = answerer(load(model, device=device), blind=blind, letters=letters)
    with _kept(out, "answers.jsonl") as kept, _bar("problems", len(problems)) as tell:
        return ask_all(problems, answer, kept, batch=batch, progress=tell)


@evaluate.command()
def conversations(
    data: Annotated[
        Path, typer.Option(help="Conversations (.json, .jsonl), .tar shards, or a folder of captioned pictures.")
    ],
    model: Annotated[str | None, typer.Option(help="A name, a folder (an adapter's, too), or a .gguf file.")] = None,
    answers: Annotated[Path | None, typer.Option(help="Score this file of predictions instead.")] = None,
    images: Annotated[Path | None, typer.Option(help="Where the pictures lie that records name.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask the first so many questions.")] = None,
    blind: Annotated[bool, typer.Option("--blind", help="Ask without the pictures.")] = False,
    longest: Annotated[int, typer.Option(min=1, help="Tokens of an answer at most.")] = 128,
    out: Annotated[Path | None, typer.Option(help="Keep answers and the report here; an earlier run goes on.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Questions asked together.")] = 16,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Any conversations: exact match, F1 of words, VQA accuracy where a record has several answers, caption scores.

    lapilli eval conversations --data held-out.json --model ./my-adapter --out runs/held-out
    """
    if (model is None) == (answers is None):
        raise InputError("give either --model, to ask it, or --answers, a file to score")

    from lapilli.apps.evals import conversations as exam
    from lapilli.training.talks import open_talks

    questions = exam.questions_of(open_talks(data, images), limit)
    if answers is not None:
        said = exam.read_predictions(answers)
    else:
        from lapilli.engine.local import load

        assert model is not None
        answer = exam.answerer(load(model, device=device), blind=blind, longest=longest)
        with _kept(out, "predictions.jsonl") as kept, _bar("questions", len(questions)) as tell:
            said = exam.ask_all(questions, answer, kept, batch=batch, progress=tell)
    scores = exam.measure(questions, said)
    print(json.dumps(scores.to_dict()) if as_json else scores)
    for note in () if as_json else scores.notes:
        _note(note)
    if out is not None:
        exam.report(out / "report.html", f"{data.name}: {model or answers}", scores, questions, said)
        _note(f"the report is {out / 'report.html'}")


@contextlib.contextmanager
def _kept(out: Path | None, name: str) -> Iterator[Path]:
    """Where answers are kept while a model is asked: for good where somebody said so."""
    with tempfile.TemporaryDirectory() as spare:
        yield (out or Path(spare)) / name


@contextlib.contextmanager
def _bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar of what is done, gone when all is."""
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TimeRemainingColumn

    columns = (SpinnerColumn(), *Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def _note(text: str) -> None:
    print("lapilli: note:", printable(text), file=sys.stderr)
