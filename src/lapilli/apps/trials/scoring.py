"""Scores as they are asked for: labelled trials read out with their own interventions hidden, or a job's records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from lapilli.apps.trials.extract import Extractor
from lapilli.apps.trials.labels import Labelled
from lapilli.apps.trials.score import Score, Scores, score
from lapilli.apps.trials.trial import Trial


def score_extractor(
    extractor: Extractor, labelled: Sequence[Labelled], *, progress: Callable[[int], None] = lambda _: None
) -> Scores:
    """The score of an extractor on labelled trials, whose labels it does not see."""

    def pairs() -> Iterator[tuple[Labelled, list[dict[str, Any]]]]:
        read = extractor.each(map(trial_of, labelled))
        for count, (trial, (_, records)) in enumerate(zip(labelled, read, strict=True), 1):
            progress(count)
            yield trial, [record.to_json() for record in records]

    return score(pairs())


def score_records(records: Iterable[Mapping[str, Any]], labelled: Sequence[Labelled]) -> Scores:
    """The score of records (JSON values) that were made of the labelled trials, found by their ids.

    Labelled trials that have none count as trials without a record.
    """
    wanted = {trial.id for trial in labelled}
    found: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        for one in record["trial_ids"]:
            if one in wanted:
                found.setdefault(one, []).append(record)
    return score((trial, found.get(trial.id, [])) for trial in labelled)


def trial_of(labelled: Labelled) -> Trial:
    """A labelled trial as it would be read from a register that states no interventions."""
    return Trial(ids=(labelled.id,), register=labelled.register, fields=dict(labelled.fields))


def table(scores: Scores) -> list[list[str]]:
    """The measures as lines of cells, the first one the heading: all, then each register, then each language."""
    lines = [["", "trials", "names F1", "macro", "relaxed", "types", "span F1", "relaxed", "grounded", "made up"]]
    groups = [("all", scores.all), *sorted(scores.registers.items())]
    if len(scores.languages) > 1:
        groups += sorted(scores.languages.items())
    return [*lines, *([name, *_cells(found)] for name, found in groups)]


def _cells(found: Score) -> list[str]:
    shares = (
        found.names.micro, found.names.macro, found.names_relaxed.micro, found.type_accuracy if found.typed else None,
        found.spans.micro, found.spans_relaxed.micro, found.grounding, found.hallucination,
    )  # fmt: skip
    return [str(found.trials), *("-" if share is None else f"{100 * share:.1f}" for share in shares)]
