"""Columns, sizes and times as the commands print them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from lapilli.faces.client import Listed, Running
from lapilli.faces.terminal import printable

_GAP = " " * 4
_ID_DIGITS = 12


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows under their header, each column as wide as it must be; no control characters, nothing after the last."""
    lines = [tuple(header), *(tuple(printable(cell).replace("\n", " ") for cell in row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    texts = (_GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines)
    return "\n".join(texts)


def models_table(models: Iterable[Listed], now: datetime | None = None) -> str:
    """What `lapilli list` prints."""
    rows = [
        (model.name, model.digest[:_ID_DIGITS], size_text(model.size), time_text(model.modified, now))
        for model in models
    ]
    return table(("NAME", "ID", "SIZE", "MODIFIED"), rows)


def running_table(models: Iterable[Running], now: datetime | None = None) -> str:
    """What `lapilli ps` prints."""
    now = now or datetime.now(UTC)
    rows = [
        (
            model.name, model.digest[:_ID_DIGITS], size_text(model.size), processor_text(model.size, model.vram),
            str(model.context), until_text(model.expires, now),
        )
        for model in models
    ]  # fmt: skip
    return table(("NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"), rows)


def size_text(nbytes: int) -> str:
    """Bytes in decimal units: 66 MB, 4.7 GB."""
    size, unit = float(nbytes), "B"
    for larger in ("KB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{int(size)} {unit}" if size >= 10 or size == int(size) else f"{size:.1f} {unit}"


def processor_text(size: int, vram: int) -> str:
    """Where a model's bytes lie: 100% CPU, 100% GPU, or both shares."""
    if not size or not vram:
        return "100% CPU"
    if vram >= size:
        return "100% GPU"
    away = round(100 * (size - vram) / size)
    return f"{away}%/{100 - away}% CPU/GPU"


def until_text(expires: datetime | None, now: datetime) -> str:
    """When a model leaves memory."""
    if expires is None or expires - now > timedelta(days=365 * 50):
        return "Forever"
    return "Stopping..." if expires <= now else f"{_span_text(expires - now)} from now"


def time_text(moment: datetime | None, now: datetime | None = None) -> str:
    """How long ago something was."""
    if moment is None:
        return "Never"
    passed = (now or datetime.now(UTC)) - moment
    return f"{_span_text(passed)} ago" if passed >= timedelta(0) else f"{_span_text(-passed)} from now"


def _span_text(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    hours = round(seconds / 3600)
    for limit, text in (
        (1, "Less than a second"), (2, "1 second"), (60, f"{seconds} seconds"), (120, "About a minute"),
        (3600, f"{seconds // 60} minutes"), (5400, "About an hour"), (48 * 3600, f"{hours} hours"),
        (14 * 86400, f"{hours // 24} days"), (60 * 86400, f"{hours // 168} weeks"),
        (730 * 86400, f"{hours // 720} months"),
    ):  # fmt: skip
        if seconds < limit:
            return text
    return f"{seconds // (365 * 86400)} years"
