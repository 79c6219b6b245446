"""Registers' files: every form gives the same trials, nothing is lost, what is damaged is kept and said."""

from __future__ import annotations

import csv
import html
import json
import re
import time
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_register import (
    TRAPS,
    ictrp_csv,
    ictrp_xml,
    made_record,
    page_of,
    study_value,
    study_xml,
)

from lapilli.apps.trials.readers import count_trials, read_trials
from lapilli.apps.trials.readers.clean import clean
from lapilli.apps.trials.trial import Stated, Trial
from lapilli.errors import InputError


def put(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def read(path: Path) -> tuple[list[Trial], list[str]]:
    told: list[str] = []
    return list(read_trials([path], problems=told.append)), told


def sound(path: Path) -> list[Trial]:
    trials, told = read(path)
    assert told == []
    assert all(trial.complete for trial in trials)
    return trials


def test_the_traps_of_real_exports(tmp_path: Path) -> None:
    (trial,) = sound(put(tmp_path / "a.xml", b"".join(ictrp_xml([TRAPS]))))
    assert trial.ids == (
        "ChiCTR2099000001", "EUCTR2099-000001-25-FR", "2099-000001-25", "U1111-1234-5678", "NCT09900001",
    )  # fmt: skip
    assert trial.register == "ChiCTR"
    fields = trial.fields
    assert fields["public_title"] == "Lapillin for ash cough"
    assert fields["scientific_title"] == "Hydroxy-lapillin in <the guide of diagnosis>\nand a < b or c > d"
    assert fields["inclusion_criteria"] == "1. Age <= 65 and BP<140;\n2. 肺炎患者；体温＞38"
    assert fields["primary_sponsor"] == "Vulcan House of Health"
    assert (fields["date_registration"], fields["date_enrolment"]) == ("2020-02-17", "2026-08-15")
    assert (fields["date_export"], fields["date_refreshed"]) == ("2020-03-04", "2020-02-17")
    assert fields["unheard_of"] == "kept under its own name"
    assert not {"primary_outcome", "age_min", "contact_email"} & fields.keys()
    assert [(arm.label, arm.description) for arm in trial.arms] == [
        ("Experimental group", "Lapillin 5 mg, p.o. tid. for 14 days"),
        ("Control group", "none"),
    ]


@pytest.mark.parametrize("root", ["Trials_downloaded_from_ICTRP", "Trials_central"])
def test_both_roots_and_the_csv_give_the_same_trials(tmp_path: Path, root: str) -> None:
    records = [TRAPS, *map(made_record, range(9))]
    from_xml = sound(put(tmp_path / "a.xml", b"".join(ictrp_xml(records, root=root))))
    from_csv = sound(put(tmp_path / "a.csv", "\ufeff" + ictrp_csv(records)))
    assert len(from_xml) == 10
    assert [trial.digest for trial in from_xml] == [trial.digest for trial in from_csv]
    assert [trial.position for trial in from_csv] == list(range(10))


def test_what_registers_state(tmp_path: Path) -> None:
    trials = sound(put(tmp_path / "a.xml", b"".join(ictrp_xml(map(made_record, range(4))))))
    assert trials[0].stated == (
        Stated("Lapillin 1 mg", "Drug"), Stated("Basaltumab", "Biological"), Stated("Placebo", "Drug"),
    )  # fmt: skip
    assert [(one.name, one.other_names) for one in trials[2].stated] == [("LAPILLIN", ("Lapil",))]
    assert trials[2].ids == ("EUCTR2099-000002-10-DE", "2099-000002-10")
    assert "interventions" not in trials[3].fields
    assert trials[3].stated == ()


def test_clinicaltrials_gov_in_both_forms(tmp_path: Path) -> None:
    (old,) = sound(put(tmp_path / "a.xml", study_xml()))
    (new,) = sound(put(tmp_path / "a.json", json.dumps(study_value())))
    assert old.ids == new.ids == ("NCT00000001", "2099-000001-25")
    assert old.stated == new.stated
    assert [(one.name, one.type, one.other_names, one.arms) for one in new.stated] == [
        ("Lapillin", "Drug", ("LPL-555", "Lapil"), ("Lapillin",)),
        ("Placebo", "Dietary Supplement", (), ("Placebo",)),
    ]
    assert old.arms == new.arms
    for name in (
        "public_title",
        "conditions",
        "interventions",
        "arms",
        "summary",
        "date_enrolment",
        "exclusion_criteria",
    ):
        assert old.fields[name].replace("- ", "* ") == new.fields[name], name
    assert new.fields["interventions"].splitlines()[0] == (
        "Drug: Lapillin (LPL-555; Lapil): 5 mg tablets by mouth, twice daily"
    )
    assert new.fields["summary"] == "Whether lapillin helps.\nIt may."
    assert old.fields["inclusion_criteria"] == "Inclusion Criteria:\n- Age < 65"


@pytest.mark.parametrize(
    "text",
    [
        page_of(1, 2, 3),
        json.dumps([study_value(number) for number in (1, 2, 3)]),
        "\n".join(json.dumps(study_value(number)) for number in (1, 2, 3)),
        page_of(1, 2) + "\n" + page_of(3, token=""),
        json.dumps({"studies": [study_value(number) for number in (1, 2, 3)]}),
    ],
    ids=["page", "array", "lines", "pages in a row", "no count"],
)
def test_json_alone_in_lists_in_pages_and_in_lines(tmp_path: Path, text: str) -> None:
    assert [trial.id for trial in sound(put(tmp_path / "a.json", text))] == [f"NCT0000000{n}" for n in (1, 2, 3)]


def test_folders_and_zips_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    put(folder / "b.xml", study_xml(2))
    put(folder / "inner" / "a.json", page_of(3, 4))
    put(folder / "notes.txt", "none of it")
    with zipfile.ZipFile(folder / "c.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("z.json", page_of(6))
        archive.writestr("a.xml", study_xml(5))
        archive.writestr("readme.txt", "passed over")
    trials, told = read(folder)
    assert [int(trial.id[3:]) for trial in trials] == [2, 5, 6, 3, 4]
    assert trials[1].file.endswith("c.zip!a.xml")
    assert len(told) == 1
    assert "readme.txt" in told[0]
    assert count_trials(folder) == 5


def test_a_damaged_end_is_kept_and_said(tmp_path: Path) -> None:
    whole = b"".join(ictrp_xml(map(made_record, range(6))))
    cut = whole.rindex(b"<Condition>") + 14
    trials, told = read(put(tmp_path / "a.xml", whole[:cut]))
    assert [trial.complete for trial in trials] == [True] * 5 + [False]
    assert trials[5].id == made_record(5)["TrialID"]
    assert len(told) == 1
    assert "record 6: the file ends in the middle of it" in told[0]
    trials, told = read(put(tmp_path / "b.xml", whole[: whole.rindex(b"</Trials")]))
    assert all(trial.complete for trial in trials)
    assert "ends before its root does" in told[0]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_file_cut_anywhere_loses_no_record_that_had_begun(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = b"".join(ictrp_xml([TRAPS, *map(made_record, range(3))]))
    cut = data.draw(st.integers(whole.index(b"<Trial>"), len(whole)))
    trials, told = read(put(tmp_path_factory.mktemp("cut") / "a.xml", whole[:cut]))
    ends = whole[:cut].count(b"</Trial>")
    assert sum(trial.complete for trial in trials) == ends
    # A record counts as begun once its id is there.
    begun = whole[:cut].count(b"</TrialID>")
    assert len(trials) >= begun
    assert bool(told) == (cut < len(whole) - 1)


@pytest.mark.parametrize(
    "broken",
    [
        "<Trial><TrialID>X2</TrialID><Condition>a</Trial>",
        "<Trial><TrialID>X2</TrialID><Condition>no end",
        "<Trial><TrialID>X2</TrialID><Condition>\x01 &nosuch </Trial>",
    ],
)
def test_a_damaged_record_costs_itself_alone(tmp_path: Path, broken: str) -> None:
    one, three = (f"<Trial><TrialID>X{number}</TrialID><Condition>c</Condition></Trial>" for number in (1, 3))
    trials, told = read(put(tmp_path / "a.xml", f"<Trials_central>{one}{broken}{three}</Trials_central>"))
    assert [(trial.id, trial.complete) for trial in trials] == [("X1", True), ("X2", False), ("X3", True)]
    assert len(told) == 1
    assert "record 2" in told[0]


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("a &nbsp;b &eacute; &amp; c & d", "a b é & c & d"),
        ("x &#0; &#x1F; y \x0b", "x y"),
        ("age < 5 and > 3", "age < 5 and > 3"),
        ("<![CDATA[a <b> </Trial> c]]>", "a <b> </Trial> c"),
        ("a<!-- </Trial> <Trial> -->b", "ab"),
        ("caf\udce9", "caf\ufffd"),
    ],
)
def test_careless_xml_is_read_as_it_is_meant(tmp_path: Path, written: str, text: str) -> None:
    body = f"<Trials_central><Trial><TrialID>X1</TrialID><Condition>{written}</Condition></Trial></Trials_central>"
    (trial,) = sound(put(tmp_path / "a.xml", body.encode("utf-8", "surrogateescape")))
    assert trial.fields["conditions"] == text


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-8-sig", "windows-1252", "iso-8859-1"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    named = encoding.removesuffix("-sig").removesuffix("-le")
    text = (
        f'<?xml version="1.0" encoding="{named}"?><Trials_central><Trial><TrialID>X1</TrialID>'
        "<Condition>Maladie de Ménière</Condition></Trial></Trials_central>"
    )
    assert sound(put(tmp_path / "a.xml", text.encode(encoding)))[0].fields["conditions"] == "Maladie de Ménière"


def test_a_csv_that_ends_in_a_row(tmp_path: Path) -> None:
    text = ictrp_csv(map(made_record, range(5)))
    trials, told = read(put(tmp_path / "a.csv", text[: text.rindex("Interventional") + 5]))
    assert [trial.complete for trial in trials] == [True] * 4 + [False]
    assert "record 5: the file ends in the middle of it" in told[0]


def test_a_csv_as_a_spreadsheet_saves_it(tmp_path: Path) -> None:
    text = ictrp_csv([{**TRAPS, "Inclusion_Criteria": "", "Primary_sponsor": "Hôpital", "Intervention": ""}])
    lines = text.replace("\u3000", " ").encode("cp1252")
    assert sound(put(tmp_path / "a.csv", lines))[0].fields["primary_sponsor"] == "Hôpital"


def test_damaged_json_keeps_what_stands_before_the_damage(tmp_path: Path) -> None:
    text = page_of(1, 2, 3)
    trials, told = read(put(tmp_path / "a.json", text[: text.rindex("eligibilityModule")]))
    assert [trial.id for trial in trials] == ["NCT00000001", "NCT00000002", "NCT00000003"]
    assert [trial.complete for trial in trials] == [True, True, False]
    assert len(told) == 1
    lines = [json.dumps(study_value(number)) for number in (1, 2, 3)]
    lines[1] = lines[1][:400]
    trials, told = read(put(tmp_path / "a.jsonl", "\n".join(lines)))
    assert [(trial.id, trial.complete) for trial in trials] == [
        ("NCT00000001", True), ("NCT00000002", False), ("NCT00000003", True),
    ]  # fmt: skip
    assert len(told) == 1


def test_what_is_no_file_of_a_register_is_refused(tmp_path: Path) -> None:
    for name, data in {"a.txt": "hello", "b.csv": "x,y\n1,2\n", "c.xml": ""}.items():
        with pytest.raises(InputError, match=r"no register's file that is known"):
            read(put(tmp_path / name, data))
    with pytest.raises(InputError, match="is not there"):
        read(tmp_path / "nothing.xml")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has no file of a register"):
        read(tmp_path / "empty")
    trials, told = read(put(tmp_path / "d.xml", "<html><p>not found</p></html>"))
    assert trials == []
    assert "it has no record" in told[0]


def test_a_zip_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lapilli.apps.trials.readers.files.MAX_UNPACKED", 1 << 20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.xml", b" " * (8 << 20))
    with pytest.raises(InputError, match="unpack it first"):
        read(tmp_path / "a.zip")


def test_a_trial_goes_through_json_unchanged(tmp_path: Path) -> None:
    (trial,) = sound(put(tmp_path / "a.json", json.dumps(study_value())))
    assert Trial.from_json(json.loads(json.dumps(trial.to_json()))) == trial


@given(st.text(max_size=300) | st.text("ab <>/&;brpnI=\"'\r\n\t\xa0lt;gt#x0D", max_size=80))
def test_cleaning_keeps_every_word(text: str) -> None:
    cleaned = clean(text)
    assert cleaned == cleaned.strip()
    assert "\r" not in cleaned
    assert "  " not in cleaned
    cleaned.encode()  # there is nothing in it that cannot be written
    if not set(text) & set("<&;-."):
        kept = "".join(each for each in text if each.isalnum())
        assert "".join(each for each in cleaned if each.isalnum()) in (kept, "" if kept.lower() == "null" else kept)


@pytest.mark.parametrize(
    "text",
    ["<" * 50_000, "&" * 50_000, "<a " * 20_000, "<p x=" * 10_000, "&amp;" * 20_000, "\n " * 50_000, "<b>" * 20_000],
)
def test_cleaning_takes_time_in_proportion(text: str) -> None:
    before = time.process_time()
    clean(text)
    assert time.process_time() - before < 5  # what goes wrong here takes minutes


def test_real_files_are_read_whole(shared_data: Path) -> None:
    """Counts are those of other ways to count: tags by their bytes, rows by Python's csv, files by their names."""
    folder = shared_data / "trials"
    export = folder / "ictrp_2020-03-18.xml"
    assert len(sound(export)) == export.read_bytes().count(b"<Trial>") == 578
    table = folder / "ictrp_covid19_1135.csv"
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    trials = sound(table)
    assert len(trials) == len(rows) == 1135
    assert [trial.id for trial in trials] == [row["TrialID"].strip() for row in rows]
    for name in ("ctgov_xml", "ctgov_json"):
        files = sorted((folder / name).iterdir())
        trials = sound(folder / name)
        assert len(trials) == len(files)
        assert all(trial.id.startswith("NCT") for trial in trials)
    for element, trial in zip(ElementTree.parse(export).getroot(), sound(export), strict=True):
        fields = {
            "Condition": "conditions",
            "Intervention": "interventions",
            "Inclusion_Criteria": "inclusion_criteria",
        }
        for tag, field in fields.items():
            written = html.unescape(element.findtext(tag) or "").replace("<br>", "")
            assert letters(trial.fields.get(field, "")) == letters(written), (trial.id, field)


def letters(text: str) -> str:
    return re.sub(r"[\W_]", "", text)
