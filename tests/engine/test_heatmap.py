"""Relevance as a picture: even colours, in the right place, at the picture's own proportions."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lapilli.engine.heatmap import colours, draw
from lapilli.engine.relevance import Relevance


def lightness(srgb: np.ndarray) -> np.ndarray:
    """CIE L* of sRGB bytes (..., 3): another measure than the one that the colours were made with."""
    linear = np.where(srgb <= 10.31, srgb / 255 / 12.92, ((srgb / 255 + 0.055) / 1.055) ** 2.4)
    y = linear @ np.array([0.2126, 0.7152, 0.0722])
    return np.where(y > 0.008856, 116 * np.cbrt(y) - 16, 903.3 * y)


def test_colours_get_lighter_in_even_steps() -> None:
    steps = np.diff(lightness(colours(np.linspace(0, 1, 33)).astype(float)))
    assert steps.min() > 0.6 * steps.mean()
    assert steps.max() < 1.5 * steps.mean()
    assert steps.sum() > 70


def test_no_step_of_colour_stands_out() -> None:
    table = colours(np.linspace(0, 1, 65)).astype(float)
    steps = np.linalg.norm(np.diff(table, axis=0), axis=1)
    assert steps.max() < 2.2 * np.median(steps)
    assert colours(np.array([-1.0, 2.0])).tolist() == colours(np.array([0.0, 1.0])).tolist()


def hottest(sheet: Image.Image, size: tuple[int, int]) -> tuple[float, float]:
    """The middle of what is nearly as light as the lightest place, as a share of the picture's width and height."""
    light = lightness(np.asarray(sheet.crop((0, 0, *size)), float))
    y, x = np.nonzero(light > light.max() - 1)
    return x.mean() / size[0], y.mean() / size[1]


@pytest.mark.parametrize(
    ("frame", "row", "column", "place"),
    [
        ((0, 0, 300, 100), 1, 5, (5.5 / 8, 1.5 / 8)),  # stretched
        ((0, -100, 300, 200), 4, 2, (2.5 / 8, (4.5 / 8 * 300 - 100) / 100)),  # padded to a square
        ((100, 0, 200, 100), 6, 3, ((100 + 3.5 / 8 * 100) / 300, 6.5 / 8)),  # cropped to its middle
    ],
)
def test_heat_lies_where_its_patch_does(
    frame: tuple[float, ...], row: int, column: int, place: tuple[float, float]
) -> None:
    grid = np.zeros((8, 8), np.float32)
    grid[row, column] = 1
    sheet = draw([Image.new("RGB", (300, 100), "gray")], [Relevance(grid, frame)])
    size = (512, round(512 / 3))
    assert sheet.width == size[0]
    assert hottest(sheet, size) == pytest.approx(place, abs=0.02)


def test_what_was_cropped_away_has_no_colour() -> None:
    grid = np.ones((8, 8), np.float32)
    sheet = np.asarray(draw([Image.new("RGB", (300, 100), "gray")], [Relevance(grid, (100, 0, 200, 100))]), int)
    spread = sheet[80].max(-1) - sheet[80].min(-1)
    assert spread[:168].max() == spread[344:].max() == 0
    assert spread[180:330].min() > 20


@pytest.mark.parametrize("size", [(30, 40), (2000, 3000), (700, 300), (3, 1000)])
def test_a_picture_keeps_its_proportions_and_a_size_one_can_see(size: tuple[int, int]) -> None:
    seen = Relevance(np.zeros((4, 4), np.float32), (0, 0, *size))
    bare, twice = (draw([Image.new("RGB", size)] * count, [seen] * count) for count in (1, 2))
    height = twice.height - bare.height - 8
    assert 512 <= max(bare.width, height) <= 1280
    assert bare.width / height == pytest.approx(size[0] / size[1], abs=1.5 / min(bare.width, height))


def test_the_legend_shows_both_ends_of_the_scale_and_a_label_that_fits() -> None:
    seen = Relevance(np.zeros((4, 4), np.float32), (0, 0, 512, 512))
    plain, short, long = (
        np.asarray(draw([Image.new("RGB", (512, 512))], [seen], label))[520:] for label in ("", "Red.", "word " * 99)
    )
    light = lightness(plain[20].astype(float))
    assert light.min() < 35 < 70 < np.sort(light)[np.sort(light) < 95].max()
    labelled = [(each < 128).any((0, 2)).nonzero()[0] for each in (short, long)]
    assert labelled[0].min() == pytest.approx(12, abs=3)
    assert not np.array_equal(plain, short)
    scale = (plain < 200).any((0, 2)).nonzero()[0].min()  # where "least" begins
    assert np.array_equal(plain[:, scale:], long[:, scale:])
    assert (long[:, scale - 15 : scale] == 255).all()
