"""Passages slice back, lose nothing, keep their sizes, and end where people see an end."""

from __future__ import annotations

import dataclasses
import itertools
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapilli.apps.rag.document import Document, Passage
from lapilli.apps.rag.passages import is_border, split
from lapilli.errors import InputError

FAMILY = "\N{MAN}\u200d\N{WOMAN}\u200d\N{GIRL}"
WAVE = "\N{WAVING HAND SIGN}\U0001f3fd"
FLAG = "\U0001f1eb\U0001f1f7"
PIECES = st.sampled_from(
    ["word ", "Ende. ", "Frage? Ja! ", "\n\n", "\n", "  ", "\t", "a", "日本語", "。", "、", "e\u0301", FAMILY, WAVE,
     FLAG, "क्षि", "ที่", "\u1112\u1161\u11ab", "\xa0", "https://example.org/a", "\U0001f1eb", "\u0301", "x" * 40]
)  # fmt: skip
TEXTS = st.lists(PIECES, max_size=80).map("".join) | st.text(max_size=300)


def document(text: str, marks: tuple[tuple[int, str], ...] = ()) -> Document:
    return Document("/a.txt", "text", "a", text, "0" * 64, marks=marks)


def texts(text: str, **sizes: int) -> list[str]:
    return [passage.text for passage in split(document(text), **sizes)]


@st.composite
def cut(draw: st.DrawFn) -> tuple[str, list[Passage], int, int]:
    text = draw(TEXTS)
    size = draw(st.integers(1, 120))
    overlap = draw(st.integers(0, size - 1))
    places = sorted(draw(st.sets(st.integers(0, max(len(text) - 1, 0)), max_size=5))) if text else []
    marks = tuple((at, f"page {number}") for number, at in enumerate(places, 1))
    return (
        text,
        split(document(text, marks), size=size, overlap=overlap, least=draw(st.integers(0, size))),
        size,
        overlap,
    )


@settings(max_examples=200, deadline=None)
@given(cut())
def test_passages_slice_back_lose_nothing_and_keep_their_sizes(found: tuple[str, list[Passage], int, int]) -> None:
    text, passages, size, _ = found
    seen = 0
    for passage in passages:
        assert text[passage.start : passage.end] == passage.text
        assert 1 <= len(passage.text) <= size
        assert passage.text == passage.text.strip()
        # Between two passages there are blanks at most.
        assert passage.start <= seen or not text[seen : passage.start].strip()
        assert passage.end > seen
        seen = passage.end
    assert not text[seen:].strip()
    assert len({passage.id for passage in passages}) == len(passages)


@settings(max_examples=200, deadline=None)
@given(cut())
def test_no_more_than_the_overlap_is_said_twice(found: tuple[str, list[Passage], int, int]) -> None:
    _, passages, size, overlap = found
    for number, (one, two) in enumerate(itertools.pairwise(passages), 2):
        last = number == len(passages)
        assert one.end - two.start <= (size if last else overlap)
        assert two.start > one.start


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.sampled_from([FAMILY, WAVE, FLAG, "e\u0301", "\u1112\u1161\u11ab", "क्षि", "ที่", "日", "a"]),
        min_size=1,
        max_size=60,
    )
)
def test_what_is_seen_as_one_character_stays_whole(letters: list[str]) -> None:
    text = "".join(letters)
    borders = {0}
    for letter in letters:
        borders.add(max(borders) + len(letter))
    for passage in split(document(text), size=12, overlap=3):
        assert {passage.start, passage.end} <= borders


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [
        ("One two. Three four.\n\nFive six. Seven eight.", 30, ["One two. Three four.", "Five six. Seven eight."]),
        ("One two three. Four five six. Seven.", 32, ["One two three. Four five six.", "Seven."]),
        ("alpha beta gamma delta", 12, ["alpha beta", "gamma delta"]),
        ("今天天气很好。我们去公园散步。然后回家吃饭。", 16, ["今天天气很好。我们去公园散步。", "然后回家吃饭。"]),
        ("一二三四五六七八九十", 4, ["一二三四", "五六七八", "九十"]),
        ("He paid 3.50 e.g. for tea, and left the house.", 30, ["He paid 3.50 e.g. for tea,", "and left the house."]),
        ("x" * 10, 4, ["xxxx", "xxxx", "xx"]),
    ],
)
def test_a_passage_ends_at_the_strongest_border(text: str, size: int, expected: list[str]) -> None:
    assert texts(text, size=size, overlap=0) == expected


def test_a_mark_is_the_strongest_border() -> None:
    text = "First part. It goes on.\n\nMethods\n\nSecond part is here."
    at = text.index("Methods")
    found = split(document(text, ((0, "Intro"), (at, "Methods"))), size=45, overlap=0)
    assert [(passage.text[:7], passage.label) for passage in found] == [("First p", "Intro"), ("Methods", "Methods")]


def test_the_overlap_begins_with_a_sentence_or_a_word() -> None:
    text = "Ada wrote notes. Bob read them. Cyd was late. Dan left early. Eve stayed."
    for one, two in itertools.pairwise(texts(text, size=40, overlap=20)):
        assert two.split(". ")[0].rstrip(".") in one
    counted = "one two three four five six seven eight nine ten"
    words = texts(counted, size=20, overlap=8)
    assert {word for text in words for word in text.split()} == set(counted.split())
    assert any(set(one.split()) & set(two.split()) for one, two in itertools.pairwise(words))


def test_a_short_end_begins_earlier() -> None:
    text = "word " * 30 + "end"
    assert texts(text, size=50, overlap=0)[-1] == "end"
    assert texts(text, size=50, overlap=0, least=30)[-1] == "word " * 5 + "end"
    assert texts("tiny", size=50, overlap=0, least=50) == ["tiny"]


def test_labels_say_where_a_passage_stands() -> None:
    text = "\n\n".join(f"Page {number} says something of its own." for number in range(1, 7))
    marks = tuple((text.index(f"Page {number} "), f"page {number}") for number in range(1, 7))
    assert [passage.label for passage in split(document(text, marks), size=75, overlap=0)] == [
        "page 1-2", "page 3-4", "page 5-6"
    ]  # fmt: skip
    assert [passage.label for passage in split(document(text, marks), size=40, overlap=0)] == [
        f"page {number}" for number in range(1, 7)
    ]
    assert split(document("before it", ((7, "late"),)))[0].label == "late"
    assert split(document("no marks"))[0].label == ""


def test_a_heading_near_the_end_does_not_name_what_comes_before_it() -> None:
    text = "Many words stand under the first heading here.\n\nLast\n\nFew."
    assert [passage.label for passage in split(document(text, ((0, "First"), (text.index("Last"), "Last"))))] == [
        "First"
    ]


def test_what_only_repeats_the_end_of_the_former_is_no_passage() -> None:
    text = "日" * 60 + " " * 200 + "end"
    assert texts(text, size=100, overlap=50) == ["日" * 60, "end"]


def test_a_passage_of_a_picture_names_it() -> None:
    picture = dataclasses.replace(document("A red circle."), kind="picture", picture=b"png")
    assert [passage.picture for passage in split(picture)] == ["0" * 64]
    assert split(document("A red circle."))[0].picture == ""


def test_an_id_says_what_stands_where() -> None:
    one, other = split(document("Same words."))[0], split(dataclasses.replace(document("Same words."), source="/b"))[0]
    assert len(one.id) == 32
    assert one.id == split(document("Same words."))[0].id != other.id
    assert one.id != split(document(" Same words."))[0].id


@pytest.mark.parametrize(
    "sizes", [{"size": 0}, {"size": 10, "overlap": 10}, {"overlap": -1}, {"size": 5, "overlap": 0, "least": 6}]
)
def test_sizes_that_do_not_fit_are_refused_with_all_three(sizes: dict[str, int]) -> None:
    with pytest.raises(InputError, match=str(sizes.get("size", 1000))):
        split(document("text"), **sizes)


@pytest.mark.parametrize(
    "text",
    ["", " ", "\n\n\t\n", "\u2003"],
)
def test_nothing_comes_of_blanks(text: str) -> None:
    assert texts(text) == []


@pytest.mark.parametrize(
    "unit",
    ["x", "日", " ", "a ", "\n", "。", "\u0301", FLAG, FAMILY, "a\u0301", ". ", '."', "\n \t", "\xa0", "क्"],
    ids=ascii,
)
def test_work_grows_with_the_length(unit: str) -> None:
    """Steps are counted, not seconds."""
    one, four = (_steps((unit * length)[:length] + "end") for length in (20_000, 80_000))
    assert four < 4.5 * one + 500


def _steps(text: str) -> int:
    count = 0

    def step(*_: object) -> None:
        nonlocal count
        count += 1

    before = sys.getprofile()
    sys.setprofile(step)
    try:
        split(document(text), size=500, overlap=50)
    finally:
        sys.setprofile(before)
    return count


def test_a_border_is_where_a_new_character_begins() -> None:
    text = f"a{FLAG}{FLAG}e\u0301{FAMILY}{WAVE}\r\n각"
    whole = [0, 1, 3, 5, 7, 12, 14, 16, 17]
    assert [at for at in range(len(text) + 1) if is_border(text, at, 0)] == whole
