"""The order of records, and rows that several of them share."""

from __future__ import annotations

from itertools import chain

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lapilli.training.samples import Order, Sample, batches_of, rows_of


@settings(deadline=None)
@given(st.lists(st.integers(1, 5000), min_size=1, max_size=200), st.integers(1, 16), st.integers(0, 3))
def test_every_epoch_has_every_record_once(lengths: list[int], batch: int, seed: int) -> None:
    order, count = Order(lengths, batch, seed), len(lengths)
    steps = -(-3 * count // batch)
    told = list(chain.from_iterable(order.step(number) for number in range(steps)))
    for epoch in range(3):
        assert sorted(told[epoch * count : (epoch + 1) * count]) == list(range(count))


@settings(deadline=None)
@given(st.lists(st.integers(1, 100), min_size=1, max_size=60), st.integers(1, 8), st.integers(0, 30))
def test_a_step_is_the_same_whenever_it_is_asked_for(lengths: list[int], batch: int, number: int) -> None:
    ahead = Order(lengths, batch, 5)
    for step in range(number):
        ahead.step(step)
    assert ahead.step(number) == Order(lengths, batch, 5).step(number)


def test_epochs_differ_and_like_lengths_go_together() -> None:
    lengths = [int(x) for x in np.random.default_rng(0).integers(1, 1000, 512)]
    order = Order(lengths, 16, 0)
    assert order.step(0) != order.step(32)
    spread = np.mean([np.ptp([lengths[i] for i in order.step(step)]) for step in range(32)])
    assert spread < 60 < np.ptp(lengths)


def sample(length: int, first: int) -> Sample:
    return Sample(np.arange(first, first + length), np.arange(length) % 2 == 1)


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.integers(0, 64), st.integers(1, 200))
def test_rows_hold_every_sample_whole_and_once(lengths: list[int], pack: int, tokens: int) -> None:
    samples = [sample(length, 1000 * number) for number, length in enumerate(lengths)]
    rows = rows_of(samples, pack)
    assert all(len(row) <= pack or len(row.samples) == 1 for row in rows)
    found = []
    for batch in batches_of(rows, tokens, pad_id=-7):
        rows_B, long_T = batch.ids_BT.shape
        assert rows_B == 1 or rows_B * long_T <= tokens
        for b in range(rows_B):
            for text in range(batch.texts_BT[b].max() + 1):
                place = batch.texts_BT[b] == text
                found.append(batch.ids_BT[b, place].tolist())
                assert batch.positions_BT[b, place].tolist() == list(range(place.sum()))
                assert not batch.said_BT[b, place][0]
        assert (batch.ids_BT[batch.texts_BT == -1] == -7).all()
        assert not batch.said_BT[batch.texts_BT == -1].any()
    assert sorted(found) == sorted(one.ids_T.tolist() for one in samples)
