"""The examination of `mini-text`: what is measured, against answers that are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lapilli.apps.evals import mini_text as exam
from lapilli.apps.trials.labels import Label, Labelled
from lapilli.errors import InputError
from lapilli.training.cloze import NOT_THERE
from lapilli.training.passages import Asked


@pytest.mark.parametrize(
    ("said", "right", "f1", "exact"),
    [
        ("the old road", ["old road"], 1.0, 1.0),
        ("by the old road home", ["old road"], 2 / 3, 0.0),
        ("salt", ["old road"], 0.0, 0.0),
        ("Old Road.", ["north", "old road"], 1.0, 1.0),
        ("", ["old road"], 0.0, 0.0),
    ],
)
def test_answers_are_compared_word_by_word(said: str, right: list[str], f1: float, exact: float) -> None:
    assert exam.most_f1(said, right) == pytest.approx(f1)
    assert exam.most_exact(said, right) == exact


def test_passages_that_do_not_tell_are_counted_apart() -> None:
    asked = [
        Asked("A", "?", "old road"),
        Asked("A", "?", NOT_THERE),
        Asked("A", "?", "salt"),
        Asked("A", "?", NOT_THERE),
    ]
    measures = exam.passage_measures(asked, ["old road", NOT_THERE, NOT_THERE, "salt"])
    assert measures == {"F1": 0.5, "exact": 0.5, "not there, and said so": 0.5, "there, and denied": 0.5}


def test_a_name_that_the_text_does_not_have_counts_for_recall_alone() -> None:
    trial = Labelled(
        "X1",
        "R",
        {"public_title": "Zorbimab for asthma", "arms": "placebo"},
        (Label("zorbimab"), Label("Placebo"), Label("salbutamol")),
    )
    measures = exam.trial_measures([trial], [["Zorbimab", "salbutamol", "asthma"]])
    assert measures["precision"] == 0.5  # zorbimab right, asthma wrong, salbutamol neither
    assert measures["recall"] == 0.5
    assert measures["recall over all names"] == pytest.approx(2 / 3)


def test_the_best_sentence_shares_most_words() -> None:
    passage = "Salt is dear. The mayor went home by the old road. Nobody asked."
    assert exam.best_sentence(passage, "How did the mayor go home?") == "The mayor went home by the old road."


def test_a_file_in_squads_form_is_read_and_another_refused(tmp_path: Path) -> None:
    path = tmp_path / "qa.json"
    one = {"question": "What is dear?", "answers": [{"text": "Salt", "answer_start": 0}]}
    path.write_text(json.dumps({"data": [{"paragraphs": [{"context": "Salt is dear.", "qas": [one]}]}]}))
    assert list(exam.read_squad(path)) == [("Salt is dear.", "What is dear?", ["Salt"])]
    path.write_text('{"data": [{}]}')
    with pytest.raises(InputError, match="SQuAD"):
        list(exam.read_squad(path))


def test_options_are_checked() -> None:
    with pytest.raises(InputError, match="each is 0, it must be at least 1"):
        exam.TextExamOptions(each=0)
