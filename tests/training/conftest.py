"""A tiny model to begin with, and a few conversations to learn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
from PIL import Image

WORDS = ("red", "green", "blue", "a long grey and white one")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaVA as transformers saves it."""
    folder = tmp_path_factory.mktemp("base")
    tiny.save(tiny.random_model(tiny.llava_config(tiny.vision_config("clip"))), folder)
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve conversations of several lengths, most about a picture."""
    folder = tmp_path_factory.mktemp("data")
    records = []
    for number in range(12):
        word = WORDS[number % 4]
        Image.new("RGB", (28, 28), (number * 20, 90, 200 - number * 9)).save(folder / f"{number}.png")
        said = [{"from": "human", "value": "<image>\nColour?"}, {"from": "gpt", "value": word}]
        if number % 3 == 0:
            said += [{"from": "human", "value": "Sure?"}, {"from": "gpt", "value": f"Yes, {word}."}]
        shown = {"image": f"{number}.png"} if number % 4 else {}
        if not shown:
            said[0]["value"] = "Say a word."
        records.append({"conversations": said, **shown})
    (folder / "my.json").write_text(json.dumps(records))
    return folder / "my.json"
