"""What registers state is read exactly; what rules find stands in the text; the hidden field is not looked at."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_register import ictrp_xml, made_record, study_value

from lapilli.apps.trials.hints import type_hint
from lapilli.apps.trials.readers import read_trials
from lapilli.apps.trials.rules import rule_based, stated_interventions
from lapilli.apps.trials.schema import Intervention
from lapilli.apps.trials.slots import find_slots, read_dosage
from lapilli.apps.trials.stated import groups, product_blocks, typed_interventions
from lapilli.apps.trials.trial import Arm, Trial


def trial(fields: dict[str, str], register: str = "made") -> Trial:
    return Trial(("X1",), register, fields)


def grounded(found: list[Intervention], fields: dict[str, str]) -> None:
    for one in found:
        for each in one.evidence:
            assert each.alignment == "none" or fields[each.field][each.start : each.end] == each.quote


def test_typed_interventions_are_read_exactly() -> None:
    found = typed_interventions(
        "Drug: Lapillin, 400mg; tid;Biological: Basaltumab ;Dietary Supplement: Vitamin Q: large"
    )
    assert [(one.type, one.name) for one in found] == [
        ("Drug", "Lapillin, 400mg; tid"), ("Biological", "Basaltumab"), ("Dietary Supplement", "Vitamin Q: large"),
    ]  # fmt: skip
    assert typed_interventions("Lapillin; Drug: other") == ()
    assert typed_interventions("Drugs: all of them") == ()


def test_products_of_the_eu_are_read_exactly() -> None:
    text = """Trade Name: Lapil 5 mg
Pharmaceutical Form: Tablet
INN or Proposed INN: LAPILLIN
Route of administration: Oral use
Concentration unit: mg milligram(s)
Concentration number: 5-
Trade Name: Stone
Product Name: Stone mix
INN or Proposed INN: BASALTIN
INN or Proposed INN: PUMICIN
Trade Name: Alone
Pharmaceutical Form:"""
    found = product_blocks(text)
    assert [one.name for one in found] == ["LAPILLIN", "Stone mix", "Alone"]
    assert found[0].other_names == ("Lapil 5 mg",)
    assert found[0].description == "Pharmaceutical form: Tablet; Route: Oral use; Concentration: 5 mg"
    assert found[1].other_names == ("Stone", "BASALTIN", "PUMICIN")


def test_groups_are_read_as_their_register_writes_them() -> None:
    assert groups("Test group：Lapillin；Control group:none;", "ChiCTR") == (
        Arm("Test group", "", "Lapillin"), Arm("Control group", "", "none"),
    )  # fmt: skip
    assert groups("Patients get: Lapillin", "ISRCTN") == ()
    found = groups("Intervention 1: Test group: Lapillin. Twice. Intervention 2: Control: rest.", "IRCT")
    assert [(arm.label, arm.description) for arm in found] == [("Test group", "Lapillin. Twice."), ("Control", "rest.")]


def test_stated_interventions_of_made_registers(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(b"".join(ictrp_xml(map(made_record, range(4)))))
    ctgov, chictr, euctr, none = (stated_interventions(each) for each in read_trials([path], problems=pytest.fail))
    assert [(one.name, one.type, one.role, one.origin) for one in ctgov] == [
        ("Lapillin 1 mg", "Drug", None, "stated"),
        ("Basaltumab", "Biological", None, "stated"),
        ("Placebo", "Drug", "placebo", "stated"),
    ]
    assert ctgov[0].dosage is not None
    assert (ctgov[0].dosage.value, ctgov[0].dosage.unit) == (1, "mg")
    assert [(one.name, one.role, one.origin) for one in chictr] == [
        ("Lapillin tablets", "experimental", "rules"), ("placebo", "placebo", "rules"),
    ]  # fmt: skip
    assert chictr[0].administration is not None
    assert chictr[0].administration.frequency == "twice daily"
    assert chictr[1].administration is None  # another group's
    assert [(one.name, one.synonyms) for one in euctr] == [("LAPILLIN", ("Lapil",))]
    assert none == []


def test_roles_and_newness_come_from_the_groups(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(study_value()))
    (read,) = read_trials([path], problems=pytest.fail)
    first, second = stated_interventions(read)
    assert (first.role, first.is_new, first.is_new_basis) == ("experimental", True, "experimental_arm")
    assert (second.role, second.is_new, second.is_new_basis) == ("placebo", False, "comparator_or_background")
    assert first.administration is not None
    assert (first.administration.route, first.administration.frequency) == ("by mouth", "twice daily")
    assert first.confidence == 1.0
    grounded([first, second], dict(read.fields))


@pytest.mark.parametrize(
    ("title", "names"),
    [
        ("Safety of Basaltumab in Adults With Ash Cough", {"Basaltumab"}),
        ("Metformin Versus Placebo for Made-up Fever", {"Metformin", "Placebo"}),
        ("LPL-555 and rosuvastatin in healthy volunteers", {"LPL-555", "rosuvastatin"}),
        ("Effect of Mindfulness Training on Ash Cough", {"Mindfulness Training"}),
        ("Prevalence of ash cough in two villages", set()),
        ("Treatment and Management Statement of the Department", set()),
    ],
)
def test_rules_find_names_in_titles(title: str, names: set[str]) -> None:
    fields = {"public_title": title}
    found = rule_based(trial(fields), hide_interventions=True)
    assert {one.name for one in found} == names
    assert all(one.origin == "rules" and one.confidence is None for one in found)
    grounded(found, fields)


def test_hidden_interventions_are_not_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(study_value()))
    (read,) = read_trials([path], problems=pytest.fail)
    without = {name: text for name, text in read.fields.items() if not name.startswith("intervention")}
    bare = Trial(read.ids, read.register, without)
    assert rule_based(read, hide_interventions=True) == rule_based(bare)
    assert [one.origin for one in rule_based(read)] == ["stated", "stated"]


def test_slots() -> None:
    text = "Lapillin 1,000-1,500 mg/kg p.o. tid for up to 12 weeks, then 0.02% cream 4 times a day"
    found = [(slot.name, slot.text) for slot in find_slots(text)]
    assert found == [
        ("dosage", "1,000-1,500 mg/kg"), ("dosage", "0.02%"), ("route", "p.o."), ("form", "cream"),
        ("frequency", "tid"), ("frequency", "4 times a day"), ("duration", "12 weeks"),
    ]  # fmt: skip
    assert all(text[slot.start : slot.end] == slot.text for slot in find_slots(text))
    dosage = read_dosage("1,000-1,500 mg/kg")
    assert (dosage.value, dosage.value_max, dosage.unit, dosage.per) == (1000, 1500, "mg", "kg")
    assert read_dosage("2 x 10^6 cells/kg").value == 2_000_000
    assert read_dosage("a little").value is None
    assert not list(find_slots("patients of 18-75 years, COVID-19, phase 2"))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Basaltumab", "Biological"), ("rosuvastatin", "Drug"), ("COVID-19 vaccine", "Biological"),
        ("Brachytherapy", "Radiation"), ("Vitamin D", "Dietary Supplement"), ("Coronary stent", "Device"),
        ("Knee surgery", "Procedure"), ("Cognitive training", "Behavioral"), ("PCR test", "Diagnostic Test"),
        ("Standard of care", "Other"), ("Ash", None),
    ],
)  # fmt: skip
def test_types_of_names(name: str, kind: str | None) -> None:
    assert type_hint(name) == kind


@given(st.text("Drug:;Bio logical\nTrade Name5 mg/x10^²³①,.-twice for weeks中文：；", max_size=200))
@settings(max_examples=200, deadline=None)
def test_no_text_breaks_the_rules(text: str) -> None:
    fields = {"public_title": text, "arms": text, "interventions": text}
    stated = typed_interventions(text) or product_blocks(text)
    read = Trial(("X1",), "ChiCTR", fields, stated, groups(text, "ChiCTR"))
    grounded(stated_interventions(read), fields)
    grounded(rule_based(read, hide_interventions=True), fields)


LETTERS = "ab 1.,;:()-/mg%xX"


@pytest.mark.parametrize(
    "text",
    [
        "1" * 20_000, "1," * 10_000, "1 to " * 5000, "effect of " * 3000, "a" * 20_000, "receiving " * 3000,
        "Drug: " * 4000, "Trade Name: " * 2000, "Group:x;" * 3000, "every " * 5000, "for 1 " * 5000, "A-1" * 8000,
        "".join(random.Random(7).choices(LETTERS, k=20_000)),
    ],
    ids=lambda text: text[:10],
)  # fmt: skip
def test_rules_take_time_in_proportion(text: str) -> None:
    fields = dict.fromkeys(("public_title", "scientific_title", "arms", "summary", "interventions"), text)
    stated = typed_interventions(text) or product_blocks(text)
    read = Trial(("X1",), "ChiCTR", fields, stated, groups(text, "ChiCTR"))
    before = time.process_time()
    stated_interventions(read)
    rule_based(read, hide_interventions=True)
    assert time.process_time() - before < 10  # what goes wrong here takes minutes
