"""Print a section of measured numbers, and put it into docs/numbers.md when asked to."""

from __future__ import annotations

import datetime
import os
import platform
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from lapilli.ground.machine import cores, processor

PAGE = Path(__file__).resolve().parent.parent / "docs" / "numbers.md"
HEAD = "# Numbers\n\nEach section is written by the command that it names; see [bench](../bench/README.md).\n"


class Section:
    """One claim with its figures, under a heading that names it for good."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._body: list[str] = []

    def add(self, paragraph: str) -> None:
        self._body.append(paragraph)

    def table(self, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        lines = [header, ["---"] * len(header), *rows]
        self._body.append("\n".join(f"| {' | '.join(map(str, line))} |" for line in lines))

    def text(self) -> str:
        command = f"python {_script()} {shlex.join(sys.argv[1:])}".strip()
        origin = f"*{machine()}; {datetime.date.today().isoformat()}; `{command}`*"
        return "\n\n".join([f"## {self.title}", origin, *self._body]) + "\n"


def publish(section: Section, page: Path = PAGE) -> None:
    """Print the section; with `--write` on the command line, also replace it on the page."""
    print(section.text())
    if "--write" in sys.argv[1:]:
        old = page.read_text(encoding="utf-8") if page.exists() else HEAD
        page.write_text(replaced(old, section), encoding="utf-8")


def replaced(page: str, section: Section) -> str:
    """The page with the section of that title replaced, or added at the end."""
    head, *sections = re.split(r"^(?=## )", page, flags=re.MULTILINE)
    kept = [text.strip() + "\n" for text in sections]
    fresh = section.text()
    for place, text in enumerate(kept):
        if text.splitlines()[0] == f"## {section.title}":
            kept[place] = fresh
            break
    else:
        kept.append(fresh)
    return "\n".join([head.strip() + "\n", *kept])


def machine() -> str:
    """The processor, its cores and memory, Python and torch."""
    import torch

    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    parts = [f"{processor()}, {cores()} cores, {gigabytes:.0f} GB"]
    parts += [torch.cuda.get_device_name(0)] if torch.cuda.is_available() else []
    return ", ".join([*parts, f"Python {platform.python_version()}, torch {torch.__version__}"])


def _script() -> str:
    script = Path(sys.argv[0]).resolve()
    root = PAGE.parent.parent
    return str(script.relative_to(root)) if script.is_relative_to(root) else script.name
