"""Spreadsheets: each row of each sheet, as its values were last computed (ECMA-376, part 1, SpreadsheetML)."""

from __future__ import annotations

import datetime
import posixpath
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from lapilli.apps.rag.readers.package import new_parser, open_package, package_title, parse_part, parse_pieces
from lapilli.apps.rag.readers.refusal import RefusedError
from lapilli.apps.rag.readers.rows import Row, write_rows
from lapilli.apps.rag.readers.text import Hints, Text

MAX_COLUMNS = 16_384
_REFERENCE = re.compile(r"([A-Z]{1,3})\d+")
# Formats that show a date or a time, by their number; those of a workbook's own are told by their letters.
_DATES = frozenset({*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)})
_QUOTED = re.compile(r'"[^"]*"|\\.|\[[^\]]*\]|_.|General', re.IGNORECASE)
_DATE_LETTERS = re.compile(r"[ymdhs]", re.IGNORECASE)


@dataclass
class _Book:
    """What the sheets of a workbook share."""

    sheets: list[tuple[str, str]] = field(default_factory=list)  # name, part
    strings: list[str] = field(default_factory=list)
    dates: list[bool] = field(default_factory=list)  # by style: whether it shows a date
    first_day: datetime.datetime = datetime.datetime(1899, 12, 30)


def read(data: bytes, text: Text, hints: Hints) -> None:
    """Write a block for each row, marked `Sheet, row 7`."""
    with open_package(data) as archive:
        text.title = package_title(archive)
        book = _read_book(archive)
        rows = 0
        for name, part in book.sheets:
            text.gap()
            rows += write_rows(text, _Sheet(book).rows(archive, part), place=f"{name}, ")
    text.meta |= {"rows": rows, "sheets": len(book.sheets)}


def _read_book(archive: zipfile.ZipFile) -> _Book:
    book = _Book()
    targets: dict[str, str] = {}
    named: list[tuple[str, str]] = []

    def relation(name: str, plain: Mapping[str, str]) -> None:
        if name == "Relationship":
            target = plain.get("Target", "")
            targets[plain.get("Id", "")] = posixpath.normpath(posixpath.join("/xl", target)).lstrip("/")

    def workbook(name: str, plain: Mapping[str, str]) -> None:
        if name == "sheet":
            named.append((plain.get("name", ""), plain.get("id", "")))
        elif name == "workbookPr" and plain.get("date1904") in ("1", "true"):
            book.first_day = datetime.datetime(1904, 1, 1)

    _each(archive, "xl/_rels/workbook.xml.rels", relation)
    if not _each(archive, "xl/workbook.xml", workbook):
        raise RefusedError("it has no part 'xl/workbook.xml', which lists its sheets: save it anew")
    there = set(archive.namelist())  # of charts there are sheets, too, which have no cells
    book.sheets = [
        (name, part)
        for name, part in ((name, targets.get(place, "")) for name, place in named)
        if part in there and "worksheets/" in part
    ]
    book.strings = _strings(archive)
    book.dates = _dates(archive)
    return book


def _each(archive: zipfile.ZipFile, part: str, see: Callable[[str, Mapping[str, str]], None]) -> bool:
    """Show every element of a part, by plain names; False where there is no such part."""
    parser = new_parser()
    parser.StartElementHandler = lambda name, attributes: see(
        _local(name), {_local(key): value for key, value in attributes.items()}
    )
    return parse_part(archive, part, parser)


def _strings(archive: zipfile.ZipFile) -> list[str]:
    """The strings that cells name by number; how they are pronounced is left out."""
    found: list[str] = []
    words: list[str] = []
    inside: list[str] = []

    def say(piece: str) -> None:
        if inside[-1] == "t" and "rPh" not in inside:
            words.append(piece)

    def end(_: str) -> None:
        if inside.pop() == "si":
            found.append("".join(words))
            words.clear()

    parser = new_parser()
    parser.StartElementHandler = lambda name, _: inside.append(_local(name))
    parser.EndElementHandler, parser.CharacterDataHandler = end, say
    parse_part(archive, "xl/sharedStrings.xml", parser)
    return found


def _dates(archive: zipfile.ZipFile) -> list[bool]:
    own: dict[str, bool] = {}
    styles: list[bool] = []
    formats = [False]

    def see(name: str, plain: Mapping[str, str]) -> None:
        number = plain.get("numFmtId", "0")
        if name == "numFmt":
            own[number] = bool(_DATE_LETTERS.search(_QUOTED.sub("", plain.get("formatCode", ""))))
        elif name in ("cellXfs", "cellStyleXfs"):
            formats[0] = name == "cellXfs"
        elif name == "xf" and formats[0]:
            styles.append(own.get(number, number.isascii() and number.isdigit() and int(number) in _DATES))

    _each(archive, "xl/styles.xml", see)
    return styles


class _Sheet:
    """A sheet while it is parsed; rows are given away as soon as they are whole."""

    def __init__(self, book: _Book) -> None:
        self.book = book
        self.done: list[tuple[int, Row]] = []
        self.number = 0
        self.row: Row = []
        self.column = 0
        self.kind = self.style = ""
        self.words: list[str] = []
        self.spoken = False  # inside of what holds a cell's value
        self.phonetic = False

    def rows(self, archive: zipfile.ZipFile, part: str) -> Iterator[tuple[int, Row]]:
        parser = new_parser()
        parser.StartElementHandler, parser.EndElementHandler = self._begin, self._end
        parser.CharacterDataHandler = self._say
        for _ in parse_pieces(archive, part, parser):
            yield from self.done
            self.done.clear()

    def _begin(self, qualified: str, attributes: Mapping[str, str]) -> None:
        name = _local(qualified)
        if name == "c":
            self.kind, self.style = attributes.get("t", "n"), attributes.get("s", "")
            self.words.clear()
            found = _REFERENCE.fullmatch(attributes.get("r", ""))
            self.column = _column(found[1]) if found else self.column + 1
        elif name in ("v", "t"):
            self.spoken = not self.phonetic
        elif name == "rPh":
            self.phonetic = True
        elif name == "row":
            told = attributes.get("r", "")
            self.number = int(told) if told.isascii() and told.isdigit() and len(told) < 10 else self.number + 1
            self.row, self.column = [], -1

    def _say(self, piece: str) -> None:
        if self.spoken:
            self.words.append(piece)

    def _end(self, qualified: str) -> None:
        name = _local(qualified)
        if name in ("v", "t"):
            self.spoken = False
        elif name == "rPh":
            self.phonetic = False
        elif name == "c":
            value = self._value("".join(self.words))
            if value.strip() and self.column < MAX_COLUMNS:
                self.row.append((self.column, value))
        elif name == "row" and self.row:
            self.done.append((self.number, self.row))

    def _value(self, said: str) -> str:
        if self.kind == "s":
            place = int(said) if said.isascii() and said.isdigit() and len(said) < 10 else -1
            return self.book.strings[place] if 0 <= place < len(self.book.strings) else ""
        if self.kind == "b":
            return {"1": "true", "0": "false"}.get(said, said)
        if self.kind != "n" or not said:
            return said
        try:
            number = float(said)
        except ValueError:
            return said
        style = int(self.style) if self.style.isascii() and self.style.isdigit() and len(self.style) < 7 else -1
        if 0 <= style < len(self.book.dates) and self.book.dates[style] and -600_000 < number < 2_958_466:
            return self._date(number)
        return f"{number:.15g}"

    def _date(self, number: float) -> str:
        moment = self.book.first_day + datetime.timedelta(seconds=round(number * 86_400))
        if 0 <= number < 1:
            return moment.time().isoformat()
        # Their calendar has a 29th of February 1900, which never was.
        if 0 < number < 60 and self.book.first_day.year == 1899:
            moment += datetime.timedelta(days=1)
        return moment.date().isoformat() if moment.time() == datetime.time() else moment.isoformat(" ")


def _column(letters: str) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - 64
    return number - 1


def _local(name: str) -> str:
    return name.rpartition(":")[2]
