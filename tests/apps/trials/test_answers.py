"""What a model said is read as far as it is whole, and never raises."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapilli.apps.backend.call import Reply
from lapilli.apps.trials.answers import read_answer

TWO = '{"interventions":[{"name":"Lapillin","type":"Drug"},{"name":"rest","type":"Behavioral"}]}'


def reply(text: str, chances: tuple[tuple[str, float], ...] | None = None) -> Reply:
    return Reply(text=text, finish="stop", prompt_tokens=1, tokens=1, chances=chances)


def test_a_whole_answer_is_read() -> None:
    answer = read_answer(reply(TWO))
    assert [said.values["name"] for said in answer.said] == ["Lapillin", "rest"]
    assert answer.whole
    assert read_answer(reply('{"interventions":[]}')).whole
    assert read_answer(reply(json.dumps(json.loads(TWO), indent=2))).whole
    assert read_answer(reply('[{"name":"Lapillin"}]')).whole


@pytest.mark.parametrize("end", range(len(TWO)))
def test_an_answer_that_ends_anywhere_gives_what_is_complete(end: int) -> None:
    answer = read_answer(reply(TWO[:end]))
    first, second = TWO.index("}") + 1, TWO.rindex("}]") + 1
    assert len(answer.said) == (end >= first) + (end >= second)
    assert answer.whole == (end >= second + 1)


@pytest.mark.parametrize(
    "text", ["", "Polly wants a cracker", "{}", '{"other":[]}', "[" * 100_000, '{"interventions":{"name":"x"}}', "null"]
)
def test_what_is_no_answer_is_not_readable_or_not_whole(text: str) -> None:
    answer = read_answer(reply(text))
    assert not answer.whole
    assert answer.said == ()


def test_values_that_are_no_texts_are_left_out() -> None:
    text = (
        '{"interventions":[{"name":3},{"name":" "},7,{"name":"a\\ud800"},{"name":"b","dose":null,"route":"by  mouth"}]}'
    )
    answer = read_answer(reply(text))
    assert [dict(said.values) for said in answer.said] == []
    text = text.replace(",7", "")
    assert [dict(said.values) for said in read_answer(reply(text)).said] == [{"name": "b", "route": "by mouth"}]


@settings(max_examples=300, deadline=None)
@given(st.text() | st.text(alphabet='{}[]":,\\ interventions name'))
def test_nothing_makes_it_raise(text: str) -> None:
    read_answer(reply(text))


def test_confidence_is_the_geometric_mean_of_what_wrote_the_values() -> None:
    chances = ((" ", -9.0), ('{"interventions":[{"name":', -9.0), ('"Lap', -0.2), ('illin"', -0.4), (',"type":', -9.0),
               ('"Drug"', -0.6), ("}]}", -9.0))  # fmt: skip
    text = "".join(piece for piece, _ in chances).lstrip()
    (said,) = read_answer(reply(text, chances)).said
    assert said.confidence == pytest.approx(math.exp(-0.4), abs=1e-4)
    assert read_answer(reply(text)).said[0].confidence is None
