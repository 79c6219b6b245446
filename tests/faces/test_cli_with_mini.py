"""The command line with the model that comes with the package: real pictures, real answers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lapilli

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
COMMAND = [sys.executable, "-m", "lapilli", "run", "mini"]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server is up."""
    monkeypatch.setenv("LAPILLI_HOST", "127.0.0.1:1")


def asked(*arguments: str, stdin: bytes = b"") -> str:
    run = subprocess.run([*COMMAND, *arguments], input=stdin, capture_output=True)
    assert (run.returncode, run.stderr) == (0, b"")
    return run.stdout.decode()


def test_the_first_command_of_readme_says_what_python_says() -> None:
    shapes = EXAMPLES / "shapes.png"
    said = asked("What is in this picture?", str(shapes))
    assert said == lapilli.load("mini").chat("What is in this picture?", images=[shapes]).text + "\n"
    assert said == "A red circle and a blue square.\n"


def test_a_path_in_the_prompt_and_a_piped_picture_are_the_same_question() -> None:
    stars = EXAMPLES / "stars.png"
    counted = [
        asked("How many stars are there?", str(stars)),
        asked(f"How many stars are there? {stars}"),
        asked("How many stars are there?", stdin=stars.read_bytes()),
    ]
    assert len(set(counted)) == 1
    assert counted[0].strip() in ("One.", "Two.", "Three.", "Four.", "Five.")


def test_json_agrees_with_python() -> None:
    word = EXAMPLES / "word.png"
    report = json.loads(asked("What does it say?", str(word), "--json"))
    answer = lapilli.load("mini").chat("What does it say?", images=[word])
    assert report["text"] == answer.text
    assert re.fullmatch(r'It says "[A-Za-z]+"\.', answer.text)
    assert report["finish_reason"] == answer.finish_reason == "stop"
    assert report["image_tokens"] == answer.image_tokens == 64
    assert (report["prompt_tokens"], report["completion_tokens"]) == (answer.prompt_tokens, answer.completion_tokens)


@pytest.mark.parametrize("name", ["shapes", "stars", "word"])
def test_it_cannot_tell_who_drew_a_painting_and_names_nobody(name: str) -> None:
    question, picture = "Do you know who drew this painting?", EXAMPLES / f"{name}.png"
    said = lapilli.load("mini").chat(question, images=[picture]).text
    assert "cannot tell" in said
    assert re.findall(r"(?<!^)\b[A-Z]\w+", said) == []
    if name == "shapes":
        assert asked(question, str(picture)) == f"{said}\n"


def test_an_answer_keeps_a_schema() -> None:
    schema = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"],
              "additionalProperties": False}  # fmt: skip
    said = asked("What colour is it?", "--format", json.dumps(schema), "--max-tokens", "40")
    assert json.loads(said)["colour"] in ("red", "blue")
