"""PDF and Word."""

from __future__ import annotations

import io
import random

import docx
import pypdf
import pytest
from written_documents import lay_out, read, write_docx, write_pdf, write_zip

from lapilli.errors import InputError


def test_a_pdf_is_its_pages() -> None:
    found = read(write_pdf(["First (page) of infor-\nmation\nnaïve", "", "Third \\ page"], title="My paper"), "a.pdf")
    assert found.text == "First (page) of information\nnaïve\n\nThird \\ page"
    assert found.marks == ((0, "page 1"), (35, "page 3"))
    assert (found.title, found.meta["pages"]) == ("My paper", 3)


def test_a_pdf_that_was_cut_off_is_mended() -> None:
    whole = write_pdf([f"Page number {number}." for number in range(1, 9)])
    for cut in (whole[:-9], whole[: whole.rindex(b"xref\n0")], whole[: whole.rindex(b"startxref")]):
        found = read(cut, "a.pdf")
        assert found.text.startswith("Page number 1.")
        assert found.text.endswith("Page number 8.")
        assert found.meta["mended"] is True
    half = read(whole[: whole.index(b"number 5")], "a.pdf")
    assert half.text.endswith("Page number 4.")


def test_a_pdf_after_junk_and_one_that_was_edited() -> None:
    whole = write_pdf(["Hello world."])
    assert read(b"HTTP/1.1 200 OK\r\n\r\n" + whole, "a.pdf").text == "Hello world."
    assert read(whole.replace(b"Hello world.", b"Hello big wide world."), "a.pdf").text == "Hello big wide world."


def test_pdfs_with_passwords() -> None:
    for user, words in (("", "secret"), ("word", None)):
        writer = pypdf.PdfWriter(clone_from=io.BytesIO(write_pdf(["secret"])))
        writer.encrypt(user, "owner", algorithm="RC4-128")
        file = io.BytesIO()
        writer.write(file)
        if words:
            assert read(file.getvalue(), "a.pdf").text == words
        else:
            with pytest.raises(InputError, match="protected by a password"):
                read(file.getvalue(), "a.pdf")


def test_a_pdf_of_pictures_says_what_to_do() -> None:
    with pytest.raises(InputError, match="its 3 pages hold no text, only pictures"):
        read(write_pdf(["", "", ""]), "a.pdf")


def test_a_damaged_pdf_is_read_or_refused_in_one_line() -> None:
    whole, chance = write_pdf(["Some words of a page."] * 3), random.Random(7)
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 12)):
            data[chance.randrange(8, len(data))] = chance.randrange(256)
        try:
            said = read(bytes(data), "a.pdf").kind
        except InputError as error:
            said = str(error)
        assert said == "pdf" or (said.startswith("a.pdf: ") and "\n" not in said and "0x" not in said)
    with pytest.raises(InputError, match="damaged"):
        read(lay_out([b"<< /Type /Nothing >>"]), "a.pdf")


def document() -> bytes:
    made = docx.Document()
    made.core_properties.title = "The report"
    made.add_heading("All of it", 0)
    made.add_heading("Findings", 1)
    paragraph = made.add_paragraph("It is ")
    paragraph.add_run("bold").bold = True
    paragraph.add_run(" and\tgood.")
    made.add_paragraph("first", style="List Bullet")
    made.add_paragraph("second", style="List Number")
    table = made.add_table(2, 2)
    for row, cells in enumerate((("what", "how much"), ("length", "12\nkm"))):
        for column, said in enumerate(cells):
            table.cell(row, column).text = said
    table.cell(1, 1).add_table(1, 2).cell(0, 0).text = "inner"
    made.add_paragraph("After it.")
    made.sections[0].header.paragraphs[0].text = "header of every page"
    file = io.BytesIO()
    made.save(file)
    return file.getvalue()


def test_a_word_document_is_its_paragraphs_and_tables() -> None:
    found = read(document(), "a.docx")
    assert found.title == "The report"
    assert found.text == (
        "All of it\n\nFindings\n\nIt is bold and\tgood.\n\n- first\n- second\n"
        "what | how much\nlength | 12 km inner\n\nAfter it."
    )
    assert [label for _, label in found.marks] == ["All of it", "Findings"]
    assert found.text[found.marks[1][0] :].startswith("Findings")


def test_what_word_does_not_show_is_not_read() -> None:
    def run(words: str, more: str = "") -> str:
        return f"<w:r><w:rPr>{more}</w:rPr><w:t>{words}</w:t></w:r>"

    shown, note = '<w:vanish w:val="0"/>', "<w:p><w:r><w:t>A note.</w:t></w:r></w:p>"
    found = read(write_docx(
        f"<w:p>{run('Seen')}<w:ins>{run(' added')}</w:ins><w:del><w:r><w:delText>deleted</w:delText></w:r></w:del>"
        f"{run('hidden', '<w:vanish/>')}{run(' shown', shown)}<w:r><w:instrText>PAGE</w:instrText></w:r></w:p>"
        f"<w:sdt><w:sdtContent><w:p>{run('In a form')}</w:p></w:sdtContent></w:sdt>"
        "<mc:AlternateContent xmlns:mc='mc'><mc:Choice><w:p><w:r><w:t>Box</w:t></w:r></w:p></mc:Choice>"
        "<mc:Fallback><w:p><w:r><w:t>Box</w:t></w:r></w:p></mc:Fallback></mc:AlternateContent>"
        "<w:p><w:hyperlink><w:r><w:t>link</w:t><w:br/><w:t>next</w:t><w:noBreakHyphen/></w:r></w:hyperlink></w:p>",
        word__footnotes=f"<w:footnotes xmlns:w='w'><w:footnote>{note}</w:footnote></w:footnotes>",
    ), "a.docx")  # fmt: skip
    assert found.text == "Seen added shown\n\nIn a form\n\nBox\n\nlink\nnext-\n\nA note."
    assert found.marks == ((found.text.index("A note."), "footnotes"),)


def test_headings_have_names_that_are_not_translated() -> None:
    styles = "<w:styles xmlns:w='w'><w:style w:styleId='berschrift1'><w:name w:val='heading 1'/></w:style></w:styles>"
    heading = "<w:p><w:pPr><w:pStyle w:val='berschrift1'/></w:pPr><w:r><w:t>Ergebnis</w:t></w:r></w:p>"
    body = f"{heading}<w:p><w:r><w:t>Gut.</w:t></w:r></w:p>"
    found = read(write_docx(body, word__styles=styles), "a.docx")
    assert (found.marks, found.title) == (((0, "Ergebnis"),), "Ergebnis")


def test_archives_that_are_no_documents_are_named() -> None:
    for parts, said in (
        ({"a.txt": "x"}, "zip archive: unpack it"),
        ({"[Content_Types].xml": "<T/>", "ppt/x.xml": "<x/>"}, "presentation: save it as PDF"),
        ({"mimetype": "application/epub+zip"}, "OpenDocument or EPUB"),
        ({"[Content_Types].xml": "<T/>", "word/x.xml": "<x/>"}, "no part 'word/document.xml'"),
        ({"[Content_Types].xml": "<T/>", "word/document.xml": "no xml"}, "damaged"),
    ):
        with pytest.raises(InputError, match=said):
            read(write_zip(parts), "a.docx")
