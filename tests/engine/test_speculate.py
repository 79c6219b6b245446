"""Guesses from the prompt: what is guessed, what never is, when it is given up, and what it saves."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapilli.engine.speculate import LookupOptions, PromptLookup
from lapilli.errors import InputError


def fed(tokens: list[int], never: frozenset[int] = frozenset(), **options: float) -> PromptLookup:
    lookup = PromptLookup(LookupOptions(**options), never=never)
    lookup.extend(tokens)
    return lookup


def say(answer: list[int], prompt: list[int], **options: float) -> tuple[int, float, PromptLookup]:
    """Steps and their cost (a plain step is 1) to say the answer, as an engine would."""
    lookup, said, steps, cost = fed(prompt, **options), 0, 0, 0.0
    while said < len(answer):
        guesses = lookup.draft()[: len(answer) - said - 1]
        right = 0
        while right < len(guesses) and guesses[right] == answer[said + right]:
            right += 1
        lookup.settle(len(guesses), right)
        lookup.extend(answer[said : said + right + 1])
        said, steps, cost = said + right + 1, steps + 1, cost + 1 + lookup.options.cost * len(guesses)
    return steps, cost, lookup


# --- what is guessed ---


@pytest.mark.parametrize(
    ("tokens", "guess"),
    [
        ([1, 2, 3, 4, 5, 9, 1, 2], [3, 4]),
        ([1, 2, 3, 7, 1, 2, 4, 7, 1, 2], [4, 7]),  # the latest of several
        ([1, 2, 3, 4, 8, 5, 3, 4, 9, 6, 2, 3, 4], [8, 5]),  # the longest before the latest
        ([5, 6, 5, 6], [5, 6]),
        ([7, 7, 7], [7, 7]),  # goes on with what is guessed
        ([1, 2, 3, 4], []),
        ([1, 2, 3, 9, 2], []),  # one token is no match
        ([], []),
        ([1], []),
    ],
)
def test_what_followed_the_longest_latest_match_is_guessed(tokens: list[int], guess: list[int]) -> None:
    assert fed(tokens).draft() == guess


def test_guesses_come_to_the_same_however_tokens_arrive() -> None:
    tokens = np.random.default_rng(0).integers(0, 4, 200).tolist()
    bit_by_bit = PromptLookup()
    for end in range(len(tokens)):
        assert bit_by_bit.draft() == fed(tokens[:end]).draft()
        bit_by_bit.extend(tokens[end : end + 1])


@given(st.lists(st.integers(0, 3), max_size=60))
def test_guesses_are_those_of_a_plain_search(tokens: list[int]) -> None:
    def search() -> list[int]:
        for length in (4, 3, 2):
            end = tokens[len(tokens) - length :]
            for place in range(len(tokens) - 1, length - 1, -1):
                if len(end) == length and tokens[place - length : place] == end:
                    guess = tokens[place : place + 2]
                    return guess if len(guess) == 2 else [*guess, guess[0]]
        return []

    assert fed(tokens).draft() == search()


@given(st.lists(st.integers(0, 3), max_size=60))
def test_placeholders_are_never_guessed(tokens: list[int]) -> None:
    assert 3 not in fed(tokens, never=frozenset({3}), most=2).draft()


def test_a_guess_ends_before_a_placeholder_and_none_follows_one() -> None:
    never = frozenset({9})
    assert fed([1, 2, 3, 9, 9, 1, 2], never).draft() == [3]
    assert fed([1, 2, 9, 5, 1, 2], never).draft() == []
    assert fed([9, 9, 9, 9, 1, 9, 9], never).draft() == []
    assert fed([4, 9, 1, 5, 4, 9, 1], never).draft() == []  # across a placeholder nothing matches


# --- when ---


def test_copying_takes_a_fraction_of_the_steps_and_lengthens_its_guesses() -> None:
    record = np.random.default_rng(1).integers(0, 500, 120).tolist()
    steps, cost, lookup = say(record, [*record, 777])
    assert steps < 25
    assert cost < 40
    assert lookup.accepted > 0.8 * len(record)
    assert len(fed(record * 2).draft()) < len(lookup.draft()) == lookup.options.most


def misled(length: int) -> tuple[list[int], list[int]]:
    """A prompt and an answer whose pairs of tokens are the prompt's, each followed by something else."""
    random = np.random.default_rng(2)
    pairs = [(int(a), int(b)) for a, b in random.integers(0, 100, (length, 2))]
    prompt = [token for a, b in pairs for token in (a, b, 1000)]
    return [token for a, b in pairs for token in (a, b, 2000 + a)], prompt


def test_guesses_that_fail_are_given_up_so_that_they_cost_little() -> None:
    answer, prompt = misled(1000)
    steps, cost, lookup = say(answer, prompt, cost=0.3)
    assert steps == len(answer)
    assert not lookup.active
    assert cost < 1.02 * len(answer)
    assert lookup.proposed > 8, "it is tried again now and then"


def test_it_comes_back_when_it_pays_again() -> None:
    answer, prompt = misled(30)
    record = np.random.default_rng(3).integers(3000, 4000, 400).tolist()
    steps, _, lookup = say([*answer, *record], [*prompt, *record], cost=0.3)
    assert lookup.active
    assert steps < len(answer) + 0.5 * len(record)


def rest(lookup: PromptLookup) -> int:
    """Steps that it stays off for once it fails."""
    while lookup.active:
        lookup.settle(2, 0)
    steps = 0
    while not lookup.active:
        lookup.settle(0, 0)
        steps += 1
    return steps


def test_rests_get_longer_until_it_pays_again() -> None:
    lookup = fed([], cost=0.2, rest=5)
    assert [rest(lookup) for _ in range(3)] == [5, 10, 20]
    for _ in range(5):
        lookup.settle(2, 2)
    assert [rest(lookup) for _ in range(2)] == [5, 10]
    assert max(rest(lookup) for _ in range(12)) == 5 * 64


def test_what_costs_nothing_is_never_given_up() -> None:
    answer, prompt = misled(200)
    assert say(answer, prompt, cost=0.0)[2].active


def test_asking_twice_changes_nothing() -> None:
    lookup = fed([1, 2, 3, 4, 1, 2])
    assert [lookup.draft() for _ in range(40)] == [[3, 4]] * 40


@pytest.mark.parametrize(
    "options", [{"shortest": 0}, {"shortest": 5}, {"most": 0}, {"cost": -0.1}, {"cost": 1.0}, {"rest": 0}]
)
def test_options_that_make_no_sense_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError):
        LookupOptions(**options)


def test_more_right_than_guessed_is_refused() -> None:
    with pytest.raises(InputError):
        PromptLookup().settle(2, 3)
