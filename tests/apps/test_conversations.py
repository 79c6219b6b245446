"""Any dataset of conversations as an examination: questions, answers that are kept, and published measures."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from lapilli import InputError
from lapilli.apps.evals.conversations import (
    Question,
    ask_all,
    is_exact,
    measure,
    questions_of,
    read_predictions,
    token_f1,
    vqa_accuracy,
)
from lapilli.faces.cli import main
from lapilli.training.talks import open_talks


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A red square asked about in two turns, and a record with what three people said."""
    picture = Image.new("RGB", (64, 64), "white")
    picture.paste((220, 30, 30), (12, 12, 52, 52))
    picture.save(tmp_path / "red.png")
    records = [
        {"image": "red.png", "conversations": [
            {"from": "human", "value": "<image>\nWhat colour is the square?"}, {"from": "gpt", "value": "Red."},
            {"from": "human", "value": "Is it blue?"}, {"from": "gpt", "value": "No."},
        ]},
        {"conversations": [{"from": "human", "value": "Two?"}, {"from": "gpt", "value": "two"}],
         "answers": ["two", {"answer": "2"}, "three"]},
    ]  # fmt: skip
    (tmp_path / "held.json").write_text(json.dumps(records))
    return tmp_path / "held.json"


def test_every_turn_of_the_assistant_is_a_question(data: Path) -> None:
    first, second, third = questions_of(open_talks(data))
    assert first.id == "held.json: record 1, turn 2"
    assert (first.asked, first.expected, len(first.pictures)) == ("What colour is the square?", ("Red.",), 1)
    said = [(message.role, message.text) for message in second.messages()]
    assert said[1:] == [("assistant", "Red."), ("user", "Is it blue?")]
    assert len(second.messages()[0].images) == 1
    assert third.expected == ("two", "2", "three")
    assert len(questions_of(open_talks(data), limit=2)) == 2


def test_answers_are_kept_and_asked_for_once(data: Path, tmp_path: Path) -> None:
    questions, kept = questions_of(open_talks(data)), tmp_path / "out" / "predictions.jsonl"
    asked: list[str] = []

    def answer(group: Sequence[Question]) -> list[str]:
        asked.extend(question.id for question in group)
        if len(asked) > 2:
            raise RuntimeError("cut")
        return [question.expected[0] for question in group]

    with pytest.raises(RuntimeError, match="cut"):
        ask_all(questions, answer, kept, batch=2)
    with kept.open("a") as file:
        file.write('{"id": "held.json: record 2, tu')
    asked.clear()
    said = ask_all(questions, answer, kept, batch=2)
    assert asked == [questions[2].id]
    assert said == read_predictions(kept) == {question.id: question.expected[0] for question in questions}
    kept.write_text('{"text": "no id"}\n')
    with pytest.raises(InputError, match=r"predictions\.jsonl: line 1"):
        read_predictions(kept)


def test_measures_are_the_published_ones() -> None:
    assert is_exact("The red square!", ["red square"])
    assert not is_exact("red", ["red square"])
    assert token_f1("a big red square", ["red square", "blue"]) == pytest.approx(2 * 2 / (3 + 2))
    assert token_f1("", ["red"]) == 0
    ten = ["2"] * 2 + ["two."] + ["3"] * 7
    assert vqa_accuracy("Two", ten) == pytest.approx((3 * (2 / 3) + 7 * 1) / 10), "three say it: 0.9"
    assert vqa_accuracy("the 3", ten) == 1
    assert vqa_accuracy("four", ten) == 0
    assert vqa_accuracy("1,000.5 dont-know", ["1000.5 don't know"]) == 1
    assert vqa_accuracy("10:30", ["10 30"]) == 0


def test_captions_are_scored_by_libraries_where_they_are(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    questions = questions_of(open_talks(data))
    said = {question.id: question.expected[0] for question in questions}
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
    scores = measure(questions, said)
    assert set(scores.means) == {"exact", "F1", "VQA"}
    assert [note.partition(" ")[0] for note in scores.notes] == ["sacrebleu", "rouge-score"]
    assert "pip install sacrebleu" in scores.notes[0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(importlib.util.find_spec("sacrebleu") is None, reason="sacrebleu is not installed")
@pytest.mark.skipif(importlib.util.find_spec("rouge_score") is None, reason="rouge-score is not installed")
def test_captions_are_scored_by_sacrebleu_and_rouge_score(data: Path) -> None:
    questions = [
        Question("1", (("user", "?"),), ("a red square stands on a green field",), ()),
        Question("2", (("user", "?"),), ("a dog runs", "the dog is running over there"), ()),
    ]
    perfect = measure(questions, {question.id: question.expected[-1] for question in questions})
    assert perfect.means["BLEU"] == pytest.approx(100)
    assert perfect.means["chrF"] == pytest.approx(100)
    assert perfect.means["ROUGE-L"] == pytest.approx(100)
    other = measure(questions, {"1": "a green square stands on a red field", "2": "cats"})
    assert other.means["BLEU"] < 60
    assert other.means["chrF"] < 80
    assert other.means["ROUGE-L"] == pytest.approx(100 * (6 / 8) / 2)


def test_from_the_command_line_to_a_report(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    asked = ["eval", "conversations", "--data", str(data)]
    assert main([*asked, "--model", "mini", "--out", str(out), "--limit", "1", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert (scores["asked"], scores["scores"]["exact"]) == (1, 100)
    page = (out / "report.html").read_text()
    assert "What colour is the square?" in page
    assert "data:image/webp" in page
    assert main([*asked, "--answers", str(out / "predictions.jsonl")]) == 0
    assert "exact" in capsys.readouterr().out
    assert main(asked) == 2
    assert "give either --model" in capsys.readouterr().err
