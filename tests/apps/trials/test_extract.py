"""Records out of trials: one at least for each, always valid, each span where it says, whoever answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from odd_trials import made, odd_trials, require_valid
from parrot_backend import ParrotBackend

from lapilli.apps.backend.call import Call
from lapilli.apps.trials.extract import Extractor, Options
from lapilli.apps.trials.schema import Record
from lapilli.apps.trials.trial import Stated, Trial
from lapilli.errors import LapilliError, PromptError

SAYING = json.dumps(
    {
        "interventions": [
            {"name": "Lapillin", "type": "Drug", "role": "experimental", "dose": "5 mg", "route": "by mouth"},
            {"name": "Granitol", "type": "Drug", "role": "placebo"},
        ]
    }
)


def extracted(answer: Any, trials: list[Trial], **options: Any) -> list[Record]:
    parrot = ParrotBackend(answer if callable(answer) else lambda _: answer)
    return list(Extractor(parrot, Options(**options)).records(trials))


def test_what_the_model_says_is_tied_to_the_text() -> None:
    records = extracted(SAYING, [made()], rules=False)
    assert [record.name for record in records] == ["Lapillin"]
    (record,) = records
    assert (record.type, record.role, record.is_new, record.origin) == ("Drug", "experimental", True, "model")
    assert record.dosage is not None
    assert record.dosage.text == "5 mg"
    quotes = {one.value: (one.field, one.quote) for one in record.evidence}
    assert quotes["name"] == ("public_title", "Lapillin")
    assert quotes["dosage"] == ("summary", "5 mg")
    assert record.confidence == pytest.approx(0.905, abs=1e-3)
    assert record.provenance.model == "parrot"
    require_valid(records, [made()])


def test_what_a_register_states_is_kept_and_the_model_adds_what_is_missing() -> None:
    trial = made(stated=(Stated("Lapillin", "Biological"), Stated("Placebo", "Other")))
    records = extracted(SAYING, [trial])
    assert [(record.name, record.type, record.origin) for record in records] == [
        ("Lapillin", "Biological", "stated"),
        ("Placebo", "Other", "stated"),
    ]
    assert records[0].dosage is not None
    require_valid(records, [trial])


def test_only_what_is_missing_is_asked_where_that_is_wished() -> None:
    parrot = ParrotBackend(lambda _: SAYING)
    trials = [made(0, stated=(Stated("Lapillin", "Drug"),)), made(1)]
    records = list(Extractor(parrot, Options(ask="missing")).records(trials))
    assert parrot.count_of_calls == 1
    require_valid(records, trials)


def test_a_model_that_is_not_sure_is_not_heard() -> None:
    unsure = ParrotBackend(lambda _: SAYING, chance=-0.7)
    (record,) = Extractor(unsure, Options(rules=False)).records([made()])
    assert record.status == "none"
    assert len(list(Extractor(unsure, Options(rules=False, least=0.4)).records([made()]))) == 1
    trial = made(stated=(Stated("Lapillin", "Drug"),))
    (record,) = Extractor(unsure).records([trial])
    assert (record.name, record.confidence) == ("Lapillin", 1.0)
    assert not any(one.value == "route" and one.quote == "by mouth" for one in record.evidence)


@pytest.mark.parametrize(("chance", "kind"), [(-0.1, "Biological"), (-0.01, "Device")])
def test_a_name_tells_its_type_where_the_model_is_not_quite_sure(chance: float, kind: str) -> None:
    said = json.dumps({"interventions": [{"name": "basaltumab", "type": "Device", "role": "experimental"}]})
    trial = made(fields={"public_title": "A study of basaltumab"})
    parrot = ParrotBackend(lambda _: said, chance=chance)
    (record,) = Extractor(parrot, Options(rules=False)).records([trial])
    assert record.type == kind


def test_hidden_interventions_are_seen_by_nobody() -> None:
    fields = {"public_title": "A trial", "interventions": "Drug: Lapillin"}
    trial = made(fields=fields, stated=(Stated("Lapillin", "Drug"),))
    parrot = ParrotBackend(lambda _: SAYING)
    (record,) = Extractor(parrot, Options(hide=True)).records([trial])
    assert record.status == "none"
    assert "Lapillin" not in parrot.calls[0].messages[-1].text


@pytest.mark.parametrize(
    "words",
    [
        "Polly wants a cracker", "", "{", "[[[[", "null", "\ud83d", '{"interventions":[{"name":"\\ud800"}]}',
        SAYING[:-20],
        json.dumps({"interventions": [{"name": "x" * 10_000}] * 50}),
        json.dumps({"interventions": [{"name": "Lapillin", "type": "Poison", "role": "boss", "dose": "y" * 399}]}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("rules", [True, False])
def test_every_trial_has_valid_records_whatever_the_model_says(words: str, rules: bool) -> None:
    trials = odd_trials()
    require_valid(extracted(words, trials, rules=rules), trials)


def test_by_rules_alone_every_trial_has_valid_records() -> None:
    trials = odd_trials()
    require_valid(list(Extractor(None).records(trials)), trials)


def test_a_trial_that_fails_has_a_record_that_says_why_and_ends_no_other() -> None:
    def answer(call: Call) -> str:
        if "number 1" in call.messages[-1].text:
            raise PromptError("the prompt has 900 tokens, at most 400 fit")
        return SAYING

    trials = [made(number, fields={"public_title": f"Lapillin, number {number}"}) for number in range(3)]
    records = extracted(answer, trials, rules=False)
    require_valid(records, trials)
    assert [record.status for record in records] == ["ok", "failed", "ok"]
    assert records[1].error is not None
    assert (records[1].error.code, records[1].name) == ("too_long", None)
    assert "900 tokens" in records[1].error.message


def test_what_is_known_is_kept_where_the_model_fails() -> None:
    def answer(_: Call) -> str:
        raise LapilliError("gone")

    trial = made(stated=(Stated("Lapillin", "Drug"),))
    (record,) = extracted(answer, [trial])
    assert (record.status, record.name) == ("partial", "Lapillin")
    assert record.error is not None


def test_the_same_trials_have_the_same_bytes_whatever_the_window() -> None:
    trials = [made(number, fields={"public_title": f"Lapillin, number {number}"}) for number in range(20)]

    def lines(window: int) -> list[str]:
        extractor = Extractor(ParrotBackend(lambda _: SAYING), window=window)
        return [record.to_line() for record in extractor.records(trials)]

    assert lines(1) == lines(7) == lines(64)


def test_trials_are_taken_as_they_are_needed() -> None:
    taken = 0

    def source() -> Iterator[Trial]:
        nonlocal taken
        for taken in range(1, 10_001):
            yield made(taken)

    records = Extractor(ParrotBackend(lambda _: SAYING), Options(rules=False)).records(source())
    next(records)
    assert taken < 100


def test_rules_that_trip_over_a_text_cost_that_trial_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from lapilli.apps.trials import extract

    def trip(trial: Trial, **rest: bool) -> list[Any]:
        if trial.position == 1:
            raise ZeroDivisionError("of no use")
        return []

    monkeypatch.setattr(extract, "rule_based", trip)
    records = list(Extractor(None).records([made(0), made(1), made(2)]))
    assert [record.status for record in records] == ["none", "failed", "none"]
    assert records[1].error is not None
    assert "ZeroDivisionError" in records[1].error.message


def test_all_real_records_are_valid_by_rules(shared_data: Path) -> None:
    from lapilli.apps.trials.readers import read_trials

    trials = list(
        read_trials([shared_data / "trials" / "ctgov_xml", shared_data / "trials" / "ctgov_json"], problems=print)
    )
    trials = [Trial(**{**vars(trial), "position": place}) for place, trial in enumerate(trials)]
    require_valid(list(Extractor(None).records(trials)), trials)
