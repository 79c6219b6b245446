"""Registers' XML as one element a record, streamed: memory is for one record, whatever the file's size.

The stream is cut into records at their own tags, and each is parsed by itself. So what is damaged costs its own record,
and there is no document in which a DTD could declare anything: one is refused where the file has it.
"""

from __future__ import annotations

import codecs
import html
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from lapilli.errors import InputError

if TYPE_CHECKING:
    from lxml.etree import _Element

TAGS = ("Trial", "clinical_study")
MAX_RECORD = 16 << 20
"""Bytes of one record; the largest that registers are known to write are about a tenth of it."""

MAX_TAGS, MAX_ENDLESS = 200_000, 1000

_CHUNK = 1 << 18
_KEPT = 400  # bytes between records that are looked at again, as a tag may be cut there
_OUTSIDE = re.compile(rb"<(?:Trial|clinical_study)(?=[\s/>])|<!--|<!\[CDATA\[|<!DOCTYPE|<!ENTITY", re.IGNORECASE)
_HIDING = re.compile(rb"<!--|<!\[CDATA\[")
_CLOSE = re.compile(rb"[ \t\r\n]{0,100}>")
_MOST_HIDDEN = 10_000  # comments and CDATA in one record
_DECLARED = re.compile(rb"""\s*<\?xml[^>]{0,200}?encoding\s*=\s*["']([A-Za-z0-9._:-]{1,40})["']""")
_ROOT, _ROOT_END = re.compile(rb"<[A-Za-z_]"), re.compile(rb"</[A-Za-z_][\w.-]*\s*>\s*\Z")
_CONTROL = bytes(byte for byte in range(32) if byte not in b"\t\n\r")
_BARE = re.compile(r"&(?!(?:#[0-9]{1,7}|#x[0-9a-fA-F]{1,6}|amp|lt|gt|quot|apos);)|<(?![A-Za-z_/!?])")
_NAMED = re.compile(r"&([A-Za-z][A-Za-z0-9]{1,30});")
_NUMBERED = re.compile(r"&#(?:x([0-9a-fA-F]{1,6})|([0-9]{1,7}));")
_XML = frozenset({"amp", "lt", "gt", "quot", "apos"})


@dataclass(frozen=True)
class Piece:
    """The bytes of one record in UTF-8; `whole` is False where its end is missing, `told` says how."""

    data: bytes
    whole: bool = True
    told: str = ""


def read_elements(stream: BinaryIO, name: str) -> Iterator[tuple[_Element | None, str]]:
    """Each record's element, and what was wrong with it ("" where nothing was); None where nothing could be saved.

    After the records, (None, why) once more where the file ends before its root does. Raises InputError for a DTD.
    """
    parse = _parser()
    endless = 0
    for piece in split_records(utf8_chunks(stream), name):
        if not piece.data:
            yield None, piece.told
            continue
        endless += not piece.whole
        if endless > MAX_ENDLESS:
            raise InputError(f"{name}: more than {MAX_ENDLESS} records have no end: it is no register's file")
        if len(piece.data) > 1 << 20 and (tags := piece.data.count(b"<")) > MAX_TAGS:
            raise InputError(f"{name}: a record has {tags} tags, at most {MAX_TAGS} are read: it is no trial")
        element, told = parse(piece)
        yield element, told


def split_records(chunks: Iterator[bytes], name: str) -> Iterator[Piece]:
    """The records of a stream; at its end an empty piece where its root is not closed."""
    buffer = bytearray()
    over = False

    def more() -> bool:
        nonlocal over
        chunk = next(chunks, None)
        over = chunk is None
        buffer.extend(chunk or b"")
        return not over

    rooted = False
    while True:
        tag, between = _next_start(buffer, more, name)
        rooted = rooted or _ROOT.search(between) is not None
        if not tag:
            break
        piece = _take_record(buffer, tag, more, name)
        yield piece
        if not piece.whole and over and not buffer:
            return
    if rooted and not _ROOT_END.search(between):
        yield Piece(b"", False, "the file ends before its root does")


def _next_start(buffer: bytearray, more: Callable[[], bool], name: str) -> tuple[bytes, bytes]:
    """Throw away what stands before the next record: (the record's tag, the end of what was thrown away).

    At the end of the file there is no tag.
    """
    between = b""

    def drop(count: int) -> None:
        nonlocal between
        between = (between + bytes(buffer[max(count - _KEPT, 0) : count]))[-_KEPT:]
        del buffer[:count]

    while True:
        place = 0
        while hit := _OUTSIDE.search(buffer, place):
            what = bytes(hit[0])
            if what[:2] == b"<!" or what[1:].decode() in TAGS:
                break
            place = hit.end()
        if hit is None:
            drop(max(len(buffer) - _KEPT, 0))
            if not more():
                drop(len(buffer))
                return b"", between
            continue
        drop(hit.start())
        if what[:2] != b"<!":
            return what[1:], between
        if what[2:3] not in (b"-", b"["):
            raise InputError(f"{name}: DTD not allowed; take the {what.decode()} out of the file")
        end = b"-->" if what[2:3] == b"-" else b"]]>"
        while (stop := buffer.find(end)) < 0:
            del buffer[: max(len(buffer) - len(end) + 1, 0)]
            if not more():
                return b"", between
        del buffer[: stop + len(end)]


def _take_record(buffer: bytearray, tag: bytes, more: Callable[[], bool], name: str) -> Piece:
    """Cut the record that begins the buffer off it. What stands in comments and CDATA is no tag."""
    end_tag, start_tag = b"</" + tag, b"<" + tag + b">"
    hidden: list[tuple[int, int]] = []
    # Where to look for the end, and for what hides it: nothing is looked at twice, or it takes the square of a length.
    looked = seen = 1
    for _ in range(_MOST_HIDDEN):
        stop = buffer.find(end_tag, looked)
        if opener := _HIDING.search(buffer, seen, stop if stop >= 0 else len(buffer)):
            seen = looked = _after(buffer, b"]]>" if opener[0][2:3] == b"[" else b"-->", opener.end(), more, name)
            if seen < 0:
                return _cut_off(buffer, start_tag)
            hidden.append((opener.start(), seen))
            continue
        seen = max(stop if stop >= 0 else len(buffer) - 10, seen)
        looked = stop if stop >= 0 else max(len(buffer) - len(end_tag), looked)
        if stop >= 0:
            if close := _CLOSE.match(buffer, stop + len(end_tag)):
                return _taken(buffer, close.end(), start_tag, hidden)
            rest = buffer[stop + len(end_tag) : stop + len(end_tag) + 101]
            if rest.strip() or len(rest) > 100:
                looked = stop + 1  # another element, whose name begins alike
                continue
        if len(buffer) > MAX_RECORD:
            raise InputError(f"{name}: a record is larger than the {MAX_RECORD} bytes that are read: it is no trial")
        if not more():
            return _cut_off(buffer, start_tag)
    raise InputError(f"{name}: a record has more than {_MOST_HIDDEN} comments and tags like its own: it is no trial")


def _after(buffer: bytearray, end: bytes, place: int, more: Callable[[], bool], name: str) -> int:
    """Behind the next `end`; -1 where the file has none."""
    while (found := buffer.find(end, place)) < 0:
        place = max(len(buffer) - len(end) + 1, place)
        if len(buffer) > MAX_RECORD:
            raise InputError(f"{name}: a record is larger than the {MAX_RECORD} bytes that are read: it is no trial")
        if not more():
            return -1
    return found + len(end)


def _taken(buffer: bytearray, end: int, start_tag: bytes, hidden: list[tuple[int, int]]) -> Piece:
    """The record up to `end`; up to where another one begins, should its own end be missing."""
    again = buffer.find(start_tag, 1, end)
    while again >= 0:
        place = bisect_right(hidden, (again, len(buffer)))
        if not place or hidden[place - 1][1] <= again:
            data = bytes(buffer[:again])
            del buffer[:again]
            return Piece(data, False, "its end is missing: another record begins")
        again = buffer.find(start_tag, hidden[place - 1][1], end)
    data = bytes(buffer[:end])
    del buffer[:end]
    return Piece(data)


def _cut_off(buffer: bytearray, start_tag: bytes) -> Piece:
    """What is left of the last record. Should another one begin in it, that is the next piece's."""
    again = buffer.find(start_tag, 1)
    data = bytes(buffer[:again]) if again > 0 else bytes(buffer)
    del buffer[: len(data)]
    return Piece(data, False, "the file ends in the middle of it")


def _parser() -> Callable[[Piece], tuple[_Element | None, str]]:
    """A function from a piece to its element; lxml is asked for here, and nowhere else."""
    try:
        from lxml import etree
    except ImportError:
        raise InputError("reading registers' XML needs another library: pip install 'lapilli[trials]'") from None
    safe: dict[str, Any] = {
        "resolve_entities": False, "no_network": True, "load_dtd": False, "huge_tree": False,
        "remove_comments": True, "remove_pis": True, "encoding": "utf-8",
    }  # fmt: skip
    strict, lax = etree.XMLParser(**safe), etree.XMLParser(recover=True, **safe)

    def parse(piece: Piece) -> tuple[_Element | None, str]:
        told = piece.told
        mended = b""
        if piece.whole:
            try:
                return etree.fromstring(piece.data, strict), ""
            except etree.XMLSyntaxError:
                mended = _mended(piece.data)
            try:
                return etree.fromstring(mended, strict), ""
            except etree.XMLSyntaxError as error:
                told = f"its XML is damaged: {error.msg}"
        try:
            return etree.fromstring(mended or _mended(piece.data), lax), told
        except etree.XMLSyntaxError:
            return None, told

    return parse


def _mended(data: bytes) -> bytes:
    """What careless programs write, as XML: HTML's names, `&` and `<` by themselves, numbers that are forbidden."""
    text = data.decode("utf-8", "replace")
    text = _NAMED.sub(lambda hit: hit[0] if hit[1] in _XML else html.escape(html.unescape(hit[0])), text)
    text = _NUMBERED.sub(lambda hit: hit[0] if _is_allowed(hit) else "", text)
    return _BARE.sub(lambda hit: "&amp;" if hit[0] == "&" else "&lt;", text).encode()


def _is_allowed(hit: re.Match[str]) -> bool:
    code = int(hit[1], 16) if hit[1] else int(hit[2])
    return code in (9, 10, 13) or 32 <= code < 0xD800 or 0xE000 <= code < 0xFFFE or 0x10000 <= code < 0x110000


def utf8_chunks(stream: BinaryIO) -> Iterator[bytes]:
    """A stream's bytes as UTF-8 without control characters; what fits no character becomes U+FFFD.

    Raises InputError for an encoding that is not known.
    """
    head = stream.read(_CHUNK)
    encoding, skip = xml_encoding(head)
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    chunk = head[skip:]
    while chunk:
        # Decoded and encoded again, whatever it is: a byte that is wrong would end the parser's work.
        yield decoder.decode(chunk).encode("utf-8", "replace").translate(None, _CONTROL)
        chunk = stream.read(_CHUNK)
    yield decoder.decode(b"", True).encode("utf-8", "replace")


def xml_encoding(head: bytes) -> tuple[str, int]:
    """The encoding of an XML file by its first bytes, and how many of them are its mark."""
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ):
        if head.startswith(mark):
            return name, len(mark)
    for start, name in ((b"<\0", "utf-16-le"), (b"\0<", "utf-16-be")):
        if head.startswith(start):
            return name, 0
    declared = _DECLARED.match(head[:400])
    if declared is None:
        return "utf-8", 0
    said = declared[1].decode("ascii")
    try:
        found = codecs.lookup(said)
    except LookupError:
        raise InputError(f"the encoding {said!r} is none that is read: save the file as UTF-8") from None
    # Python has codecs that are no encodings (rot13, zlib); wide ones contradict the bytes just read.
    if not found._is_text_encoding or found.name.startswith(
        ("utf-16", "utf-32", "utf-7", "punycode", "idna", "unicode", "raw")
    ):
        return "utf-8", 0
    return found.name, 0
