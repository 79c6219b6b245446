"""The first real model, small: Ollama's package of LLaVA is pulled and asked about a picture, by the command line.

`bench/first_model_bench.py` does the same at its true size.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hub_folder
import llava_package
import pytest
from faulty_registry import FaultyRegistry
from PIL import Image


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyRegistry]:
    folder = tmp_path_factory.mktemp("package")
    llava_package.write_model(folder / "model", llava_package.SMALL)
    llava_package.write_projector(folder / "projector", llava_package.SMALL)
    with FaultyRegistry() as registry:
        llava_package.serve(registry, "library/llava:latest", folder / "model", folder / "projector")
        yield registry


def lapilli(folder: Path, registry: FaultyRegistry, *arguments: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LAPILLI_", "OLLAMA_"))}
    # Nobody serves at this port: the model is opened in the command itself.
    more = {"LAPILLI_MODELS": str(folder), "HOME": str(folder), "LAPILLI_HOST": "127.0.0.1:9"}
    more["LAPILLI_ALLOWED_REGISTRIES"] = registry.host
    command = [sys.executable, "-m", "lapilli", *arguments]
    done = subprocess.run(
        command, env=kept | more, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_llava_is_pulled_and_asked_about_a_picture(registry: FaultyRegistry, tmp_path: Path) -> None:
    name = f"{registry.host}/library/llava"
    lapilli(tmp_path, registry, "pull", "--insecure", name)
    lapilli(tmp_path, registry, "cp", name, "llava")
    assert lapilli(tmp_path, registry, "show", "--template", "llava").strip() == llava_package.TEMPLATE_TEXT
    photo = tmp_path / "photo.jpg"
    Image.new("RGB", (90, 40), "red").save(photo)
    asked = ("run", "llava", "What is this?", str(photo), "--max-tokens", "4", "--json")
    told = json.loads(lapilli(tmp_path, registry, *asked).splitlines()[-1])
    assert told["completion_tokens"] == 4
    # The picture small, 4 x 4, and in two tiles side by side: 4 rows of 8 with the end of a line each.
    assert told["image_tokens"] == 16 + 4 * 9
    words = "[INST] " + "What is this? [/INST]"
    assert told["prompt_tokens"] <= 52 + 1 + len(words) + 2


def test_a_folder_of_the_hub_is_asked_about_a_picture(registry: FaultyRegistry, tmp_path: Path) -> None:
    folder = tmp_path / "llava-1.5-7b-hf"
    hub_folder.write_folder(folder, hub_folder.SMALL)
    photo = tmp_path / "photo.jpg"
    Image.new("RGB", (90, 40), "red").save(photo)
    asked = ("run", str(folder), "What is this?", str(photo), "--max-tokens", "4", "--json", "--quantize", "int4")
    told = json.loads(lapilli(tmp_path, registry, *asked).splitlines()[-1])
    assert told["completion_tokens"] == 4
    assert told["image_tokens"] == 16
