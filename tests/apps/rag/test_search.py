"""Passages found by words, by vectors and by both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from passages import drawn_items, item_of, open_made, vector_of

from lapilli.apps.rag.store import PassageStore, search
from lapilli.errors import InputError


@pytest.fixture(params=["lance", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> PassageStore:
    made = open_made(tmp_path, request.param)
    made.put_all(drawn_items(0, 30))
    document, passages, _ = item_of("/both", "the lighthouse keeper\nthe lighthouse\na keeper of bees")
    nearness = np.stack([vector_of("zebra yak"), vector_of("sea"), vector_of("zebra yak xerus")])
    made.put(document, passages, nearness)
    return made


def test_the_score_of_both_is_the_sum_of_reciprocal_ranks(store: PassageStore) -> None:
    hits = search(store, "lighthouse keeper", vector_D=vector_of("zebra yak"), count=3, where={"source": "/both"})
    assert hits[0].passage.text == "the lighthouse keeper"
    for hit in hits:
        ranks = [rank for rank in (hit.words_rank, hit.vector_rank) if rank is not None]
        assert hit.score == pytest.approx(sum(1 / (60 + rank) for rank in ranks))
    assert (hits[0].words_rank, hits[0].vector_rank) == (1, 1)
    assert hits[0].score == pytest.approx(2 / 61)
    by_id = {hit.passage.text: hit for hit in hits}
    assert by_id["a keeper of bees"].vector_rank == 2


def test_one_half_alone_finds_what_the_other_does_not(store: PassageStore) -> None:
    def texts(**how: object) -> list[str]:
        hits = search(store, "lighthouse", vector_D=vector_of("zebra yak xerus"), count=2, **how)  # type: ignore[arg-type]
        return [hit.passage.text for hit in hits]

    assert texts(mode="words") == ["the lighthouse", "the lighthouse keeper"]
    assert texts(mode="vectors") == ["a keeper of bees", "the lighthouse keeper"]
    assert texts() == texts(mode="hybrid")
    assert texts()[0] == "the lighthouse keeper"  # the one that both find


def test_without_a_vector_it_is_words_alone(store: PassageStore) -> None:
    hits = search(store, "lighthouse", count=9)
    assert [hit.vector_rank for hit in hits] == [None, None]
    assert hits == search(store, "lighthouse", count=9, mode="words")
    assert search(store, "?", count=9) == []


def test_a_condition_holds_for_both_halves(store: PassageStore) -> None:
    hits = search(store, "edition number", vector_D=vector_of("edition amber"), count=50, where={"even": True})
    assert len(hits) == 50 or {hit.passage.meta["number"] for hit in hits} == set(range(0, 30, 2))
    assert all(hit.passage.meta["even"] for hit in hits)


def test_fewer_are_the_beginning_of_more(store: PassageStore) -> None:
    asked = {"vector_D": vector_of("edition amber glacier"), "where": None}
    more = [hit.passage.id for hit in search(store, "edition amber", count=12, **asked)]  # type: ignore[arg-type]
    assert [hit.passage.id for hit in search(store, "edition amber", count=4, **asked)] == more[:4]  # type: ignore[arg-type]
    assert len(set(more)) == 12


def test_what_cannot_be_asked(store: PassageStore) -> None:
    with pytest.raises(InputError, match="0 passages"):
        search(store, "a", count=0)
    with pytest.raises(InputError, match="vector is needed"):
        search(store, "a", mode="vectors")
    with pytest.raises(InputError, match="hybrid, words or vectors"):
        search(store, "a", vector_D=vector_of("a"), mode="both")  # type: ignore[arg-type]
