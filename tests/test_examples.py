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
    sys.modules[spec.name] = module  # dataclasses look their module up
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


def test_mini_is_taught_a_shape(capsys: pytest.CaptureFixture[str]) -> None:
    """In small: that all of it runs, and that the new word is said; what the full size reaches, the script prints."""
    before, after = script("examples/teach_a_shape.py").main(new=48, old=8, epochs=6, rate=1e-3, asked=3, each=2)
    assert (before.named, after.named) == (0, 3)
    assert before.skills.keys() == after.skills.keys() == {"colour", "shape", "count", "relation", "word"}
    assert "taught 48 hourglasses and 8 known scenes" in capsys.readouterr().out


def test_documents_are_asked(capsys: pytest.CaptureFixture[str]) -> None:
    answers = script("examples/ask_documents.py").main()
    assert answers[0] == "The lighthouse on Crow Island was built in 1871 by Anna Berg. [1]"
    assert "eight in the morning" in answers[1]
    assert "September" in answers[2]
    assert "red" in answers[3].lower()
    assert answers[4] == "Not in your documents."
    assert "added 5 documents" in capsys.readouterr().out
