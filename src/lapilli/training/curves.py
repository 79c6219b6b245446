"""A run's metrics as a picture: how the loss fell, and what else was counted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from lapilli.ground.files import publish

_SIZE, _EDGE = (960, 480), (72, 40, 24, 48)  # width and height; left, top, right, bottom
_INK, _FAINT, _PALE, _EMBER = (40, 40, 44), (150, 150, 156), (232, 232, 236), (206, 84, 38)
_SMOOTH = 0.9


def draw_curves(metrics: Path, picture: Path) -> None:
    """Draw the loss against the step, each point faint and their running mean in colour; nothing for a single point."""
    points = [(line["step"], line["loss"]) for line in map(json.loads, metrics.read_text().splitlines())]
    if len(points) < 2:
        return
    sheet = Image.new("RGB", _SIZE, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    left, top, right, bottom = _EDGE
    first, last = points[0][0], max(points[-1][0], points[0][0] + 1)
    values = [value for _, value in points]
    low, high = _rounded(min(values), max(values))

    def place(step: float, value: float) -> tuple[float, float]:
        across = (step - first) / (last - first) * (_SIZE[0] - left - right)
        return left + across, _SIZE[1] - bottom - (value - low) / (high - low) * (_SIZE[1] - top - bottom)

    for part in range(5):
        value, step = low + (high - low) * part / 4, first + (last - first) * part / 4
        height, across = place(first, value)[1], place(step, low)[0]
        draw.line([(left, height), (_SIZE[0] - right, height)], fill=_PALE)
        draw.text((left - 10, height), f"{value:.3g}", fill=_INK, font=font, anchor="rm")
        draw.text((across, _SIZE[1] - bottom + 10), f"{step:.0f}", fill=_INK, font=font, anchor="mt")
    draw.text((left, 12), f"loss, {points[-1][1]:.4g} at step {points[-1][0]}", fill=_INK, font=font)
    draw.line([place(*point) for point in points], fill=_FAINT)
    draw.line([place(step, mean) for (step, _), mean in zip(points, _means(values), strict=True)], fill=_EMBER, width=3)
    with publish(picture) as fresh:
        sheet.save(fresh, format="PNG", optimize=True)


def _rounded(low: float, high: float) -> tuple[float, float]:
    room = (high - low) * 0.05 or max(abs(high), 1.0) * 0.05
    return (0.0 if 0 <= low < high / 4 else low - room), high + room


def _means(values: Sequence[float]) -> list[float]:
    """The running mean, begun without a bias towards zero."""
    means, sum_, weight = [], 0.0, 0.0
    for value in values:
        sum_, weight = sum_ * _SMOOTH + value, weight * _SMOOTH + 1
        means.append(sum_ / weight)
    return means
