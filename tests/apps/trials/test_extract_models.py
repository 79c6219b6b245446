"""Records by real models: mini, which may know little, and weights drawn at random, which know nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
from made_registers import write_ictrp
from odd_trials import made, odd_trials, require_valid

from lapilli.apps.backend.local import LocalBackend
from lapilli.apps.trials.extract import Extractor, Options
from lapilli.apps.trials.prompt import FULL_INSTRUCTION
from lapilli.apps.trials.readers import read_trials
from lapilli.apps.trials.trial import Trial
from lapilli.engine.answer import Answer
from lapilli.engine.local import load


class Watched(LocalBackend):
    """A backend that keeps how much of each prompt had been read before."""

    cached: list[int]

    def _reply(self, answer: Answer) -> Any:
        self.cached = [*getattr(self, "cached", []), answer.cached_tokens]
        return super()._reply(answer)


@pytest.fixture(scope="module")
def mini() -> LocalBackend:
    return LocalBackend(load("mini"), "mini", "0" * 64)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> LocalBackend:
    folder = tmp_path_factory.mktemp("drawn")
    config = tiny.text_config("llama", max_position_embeddings=1024)
    tiny.save(tiny.random_model(config), folder)
    return LocalBackend(load(folder), "drawn", "1" * 64)


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> list[Trial]:
    path = write_ictrp(tmp_path_factory.mktemp("made") / "made.xml", 4)
    return list(read_trials([path], problems=print))


SHORT = Options(max_tokens=32)  # some more than the form says by itself


def lines(backend: LocalBackend, trials: list[Trial], window: int = 32) -> list[str]:
    return [record.to_line() for record in Extractor(backend, SHORT, window=window).records(trials)]


def test_mini_gives_every_trial_valid_records(mini: LocalBackend, registered: list[Trial]) -> None:
    require_valid(list(Extractor(mini, SHORT).records(registered)), registered)


def test_the_instruction_is_read_once(tmp_path: Path) -> None:
    tiny.save(tiny.random_model(tiny.text_config("llama", max_position_embeddings=4096)), tmp_path)
    backend = Watched(load(tmp_path), "drawn", "3" * 64)
    trials = [made(number, fields={"public_title": f"Lapillin, number {number}"}) for number in range(4)]
    list(Extractor(backend, SHORT).records(trials))
    chunk = backend.model.engine.options.chunk
    assert len(backend.model.tokenizer.encode(FULL_INSTRUCTION)) >= chunk
    # Prompts are built side by side: whichever is ready first reads it.
    assert sorted(cached >= chunk for cached in backend.cached) == [False, True, True, True]


def test_random_weights_give_every_trial_valid_records_whoever_is_asked_beside(drawn: LocalBackend) -> None:
    trials = [trial for trial in odd_trials() if len(trial.fields.get("public_title", "")) < 1000]
    require_valid(list(Extractor(drawn, SHORT).records(trials)), trials)
    assert lines(drawn, trials[:5], 1) == lines(drawn, trials[:5], 4)


def test_a_trial_longer_than_the_context_is_asked_about_in_pieces(drawn: LocalBackend) -> None:
    long = made(fields={"public_title": "Lapillin", "summary": "Lapillin 5 mg is taken by mouth. " * 30})
    records = list(Extractor(drawn, SHORT).records([long]))
    require_valid(records, [long])
    assert all(record.error is None or record.error.code != "too_long" for record in records)


def test_a_context_too_small_for_anything_is_a_failure_that_says_so(tmp_path: Path) -> None:
    tiny.save(tiny.random_model(tiny.text_config("llama", max_position_embeddings=64)), tmp_path)
    backend = LocalBackend(load(tmp_path), "small", "2" * 64)
    records = list(Extractor(backend, Options(rules=False)).records([made()]))
    require_valid(records, [made()])
    assert records[0].status == "failed"
    assert records[0].error is not None
    assert records[0].error.code == "too_long"
