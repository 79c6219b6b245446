"""Passages found by their words, by their meaning, or by both."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from lapilli.apps.rag.rows import Hit
from lapilli.errors import InputError

if TYPE_CHECKING:
    from lapilli.apps.rag.store import PassageStore

Mode = Literal["hybrid", "words", "vectors"]
_K = 60  # of reciprocal rank fusion, as in the paper
_LEAST_DEPTH = 50


def search(
    store: PassageStore,
    query: str,
    *,
    vector_D: np.ndarray | None = None,
    count: int = 5,
    where: Mapping[str, Any] | None = None,
    mode: Mode = "hybrid",
) -> list[Hit]:
    """The best `count` passages, best first; equal scores in the order of their ids.

    `hybrid` fuses both rankings by reciprocal rank (Cormack, Clarke, Büttcher 2009); without a vector it is words
    alone. The score is BM25 for words, the cosine for vectors, the sum of 1 / (60 + rank) for both. Raises InputError.
    """
    if count < 1:
        raise InputError(f"count: {count} passages were asked for, at least 1 is needed")
    if mode == "vectors" and vector_D is None:
        raise InputError("mode vectors: the query's vector is needed; without an embedder there is mode words")
    if mode == "words" or (mode == "hybrid" and vector_D is None):
        return store.by_words(query, count, where)
    assert vector_D is not None
    if mode == "vectors":
        return store.by_vector(vector_D, count, where)
    if mode != "hybrid":
        raise InputError(f"mode: hybrid, words or vectors is needed, not {str(mode)[:40]!r}")
    depth = max(4 * count, _LEAST_DEPTH)
    return fuse(store.by_words(query, depth, where), store.by_vector(vector_D, depth, where))[:count]


def fuse(by_words: list[Hit], by_vector: list[Hit]) -> list[Hit]:
    """Both rankings as one."""
    found = {hit.passage.id: hit for hit in by_vector}
    for hit in by_words:
        other = found.get(hit.passage.id, hit)
        found[hit.passage.id] = dataclasses.replace(hit, vector_rank=other.vector_rank)
    scored = [
        dataclasses.replace(hit, score=_share(hit.words_rank) + _share(hit.vector_rank)) for hit in found.values()
    ]
    return sorted(scored, key=lambda hit: (-hit.score, hit.passage.id))


def _share(rank: int | None) -> float:
    return 0.0 if rank is None else 1 / (_K + rank)
