"""The one split of the labelled trials."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lapilli.apps.trials.labels import Label, is_train, read_labelled
from lapilli.errors import InputError

CTGOV = {
    "id": "NCT00000001",
    "src": "made",
    "brief_title": "Tablets for made-up fever",
    "official_title": "",
    "conditions": ["Made-up Fever"],
    "brief_summary": "It helps.",
    "arms": ["Lapillin 5 mg daily", None],
    "interventions": [{"type": "DIETARY_SUPPLEMENT", "name": "Lapillin", "other": ["LPL"]}],
}


def test_labelled_studies_split_by_their_ids_alone_into_200_and_63(shared_data: Path) -> None:
    path = shared_data / "trials" / "ctgov_labelled.jsonl"
    train = [trial.id for trial in read_labelled(path, "train")]
    held = [trial.id for trial in read_labelled(path, "held")]
    assert (len(train), len(held)) == (200, 63)
    assert not set(train) & set(held)
    assert all(map(is_train, train))
    assert not any(map(is_train, held))


def test_whos_texts_never_train(shared_data: Path) -> None:
    path = shared_data / "trials" / "ictrp_ebm_labelled.jsonl"
    assert list(read_labelled(path, "train")) == []
    assert len(list(read_labelled(path, "held"))) == 728


def test_a_study_is_read_without_its_interventions_in_its_text(tmp_path: Path) -> None:
    path = tmp_path / "labelled.jsonl"
    path.write_text(json.dumps(CTGOV) + "\n")
    (trial,) = read_labelled(path, "all")
    assert trial.fields == {
        "public_title": "Tablets for made-up fever",
        "conditions": "Made-up Fever",
        "summary": "It helps.",
        "arms": "Lapillin 5 mg daily",
    }
    assert trial.interventions == (Label("Lapillin", "Dietary Supplement", ("LPL",)),)


def test_a_strange_line_is_refused_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "labelled.jsonl"
    path.write_text(json.dumps(CTGOV) + '\n{"id": 3}\n')
    with pytest.raises(InputError, match="line 2: not a labelled trial"):
        list(read_labelled(path))


def test_our_own_form_has_slots_and_newness(tmp_path: Path) -> None:
    path = tmp_path / "labelled.jsonl"
    named = {"name": "Lapillin", "type": "Drug", "others": ["LPL"], "slots": {"dose": "5 mg"}, "is_new": "yes"}
    row = {"id": "X1", "register": "made", "fields": {"public_title": "Lapillin 5 mg"}, "interventions": [named]}
    path.write_text(json.dumps(row) + "\n")
    (trial,) = read_labelled(path)
    assert trial.interventions == (Label("Lapillin", "Drug", ("LPL",), {"dose": "5 mg"}, "yes"),)
    assert list(read_labelled(path, "train")) == []
