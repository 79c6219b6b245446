"""Files that were changed at random are read or refused, and what is read is clean."""

from __future__ import annotations

import io
import random
import re
import sys
import zipfile

import docx
import openpyxl
import pytest
from written_documents import write_docx, write_pdf, write_zip

from lapilli.apps.rag.readers import read_bytes

PIECES = (
    b"<", b">", b"&", b"\0", b"\xff", b"<w:p>", b"</w:p>", b"<w:tc>", b"</w:tc>", b"<w:tr>", b"</w:tr>", b"<w:tbl>",
    b"</w:tbl>", b"<w:r>", b"</w:r>", b"<w:del>", b"</w:del>", b"<c>", b"</c>", b"<row>", b"<v>", b"</v>", b"<rPh>",
    b"<t>", b"<!DOCTYPE a>", b"[", b"]", b"{", b"}", b'"', b"\\", b"obj", b"endobj", b"\n", b"99999999", b"-1",
    b"\xed\xa0\x80", b"\xef\xbb\xbf",
)  # fmt: skip
UNCLEAN = re.compile("[\x00-\x08\x0b-\x1f\ud800-\udfff]")


def unpacked(data: bytes) -> bytes:
    """The same archive, stored, so that changes reach its parts."""
    archive = zipfile.ZipFile(io.BytesIO(data))
    return write_zip({name: archive.read(name) for name in archive.namelist()}, packed=False)


def workbook() -> bytes:
    book = openpyxl.Workbook()
    book.active.append(["name", "size"])
    book.active.append(["a", 1.5])
    file = io.BytesIO()
    book.save(file)
    return unpacked(file.getvalue())


def report() -> bytes:
    made = docx.Document()
    made.add_heading("Heading", 1)
    made.add_table(1, 2).cell(0, 0).text = "cell"
    file = io.BytesIO()
    made.save(file)
    return unpacked(file.getvalue())


RUN = "<w:p><w:r><w:rPr><w:vanish/></w:rPr><w:t>a</w:t><w:br/></w:r></w:p>"
SEEDS = {
    "a.docx": lambda: unpacked(write_docx(f"{RUN}<w:tbl><w:tr><w:tc>{RUN}</w:tc></w:tr></w:tbl>")),
    "b.docx": report,
    "a.xlsx": workbook,
    "a.pdf": lambda: write_pdf(["Hello", "again"]),
    "a.html": lambda: b"<title>t</title><main><h1>a</h1><table><tr><td>x<ul><li>y</table><pre>z</pre></main>",
    "a.xml": lambda: b'<?xml version="1.0" encoding="utf-8"?><a b="c"><d>e</d><f>g<h>i</h></f></a>',
    "a.json": lambda: b'{"a":[1,{"b":[[]]},"x"],"c":null}\n{"d":1}',
    "a.csv": lambda: b'a,b\n1,"2"\n3,4\n',
    "a.md": lambda: b"---\ntitle: x\n---\n# a\n```\nx\n```\nb\n===\n",
}


@pytest.mark.parametrize("name", SEEDS)
def test_changed_files_are_read_or_refused(name: str) -> None:
    seed, chance = SEEDS[name](), random.Random(11)
    for _ in range(250):
        data = bytearray(seed)
        for _ in range(chance.randint(1, 8)):
            at, way = chance.randrange(len(data) + 1), chance.random()
            if way < 0.3:
                data[at % len(data)] = chance.randrange(256)
            elif way < 0.6:
                data[at:at] = chance.choice(PIECES)
            elif way < 0.8 and len(data) > 60:
                del data[at : at + chance.randint(1, 30)]
            else:
                data[at:at] = data[at : at + chance.randint(1, 60)]
        asked = {"kind": None, "name": name, "content_type": "", "most": 100_000}
        found = read_bytes(asked, bytes(data))
        if "refused" in found:
            assert "\n" not in found["refused"]
            continue
        labels = "".join(label for _, label in found["marks"])
        assert not UNCLEAN.search(found["text"] + found["title"] + labels)
        assert [at for at, _ in found["marks"]] == sorted(at for at, _ in found["marks"])
        assert all(0 <= at < len(found["text"]) for at, _ in found["marks"])


def test_a_sheet_that_is_not_there_ends_no_other() -> None:
    archive = zipfile.ZipFile(io.BytesIO(workbook()))
    parts = {name: archive.read(name) for name in archive.namelist()}
    (sheet,) = (name for name in parts if "sheet1" in name)
    del parts[sheet]
    asked = {"kind": None, "name": "a.xlsx", "content_type": "", "most": 100_000}
    assert read_bytes(asked, write_zip(parts))["text"] == ""


@pytest.mark.parametrize(("name", "library"), [("a.pdf", "pypdf"), ("a.html", "selectolax.lexbor")])
def test_a_library_that_is_not_installed_is_named_by_its_extra(
    name: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    asked = {"kind": None, "name": name, "content_type": "", "most": 100_000}
    assert "pip install 'lapilli[rag]'" in read_bytes(asked, SEEDS[name]())["refused"]
