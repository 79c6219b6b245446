"""Files of registers, whatever their form: a folder, a zip, XML, CSV, JSON; known by their first bytes.

for trial in read_trials([Path("export.xml")], problems=print): ...

Everything is streamed. What is damaged is read as far as it goes, and said.
"""

from __future__ import annotations

import codecs
import io
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from lapilli.apps.trials.readers import csv as csv_rows
from lapilli.apps.trials.readers import json as json_values
from lapilli.apps.trials.readers.clinicaltrials import read_study_element, read_study_value
from lapilli.apps.trials.readers.ictrp import KNOWN, element_cells, read_cells
from lapilli.apps.trials.readers.names import who_name
from lapilli.apps.trials.readers.xml import read_elements, xml_encoding
from lapilli.apps.trials.trial import Trial
from lapilli.errors import InputError

Form = Literal["xml", "csv", "json", "jsonl"]
SUFFIXES = (".xml", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".zip")
MAX_ENTRIES = 1_000_000
MAX_RATIO = 400
"""How much a member of a zip may unpack to for each byte, once that is more than MAX_UNPACKED."""

MAX_UNPACKED = 1 << 30
_HEAD = 1 << 16

Problems = Callable[[str], None]


@dataclass(frozen=True)
class Source:
    """One file, or one member of a zip; `name` is how it is spoken of."""

    name: str
    path: Path
    member: str = ""

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Its bytes as a stream."""
        if not self.member:
            with self.path.open("rb") as file:
                yield file
            return
        with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as file:
            yield cast(BinaryIO, file)


def read_trials(paths: Sequence[Path], *, problems: Problems) -> Iterator[Trial]:
    """The trials of files, folders and zips, in their order: folders by name, records as they stand.

    `problems` is told in one line of everything that was damaged or passed over. Memory is for one record.
    Raises InputError for a path that is not there or whose form is not known, and for XML with a DTD.
    """
    for source in find_files(paths, problems=problems):
        yield from read_source(source, problems=problems)


def count_trials(path: Path) -> int:
    """How many records a file, a folder or a zip has, by reading it."""
    return sum(1 for _ in read_trials([path], problems=lambda _: None))


def find_files(paths: Sequence[Path], *, problems: Problems) -> Iterator[Source]:
    """The files that paths name; in a folder or a zip those of a known suffix, in the order of their names."""
    for path in paths:
        if path.is_dir():
            inside = sorted(each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES and each.is_file())
            if not inside:
                raise InputError(f"{path} has no file of a register: {', '.join(SUFFIXES)} are read")
            for each in inside:
                yield from _members(each, problems) if each.suffix.lower() == ".zip" else (Source(str(each), each),)
        elif not path.is_file():
            raise InputError(f"{path} is not there: name a file or a folder")
        elif zipfile.is_zipfile(path):
            yield from _members(path, problems)
        else:
            yield Source(str(path), path)


def _members(path: Path, problems: Problems) -> Iterator[Source]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = sorted(archive.infolist(), key=lambda entry: entry.filename)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InputError(f"{path}: its zip is damaged ({error})") from None
    if len(entries) > MAX_ENTRIES:
        raise InputError(f"{path} has {len(entries)} members, at most {MAX_ENTRIES} are read")
    for entry in entries:
        name = f"{path}!{entry.filename}"
        if entry.is_dir() or Path(entry.filename).name.startswith((".", "__")):
            continue
        if Path(entry.filename).suffix.lower() not in SUFFIXES[:-1]:
            problems(f"{name}: passed over, its suffix is none that is read")
        elif entry.flag_bits & 1:
            raise InputError(f"{name} is protected by a password: unpack it first")
        elif entry.file_size > max(MAX_UNPACKED, MAX_RATIO * entry.compress_size):
            raise InputError(
                f"{name} unpacks {entry.compress_size} bytes to {entry.file_size}, at most {MAX_RATIO} times as many "
                "are read: unpack it first"
            )
        else:
            yield Source(name, path, entry.filename)


def read_source(source: Source, *, problems: Problems) -> Iterator[Trial]:
    """The trials of one file."""
    try:
        with source.open() as stream:
            head = stream.read(_HEAD)
        form = find_form(head, source.name)
        with source.open() as stream:
            if form == "xml":
                yield from _read_xml(stream, source.name, problems)
            else:
                with _as_text(stream, head) as text:
                    if form == "csv":
                        yield from _read_csv(text, source.name, problems)
                    else:
                        values = json_values.read_lines if form == "jsonl" else json_values.read_values
                        yield from _read_json(values(text), source.name, problems)
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        problems(f"{source.name}: it could not be read further ({error})")


def find_form(head: bytes, name: str) -> Form:
    """The form of a file by its first bytes. Raises InputError where it is none that is known."""
    encoding, skip = xml_encoding(head)
    text = head[skip:].decode(encoding, "replace").lstrip("\ufeff \t\r\n")
    if text.startswith("<"):
        return "xml"
    if text.startswith(("{", "[")):
        line, _, rest = text.partition("\n")
        if text.startswith("{") and rest.lstrip()[:1] == "{" and line.rstrip().endswith("}"):
            return "jsonl"
        return "jsonl" if name.lower().endswith((".jsonl", ".ndjson")) else "json"
    first = text.split("\n", 1)[0]
    if len(KNOWN & {who_name(cell) for cell in re.split(r"[,;\t]", first)}) >= 2:
        return "csv"
    said = " ".join(first[:60].split())
    raise InputError(f"{name} is no register's file that is known (it begins {said!r}): give ICTRP XML or CSV, "
                     "or ClinicalTrials.gov XML or JSON")  # fmt: skip


def _as_text(stream: BinaryIO, head: bytes) -> io.TextIOWrapper:
    encoding, _ = xml_encoding(head)
    if encoding == "utf-8":
        try:
            codecs.getincrementaldecoder("utf-8")().decode(head)
        except UnicodeDecodeError:
            encoding = "cp1252"  # as spreadsheets save it
    signed = {"utf-8": "utf-8-sig", "utf-16-le": "utf-16", "utf-16-be": "utf-16"}
    marked = head.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return io.TextIOWrapper(stream, signed[encoding] if marked else encoding, "replace", newline="")


def _read_xml(stream: BinaryIO, name: str, problems: Problems) -> Iterator[Trial]:
    position = 0
    for element, told in read_elements(stream, name):
        if element is None:
            problems(f"{name}: {_after(position)}{told}")
            continue
        if told:
            problems(f"{name}: record {position + 1}: {told}; what stands there is kept")
        if element.tag == "clinical_study":
            trial = read_study_element(element, file=name, position=position, complete=not told)
        else:
            trial = read_cells(element_cells(element), file=name, position=position, complete=not told)
        yield trial
        position += 1
    if not position:
        problems(f"{name}: it has no record (an element `Trial` or `clinical_study`)")


def _read_csv(stream: io.TextIOWrapper, name: str, problems: Problems) -> Iterator[Trial]:
    position = 0
    for cells, told in csv_rows.read_rows(stream):
        if cells is None:
            problems(f"{name}: {_after(position)}{told}")
            continue
        if told:
            problems(f"{name}: record {position + 1}: {told}; what stands there is kept")
        yield read_cells(cells, file=name, position=position, complete=not told)
        position += 1
    if not position:
        problems(f"{name}: it has no record below its columns' names")


def _read_json(values: Iterator[tuple[Any, str]], name: str, problems: Problems) -> Iterator[Trial]:
    position = 0
    for value, told in values:
        if value is None:
            problems(f"{name}: {_after(position)}{told or 'a value is null'}")
            continue
        trial = _of_value(value, name, position, not told)
        if trial is None:
            problems(f"{name}: {_after(position)}a value is no study that is known")
            continue
        if told:
            problems(f"{name}: record {position + 1}: {told}; what stands there is kept")
        yield trial
        position += 1
    if not position:
        problems(f"{name}: it has no study")


def _of_value(value: Any, name: str, position: int, complete: bool) -> Trial | None:
    """A study of API v2, a record of ours, or WHO's names and texts."""
    if not isinstance(value, Mapping):
        return None
    if "protocolSection" in value:
        return read_study_value(value, file=name, position=position, complete=complete)
    if isinstance(value.get("fields"), Mapping):
        cells = [(str(key), text) for key, text in value["fields"].items() if isinstance(text, str)]
        cells += [("TrialID", str(value.get("id") or "")), ("Source_Register", str(value.get("register") or ""))]
        return read_cells(cells, file=name, position=position, complete=complete)
    if len(KNOWN & {who_name(str(key)) for key in value}) >= 2:
        cells = [(str(key), text) for key, text in value.items() if isinstance(text, str)]
        return read_cells(cells, file=name, position=position, complete=complete)
    return None


def _after(position: int) -> str:
    return f"after record {position}: " if position else ""
