"""Records on their way out: whole as JSON lines, flat as tables, few keys as the article's."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

import pytest

from lapilli.apps.trials.export import ARTICLE, FLAT, export, flat
from lapilli.apps.trials.schema import Administration, Dosage, Intervention, Record, failure, nothing, record_of
from lapilli.apps.trials.trial import Trial
from lapilli.errors import InputError

TRIAL = Trial(ids=("X1", "X2"), register="made", fields={"conditions": "Ash cough; Fever"}, file="made.xml", position=3)


def records() -> list[Record]:
    found = Intervention(
        name='=Lapillin, "5 mg"',
        type="Drug",
        is_new=True,
        dosage=Dosage(text="5 mg", value=5, unit="mg"),
        administration=Administration(text="by mouth, daily", route="by mouth", frequency="daily"),
        confidence=0.75,
    )
    return [record_of(TRIAL, found), nothing(TRIAL), failure(TRIAL, "too_long", "9 tokens; 8 are the most")]


def written(format: str, made: Sequence[Record] | None = None, **rest: str) -> bytes:
    out = io.BytesIO()
    export((record.to_json() for record in (records() if made is None else made)), format, out, **rest)
    return out.getvalue()


def test_lines_are_the_records_themselves() -> None:
    assert written("jsonl").decode().splitlines() == [record.to_line() for record in records()]


def test_flat_has_every_value_of_a_record_under_a_column() -> None:
    for record in records():
        assert flat(record.to_json()).keys() <= FLAT.keys()
    value = flat(records()[0].to_json())
    assert (value["dosage_value"], value["administration_route"], value["source_position"]) == (5, "by mouth", 3)
    assert flat(records()[2].to_json())["error_code"] == "too_long"


def test_csv_opens_in_a_spreadsheet_without_running_anything() -> None:
    data = written("csv")
    assert data.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))
    assert list(rows[0]) == list(FLAT)
    assert rows[0]["name"] == '\'=Lapillin, "5 mg"'
    assert json.loads(rows[0]["conditions"]) == ["Ash cough", "Fever"]
    assert [row["status"] for row in rows] == ["ok", "none", "failed"]


def test_parquet_has_typed_columns_and_the_same_bytes_each_time() -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    data = written("parquet")
    assert data == written("parquet")
    table = parquet.read_table(io.BytesIO(data))
    assert table.column_names == list(FLAT)
    assert table.column("dosage_value").to_pylist() == [5.0, None, None]
    assert table.column("is_new").to_pylist() == [True, None, None]


def test_the_articles_profile_has_its_keys_and_no_others() -> None:
    (line,) = written("jsonl", profile="article").decode().splitlines()
    value = json.loads(line)
    assert list(value) == list(ARTICLE)
    assert value["is_new_drug"] == "Yes"
    assert value["conditions"] == ["Ash cough", "Fever"]
    assert value["dosage_administration"] == {"dosage": "5 mg", "administration": "by mouth, daily"}


def test_unknown_formats_and_profiles_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="jsonl, parquet, csv"):
        written("xlsx", [])
    with pytest.raises(InputError, match="records, article"):
        written("csv", profile="other")
