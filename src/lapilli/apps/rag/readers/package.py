"""Office files: zip archives of XML, opened with their sizes checked before anything is unpacked."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from xml.parsers import expat

from lapilli.apps.rag.readers.refusal import RefusedError

MAX_ENTRIES = 10_000
MAX_PART = 256 << 20
MAX_TOTAL = 512 << 20
DAMAGED = "its archive is damaged: open it in an office program and save it anew"


def open_package(data: bytes) -> zipfile.ZipFile:
    """An archive whose parts may be unpacked. Raises RefusedError with both numbers where they may not."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, UnicodeDecodeError, EOFError):
        raise RefusedError(DAMAGED) from None
    if len(entries) > MAX_ENTRIES:
        raise RefusedError(f"its archive has {len(entries)} parts, at most {MAX_ENTRIES} are read")
    for entry in entries:
        if entry.flag_bits & 1:
            raise RefusedError("it is protected by a password: save it without one")
        if entry.file_size > MAX_PART:
            raise RefusedError(f"a part of it unpacks to {entry.file_size} bytes, at most {MAX_PART} are read")
    total = sum(entry.file_size for entry in entries)
    if total > MAX_TOTAL:
        raise RefusedError(f"it unpacks to {total} bytes, at most {MAX_TOTAL} are read: divide it")
    return archive


def package_kind(data: bytes) -> str:
    """Which of "docx" and "xlsx" it is. Raises RefusedError for archives that are neither."""
    names = set(open_package(data).namelist())
    if "[Content_Types].xml" in names:
        for folder, kind in (("word/", "docx"), ("xl/", "xlsx")):
            if any(name.startswith(folder) for name in names):
                return kind
    if any(name.startswith("ppt/") for name in names):
        raise RefusedError("it is a presentation: save it as PDF")
    if "mimetype" in names:
        raise RefusedError("it is an OpenDocument or EPUB file: save it as .docx, .xlsx or PDF")
    raise RefusedError("it is a zip archive: unpack it, and give the folder")


def new_parser(encoding: str | None = None) -> expat.XMLParserType:
    """A parser of XML that refuses every DTD, and with it entities and whatever lies elsewhere."""
    parser = expat.ParserCreate(encoding)
    parser.buffer_text = True
    parser.buffer_size = 1 << 16
    parser.StartDoctypeDeclHandler = _refuse_doctype
    return parser


def parse_pieces(archive: zipfile.ZipFile, name: str, parser: expat.XMLParserType) -> Iterator[None]:
    """Let a parser see a part, a piece at each step.

    Raises KeyError where there is no such part; RefusedError where it is damaged.
    """
    try:
        with archive.open(name) as part:
            while piece := part.read(1 << 16):
                parser.Parse(piece, False)
                yield
            parser.Parse(b"", True)
            yield
    except (expat.ExpatError, zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError, RuntimeError):
        raise RefusedError(DAMAGED) from None


def parse_part(archive: zipfile.ZipFile, name: str, parser: expat.XMLParserType) -> bool:
    """Let a parser see a whole part; False where there is none. Raises RefusedError where it is damaged."""
    try:
        for _ in parse_pieces(archive, name, parser):
            pass
    except KeyError:
        return False
    return True


def package_title(archive: zipfile.ZipFile) -> str:
    """The title among the package's properties; empty where it has none."""
    inside: list[str] = []
    words: list[str] = []

    def say(piece: str) -> None:
        if inside[-1:] == ["title"]:
            words.append(piece)

    parser = new_parser()
    parser.StartElementHandler = lambda name, _: inside.append(name.rpartition(":")[2])
    parser.EndElementHandler = lambda _: inside.pop()
    parser.CharacterDataHandler = say
    parse_part(archive, "docProps/core.xml", parser)
    return "".join(words)


def _refuse_doctype(*_: object) -> None:
    raise RefusedError("DTD not allowed: take the <!DOCTYPE …> out, and with it its entities")
