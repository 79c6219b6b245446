"""Records out of trials: what a register states is parsed, rules look through the text, a model is asked for the rest.

with open_backend("mini") as backend:
    for record in Extractor(backend).records(read_trials([path])):
        print(record.to_line())

No trial is ever without a record: one in which nothing is named has a record that says so, and so has one that failed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lapilli.apps.backend.call import WINDOW, Backend
from lapilli.apps.jobs.columns import canonical
from lapilli.apps.trials.asking import Asking, Heard, Topic
from lapilli.apps.trials.merging import LEAST, merge, said_interventions
from lapilli.apps.trials.prompt import BODY, HEAD, prompt_hash
from lapilli.apps.trials.rules import rule_based, stated_interventions
from lapilli.apps.trials.schema import (
    SCHEMA_VERSION,
    Failure,
    Intervention,
    Provenance,
    Record,
    failure,
    model_schema,
    nothing,
    record_of,
)
from lapilli.apps.trials.trial import Trial
from lapilli.errors import InputError

Ask = Literal["rest", "missing"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How records are made.

    `ask` "rest" asks the model about every trial, "missing" only where the register states no intervention. `rules`
    says whether rules look through the text; without a backend they are all there is. `hide` puts the register's own
    interventions aside, for scoring. `least` is the confidence below which a model's find does not count.
    """

    ask: Ask = "rest"
    rules: bool = True
    hide: bool = False
    least: float = LEAST
    max_tokens: int | None = None
    run_id: str = ""
    extracted_at: str = ""

    def fingerprint(self) -> dict[str, Any]:
        """All that decides what records are, besides the model and the trials."""
        asked = hashlib.sha256(canonical(model_schema()).encode()).hexdigest()
        return {**asdict(self), "prompt": prompt_hash(), "asked": asked, "schema": SCHEMA_VERSION}


@dataclass(frozen=True)
class _Work:
    """A trial on its way: what is known of it without a model."""

    trial: Trial
    fields: Mapping[str, str]
    known: tuple[Intervention, ...]
    failed: Record | None = None


class Extractor:
    """Makes records; without a backend by rules alone."""

    def __init__(self, backend: Backend | None, options: Options | None = None, *, window: int = WINDOW) -> None:
        self.options = options or Options()
        if backend is None and not self.options.rules:
            raise InputError("neither a model nor rules: give at least one of them")
        self._asking = None
        if backend is not None:
            self._asking = Asking(backend, max_tokens=self.options.max_tokens, window=window)
        self.provenance = Provenance(
            model="" if backend is None else backend.name[:400],
            model_digest="" if backend is None else backend.digest[:400],
            prompt_hash="" if backend is None else prompt_hash(),
            run_id=self.options.run_id,
            extracted_at=self.options.extracted_at,
        )

    def records(self, trials: Iterable[Trial]) -> Iterator[Record]:
        """The records of all trials, in order. Raises what the machine failed with; see `Asking.hear`."""
        for _, records in self.each(trials):
            yield from records

    def each(self, trials: Iterable[Trial]) -> Iterator[tuple[Trial, list[Record]]]:
        """Each trial with its records, at least one, in the trials' order."""
        works = map(self._open, trials)
        if self._asking is None:
            for work in works:
                yield work.trial, self._records(work, None)
        else:
            for heard in self._asking.hear(map(self._topic, works)):
                yield heard.about.trial, self._records(heard.about, heard)

    def _open(self, trial: Trial) -> _Work:
        hidden = ("interventions",) if self.options.hide else ()
        fields = {name: text for name, text in trial.fields.items() if name not in hidden}
        try:
            known: list[Intervention] = []
            if self.options.rules:
                known = rule_based(trial, hide_interventions=self.options.hide)
            elif not self.options.hide:
                known = stated_interventions(trial)
            return _Work(trial, fields, tuple(known))
        # Rules meet texts that nobody has seen: whatever they trip over costs that trial, and no other.
        except Exception as error:
            told = failure(trial, "rules", f"{type(error).__name__}: {error}", provenance=self.provenance)
            return _Work(trial, fields, (), told)

    def _topic(self, work: _Work) -> Topic[_Work]:
        stated = [one.name for one in work.known if one.origin == "stated" and one.name]
        if work.failed is not None or (stated and self.options.ask == "missing"):
            return Topic(work, {})
        fields = {name: work.fields[name] for name in (*HEAD, *BODY) if name in work.fields}
        return Topic(work, fields, stated)

    def _records(self, work: _Work, heard: Heard[_Work] | None) -> list[Record]:
        if work.failed is not None:
            return [work.failed]
        try:
            return self._merged(work, heard)
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            return [failure(work.trial, "record", message, provenance=self.provenance)]

    def _merged(self, work: _Work, heard: Heard[_Work] | None) -> list[Record]:
        found = list(work.known)
        error: Failure | None = None
        if heard is not None:
            asked = {name: work.fields[name] for name in (*HEAD, *BODY) if name in work.fields}
            found = merge(found, said_interventions(heard.said, asked), least=self.options.least)
            error = Failure(code=heard.code, message=heard.message) if heard.code else None
        if not found:
            if error is not None:
                return [failure(work.trial, error.code, error.message, provenance=self.provenance)]
            return [nothing(work.trial, provenance=self.provenance)]
        status: Literal["ok", "partial"] = "ok" if error is None else "partial"
        return [
            record_of(work.trial, one, place, status=status, error=error, provenance=self.provenance)
            for place, one in enumerate(found)
        ]
