"""Tables: CSV as people make it, and spreadsheets."""

from __future__ import annotations

import datetime
import io
import zipfile

import openpyxl
import pytest
from written_documents import read, write_zip

from lapilli.errors import InputError


def text(data: bytes | str, name: str = "a.csv") -> str:
    return read(data, name).text


def test_rows_are_columns_and_values() -> None:
    found = read('name,age,"note, long"\nAda,36,"She said ""hi""\nand left"\nBob,,\n\n,,\nCyd,7,x,more\n', "people.csv")
    assert found.text == (
        'name: Ada\nage: 36\nnote, long: She said "hi"\nand left\n\nname: Bob\n\nname: Cyd\nage: 7\nnote, long: x\n'
        "column 4: more"
    )
    assert [(found.text[at:][:9], label) for at, label in found.marks] == [
        ("name: Ada", "row 2"), ("name: Bob", "row 3"), ("name: Cyd", "row 6")
    ]  # fmt: skip
    assert (found.title, found.meta["rows"]) == ("people.csv", 3)


@pytest.mark.parametrize(
    "data",
    [
        b"a;b\n1,5;2,5\n",
        b"a\tb\n1,5\t2,5\n",
        b"a|b\r\n1,5|2,5\r\n",
        b"a;b\r1,5;2,5\r",
        b"sep=;\r\na;b\r\n1,5;2,5",
        "a;b\n1,5;2,5\n".encode("utf-16"),
        b"\xef\xbb\xbfa;b\n1,5;2,5",
        b'"a";"b"\n"1,5";"2,5"',
    ],
    ids=range(8),
)
def test_any_separator_is_found(data: bytes) -> None:
    assert text(data) == "a: 1,5\nb: 2,5"


def test_rows_without_names_are_lines() -> None:
    assert text("1,2,3\n4,5,6") == "1 | 2 | 3\n4 | 5 | 6"
    assert text("Ada,36,London\nBob,41,Paris") == "Ada | 36 | London\nBob | 41 | Paris"
    assert text("only\nones") == "only\nones"
    assert text("date,2020,2021\nx,1,2") == "date: x\n2020: 1\n2021: 2"
    assert text("a,b\n") == "a | b"


def test_csv_in_the_encodings_of_offices() -> None:
    assert text("name;città\nx;Forlì – €\n".encode("cp1252")) == "name: x\ncittà: Forlì – €"


def test_a_quote_that_is_never_closed_loses_nothing() -> None:
    assert text('a,b\n1,"two\n3,4\n') == "a: 1\nb: two\n3,4"


def workbook(**sheets: list[list[object]]) -> bytes:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name.replace("_", " "))
        for row in rows:
            sheet.append(row)
    book.properties.title = "The book"
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def test_sheets_are_rows_with_their_places() -> None:
    when = datetime.datetime(2024, 2, 29, 13, 30)
    data = workbook(
        People=[
            ["name", "born", "size", "ok"],
            ["Ada", datetime.date(1815, 12, 10), 1.0, True],
            [],
            ["Bob", when, 0.1 + 0.2, False],
        ],
        The_others=[["words that stand alone"]],
        Void=[],
    )  # fmt: skip
    found = read(data, "a.xlsx")
    assert found.text == (
        "name: Ada\nborn: 1815-12-10\nsize: 1\nok: true\n\n"
        "name: Bob\nborn: 2024-02-29 13:30:00\nsize: 0.3\nok: false\n\nwords that stand alone"
    )
    assert [label for _, label in found.marks] == ["People, row 2", "People, row 4", "The others, row 1"]
    assert (found.title, found.meta["rows"], found.meta["sheets"]) == ("The book", 3, 3)


def test_dates_are_those_that_openpyxl_reads() -> None:
    days = [datetime.datetime(1900, 1, 1), datetime.datetime(1900, 2, 28), datetime.datetime(1900, 3, 1),
            datetime.datetime(1999, 12, 31, 23, 59, 59), datetime.datetime(9999, 12, 31)]  # fmt: skip
    data = workbook(S=[["when", "x"], *([day, "x"] for day in days)])
    shown = [line.removeprefix("when: ") for line in text(data, "a.xlsx").split("\n") if line.startswith("when")]
    assert shown == [f"{day:%Y-%m-%d %H:%M:%S}".removesuffix(" 00:00:00") for day in days]


def sheet(cells: str, *, strings: str = "", book: str = "", styles: str = "") -> bytes:
    """A workbook as other programs write it."""
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    sheets = '<sheets><sheet name="S" r:id="rId7"/></sheets>'
    relation = '<Relationship Id="rId7" Target="/xl/worksheets/one.xml"/>'
    return write_zip(
        {
            "[Content_Types].xml": "<Types/>",
            "xl/workbook.xml": f'<workbook {space} xmlns:r="r">{book}{sheets}</workbook>',
            "xl/_rels/workbook.xml.rels": f"<Relationships>{relation}</Relationships>",
            "xl/worksheets/one.xml": f"<worksheet {space}><sheetData>{cells}</sheetData></worksheet>",
            "xl/sharedStrings.xml": f"<sst {space}>{strings}</sst>",
            "xl/styles.xml": f"<styleSheet {space}>{styles}</styleSheet>",
        }
    )


def test_strings_that_cells_share_are_read_without_their_pronunciation() -> None:
    strings = "<si><t>東京</t><rPh><t>トウキョウ</t></rPh></si><si><r><t>two </t></r><r><t>runs</t></r></si><si/>"
    cells = "".join(f'<c t="s"><v>{number}</v></c>' for number in (0, 1, 2, 99, -1))
    assert (
        text(sheet(f"<row>{cells}</row><row>{cells}</row>", strings=strings), "a.xlsx")
        == "東京: 東京\ntwo runs: two runs"
    )


def test_cells_of_every_kind() -> None:
    cells = (
        '<row r="5"><c r="B5" t="str"><f>A1&amp;"x"</f><v>made</v></c>'
        '<c r="D5" t="inlineStr"><is><t>in place</t></is></c>'
        '<c r="E5" t="b"><v>1</v></c><c r="F5" t="e"><v>#N/A</v></c><c r="G5"><v>1e-7</v></c><c r="H5"><f>NOW()</f></c>'
        '<c r="XFE5"><v>9</v></c><c r="I5" t="d"><v>2024-01-02</v></c></row>'
    )
    found = read(sheet(cells), "a.xlsx")
    assert found.text == "made | in place | true | #N/A | 1e-07 | 2024-01-02"
    assert found.marks == ((0, "S, row 5"),)


def test_dates_are_told_by_the_format_of_a_workbooks_own() -> None:
    styles = (
        '<numFmts><numFmt numFmtId="164" formatCode="dd/mm/yyyy"/>'
        '<numFmt numFmtId="165" formatCode="0.0&quot; days&quot;"/>'
        '</numFmts><cellXfs><xf numFmtId="0"/><xf numFmtId="164"/><xf numFmtId="165"/><xf numFmtId="20"/></cellXfs>'
    )
    cells = '<row><c s="1"><v>45292</v></c><c s="2"><v>45292</v></c><c s="3"><v>0.5</v></c><c s="99"><v>7</v></c></row>'
    assert text(sheet(cells, styles=styles), "a.xlsx") == "2024-01-01 | 45292 | 12:00:00 | 7"
    moved = sheet(cells, styles=styles, book='<workbookPr date1904="1"/>')
    assert text(moved, "a.xlsx").startswith("2028-01-02")


def test_what_a_file_says_of_its_size_is_not_believed() -> None:
    book = openpyxl.Workbook()
    book.active["A1"] = "near"
    book.active["XFD1048576"] = "far"
    file = io.BytesIO()
    book.save(file)
    assert text(file.getvalue(), "a.xlsx") == "near\nfar"


def test_a_damaged_workbook_is_refused() -> None:
    data = workbook(S=[["a", "b"], [1, 2]])
    with pytest.raises(InputError, match="archive is damaged"):
        text(data[: len(data) // 2], "a.xlsx")
    parts = {
        name: zipfile.ZipFile(io.BytesIO(data)).read(name) for name in zipfile.ZipFile(io.BytesIO(data)).namelist()
    }
    sheets = next(name for name in parts if "sheet1" in name)
    with pytest.raises(InputError, match="damaged"):
        text(write_zip(parts | {sheets: parts[sheets][:-20]}), "a.xlsx")
    with pytest.raises(InputError, match=r"no part 'xl/workbook.xml'"):
        text(write_zip({"[Content_Types].xml": "<Types/>", "xl/x.xml": "<x/>"}), "a.xlsx")
