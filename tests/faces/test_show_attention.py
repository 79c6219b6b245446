"""`lapilli run … --show-attention`: a picture of where it looked, or one line that says why not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lapilli.faces.cli import main


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A red square to the left, a blue circle to the right, on a picture three times as wide as high."""
    monkeypatch.setattr("sys.stdin", None)
    drawn = Image.new("RGB", (360, 120), "white")
    drawn.paste((220, 20, 20), (30, 30, 100, 90))
    ImageDraw.Draw(drawn).ellipse((250, 25, 320, 95), fill=(20, 40, 220))
    drawn.save(tmp_path / "scene.png")
    return tmp_path / "scene.png"


def heat(path: Path) -> np.ndarray:
    """How much lighter each of three parts of the picture is than the darkest colour of the scale, left to right."""
    pixels = np.asarray(Image.open(path).convert("RGB"), float)[:171]
    warm = pixels[..., 0] - pixels[..., 2]
    return np.array([np.clip(part, 0, None).mean() for part in np.array_split(warm, 3, axis=1)])


def test_relevance_lies_over_what_was_said(scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "looked.PNG"
    assert main(["run", "mini", "What colour is the circle?", str(scene), "--show-attention", str(out)]) == 0
    assert capsys.readouterr().out == "Blue.\n"
    with Image.open(out) as sheet:
        assert sheet.format == "PNG"
        assert sheet.width == 512
        assert 512 / 3 < sheet.height < 512 / 3 + 60
    left, middle, right = heat(out)
    assert right > 3 * max(left, middle)
    assert [path.name for path in out.parent.iterdir()] == ["looked.PNG"]


@pytest.mark.parametrize(
    ("pictures", "out", "message"),
    [
        (0, "out.png", "--show-attention needs a picture"),
        (1, "out.jpg", "a PNG is written"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is_loaded(
    scene: Path,
    pictures: int,
    out: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lapilli.engine.local.load", None)
    assert main(["run", "mini", "What is this?", *[str(scene)] * pictures, "--show-attention", out]) != 0
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


def test_a_place_that_cannot_be_written_is_told_in_one_line(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = scene / "below.png"  # below a file
    assert main(["run", "mini", "What colour is it?", str(scene), "--show-attention", str(out)]) != 0
    said = capsys.readouterr()
    assert f"--show-attention {out}" in said.err
    assert said.err.count("\n") == 1
