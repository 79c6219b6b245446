"""Scores: reckoned by hand on small cases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from made_trials import evidence, intervention

from lapilli.apps.trials.labels import Label, Labelled
from lapilli.apps.trials.language import language_of
from lapilli.apps.trials.score import Score, f1, normal, score

FIELDS = {"public_title": "Lapillin 5 mg twice daily against placebo", "summary": "Basaltumab is given as well."}


def trial(*labels: Label, fields: Mapping[str, str] = FIELDS, register: str = "made") -> Labelled:
    return Labelled("X1", register, fields, labels)


def of(labels: list[Label], records: list[dict[str, Any]], **rest: Any) -> Score:
    return score([(trial(*labels, **rest), records)]).all


def test_names_are_right_in_any_spelling_and_by_any_of_their_names() -> None:
    labels = [Label("Lapillin", "Drug", ("LPL-5",)), Label("Basaltumab", "Biological")]
    records = [intervention("lpl 5", "Drug"), intervention("BASALTUMAB", "Drug"), intervention("placebo", "Drug")]
    found = of(labels, records)
    assert (found.names.wanted, found.names.said, found.names.right) == (2, 3, 2)
    assert found.names.micro == pytest.approx(0.8)
    assert found.type_accuracy == 0.5
    assert found.confusion == {("Drug", "Drug"): 1, ("Biological", "Drug"): 1}


def test_a_label_is_found_once_and_a_record_counts_once() -> None:
    labels = [Label("Lapillin"), Label("Lapillin 5 mg")]
    found = of(labels, [intervention("Lapillin 5 mg", "Drug"), intervention("Lapillin", "Drug")])
    assert (found.names.right, found.names_relaxed.right) == (2, 2)
    twice = of(labels[:1], [intervention("Lapillin", "Drug")] * 2)
    assert (twice.names.right, twice.names.said) == (1, 2)


def test_nearly_right_is_counted_apart() -> None:
    found = of([Label("Lapillin 5 mg")], [intervention("Lapillin", "Drug")])
    assert (found.names.right, found.names_relaxed.right) == (0, 1)


def test_spans_are_strict_or_overlap() -> None:
    labels = [Label("Lapillin 5 mg"), Label("Basaltumab"), Label("not in the text")]
    records = [
        intervention("Lapillin", "Drug", evidence=evidence(FIELDS, "Lapillin")),
        intervention("Basaltumab", "Drug", evidence=evidence(FIELDS, "Basaltumab")),
    ]
    found = of(labels, records)
    assert (found.spans.wanted, found.spans.said, found.spans.right) == (2, 2, 1)
    assert found.spans_relaxed.right == 2


def test_micro_and_macro_averages_differ_as_they_should() -> None:
    one = (trial(Label("Lapillin")), [intervention("Lapillin", "Drug")])
    many = (trial(*(Label(f"thing {n}") for n in range(4))), [intervention("other", "Drug")])
    found = score([one, many]).all.names
    assert found.micro == pytest.approx(f1(5, 2, 1))
    assert found.macro == pytest.approx((1 + 0) / 2)


def test_what_is_not_in_the_text_is_a_hallucination() -> None:
    records = [
        intervention("Lapillin", "Drug", dosage={"text": "5 mg"}, administration={"route": "by mouth"}),
        intervention("Granitol", "Drug"),
    ]
    found = of([Label("Lapillin")], records)
    assert found.hallucination == pytest.approx(2 / 4)
    assert found.grounding == 0.5


def test_slots_and_newness_are_scored_where_they_are_labelled() -> None:
    label = Label("Lapillin", "Drug", (), {"dose": "5 mg", "frequency": "twice daily"}, "yes")
    record = intervention("Lapillin", "Drug", dosage={"text": "5mg"}, administration={"frequency": "Twice daily"})
    found = of([label], [record | {"is_new": None}])
    assert (found.slots["dose"].right, found.slots["frequency"].right) == (0, 1)
    assert found.newness == {("yes", "not told"): 1}


def test_what_a_register_states_is_counted_apart() -> None:
    records = [intervention("Lapillin", "Drug", origin="stated"), intervention("Basaltumab", "Drug")]
    found = score([(trial(Label("Lapillin"), Label("Basaltumab")), records)]).all
    assert (found.stated, found.names.said) == (1, 1)


def test_trials_without_record_and_failed_ones_are_counted() -> None:
    found = score([(trial(), []), (trial(), [{"status": "failed", "name": ""}])]).all
    assert (found.trials, found.without_record, found.failed) == (2, 1, 1)


def test_registers_and_languages_are_told_apart() -> None:
    chinese = {"public_title": "评价中药治疗新型冠状病毒肺炎的安全性"}
    scores = score(
        [
            (trial(register="A"), []),
            (trial(Label("中药"), fields=chinese, register="B"), [intervention("中药", "Drug")]),
        ]
    )
    assert set(scores.registers) == {"A", "B"}
    assert scores.registers["B"].names.right == 1
    assert scores.registers["B"].grounding == 1.0
    assert "zh" in scores.languages
    assert scores.told()["all"]["trials"] == 2


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The effect of rest in patients with fever", "en"),
        ("Efectos del reposo en los pacientes con fiebre", "es"),
        ("Die Wirkung von Ruhe bei Patienten mit Fieber und der Schmerz", "de"),
        ("新型コロナウイルス感染症の治療", "ja"),
        ("新型冠状病毒肺炎", "zh"),
        ("ABC-123", "und"),
    ],
)
def test_languages_are_told_by_script_and_small_words(text: str, language: str) -> None:
    assert language_of(text) == language


def test_normal_takes_off_what_does_not_tell_names_apart() -> None:
    assert normal("  HUMIRA® (Adalimumab) ") == normal("humira adalimumab")
