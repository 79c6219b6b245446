"""`lapilli trials`: from a register's file to tables, a report and scores."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import jsonschema
import pytest
from made_registers import write_ictrp

from lapilli.faces.cli import main


@pytest.fixture
def job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    write_ictrp(tmp_path / "made.xml", 12)
    assert main(["trials", "extract", str(tmp_path / "made.xml"), "--rules", "--out", str(tmp_path / "job")]) == 0
    assert "12 trials" in capsys.readouterr().out
    return tmp_path / "job"


def test_records_are_exported_and_valid(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trials", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert main(["trials", "export", str(job)]) == 0
    lines = capsys.readouterr().out.splitlines()
    records = [json.loads(line) for line in lines]
    for record in records:
        jsonschema.Draft202012Validator(schema).validate(record)
    assert len({record["primary_trial_id"] for record in records}) == 12
    assert {"Lapillin 5 mg", "Placebo", "Pumice brace", "Rest"} <= {record["name"] for record in records}


def test_a_table_goes_to_a_file(job: Path, tmp_path: Path) -> None:
    assert main(["trials", "export", str(job), "--format", "csv", "--to", str(tmp_path / "out.csv")]) == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_bytes().decode("utf-8-sig"), newline="")))
    assert rows[0]["primary_trial_id"] == "MADE00000000"
    assert main(["trials", "export", str(job), "--profile", "article", "--to", str(tmp_path / "out.jsonl")]) == 0
    first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert list(first) == ["name", "type", "is_new_drug", "conditions", "dosage_administration"]


def test_a_report_is_written(job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trials", "report", str(job)]) == 0
    page = (tmp_path / "job.html").read_text(encoding="utf-8")
    assert "MADE00000011" in page
    assert f"{tmp_path / 'job.html'}: 12 trials" in capsys.readouterr().out


def test_scores_are_told_for_each_register(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled = tmp_path / "labelled.jsonl"
    rows = [
        {
            "id": f"X{number}",
            "register": register,
            "fields": {"public_title": "Lapillin in the treatment of the fever of the old"},
            "interventions": [{"name": "Lapillin", "type": "Drug"}],
        }
        for number, register in enumerate(["A", "B", "B"])
    ]
    labelled.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["trials", "score", str(labelled), "--rules", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["all"]["trials"] == 3
    assert told["all"]["without_record"] == 0
    assert told["registers"]["B"]["trials"] == 2
    assert main(["trials", "score", str(labelled), "--rules"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split()[0] == "trials"


def test_a_jobs_records_are_scored_by_their_ids(job: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    row = {"id": "MADE00000000", "register": "A", "fields": {}, "interventions": [{"name": "Placebo"}]}
    (tmp_path / "labelled.jsonl").write_text(json.dumps(row) + "\n")
    assert main(["trials", "score", str(tmp_path / "labelled.jsonl"), "--job", str(job), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["all"]
    assert (told["trials"], told["without_record"], told["stated_apart"]) == (1, 0, 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["extract", "nowhere.xml", "--rules", "--out", "job"], "nowhere.xml"),
        (["export", "nowhere"], "nowhere"),
        (["export", "job", "--format", "xls"], "jsonl, parquet, csv"),
        (["score", "labelled.jsonl", "--rules", "--no-rules"], "--no-rules"),
        (["score", "labelled.jsonl", "--share", "some"], "held, train or all"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trials", *arguments]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
