"""The scripts outside the package: examples draw what is kept beside them, numbers replace their own section."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent


def script(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"script_{Path(path).stem}", ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["shapes", "stars", "word"])
def test_the_example_pictures_are_what_the_script_draws(name: str) -> None:
    draw = script("examples/draw.py")
    drawn = np.asarray(getattr(draw, name)().reduce(draw.SCALE), dtype=np.int16)
    kept = np.asarray(Image.open(ROOT / "examples" / f"{name}.png"), dtype=np.int16)
    assert drawn.shape == kept.shape == (384, 384, 3)
    assert np.abs(drawn - kept).mean() < 1


def test_numbers_replace_their_own_section_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = script("bench/numbers_page.py")
    page = tmp_path / "numbers.md"
    monkeypatch.setattr(sys, "argv", ["claim_bench.py", "--write"])
    for title, figure in (("One", 1), ("Two", 2), ("One", 3), ("Three", 4)):
        section = numbers.Section(title)
        section.table(["what", "figure"], [["it", figure]])
        numbers.publish(section, page)
    text = page.read_text()
    assert [line for line in text.splitlines() if line.startswith("#")] == ["# Numbers", "## One", "## Two", "## Three"]
    assert [line for line in text.splitlines() if line.startswith("| it")] == ["| it | 3 |", "| it | 2 |", "| it | 4 |"]
    assert text.count("`python claim_bench.py --write`") == 3


def test_without_write_numbers_are_only_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = script("bench/numbers_page.py")
    monkeypatch.setattr(sys, "argv", ["claim_bench.py"])
    numbers.publish(numbers.Section("One"), tmp_path / "numbers.md")
    assert "## One" in capsys.readouterr().out
    assert not (tmp_path / "numbers.md").exists()
