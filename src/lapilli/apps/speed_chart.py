"""What `measure` found as a picture that scales: cost against the length of a prompt, rate against users."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from lapilli.apps.speed import Speed

_WIDTH, _HEIGHT = 460, 300
_LEFT, _TOP, _RIGHT, _BOTTOM = 64, 56, 20, 46
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#28282c}.title{font-weight:600;font-size:14px}.grid{stroke:#e0e0e4}"
    ".line{fill:none;stroke:#ce5426;stroke-width:2.5}.point{fill:#ce5426}"
    "@media(prefers-color-scheme:dark){.sheet{fill:#1c1c20}text{fill:#e8e8ec}.grid{stroke:#3c3c42}}"
)


@dataclass(frozen=True)
class _Axis:
    """Values along one side, and where each lies between 0 and 1; `log` for those that double."""

    values: Sequence[float]
    log: bool = False

    def place(self, value: float) -> float:
        if not self.log:
            return value / (max(self.values) * 1.08)
        low, high = math.log(min(self.values)), math.log(max(self.values))
        return (math.log(value) - low) / (high - low) if high > low else 0.5


def draw(speed: Speed, name: str) -> str:
    """An SVG: seconds to the first token and tokens a second by prompt length, tokens a second by users at once."""
    charts = (
        ("first token, s", "tokens of prompt", [(row.tokens, row.first_seconds) for row in speed.lengths]),
        ("tokens a second after it", "tokens of prompt", [(row.tokens, row.decode_rate) for row in speed.lengths]),
        ("tokens a second of all", "users at once", [(row.users, row.rate) for row in speed.company]),
    )
    drawn = "".join(_chart(_WIDTH * number, *chart) for number, chart in enumerate(charts))
    size = f'viewBox="0 0 {_WIDTH * len(charts)} {_HEIGHT}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><title>The speed of {escape(name)}</title>'
        f'<style>{_STYLE}</style><rect class="sheet" width="100%" height="100%" fill="#fff"/>{drawn}</svg>\n'
    )


def _chart(left: float, title: str, below: str, points: Sequence[tuple[float, float]]) -> str:
    across, up = _Axis([x for x, _ in points], log=True), _Axis([y for _, y in points])
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    floor = _HEIGHT - _BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        return left + _LEFT + across.place(x) * wide, floor - up.place(y) * high

    parts = [f'<text class="title" x="{left + _LEFT}" y="30">{title}</text>']
    for value in _steps(max(up.values)):
        y = at(points[0][0], value)[1]
        parts.append(
            f'<line class="grid" x1="{left + _LEFT}" x2="{left + _WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(f'<text x="{left + _LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_short(value)}</text>')
    for x, _ in points:
        parts.append(f'<text x="{at(x, 0)[0]:.1f}" y="{floor + 18}" text-anchor="middle">{x:,}</text>')
    parts.append(f'<text x="{left + _LEFT + wide / 2}" y="{floor + 38}" text-anchor="middle">{below}</text>')
    places = [at(*point) for point in points]
    parts.append(f'<polyline class="line" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>')
    for (x, y), (_, value) in zip(places, points, strict=True):
        parts.append(f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="4"/>')
        parts.append(f'<text x="{x:.1f}" y="{y - 9:.1f}" text-anchor="middle">{_short(value)}</text>')
    return "".join(parts)


def _short(value: float) -> str:
    """Three digits that tell, and all of those before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _steps(most: float) -> list[float]:
    """Round values from 0 up to about `most`, four or five of them."""
    rough = most / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough)
    return [step * number for number in range(int(most / step) + 1)]
