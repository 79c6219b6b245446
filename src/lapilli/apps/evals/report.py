"""An examination as one HTML file: every question with its picture, what was said, and whether it was right."""

from __future__ import annotations

import base64
import importlib.resources
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from lapilli.ground.files import publish
from lapilli.inputs.images import open_image
from lapilli.training.talks import PictureFile

_THUMBNAIL = 320


@dataclass(frozen=True, kw_only=True)
class Item:
    """One question as it was asked and answered; `expected` is the right answer, `tags` are what to filter by."""

    question: str
    said: str
    expected: str
    right: bool
    picture: Path | PictureFile | None = None
    tags: tuple[str, ...] = ()


def write_report(path: Path, title: str, summary: Sequence[Sequence[str]], items: Iterable[Item]) -> None:
    """Write the report; `summary` is a table, its first row the heading. It works offline and holds its pictures.

    Raises ImageError for a picture that is none, OSError as the disk has it.
    """
    shown = [(item, _thumbnail(item.picture)) for item in items]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    source = importlib.resources.files("lapilli.apps.evals").joinpath("report.html.jinja").read_text(encoding="utf-8")
    tags = sorted({tag for item, _ in shown for tag in item.tags})
    page = environment.from_string(source).render(title=title, summary=summary, items=shown, tags=tags)
    with publish(path) as fresh:
        fresh.write_text(page, encoding="utf-8")


def _thumbnail(picture: Path | PictureFile | None) -> str:
    """The picture as a small `data:` URL, empty where there is none."""
    if picture is None:
        return ""
    image = open_image(picture if isinstance(picture, Path) else picture.read())
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
