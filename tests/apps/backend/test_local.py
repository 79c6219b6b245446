"""A model in this process: answers in order, with the same bits whatever goes on beside them, and no error catches."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from asking import SCHEMA, calls

import lapilli
from lapilli.apps.backend.call import Call, Reply
from lapilli.apps.backend.local import LocalBackend
from lapilli.apps.backend.opening import open_backend
from lapilli.engine.engine import Job
from lapilli.errors import InputError, LapilliError, ModelNotFoundError, PromptError


@pytest.fixture(scope="module")
def backend() -> Iterator[LocalBackend]:
    with open_backend("mini") as found:
        assert isinstance(found, LocalBackend)
        yield found


def test_answers_are_the_same_in_any_window_and_alone(backend: LocalBackend, picture: bytes) -> None:
    asked = calls(picture)
    alone = [backend.ask(call) for call in asked]
    for window in (1, 32):
        assert list(backend.ask_all(iter(asked), window=window)) == alone


def test_answers_are_those_of_the_model(backend: LocalBackend, picture: bytes) -> None:
    answer = backend.model.chat("What is in this picture?", [picture], system="Be short.", max_tokens=9)
    reply = backend.ask(Call.of("What is in this picture?", [picture], system="Be short.", max_tokens=9))
    assert reply.text == answer.text
    assert (reply.tokens, reply.prompt_tokens) == (answer.completion_tokens, answer.prompt_tokens)
    assert reply.finish == answer.finish_reason
    assert backend.count(Call.of("What is in this picture?", [picture], system="Be short.")) == answer.prompt_tokens


def test_a_stream_is_the_answer_in_pieces(backend: LocalBackend) -> None:
    call = Call.of("Hello, who are you?", max_tokens=8)
    pieces = list(backend.stream(call))
    assert len(pieces) > 1
    assert "".join(pieces) == backend.ask(call).text


def test_failures_come_in_their_place_and_end_no_other(backend: LocalBackend) -> None:
    fine = Call.of("Hello", max_tokens=2)
    asked = [
        fine,
        Call(messages=()),
        Call.of("x " * 4000),
        Call.of("Hello", schema={"type": "object", "patternProperties": 7}),
        Call.of("Hello", temperature=-1),
        fine,
    ]
    found = list(backend.ask_all(asked, window=3))
    assert found[0] == found[5] == backend.ask(fine)
    assert isinstance(found[1], PromptError)
    assert "2047" in str(found[2])
    assert isinstance(found[3], InputError)
    assert "temperature" in str(found[4])
    with pytest.raises(PromptError):
        backend.ask(asked[1])


def test_a_failure_of_the_engine_is_told_as_one_of_ours(backend: LocalBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(call: Call) -> Reply:
        raise RuntimeError("no more\nand so on")

    fine = Call.of("Hello", max_tokens=2)
    with monkeypatch.context() as patch:
        patch.setattr(backend, "_prepare", broken)
        (found,) = backend.ask_all([fine])
    assert isinstance(found, LapilliError)
    assert str(found) == "the engine failed: RuntimeError: no more"
    assert isinstance(backend.ask(fine), Reply)


def test_chances_belong_to_the_texts_of_the_answer(backend: LocalBackend) -> None:
    for call in (
        Call.of("Hello, who are you?", max_tokens=6, chances=True),
        Call.of("Hello, who are you?", max_tokens=60, chances=True, schema=SCHEMA),
        Call.of("Hello, who are you?", max_tokens=30, chances=True, stop=("a",)),
    ):
        reply = backend.ask(call)
        assert reply.chances is not None
        assert len(reply.chances) == reply.tokens
        assert "".join(text for text, _ in reply.chances) == reply.text
        assert all(chance <= 0 for _, chance in reply.chances)
    assert backend.ask(Call.of("Hello", max_tokens=2)).chances is None


def test_a_schema_is_kept(backend: LocalBackend) -> None:
    value = json.loads(backend.ask(Call.of("What do you see?", max_tokens=80, schema=SCHEMA)).text)
    assert value["shape"] in ("circle", "square", "star")


def test_what_calls_share_is_read_once(backend: LocalBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = "These are the rules. " * 60
    asked = [Call.of(f"Question {number}?", system=shared, max_tokens=2) for number in range(8)]
    jobs: list[Job] = []
    prepare, enter = backend._prepare, backend.model.engine.enter

    def prepared(call: Call) -> Job:
        jobs.append(prepare(call))
        return jobs[-1]

    def entered(job: Job) -> None:
        while len(jobs) < len(asked):  # all could enter with the first
            time.sleep(0.01)
        time.sleep(0.05)
        enter(job)

    monkeypatch.setattr(backend, "_prepare", prepared)
    monkeypatch.setattr(backend.model.engine, "enter", entered)
    assert all(isinstance(found, Reply) for found in backend.ask_all(asked))
    requests = [job.request for job in jobs]
    reused = sorted(request.reused for request in requests)
    assert reused[0] == 0
    assert reused[1] == min(request.prompt_length for request in requests) // 128 * 128 > 256


def test_leaving_early_ends_what_is_under_way(backend: LocalBackend) -> None:
    def endless() -> Iterator[Call]:
        while True:
            yield Call.of("Hello", max_tokens=4)

    answers = backend.ask_all(endless(), window=4)
    next(answers)
    answers.close()  # type: ignore[attr-defined]
    assert not backend.model.engine.scheduler.running
    assert not backend.model.engine.scheduler.waiting


def test_calls_are_taken_as_they_are_needed(backend: LocalBackend) -> None:
    taken = []

    def some() -> Iterator[Call]:
        for number in range(400):
            taken.append(number)
            yield Call.of("Hello", max_tokens=1)

    next(iter(backend.ask_all(some(), window=2)))
    assert len(taken) <= 8


def test_threads_share_a_backend(backend: LocalBackend, picture: bytes) -> None:
    asked = calls(picture, 8)
    alone = [backend.ask(call) for call in asked]
    found: dict[int, list[Reply | LapilliError]] = {}
    threads = [
        threading.Thread(target=lambda n=n: found.setdefault(n, list(backend.ask_all(asked, window=n + 1))))
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [found[n] for n in range(3)] == [alone] * 3


def test_vectors_are_of_length_one_and_texts_stay_texts(backend: LocalBackend) -> None:
    vectors = backend.embed(["a red circle", "an <image> in words", "z " * 5000])
    assert vectors.shape == (3, 256)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert backend.embed([]).shape == (0, 256)


def test_a_digest_names_weights_and_how_they_are_rounded(backend: LocalBackend) -> None:
    again, rounded = open_backend("mini:latest"), open_backend("mini", quantize="int8")
    assert again.digest == backend.digest
    assert rounded.digest != backend.digest
    assert len(backend.digest) == 64


def test_what_makes_no_sense_is_refused(backend: LocalBackend) -> None:
    with pytest.raises(InputError, match="window is 0"):
        backend.ask_all([], window=0)
    with pytest.raises(InputError, match="for servers"):
        open_backend("mini", key="secret")
    with pytest.raises(InputError, match="server loads its own"):
        open_backend("mini", url="http://127.0.0.1:9", quantize="int4")
    with pytest.raises(InputError, match="dialect 'grpc'"):
        open_backend("mini", url="http://127.0.0.1:9", dialect="grpc")  # type: ignore[arg-type]
    with pytest.raises(ModelNotFoundError, match="did you mean 'mini'"):
        open_backend("minni")


def test_asking_loads_torch_and_importing_does_not() -> None:
    import subprocess
    import sys

    code = "import sys, lapilli.apps.backend.opening, lapilli.apps.embedders; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert lapilli.__version__


def test_the_page_on_backends_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    root = Path(__file__).parents[3]
    monkeypatch.chdir(root)
    blocks = re.findall(r"^```python\n(.*?)^```$", (root / "docs/backends.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "docs/backends.md", "exec"), {})  # noqa: S102
    assert "256" in capsys.readouterr().out
