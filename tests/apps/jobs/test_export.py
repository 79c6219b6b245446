"""What leaves a job's folder: the same rows, the same bytes, and nothing that a spreadsheet runs."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pyarrow.parquet
import pytest

from lapilli.apps.jobs.columns import Columns, encode
from lapilli.apps.jobs.export import export
from lapilli.errors import InputError

COLUMNS: Columns = {"name": "text", "count": "int", "share": "float", "right": "bool", "more": "json"}
ROWS: list[dict[str, Any]] = [
    {"name": 'Größe, "quoted"\nand 日本語', "count": -5, "share": -0.25, "right": True, "more": {"b": [1], "a": "é"}},
    {"name": None, "count": None, "share": None, "right": None, "more": None},
    {"name": "", "count": 0, "share": 1e300, "right": False, "more": []},
]


def written(format: str, rows: Any = ROWS, columns: Columns = COLUMNS) -> bytes:
    out = io.BytesIO()
    assert export(iter(rows), columns, format, out) == len(rows)
    return out.getvalue()


def cells(data: bytes) -> list[list[str]]:
    """CSV as a spreadsheet reads it."""
    return list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))


def test_json_lines_hold_the_rows() -> None:
    lines = written("jsonl").decode().splitlines()
    assert [json.loads(line) for line in lines] == ROWS
    assert list(json.loads(lines[0])) == list(COLUMNS)


def test_parquet_holds_the_rows() -> None:
    table = pyarrow.parquet.read_table(io.BytesIO(written("parquet")))
    assert table["name"].to_pylist() == [row["name"] for row in ROWS]
    assert table["count"].to_pylist() == [-5, None, 0]
    assert table["more"].to_pylist() == ['{"a":"é","b":[1]}', None, "[]"]


def test_csv_holds_the_rows() -> None:
    data = written("csv")
    assert data.startswith(b"\xef\xbb\xbfname,count")
    assert cells(data) == [
        list(COLUMNS),
        [ROWS[0]["name"], "-5", "-0.25", "true", '{"a":"é","b":[1]}'],
        ["", "", "", "", ""],
        ["", "0", "1e+300", "false", "[]"],
    ]
    assert data.count(b"\r\n") == 4


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "  =cmd|' /C calc'!A0", "＝1", '=HYPERLINK("http://x")'],
)
def test_no_text_is_a_formula(text: str) -> None:
    columns: Columns = {"text": "text", "json": "json", "=name": "text"}
    header, row = cells(written("csv", [{"text": text, "json": text, "=name": "x"}], columns))
    assert header == ["text", "json", "'=name"]
    assert row == [f"'{text}", json.dumps(text, ensure_ascii=False), "x"]


@pytest.mark.parametrize("text", ["a=b", "1 - 2", "me@example.org", "'quoted", "-", " plain", "–dash"])
def test_harmless_texts_stay_as_they_are_unless_they_begin_like_a_formula(text: str) -> None:
    _, row = cells(written("csv", [{"text": text}], {"text": "text"}))
    assert row[0].removeprefix("'" if text == "-" else "") == text


def test_half_a_character_stops_nothing() -> None:
    row = {"text": "half \ud800"}
    assert json.loads(written("jsonl", [row], {"text": "text"})) is not None
    assert cells(written("csv", [row], {"text": "text"}))[1] == ["half \\ud800"]


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
def test_the_same_rows_are_the_same_bytes(format: str) -> None:
    shuffled = [dict(reversed(row.items())) for row in ROWS]
    assert written(format) == written(format, shuffled)
    assert written(format, []) == written(format, [])


def test_a_part_does_not_depend_on_the_order_of_keys() -> None:
    assert encode(ROWS, COLUMNS) == encode([dict(reversed(row.items())) for row in ROWS], COLUMNS)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(InputError, match="'xls' is not known: use jsonl, parquet, csv"):
        written("xls")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_does_not_have_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode([{"more": value}], COLUMNS)
