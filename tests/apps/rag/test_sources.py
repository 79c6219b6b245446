"""What a person names becomes sources, and sources become documents."""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image
from written_documents import read, write_docx, write_pdf

from lapilli.apps.rag.kinds import KINDS, kind_named
from lapilli.apps.rag.sources import FETCH, ReadLimits, Source, find_sources, read_document
from lapilli.errors import FetchError, ImageError, InputError
from lapilli.ground.fetch import FetchLimits


def png() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(file, "PNG")
    return file.getvalue()


def names(found: Iterator[Source], folder: Path) -> list[str]:
    return [Path(source.name).relative_to(folder).as_posix() for source in found]


def refused(what: object, **more: object) -> str:
    with pytest.raises(InputError) as caught:
        list(find_sources(what, **more))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_words_are_a_document_of_themselves() -> None:
    (source,) = find_sources("Ada Lovelace wrote the first program.\nIt ran on nothing.")
    found = read_document(source)
    digest = hashlib.sha256(found.text.encode()).hexdigest()
    assert (found.source, found.kind, found.digest) == (f"text:{digest[:16]}", "text", digest)
    assert found.title == "Ada Lovelace wrote the first program."
    assert found.text.endswith("nothing.")
    assert next(find_sources("the same")).name == next(find_sources("the same")).name


def test_a_pair_is_a_question_and_its_answer() -> None:
    found = read_document(next(find_sources(("What is it?", "A stone."), kind="qna_pair")))
    assert (found.kind, found.text, found.title) == ("qna", "Question: What is it?\nAnswer: A stone.", "What is it?")
    assert "pair" in refused("only a text", kind="qna_pair")
    assert "empty" in refused(("", "x"))


def test_a_file_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "note.txt").write_text("Some words.\r\nMore.")
    monkeypatch.chdir(tmp_path)
    for named in ("note.txt", "./note.txt", Path("note.txt"), str(tmp_path / "note.txt")):
        (source,) = find_sources(named)
        assert source.name == str(tmp_path / "note.txt")
    found = read_document(source)
    assert (found.text, found.title, found.kind) == ("Some words.\nMore.", "note.txt", "text")
    assert found.digest == hashlib.sha256(b"Some words.\r\nMore.").hexdigest()
    assert found.meta["bytes"] == 18
    assert found.meta["mtime"] == round((tmp_path / "note.txt").stat().st_mtime, 3)


def test_a_folder_is_walked_in_order_and_what_is_left_out_is_told(tmp_path: Path) -> None:
    folder, outside = tmp_path / "papers", tmp_path / "outside.txt"
    outside.write_text("secret")
    for name in ("b.txt", "a/z.md", "a/y.md", ".git/config", ".hidden.txt", "c/deep/er/x.py", "~$open.docx"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("words")
    (folder / "prog.exe").write_bytes(b"MZ\x00\x00" * 9)
    (folder / "empty.txt").touch()
    (folder / "leads-out.txt").symlink_to(outside)
    (folder / "out").symlink_to(tmp_path, target_is_directory=True)
    (folder / "same.txt").symlink_to(folder / "b.txt")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    os.mkfifo(folder / "pipe.txt")
    told: list[str] = []
    assert names(find_sources(folder, tell=told.append), folder) == ["a/y.md", "a/z.md", "b.txt", "c/deep/er/x.py"]
    assert sorted(told) == [
        "leads-out.txt: a link that leads out of the folder; left out",
        "left out 2 files of no kind that is read: empty (1), .exe (1)",
        "out: a link that leads out of the folder; left out",
        "pipe.txt: neither a file nor a folder; left out",
    ]
    assert names(find_sources(str(folder), kind="mdx"), folder) == ["a/y.md", "a/z.md"]
    assert "as pdf" in refused(folder, kind="pdf_file")
    (tmp_path / "void").mkdir()
    assert "no file in this folder" in refused(tmp_path / "void")


def test_a_name_that_is_no_utf_8_is_told_of(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.txt"
    Path(os.fsdecode(path)).write_text("words")
    told: list[str] = []
    assert "no file" in refused(tmp_path, tell=told.append)
    assert told == ["'caf\\udce9.txt': its name is not UTF-8; left out"]
    assert "UTF-8" in refused(Path(os.fsdecode(path)))


@pytest.mark.parametrize(
    "missing", ["/no/such/file", "~nobody-here/x", "./nothing", "~/no.pdf", "paper.pdf", "a/b", "/a b.txt"]
)
def test_a_path_that_is_not_there_is_not_taken_for_words(missing: str) -> None:
    assert "no such file" in refused(missing)
    assert read_document(next(find_sources(missing, kind="text"))).text == missing


@pytest.mark.parametrize("words", ["hello", "Is this yes/no or not?", "See paper.pdf for more.", "What?\n/etc/passwd"])
def test_words_that_speak_of_paths_are_words(words: str) -> None:
    assert read_document(next(find_sources(words))).text == words


def test_what_is_no_file_and_no_folder_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "neither a file nor a folder" in refused(tmp_path / "pipe")
    assert "neither a file nor a folder" in refused("/dev/zero")
    assert refused(Path("/no/such")).startswith("/no/such: No such file")
    assert "no words" in refused(" \n")
    assert "neither" in refused("some words", kind="pdf_file")


def test_kinds_have_the_names_of_embedchain_too() -> None:
    for theirs, ours in {
        "pdf_file": "pdf", "web_page": "web", "text_file": "text", "excel_file": "xlsx", "directory": "folder",
        "mdx": "markdown", "qna_pair": "qna", "docx": "docx", "csv": "csv", "json": "json", "xml": "xml",
        "text": "text", "image": "picture", "sitemap": "sitemap", "PDF_file ": "pdf",
    }.items():  # fmt: skip
        assert kind_named(theirs) == ours
    assert all(kind_named(kind) == kind for kind in KINDS)
    for unknown, nearest in {
        "pdf_flie": "pdf_file",
        "youtube_video": "web_page",
        "docs_site": "sitemap",
        "excel": "excel_file",
    }.items():
        with pytest.raises(InputError, match=f"did you mean '{nearest}'"):
            kind_named(unknown)


def test_bytes_past_a_limit_are_refused_with_both_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"word " * 100)
    (source,) = find_sources(tmp_path / "a.txt")
    with pytest.raises(InputError, match="500 bytes, at most 499"):
        read_document(source, limits=ReadLimits(bytes=499))
    with pytest.raises(InputError, match="more than the 498 characters"):
        read_document(source, limits=ReadLimits(characters=498))
    assert len(read_document(source, limits=ReadLimits(bytes=500)).text) == 499
    with pytest.raises(InputError, match="11 characters, at most 10"):
        read_document(next(find_sources("eleven char")), limits=ReadLimits(characters=10))


def test_what_is_sent_is_read_like_a_file() -> None:
    found = read_document(Source.of_bytes("letters/résumé.md", b"# A title\n\nwords", kind="mdx"))
    assert (found.source, found.kind, found.title) == ("letters/résumé.md", "markdown", "A title")


@pytest.mark.parametrize("name", ["", " ", "a\nb.txt", "a\x00.txt", "caf\udce9.txt", "x" * 5000])
def test_what_is_sent_has_a_name_that_can_be_kept(name: str) -> None:
    with pytest.raises(InputError, match="no name for a document") as caught:
        Source.of_bytes(name, b"words")
    assert len(str(caught.value)) < 300


def test_many_are_read_at_once() -> None:
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda number: read(f"<p>Page {number}.</p>", "a.html").text, range(40)))
    assert found == [f"Page {number}." for number in range(40)]


def test_a_picture_is_what_is_said_about_it() -> None:
    seen: list[bytes] = []

    def describe(picture: bytes) -> str:
        seen.append(picture)
        return " A red field.\n"

    found = read_document(Source.of_bytes("red.png", png()), describe=describe)
    assert (found.kind, found.text, found.title, found.picture) == ("picture", "A red field.", "red.png", png())
    assert (found.meta["width"], found.meta["height"]) == (8, 6)
    assert seen == [png()]
    with pytest.raises(InputError, match="model that describes"):
        read_document(Source.of_bytes("red.png", png()))
    with pytest.raises(InputError, match="said nothing"):
        read_document(Source.of_bytes("red.png", png()), describe=lambda _: " ")
    with pytest.raises(ImageError):
        read_document(Source.of_bytes("red.png", png()[:40]), describe=describe)


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("a.bin", write_pdf(["Hello"]), "pdf"),
        ("a.pdf", b"<!DOCTYPE html><p>404</p>", "html"),
        ("a", b"<html><body>x</body></html>", "html"),
        ("a.xml", b"<html><body>x</body></html>", "html"),
        ("a.html", b"<?xml version='1.0'?><a><b>x</b></a>", "xml"),
        ("a", b"<?xml version='1.0'?><a><b>x</b></a>", "xml"),
        ("a.txt", b"<html>is how pages begin", "text"),
        ("a.md", b"How a PDF begins: %PDF-1.7", "markdown"),
        ("a.zip", write_docx("<w:p><w:r><w:t>Hi</w:t></w:r></w:p>"), "docx"),
        ("a.TSV", b"a\tb\n1\t2", "csv"),
        ("a.ndjson", b'{"a":1}', "json"),
        ("notes.py", b"print('hi')", "text"),
        ("a.txt", b"BMW builds cars, and this is a text of some length", "text"),
    ],
)  # fmt: skip
def test_bytes_tell_the_kind_before_the_name_does(name: str, data: bytes, kind: str) -> None:
    assert read(data, name).kind == kind


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.txt", b"", "empty: 0 bytes"),
        ("a.txt", b"\xef\xbb\xbf \n", "empty: 5 bytes"),
        ("a.bin", bytes(range(256)), "no document that is read here"),
        ("a.doc", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "save it as .docx"),
        ("a.gz", b"\x1f\x8b\x08" + bytes(99), "unpack it first"),
        ("a.rtf", b"{\\rtf1 hello}", "RTF"),
        ("a.png", b"version https://git-lfs.github.com/spec/v1", "its name says picture"),
        ("a.pdf", b"just words", "its name says pdf"),
    ],
)
def test_what_is_not_read_is_refused_with_the_way_out(name: str, data: bytes, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        read(data, name)
    assert str(caught.value).startswith(f"{name}: ")


def test_what_was_said_to_be_another_kind_is_refused_with_both() -> None:
    with pytest.raises(InputError, match="said to be docx and is pdf"):
        read(write_pdf(["x"]), "a.pdf", kind="docx")
    with pytest.raises(InputError, match="said to be pdf, and its bytes are not"):
        read(b"words", "a.txt", kind="pdf_file")
    assert read(b"a,b\n1,2", "a.txt", kind="csv").kind == "csv"


def test_a_reader_that_takes_too_long_or_too_much_is_ended() -> None:
    slow = write_pdf(["A line of words.\n" * 40] * 2000)
    with pytest.raises(InputError, match=r"a\.pdf: reading it takes more than 0\.3 s"):
        read(slow, "a.pdf", limits=ReadLimits(seconds=0.3))
    with pytest.raises(InputError, match="more than 100 MB of memory"):
        read(b"word " * 8_000_000, "a.txt", limits=ReadLimits(memory_mb=100, characters=1 << 30))
    assert read(b"fine", "a.txt").text == "fine"


# --- addresses ---------------------------------------------------------------------------------------------------

PAGES = {
    "/page": ("text/html; charset=iso-8859-1", b"<title>Caf\xe9</title><main><p>Bonjour, caf\xe9.</p></main>"),
    "/data": ("application/json", b'{"a": "b"}'),
    "/file.md": ("text/plain", b"# Heading\n\nwords"),
    "/red": ("image/png", png()),
    "/map.xml": ("text/xml", b"<urlset><url><loc>BASE/page</loc></url><url><loc> BASE/data </loc></url>"
                             b"<url><loc>http://other.example/x</loc></url></urlset>"),
    "/index.xml": ("text/xml", b"<sitemapindex><sitemap><loc>BASE/map.xml</loc></sitemap></sitemapindex>"),
    "/bomb.xml": ("text/xml", b'<!DOCTYPE a [<!ENTITY b "c">]><urlset><url><loc>&b;</loc></url></urlset>'),
    "/none.xml": ("text/xml", b"<urlset></urlset>"),
}  # fmt: skip


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, body = PAGES.get(self.path, ("text/plain", b""))
            body = body.replace(b"BASE", f"http://{self.headers['Host']}".encode())
            self.send_response(200 if self.path in PAGES else 404)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_page_is_fetched_through_the_guarded_door(site: str) -> None:
    (source,) = find_sources(f"{site}/page", kind="web_page", allow_private=True)
    found = read_document(source)
    assert (found.source, found.kind, found.title, found.text) == (f"{site}/page", "html", "Café", "Bonjour, café.")
    assert source.limits is FETCH
    with pytest.raises(FetchError) as caught:
        read_document(next(find_sources(f"{site}/page")))
    assert caught.value.status == 403


def test_an_address_is_read_as_what_it_is(site: str) -> None:
    def get(path: str, **more: object) -> str:
        return read_document(next(find_sources(site + path, allow_private=True, **more)), describe=lambda _: "red").kind  # type: ignore[arg-type]

    assert [get("/data"), get("/file.md"), get("/red"), get("/data", kind="text")] == [
        "json",
        "markdown",
        "picture",
        "text",
    ]
    with pytest.raises(FetchError, match="404"):
        get("/gone")
    with pytest.raises(FetchError, match="at most 5"):
        get("/page", fetch=FetchLimits(bytes=5))


def test_a_sitemap_is_its_pages_of_the_same_host(site: str) -> None:
    for path in ("/map.xml", "/index.xml"):
        found = list(find_sources(site + path, kind="sitemap", allow_private=True))
        assert [source.name for source in found] == [f"{site}/page", f"{site}/data"]
    assert "DTD not allowed" in refused(f"{site}/bomb.xml", kind="sitemap", allow_private=True)
    assert "no page" in refused(f"{site}/none.xml", kind="sitemap", allow_private=True)
    assert "no sitemap" in refused(f"{site}/file.md", kind="sitemap", allow_private=True)
