"""What the model is asked: all of a trial's words, in pieces that fit."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapilli.apps.trials.prompt import SHORTEST, cut, prompt_hash, questions

FIELDS = {
    "public_title": "Lapillin for made-up fever",
    "conditions": "Made-up fever",
    "summary": "Lapillin is given. " * 40,
    "arms": "Lapillin 5 mg\nplacebo",
    "web_address": "https://example.org",
}


def test_a_question_reads_as_a_trial() -> None:
    (question,) = questions(FIELDS, most=4000, names=("Lapillin", "placebo"))
    lines = question.text.splitlines()
    assert lines[0] == "Title: Lapillin for made-up fever"
    assert lines[1] == "Condition: Made-up fever"
    assert lines[2] == "Arms: Lapillin 5 mg"
    assert lines[-1] == "Given: Lapillin; placebo"
    assert "example.org" not in question.text


def test_pieces_fit_say_what_they_are_about_and_hold_every_word() -> None:
    pieces = questions(FIELDS, most=300)
    assert len(pieces) > 2
    assert all(len(piece.text) <= 300 for piece in pieces)
    assert all(piece.text.startswith("Title: Lapillin for made-up fever\n") for piece in pieces)
    body = {}
    for piece in pieces:
        for label, text in piece.lines:
            body[label] = body.get(label, "") + text
    assert body == {"Arms": FIELDS["arms"], "Summary": FIELDS["summary"]}


def test_a_title_that_is_too_long_for_a_head_is_not_cut_away() -> None:
    title = "Lapillin and basaltumab " * 100
    pieces = questions({"public_title": title}, most=400)
    assert "".join(text for piece in pieces for _, text in piece.lines) == title
    assert questions({}, most=400) == []


def test_halves_hold_what_the_whole_held() -> None:
    (question,) = questions(FIELDS, most=4000)
    first, second = question.halves()
    both = [*first.lines, *second.lines]
    assert "".join(text for _, text in both) == "".join(text for _, text in question.lines)
    assert max(len(first.text), len(second.text)) < 0.7 * len(question.text)
    (short,) = questions({"public_title": "Lapillin"}, most=4000)
    assert short.halves() == ()


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300), st.integers(1, 50))
def test_a_text_in_pieces_is_the_text(text: str, most: int) -> None:
    pieces = list(cut(text, most))
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= most for piece in pieces)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), st.text(min_size=1, max_size=500)), st.integers(1, 900))
def test_no_word_is_lost_whatever_the_size(fields: dict[str, str], most: int) -> None:
    fields.pop("web_address", None)
    asked = questions(fields, most=most)
    pieces = "".join(text for question in asked for _, text in question.lines)
    heads = asked[0].head if asked else ""
    assert all(text in pieces or text in heads for text in fields.values())
    assert all(len(question.text) <= max(most, 2 * SHORTEST + len(question.head)) for question in asked)


def test_the_hash_is_of_the_words_alone() -> None:
    assert prompt_hash() == prompt_hash()
    assert len(prompt_hash()) == 64


@pytest.mark.parametrize("mark", ["\n", ". ", "; ", "。", " "])
def test_cuts_are_made_where_words_end(mark: str) -> None:
    text = mark.join(["abcdefgh"] * 5)
    assert next(cut(text, 20)) == f"abcdefgh{mark}abcdefgh{mark}"[:20].rsplit(mark, 1)[0] + mark
