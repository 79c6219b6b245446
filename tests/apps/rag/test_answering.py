"""From passages to an answer: what the model is asked, which citations are taken, what is no answer."""

from __future__ import annotations

import pytest

from lapilli.apps.rag.answering import Shown, Turn, admits, best_quote, cited, lay_in, prompt_messages, read_marks

HARBOUR = Shown(number=1, text="The harbour office opens at eight in the morning and closes at five.", heading="office")
LIGHT = Shown(
    number=2,
    text="The lighthouse on Crow Island was built in 1871 by Anna Berg. It is 32 metres high.\nIts lamp burns oil.",
    heading="lights.md",
)
APPLES = Shown(number=3, text="Apples are picked in September.", heading="garden.md, page 2")
PASSAGES = (HARBOUR, LIGHT, APPLES)


def test_the_prompt_numbers_the_passages_and_asks_last() -> None:
    system, asked = prompt_messages("Who built it?", PASSAGES, system="Speak plainly.")
    assert system.text.startswith("Speak plainly.\n\nAnswer the question from the numbered passages")
    assert asked.text.startswith("Passages:\n\n[1] office\n| The harbour office opens")
    assert "[2] lights.md\n| The lighthouse on" in asked.text
    assert "\n| Its lamp burns oil.\n\n[3] garden.md, page 2\n" in asked.text
    assert asked.text.endswith("\n\nQuestion: Who built it?")


def test_earlier_turns_come_before() -> None:
    turns = (Turn(question="Which island?", answer="Crow Island [2]."),)
    roles = [(message.role, message.text[:12]) for message in prompt_messages("Who built it?", PASSAGES, turns=turns)]
    assert roles[1:3] == [("user", "Which island"), ("assistant", "Crow Island ")]
    assert [role for role, _ in roles] == ["system", "user", "assistant", "user"]


def test_a_prompt_of_ones_own_is_filled_in_once() -> None:
    told = "Given $context\nand ${history}\nsay: $query $price {query}"
    strange = Shown(number=1, text="It costs $query, $context and {context}.")
    [asked] = prompt_messages("What?", (strange,), instructions=told, turns=(Turn(question="A?", answer="B."),))
    assert asked.text == (
        "Given [1]\n| It costs $query, $context and {context}.\nand Question: A?\nAnswer: B.\nsay: What? $price {query}"
    )


def test_what_is_laid_in_is_not_looked_at_again() -> None:
    assert lay_in("$a$b ${a} $ab $c", {"a": "$b", "b": "$a"}) == "$b$a $b $ab $c"


@pytest.mark.parametrize(
    ("answer", "numbers"),
    [
        ("Anna Berg built it [2].", [2]),
        ("Anna Berg [2][1] and [3]", [2, 1, 3]),
        ("Both [1, 2; 3].", [1, 2, 3]),
        ("None [x] [] [1234] (2)", []),
    ],
)
def test_marks_are_read(answer: str, numbers: list[int]) -> None:
    assert read_marks(answer) == numbers


@pytest.mark.parametrize(
    ("question", "answer", "numbers"),
    [
        ("Who built it?", "Anna Berg built the lighthouse [2].", [2]),
        ("Who built it?", "Anna Berg built the lighthouse [9].", [2]),  # no such passage: the words decide
        ("Who built it?", "Anna Berg built the lighthouse [1].", [2]),  # a passage that says nothing of the kind
        ("Who built it?", "Anna Berg, in 1871.", [2]),
        ("Office and apples?", "It closes at five [1]. They are picked in September [3].", [1, 3]),
        ("Is the lighthouse high?", "Yes [2].", [2]),
        ("Is the lighthouse on Crow Island?", "Yes.", [2]),
        ("Who?", "Napoleon Bonaparte, the emperor of France.", []),
        ("Who?", "", []),
    ],
)
def test_citations_are_checked_against_what_was_shown(question: str, answer: str, numbers: list[int]) -> None:
    assert cited(answer, question, PASSAGES) == numbers


@pytest.mark.parametrize(
    "answer",
    [
        "Not in your documents.",
        "This is not mentioned in the passages.",
        "The passages do not contain that.",
        "I don't know.",
        "I cannot find this in the text.",
        "There is no information about it.",
    ],
)
def test_a_model_that_admits_it(answer: str) -> None:
    assert admits(answer)


@pytest.mark.parametrize(
    "answer", ["Anna Berg built it.", "The office does not open on Sundays.", "Not in your documents, but see [2]."]
)
def test_an_answer_is_no_admission(answer: str) -> None:
    assert not admits(answer)


@pytest.mark.parametrize(
    ("question", "number", "quoted"),
    [
        ("Who built it on Crow Island?", 2, "The lighthouse on Crow Island was built in 1871 by Anna Berg."),
        (
            "How high is the lighthouse?", 2,
            "The lighthouse on Crow Island was built in 1871 by Anna Berg. It is 32 metres high.",
        ),
        ("When is an apple picked?", 3, "Apples are picked in September."),
    ],
)  # fmt: skip
def test_a_quotation_is_a_slice_of_its_passage(question: str, number: int, quoted: str) -> None:
    quote = best_quote(question, PASSAGES)
    assert quote is not None
    assert (quote.number, quote.text) == (number, quoted)
    assert PASSAGES[number - 1].text[quote.start : quote.end] == quoted


@pytest.mark.parametrize("question", ["Who is the king of Spain?", "Why?", ""])
def test_no_quotation_where_nothing_fits(question: str) -> None:
    assert best_quote(question, PASSAGES) is None
