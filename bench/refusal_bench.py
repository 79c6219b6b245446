"""How often a question is answered that the documents hold, and refused where they do not; what a quotation is worth.

Half of XQuAD's articles (English) are added; questions are asked about these, and as many about the other half. Without
a model: it is counted whether passages would be shown to one, and whether the sentence that is quoted for a model that
cannot read (`mini`) holds the answer. Every citation is cut out of its document again, else the script ends with 1.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numbers_page import Section, publish

import lapilli
from lapilli.apps.embedders import Embedder, open_embedder

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Counts:
    """Of so many questions: how many had passages shown, were quoted something, were quoted the answer."""

    asked: int = 0
    shown: int = 0
    quoted: int = 0
    right: int = 0
    off: int = 0

    def share(self, part: int) -> str:
        return f"{100 * part / self.asked:.0f} %"


def articles(data: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((data / "qa" / "xquad_en_a.json").read_text(encoding="utf-8"))["data"]
    return found


def questions(part: list[dict[str, Any]], count: int) -> list[tuple[str, str]]:
    """Questions with their answers, drawn without a bias to any article."""
    every = [
        (asked["question"], asked["answers"][0]["text"])
        for article in part
        for paragraph in article["paragraphs"]
        for asked in paragraph["qas"]
    ]
    return random.Random(0).sample(every, min(count, len(every)))


def count(app: lapilli.App, asked: list[tuple[str, str]]) -> Counts:
    """Ask, and look whether what is cited stands where it is said to stand."""
    counts = Counts()
    for question, right in asked:
        answer = app.ask(question)
        counts.asked += 1
        counts.shown += bool(answer.hits)
        counts.quoted += answer.found
        counts.right += answer.found and right in " ".join(answer.text.split())
        for citation in answer.citations:
            counts.off += app.document(citation.source).text[citation.start : citation.end] != citation.text
    return counts


def rows(data: Path, number: int) -> Iterator[tuple[str, Counts, Counts]]:
    """What was counted, by who makes vectors: of questions about what is there, and about what is not."""
    part = articles(data)
    best = open_embedder(None)
    embedders: list[tuple[str, Embedder | None]] = [("none, words alone", None)]
    if best is not None:
        embedders.append((best.name, best))
    for name, embedder in embedders:
        with tempfile.TemporaryDirectory() as folder:
            config = {"llm": {"config": {"quote": True}}, "vectordb": {"provider": "sqlite"}}
            app = lapilli.App(config, folder=folder, embedder=embedder)
            app.add_all(
                [paragraph["context"] for article in part[::2] for paragraph in article["paragraphs"]], kind="text"
            )
            yield name, count(app, questions(part[::2], number)), count(app, questions(part[1::2], number))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--write", action="store_true", help="Put the section into docs/numbers.md.")
    given = parser.parse_args()
    section = Section("Questions that documents answer, and others")
    section.add(
        "So many questions about documents that are there, and as many about others: whether a passage has to do with "
        "them, and whether the sentence that is quoted for `mini` has the answer in it."
    )
    found = list(rows(given.data, given.questions))
    section.table(
        ["vectors", "questions", "passages shown", "to others", "quoted the answer", "quoted anything to others"],
        [
            [name, inside.asked, inside.share(inside.shown), outside.share(outside.shown), inside.share(inside.right),
             outside.share(outside.quoted)]
            for name, inside, outside in found
        ],
    )  # fmt: skip
    off = sum(inside.off + outside.off for _, inside, outside in found)
    section.add(f"{off} of all citations stand elsewhere than they say.")
    publish(section)
    return 1 if off else 0


if __name__ == "__main__":
    sys.exit(main())
