"""Asking about trials: in order, none left out, in smaller pieces where one does not fit."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator

import pytest
from parrot_backend import ParrotBackend

from lapilli.apps.backend.call import Call
from lapilli.apps.trials.asking import Asking, Heard, Topic
from lapilli.apps.trials.prompt import FULL_INSTRUCTION, INSTRUCTION
from lapilli.errors import EngineGoneError, InputError, PromptError

NONE = '{"interventions":[]}'


def naming(call: Call) -> str:
    """An answer that names the title it was asked about."""
    title = call.messages[-1].text.splitlines()[0].removeprefix("Title: ")
    return json.dumps({"interventions": [{"name": title, "type": "Drug", "role": "experimental"}]})


def topics(count: int) -> list[Topic[int]]:
    return [Topic(number, {"public_title": f"Trial {number}"}) for number in range(count)]


def heard(answers: Callable[[Call], str], asked: list[Topic[int]], **parrot: int) -> list[Heard[int]]:
    return list(Asking(ParrotBackend(answers, **parrot)).hear(asked))  # type: ignore[arg-type]


def test_topics_are_heard_in_order_with_what_was_said_of_them() -> None:
    found = heard(naming, topics(50))
    assert [one.about for one in found] == list(range(50))
    assert [one.said[0].values["name"] for one in found] == [f"Trial {number}" for number in range(50)]
    assert {one.code for one in found} == {""}


@pytest.mark.parametrize(
    ("context", "words"), [(None, FULL_INSTRUCTION), (2048, INSTRUCTION), (4096, FULL_INSTRUCTION)]
)
def test_every_call_begins_with_the_same_instruction_and_has_a_form(context: int | None, words: str) -> None:
    parrot = ParrotBackend(naming, context=context)
    list(Asking(parrot).hear(topics(3)))
    assert {call.messages[0].text for call in parrot.calls} == {words}
    assert all(call.schema is not None and call.chances and call.temperature == 0 for call in parrot.calls)


def test_what_is_known_cannot_be_named_otherwise() -> None:
    parrot = ParrotBackend(lambda _: NONE)
    list(Asking(parrot).hear([Topic(0, {"public_title": "Lapillin"}, ("Lapillin", "placebo"))]))
    (call,) = parrot.calls
    assert call.messages[-1].text.endswith("Given: Lapillin; placebo")
    item = call.schema["properties"]["interventions"]["items"]  # type: ignore[index]
    assert item["properties"]["name"] == {"enum": ["Lapillin", "placebo"]}


def test_topics_without_text_are_heard_in_their_place() -> None:
    asked = [Topic(number, {"public_title": "Trial"} if number % 3 == 1 else {}) for number in range(10)]
    parrot = ParrotBackend(naming)
    found = list(Asking(parrot).hear(asked))
    assert [one.about for one in found] == list(range(10))
    assert [one.asked for one in found] == [int(number % 3 == 1) for number in range(10)]
    assert parrot.count_of_calls == 3


def test_many_topics_without_text_do_not_pile_up() -> None:
    taken = 0

    def source() -> Iterator[Topic[int]]:
        nonlocal taken
        for taken in range(1, 5001):
            yield Topic(taken, {})

    found = Asking(ParrotBackend(naming)).hear(source())
    assert next(found).about == 1
    assert taken < 2000
    assert sum(1 for _ in found) == 4999


def test_a_long_trial_is_asked_about_in_pieces_that_fit() -> None:
    words = " ".join(f"word{number}" for number in range(3000))
    parrot = ParrotBackend(naming, context=400)
    (found,) = Asking(parrot).hear([Topic(0, {"public_title": "Lapillin", "summary": words})])
    assert found.asked == parrot.count_of_calls > 5
    assert all(parrot.count(call) <= 400 - call.max_tokens for call in parrot.calls)
    read = " ".join(call.messages[-1].text for call in parrot.calls)
    assert all(word in read.split() for word in words.split())
    assert len(found.said) == found.asked


def test_what_is_refused_as_too_long_is_asked_in_halves() -> None:
    def answer(call: Call) -> str:
        if len(call.messages[-1].text) > 800:
            raise PromptError("the prompt has 900 tokens, at most 400 fit")
        return naming(call)

    (found,) = heard(answer, [Topic(0, {"public_title": "Lapillin", "summary": "It is given. " * 200})])
    assert found.code == ""
    assert len(found.said) == 4


def test_what_can_never_fit_is_told_as_a_failure() -> None:
    def answer(call: Call) -> str:
        raise PromptError("the prompt has 900 tokens, at most 400 fit")

    found = heard(answer, [*topics(1), Topic(1, {"public_title": "A", "summary": "It is given. " * 200})])
    assert [one.code for one in found] == ["too_long", "too_long"]
    assert "900 tokens" in found[0].message


@pytest.mark.parametrize("words", ["Polly wants a cracker", '{"interventions":[{"name":"Lapil', "", "{}"])
def test_nonsense_is_told_and_ends_no_other(words: str) -> None:
    found = heard(lambda call: words if "Trial 1" in call.messages[-1].text else naming(call), topics(3))
    assert [one.about for one in found] == [0, 1, 2]
    assert [bool(one.said) for one in found] == [True, False, True]
    assert found[1].code == ("cut_answer" if "name" in words else "unreadable_answer")


def test_an_answer_that_was_cut_is_asked_again_once_in_two() -> None:
    parrot = ParrotBackend(lambda call: '{"interventions":[{"name":"a","type":"Drug","role":"placebo"},{"na')
    (found,) = Asking(parrot).hear([Topic(0, {"public_title": "A", "summary": "It is given. " * 100})])
    assert parrot.count_of_calls == 3
    assert found.code == "cut_answer"
    assert len(found.said) == 2


def test_a_refusal_is_that_trials_own() -> None:
    def answer(call: Call) -> str:
        if "Trial 1" in call.messages[-1].text:
            raise InputError("the schema cannot be kept")
        return naming(call)

    assert [one.code for one in heard(answer, topics(3))] == ["", "refused", ""]


def test_a_stumble_of_the_machine_is_tried_again() -> None:
    stumbled: list[str] = []

    def answer(call: Call) -> str:
        text = call.messages[-1].text
        if text not in stumbled:
            stumbled.append(text)
            raise EngineGoneError("the process ended")
        return naming(call)

    found = heard(answer, topics(30))
    assert {one.code for one in found} == {""}


def test_a_machine_that_is_gone_ends_the_asking_and_blames_nobody() -> None:
    def answer(call: Call) -> str:
        number = int(call.messages[-1].text.split()[-1])
        if number == 2 or number > 10:
            raise EngineGoneError("the process ended")
        return naming(call)

    hearing = Asking(ParrotBackend(answer)).hear(topics(1000))
    found = [next(hearing) for _ in range(11)]
    assert [one.code for one in found] == ["machine" if one.about == 2 else "" for one in found]
    with pytest.raises(EngineGoneError):
        list(itertools.islice(hearing, 100))


def test_stumbles_far_apart_end_nothing() -> None:
    def answer(call: Call) -> str:
        if int(call.messages[-1].text.split()[-1]) % 2:
            raise EngineGoneError("the process ended")
        return naming(call)

    assert [one.code for one in heard(answer, topics(80))] == ["", "machine"] * 40
