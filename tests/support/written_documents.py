"""Documents made by hand or by the libraries that people use, for tests of the readers; nothing of strangers."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence

from lapilli.apps.rag.document import Document
from lapilli.apps.rag.sources import ReadLimits, Source, read_document


def read(
    data: bytes | str, name: str = "file", *, kind: str | None = None, limits: ReadLimits | None = None
) -> Document:
    """A document of some bytes, as if somebody had sent them."""
    data = data.encode() if isinstance(data, str) else data
    return read_document(Source.of_bytes(name, data, kind=kind), limits=limits)


def write_pdf(pages: Sequence[str], *, title: str = "", more: Sequence[bytes] = (), trailer: bytes = b"") -> bytes:
    """A PDF with a line of text for each line of each page, in Helvetica, written out by hand."""
    count = len(pages)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Count %d /Kids [%s] >>" % (count, b" ".join(b"%d 0 R" % (5 + 2 * n) for n in range(count))),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        b"<< /Title (%s) >>" % title.encode("latin-1"),
    ]
    for number, page in enumerate(pages):
        lines = b" ".join(b"(%s) Tj T*" % _escaped(line) for line in page.split("\n"))
        drawn = b"BT /F1 12 Tf 14 TL 72 720 Td %s ET" % lines
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R "
            b"/Resources << /Font << /F1 3 0 R >> >> >>" % (6 + 2 * number)
        )
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(drawn), drawn))
    return lay_out([*objects, *more], trailer=b"/Root 1 0 R /Info 4 0 R" + trailer)


def lay_out(objects: Sequence[bytes], *, trailer: bytes = b"/Root 1 0 R") -> bytes:
    """A PDF file of its objects, with the table of where they are."""
    file, places = bytearray(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"), []
    for number, body in enumerate(objects, 1):
        places.append(len(file))
        file += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = len(file)
    file += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    file += b"".join(b"%010d 00000 n \n" % place for place in places)
    return bytes(file + b"trailer << /Size %d %s >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, trailer, table))


def write_zip(parts: Mapping[str, bytes | str], *, packed: bool = True) -> bytes:
    """A zip archive of its parts."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return file.getvalue()


WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def write_docx(body: str, **parts: bytes | str) -> bytes:
    """A Word document of the XML of its body; `parts` are more of them, their names with `__` for a slash."""
    document = f'<?xml version="1.0"?><w:document xmlns:w="{WORD}"><w:body>{body}</w:body></w:document>'
    named = {name.replace("__", "/") + ".xml": content for name, content in parts.items()}
    return write_zip({"[Content_Types].xml": "<Types/>", "word/document.xml": document} | named)


def _escaped(line: str) -> bytes:
    return line.encode("cp1252").replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")
