"""Trials as registers might send them, and what must be true of any records of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import jsonschema

from lapilli.apps.trials.schema import Record, record_schema
from lapilli.apps.trials.trial import Trial


def made(number: int = 0, **rest: Any) -> Trial:
    fields = {
        "public_title": "Lapillin tablets against made-up fever",
        "conditions": "Made-up fever",
        "summary": "Lapillin 5 mg is taken by mouth twice daily for 12 weeks.",
    }
    return Trial(**{"ids": (f"MADE{number:04}",), "register": "made", "fields": fields, "position": number} | rest)


def odd_trials() -> list[Trial]:
    """What registers have sent: nothing at all, lists of nothing, other scripts, marks, what looks like markup."""
    texts = [
        "", ";", "<the guide of diagnosis> &lt;br&gt;", "评价中药治疗新型冠状病毒肺炎的安全性;安慰剂", "a" * 5000,
        "= 1+1 \u0000 \x1b[31m",
        "Drug: X;Procedure: Y", "Group A:routine treatment + Lapillin 5mg bid;Group B:Nil;", "half a pair \ud800 here",
        "e\u0301tude ﬁne ＡＢＣ １２ mg", '{"interventions":[{"name":"quoted"}]}', "</script>", "😀" * 300,
    ]  # fmt: skip
    trials = [made(number, fields={"public_title": text, "interventions": text}) for number, text in enumerate(texts)]
    return [*trials, made(98, ids=()), made(99, ids=("X" * 500, ""), register="R" * 900)]


def require_valid(records: Sequence[Record], trials: Sequence[Trial]) -> None:
    """Every trial has its records in order; each is valid, and each span slices back to its quote."""
    validator = jsonschema.Draft202012Validator(record_schema())
    by_position: dict[int, list[Record]] = {}
    for record in records:
        by_position.setdefault(record.provenance.source_position, []).append(record)
        validator.validate(json.loads(record.to_line()))
        trial = next(trial for trial in trials if trial.position == record.provenance.source_position)
        for one in record.evidence:
            if one.alignment == "none":
                assert one.quote == ""
            else:
                assert trial.fields[one.field][one.start : one.end] == one.quote != ""
    assert list(by_position) == [trial.position for trial in trials]
    for found in by_position.values():
        assert [record.intervention_index for record in found] == list(range(len(found)))
