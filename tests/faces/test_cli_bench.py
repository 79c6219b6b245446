"""`lapilli bench`: figures of a model that is here, as lines, as JSON and as a picture."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from lapilli.apps.speed import measure
from lapilli.engine.local import load
from lapilli.errors import InputError
from lapilli.faces.cli import main

SMALL = ["bench", "mini", "--lengths", "8,16,1000000", "--users", "2", "--said", "2", "--turns", "1"]


def test_each_figure_is_there_and_the_picture_shows_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot = tmp_path / "speed.svg"
    assert main([*SMALL, "--json", "--plot", str(plot)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["tokens"] for row in told["lengths"]] == [8, 16], "what the model cannot hold is left out"
    assert all(row["first_seconds"] > 0 and row["decode_rate"] > 0 for row in told["lengths"])
    assert [row["users"] for row in told["company"]] == [2]
    assert told["picture_tokens"] == 64
    assert told["picture_seconds"] > 0
    words = [text.text for text in ET.parse(plot).iter("{http://www.w3.org/2000/svg}text")]
    assert {"8", "16", "2", "tokens of prompt", "users at once"} <= set(words)


def test_lines_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(SMALL) == 0
    said = capsys.readouterr()
    assert "users at once" in said.out
    assert "timing" in said.err


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        (["--lengths", "a"], "--lengths"),
        (["--users", "0"], "--users"),
        (["--plot", "x.png"], ".svg"),
        (["--said", "1"], "at least 2"),
        (["--lengths", "1000000"], "1000000"),
    ],
)
def test_what_cannot_be_timed_is_refused(wrong: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, *wrong]) == 2
    assert word in capsys.readouterr().err


def test_nothing_is_left_running() -> None:
    model = load("mini")
    measure(model, lengths=[8], users=[3], said=2, turns=1)
    assert not model.engine.scheduler.running
    assert not model.engine.scheduler.waiting
    with pytest.raises(InputError, match="at least 1"):
        measure(model, lengths=[8], users=[1], said=2, turns=0)
