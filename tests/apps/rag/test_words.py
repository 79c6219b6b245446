"""Words that carry meaning, in the ways that they are written."""

from __future__ import annotations

import pytest

from lapilli.apps.rag.words import overlap, points_back, sentence_spans, words_of


@pytest.mark.parametrize(
    ("one", "other"),
    [("apples", "Apple"), ("making", "makes"), ("stories", "story"), ("stopped", "stops"), ("ＡＢＣ", "abc"),
     ("Boxes", "box"), ("houses", "house"), ("the falling glasses", "glass falls")],
)  # fmt: skip
def test_forms_of_a_word_are_one(one: str, other: str) -> None:
    assert words_of(one) == words_of(other)


def test_common_words_say_nothing() -> None:
    assert words_of("What is it, and who are they?") == frozenset()
    assert overlap(words_of("Who are they?"), "anything") == 0


def test_scripts_without_blanks_share_pairs_of_letters() -> None:
    assert overlap(words_of("北京图书馆"), "我们今天去北京的图书馆看书") == 0.75
    assert overlap(words_of("北京"), "上海") == 0


@pytest.mark.parametrize(
    ("question", "does"), [("And when was it built?", True), ("Why?", True), ("Who built the lighthouse?", False)]
)
def test_a_question_that_points_back(question: str, does: bool) -> None:
    assert points_back(question) is does


def test_sentences_are_slices() -> None:
    text = ' One is 3.5 m. "Two?" Three!\n\nFour without an end\n  五。六！'
    assert [text[start:end] for start, end in sentence_spans(text)] == [
        "One is 3.5 m.", '"Two?"', "Three!", "Four without an end", "五。", "六！",
    ]  # fmt: skip
    assert sentence_spans(" \n ") == []
