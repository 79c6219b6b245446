"""Ask a folder of documents and pictures: `python examples/ask_documents.py [FOLDER] [--model NAME]`.

Without a folder it is one with made notes and drawn pictures, which is gone afterwards. Every answer says where it has
what it says from, and the citation is cut out of the document again to show that it is there.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import lapilli

HERE = Path(__file__).resolve().parent
NOTES = {
    "lights.md": "# Lights of the coast\n\nThe lighthouse on Crow Island was built in 1871 by Anna Berg. "
    "It is 32 metres high.\n\nThe light at Fennel Point burns green.\n",
    "garden.csv": "fruit,picked in,kept in\napples,September,the cellar\nplums,August,glasses\n",
    "office.html": "<title>Office</title><p>The harbour office opens at eight in the morning.</p><p>It closes at five.",
}
QUESTIONS = (
    "Who built the lighthouse on Crow Island?",
    "When does the harbour office open?",
    "When are apples picked?",
    "What colour is the circle?",
    "Who won the regatta?",
)


def make_folder(folder: Path) -> Path:
    """Notes and pictures that nobody's are."""
    for name, text in NOTES.items():
        (folder / name).write_text(text, encoding="utf-8")
    for name in ("shapes.png", "stars.png"):
        shutil.copy(HERE / name, folder)
    return folder


def ask_all(app: lapilli.App, questions: tuple[str, ...] = QUESTIONS) -> list[str]:
    """Ask each question; print the answer, and the words that bear it out."""
    answers = []
    for question in questions:
        answer = app.ask(question)
        answers.append(answer.text)
        print(f"{question}\n    {answer.text}")
        for citation in answer.citations:
            document = app.document(citation.source)
            assert document.text[citation.start : citation.end] == citation.text
            print(f"    [{citation.number}] {Path(citation.source).name}: {' '.join(citation.text.split())}")
    return answers


def main(folder: Path | None = None, model: str = "mini") -> list[str]:
    """Add a folder, and ask."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "notes").mkdir()
        with lapilli.App({"llm": {"config": {"model": model}}}, folder=place / "documents") as app:
            added = app.add_all([folder or make_folder(place / "notes")])
            print(f"added {len(added.added)} documents, {added.characters} characters\n")
            return ask_all(app)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--model", default="mini")
    given = parser.parse_args()
    main(given.folder, given.model)
