"""Sampling says what transformers' own logits processors say, and refuses what makes no sense."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from lapilli import InputError
from lapilli.engine.sampler import Sampler, SamplingOptions

SCORES = torch.tensor([2.0, 1.5, 1.0, 0.2, -0.4, -1.0, -3.0, 0.9])


def shares(options: SamplingOptions, draws: int = 2000) -> torch.Tensor:
    """How often each token is drawn first, over many seeds' worth of draws from one sampler."""
    counts: Counter[int] = Counter()
    for seed in range(draws):
        sampler = Sampler(SamplingOptions(**{**vars(options), "seed": seed}), [])
        counts[sampler.choose(SCORES)] += 1
    return torch.tensor([counts[token] / draws for token in range(len(SCORES))])


@pytest.mark.parametrize(
    ("options", "reference"),
    [
        (SamplingOptions(temperature=0.7), []),
        (SamplingOptions(temperature=1.3, top_k=3), [TopKLogitsWarper(3)]),
        (SamplingOptions(temperature=0.9, top_p=0.6), [TopPLogitsWarper(0.6)]),
        (SamplingOptions(temperature=1.1, min_p=0.3), [MinPLogitsWarper(0.3)]),
        (
            SamplingOptions(temperature=1.0, top_k=5, top_p=0.8, min_p=0.2),
            [TopKLogitsWarper(5), TopPLogitsWarper(0.8), MinPLogitsWarper(0.2)],
        ),
    ],
    ids=["temperature", "top-k", "top-p", "min-p", "all"],
)
def test_drawn_as_often_as_the_reference_says(options: SamplingOptions, reference: list) -> None:
    scores = TemperatureLogitsWarper(options.temperature)(None, SCORES[None])
    for warper in reference:
        scores = warper(None, scores)
    expected = scores[0].softmax(-1)
    drawn = shares(options)
    assert (drawn[expected == 0] == 0).all()
    assert (drawn - expected).abs().max() < 4 * 0.5 / math.sqrt(2000)


def test_repeat_penalty_is_the_references() -> None:
    prompt = [0, 4]
    sampler = Sampler(SamplingOptions(repeat_penalty=1.9), prompt)
    reference = RepetitionPenaltyLogitsProcessor(1.9)(torch.tensor([prompt]), SCORES[None].clone())[0]
    assert sampler.choose(SCORES) == int(reference.argmax()) == 1


def test_presence_and_frequency_penalties_count_the_answer_only() -> None:
    sampler = Sampler(SamplingOptions(presence_penalty=0.3, frequency_penalty=0.3), [0, 0, 0])
    assert [sampler.choose(SCORES) for _ in range(5)] == [0, 1, 0, 0, 2]


def test_a_seed_draws_the_same_answer_again() -> None:
    one, other, third = (Sampler(SamplingOptions(temperature=1, seed=s), []) for s in (3, 3, 4))
    first = [one.choose(SCORES) for _ in range(40)]
    assert first == [other.choose(SCORES) for _ in range(40)]
    assert first != [third.choose(SCORES) for _ in range(40)]


def test_scores_are_left_as_they_were() -> None:
    before = SCORES.clone()
    sampler = Sampler(SamplingOptions(temperature=0.5, repeat_penalty=2, presence_penalty=1, top_k=2, top_p=0.5), [1])
    for _ in range(3):
        sampler.choose(SCORES)
    assert torch.equal(SCORES, before)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -1), ("temperature", math.nan), ("temperature", "hot"), ("temperature", math.inf),
        ("top_k", -1), ("top_k", 1.5), ("top_k", True), ("top_p", 0), ("top_p", 1.01), ("min_p", -0.1), ("min_p", 2),
        ("repeat_penalty", 0), ("seed", 1 << 64), ("seed", 0.5), ("max_tokens", -1), ("max_tokens", 1 << 40),
        ("stop", [""]), ("stop", [3]),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InputError, match=name):
        SamplingOptions(**{name: value})


@given(
    st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=60),
    st.floats(0, 3), st.integers(0, 70), st.floats(0.01, 1), st.floats(0, 1), st.floats(0.1, 3),
)  # fmt: skip
def test_any_scores_and_options_give_a_token(
    scores: list[float], temperature: float, top_k: int, top_p: float, min_p: float, penalty: float
) -> None:
    options = SamplingOptions(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repeat_penalty=penalty, seed=1
    )
    assert 0 <= Sampler(options, [0]).choose(torch.tensor(scores)) < len(scores)
