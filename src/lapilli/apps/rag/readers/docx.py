"""Word's documents: paragraphs, headings as marks, tables row by row, notes at the end (ECMA-376, part 1)."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping

from lapilli.apps.rag.readers.package import new_parser, open_package, package_title, parse_part
from lapilli.apps.rag.readers.refusal import RefusedError
from lapilli.apps.rag.readers.text import Hints, Text, squeeze

MAX_DEPTH = 1000
_TURN = {"tab": "\t", "br": "\n", "cr": "\n", "noBreakHyphen": "-"}
# What was deleted, what commands fields, what repeats a drawing for old programs.
_SKIPPED = frozenset({"del", "moveFrom", "instrText", "delText", "Fallback", "rPrChange", "pPrChange"})
_SAYING = frozenset({"t"})


def read(data: bytes, text: Text, hints: Hints) -> None:
    """Write the body, then foot- and endnotes; headers and footers are left out."""
    archive = open_package(data)
    text.title = package_title(archive)
    main = _main_part(archive)
    folder = main.rpartition("/")[0]
    styles = _styles(archive, f"{folder}/styles.xml")
    if not _Body(text, styles).parse(archive, main):
        raise RefusedError(f"it has no part {main[:60]!r}, in which its text would be: save it anew")
    for notes in ("footnotes", "endnotes"):
        _Body(text, styles, label=notes).parse(archive, f"{folder}/{notes}.xml")


class _Body:
    """What is open while a part is parsed; a cell of a table gathers its paragraphs instead of writing them."""

    def __init__(self, text: Text, styles: Mapping[str, str], label: str = "") -> None:
        self.text = text
        self.styles = styles
        self.label = label
        self.names: list[str] = []
        self.skipped = 0
        self.paragraphs: list[list[str]] = []  # one in another where a box stands in a paragraph
        self.style: list[str] = []
        self.listed: list[bool] = []
        self.hidden: list[bool] = []  # of the runs that are open
        self.cells: list[list[str]] = []
        self.rows: list[list[str]] = []
        self.fields: list[bool] = []  # complex fields that are open: whether the result has begun

    def parse(self, archive: zipfile.ZipFile, name: str) -> bool:
        parser = new_parser()
        parser.StartElementHandler, parser.EndElementHandler = self._begin, self._end
        parser.CharacterDataHandler = self._words
        return parse_part(archive, name, parser)

    def _begin(self, qualified: str, attributes: Mapping[str, str]) -> None:
        name = _local(qualified)
        self.names.append(name)
        if len(self.names) > MAX_DEPTH:
            raise RefusedError(f"its elements are nested deeper than the {MAX_DEPTH} levels that are read")
        if name in _SKIPPED:
            self.skipped += 1
        if self.skipped:
            return
        value = next((each for key, each in attributes.items() if _local(key) == "val"), "")
        inside = self.names[-2] if len(self.names) > 1 else ""
        if name == "p":
            self.paragraphs.append([])
            self.style.append("")
            self.listed.append(False)
        elif name == "r":
            self.hidden.append(False)
        elif name == "vanish" and inside == "rPr" and self.hidden and "r" in self.names[-3:]:
            self.hidden[-1] = value not in ("0", "false", "off")
        elif name == "pStyle" and self.style:
            self.style[-1] = self.styles.get(value, "")
        elif name == "numPr" and self.listed:
            self.listed[-1] = True
        elif name == "tr":
            self.rows.append([])
        elif name == "tc":
            self.cells.append([])
        elif name in _TURN and self.paragraphs and inside == "r":
            self._say(_TURN[name])

    def _words(self, words: str) -> None:
        if not self.skipped and self.names[-1] in _SAYING and self.paragraphs:
            self._say(words)

    def _say(self, words: str) -> None:
        if not (self.hidden and self.hidden[-1]):
            self.paragraphs[-1].append(words)

    def _end(self, qualified: str) -> None:
        name = self.names.pop()
        if name in _SKIPPED:
            self.skipped -= 1
        elif self.skipped:
            return
        elif name == "r" and self.hidden:
            self.hidden.pop()
        elif name == "p" and self.paragraphs:
            self._paragraph("".join(self.paragraphs.pop()), self.style.pop(), self.listed.pop())
        elif name == "tc" and self.cells:
            cell = squeeze(" ".join(self.cells.pop()))
            if self.rows:
                self.rows[-1].append(cell)
        elif name == "tr" and self.rows:
            self._put(" | ".join(self.rows.pop()).strip(" |"))
        elif name == "tbl" and not self.cells:
            self.text.gap()

    def _paragraph(self, words: str, style: str, listed: bool) -> None:
        if not words.strip():
            return
        listed = listed or style.startswith("list ")
        heading = style == "title" or style.startswith("heading")
        if self.cells or not heading:
            self._put(f"- {words.strip()}" if listed and not self.cells else words)
            if not self.cells and not listed:
                self.text.gap()
            return
        self.text.gap()
        self.text.mark(words)
        self.text.title = self.text.title or words
        self.text.line(squeeze(words))
        self.text.gap()

    def _put(self, words: str) -> None:
        """Write a paragraph or a row, or keep it for the cell around it."""
        if self.cells:
            self.cells[-1].append(words)
        elif words.strip():
            if self.label:
                self.text.gap()
                self.text.mark(self.label)
                self.label = ""
            self.text.line(words.strip())


def _main_part(archive: zipfile.ZipFile) -> str:
    """The part that the package says is the document."""
    found = "word/document.xml"

    def begin(_: str, attributes: Mapping[str, str]) -> None:
        nonlocal found
        if attributes.get("Type", "").endswith("/officeDocument"):
            found = attributes.get("Target", found).lstrip("/")

    parser = new_parser()
    parser.StartElementHandler = begin
    parse_part(archive, "_rels/.rels", parser)
    return found


def _styles(archive: zipfile.ZipFile, name: str) -> dict[str, str]:
    """Names of styles by id, in lower case: ids are translated, the names of built-in styles are not."""
    styles: dict[str, str] = {}
    current = [""]

    def begin(qualified: str, attributes: Mapping[str, str]) -> None:
        plain = {_local(key): value for key, value in attributes.items()}
        if _local(qualified) == "style":
            current[0] = plain.get("styleId", "")
        elif _local(qualified) == "name" and current[0]:
            styles[current[0]] = plain.get("val", "").casefold()

    parser = new_parser()
    parser.StartElementHandler = begin
    parse_part(archive, name, parser)
    return styles


def _local(name: str) -> str:
    return name.rpartition(":")[2]
