"""Many at once: an answer has the same bits alone and in company, cold and warm, preempted, guessed and not."""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from lapilli import PromptError
from lapilli.engine.answer import Answer
from lapilli.engine.engine import Engine, EngineOptions
from lapilli.engine.grammar import Constraint
from lapilli.engine.local import LocalModel
from lapilli.engine.sampler import SamplingOptions
from lapilli.inputs.prompt import Prompt

SMALL = EngineOptions(running=4, rows=6, chunk=16, block=8)


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 30, 3), dtype=np.uint8))


def asked(tiny: LocalModel, rng: random.Random) -> tuple[Prompt, SamplingOptions]:
    """A prompt that begins like many others, with pictures or without, to be answered greedily or drawn."""
    words = " ".join(rng.choice(("a", "cat", "dog", "what", "is", "this")) for _ in range(rng.randrange(1, 9)))
    pictures = [picture(rng.randrange(3)) for _ in range(rng.choice((0, 0, 1, 1, 2)))]
    text = "USER: " + "<image>\n" * len(pictures) + words + " ASSISTANT:"
    drawn = {"temperature": 1.0, "seed": rng.randrange(99)} if rng.random() < 0.4 else {}
    options = SamplingOptions(max_tokens=rng.randrange(1, 14), logprobs=2, **drawn)
    return tiny.prompts.raw(text, pictures), options


def essence(answer: Answer) -> tuple[object, ...]:
    """What must be the same, to the last bit of every probability."""
    return answer.token_ids, answer.text, answer.finish_reason, answer.logprobs


def alone(tiny: LocalModel, prompt: Prompt, options: SamplingOptions, engine: EngineOptions = SMALL) -> Answer:
    """The answer of a new engine, that has nothing else to do."""
    fresh = Engine(tiny.checkpoint, engine)
    return next(chunk.answer for chunk in fresh.stream(fresh.submit(prompt, options)) if chunk.answer)


def in_company(
    engine: Engine, requests: list[tuple[Prompt, SamplingOptions]], rng: random.Random, aborted: float
) -> Iterator[tuple[int, Answer]]:
    """Requests that come in while others run, some of them aborted; the answers of the rest."""
    waiting, running = list(enumerate(requests)), {}
    while waiting or running:
        while waiting and len(running) < 8:
            number, (prompt, options) = waiting.pop()
            running[number] = engine.submit(prompt, options)
        engine.step()
        for number, job in list(running.items()):
            if rng.random() < aborted / 8:
                engine.abort(job)
                del running[number]
            elif job.over:
                assert job.error is None
                yield number, next(chunk.answer for chunk in job.news if chunk.answer)
                del running[number]


@pytest.mark.parametrize("places", [2000, 160], ids=["room for all", "some give way"])
def test_alone_is_in_company(tiny: LocalModel, places: int) -> None:
    text = tiny.config.text
    a_place = 2 * text.num_layers * text.num_kv_heads * text.head_dim * 4
    engine = Engine(tiny.checkpoint, EngineOptions(running=4, rows=6, chunk=16, block=8, cache_bytes=places * a_place))
    rng = random.Random(places)
    requests = [asked(tiny, rng) for _ in range(150)]
    seen, reused = 0, 0
    for number, answer in in_company(engine, requests, rng, aborted=0.1):
        assert essence(answer) == essence(alone(tiny, *requests[number])), f"request {number}"
        seen, reused = seen + 1, reused + answer.cached_tokens
    assert seen > 100
    assert reused > 0, "some prompts begin alike"
    assert engine.scheduler.pool.free == engine.scheduler.pool.count, "all blocks come back"
    assert engine.sight.encoded == 3, "each picture is encoded once"


def test_guesses_change_nothing_but_the_number_of_steps(tiny: LocalModel) -> None:
    steps = {}
    for speculate in (True, False):
        engine = Engine(tiny.checkpoint, EngineOptions(running=4, rows=6, chunk=16, block=8, speculate=speculate))
        prompt = tiny.prompts.raw("USER: a cat ASSISTANT:")
        # A penalty below one makes it repeat itself.
        job = engine.submit(prompt, SamplingOptions(max_tokens=60, logprobs=1, repeat_penalty=0.2))
        count = 0
        while not job.over:
            count += engine.step()
        steps[speculate] = count, essence(job.news[-1].answer)
    assert steps[True][1] == steps[False][1]
    assert steps[True][0] < steps[False][0]


def test_a_prompt_read_before_is_found_and_says_so(tiny: LocalModel) -> None:
    engine = Engine(tiny.checkpoint, SMALL)
    prompt = tiny.prompts.raw("USER: <image>\nwhat is this picture of, a cat or a dog? ASSISTANT:", [picture(1)])
    options = SamplingOptions(max_tokens=5, logprobs=0)
    cold, warm = (next(c.answer for c in engine.stream(engine.submit(prompt, options)) if c.answer) for _ in range(2))
    assert cold.cached_tokens == 0
    assert warm.cached_tokens == (len(prompt.token_ids) - 1) // 16 * 16 > 0
    assert essence(cold) == essence(warm)


def test_threads_share_an_engine(tiny: LocalModel) -> None:
    model = LocalModel(tiny.checkpoint, SMALL)
    questions = [f"what is a {word}" for word in ("cat", "dog", "picture", "cat and a dog", "this", "what")]
    expected = [tiny.chat(question, max_tokens=12).text for question in questions]
    said: dict[int, str] = {}

    def ask(number: int) -> None:
        said[number] = model.chat(questions[number], max_tokens=12).text

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(questions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [said[number] for number in range(len(questions))] == expected


def test_leaving_a_stream_frees_its_place(tiny: LocalModel) -> None:
    model = LocalModel(tiny.checkpoint, SMALL)
    stream = model.stream("a cat", max_tokens=30)
    next(stream)
    assert model.engine.scheduler.running
    stream.close()
    assert not model.engine.scheduler.running
    assert model.engine.scheduler.pool.free == model.engine.scheduler.pool.count


def test_a_step_that_fails_ends_those_in_it_and_no_others(tiny: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(tiny.checkpoint, EngineOptions(running=1, rows=2, chunk=16, block=8))
    prompt, options = tiny.prompts.raw("USER: a dog ASSISTANT:"), SamplingOptions(max_tokens=4)
    first, second = engine.submit(prompt, options), engine.submit(prompt, options)
    read = engine.runner.read

    def fail(*_: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(engine.runner, "read", fail)
    engine.step()
    monkeypatch.setattr(engine.runner, "read", read)
    with pytest.raises(RuntimeError, match="no memory"):
        list(engine.stream(first))
    (answer,) = [chunk.answer for chunk in engine.stream(second) if chunk.answer]
    assert essence(answer) == essence(alone(tiny, prompt, options))


def test_two_engines_do_not_disturb_each_other(tiny: LocalModel) -> None:
    one, other = Engine(tiny.checkpoint, SMALL), Engine(tiny.checkpoint, SMALL)
    rng = random.Random(1)
    requests = [asked(tiny, rng) for _ in range(8)]
    jobs = [(engine, engine.submit(*request)) for request in requests for engine in (one, other)]
    while any(not job.over for _, job in jobs):
        one.step()
        other.step()
    for (prompt, options), (_, first), (_, second) in zip(requests, jobs[::2], jobs[1::2], strict=True):
        expected = essence(alone(tiny, prompt, options))
        assert essence(first.news[-1].answer) == essence(second.news[-1].answer) == expected


def test_what_can_never_fit_is_refused_with_both_numbers(tiny: LocalModel) -> None:
    engine = Engine(tiny.checkpoint, EngineOptions(running=1, rows=1, chunk=16, block=8, cache_bytes=32 * 800))
    held = engine.scheduler.pool.count * 8
    prompt = tiny.prompts.raw("USER: a cat ASSISTANT:")
    assert len(prompt.token_ids) < held < 96
    with pytest.raises(PromptError, match=rf"{len(prompt.token_ids)} tokens.*up to 60.*{held}"):
        engine.submit(prompt, SamplingOptions(max_tokens=60))
    assert [c.answer for c in engine.stream(engine.submit(prompt, SamplingOptions())) if c.answer]


def test_what_a_grammar_leaves_no_choice_about_is_said_without_a_step(tiny: LocalModel) -> None:
    engine = Engine(tiny.checkpoint, SMALL)
    prompt, options = tiny.prompts.raw("USER: a cat ASSISTANT:"), SamplingOptions(max_tokens=20)
    job = engine.submit(prompt, options, Constraint.choice(["a dog"]))
    (answer,) = [chunk.answer for chunk in engine.stream(job) if chunk.answer]
    assert (answer.text.strip(), answer.finish_reason) == ("a dog", "stop")
    assert not engine.scheduler.running
    assert not engine.scheduler.waiting


@pytest.mark.parametrize("speculate", [True, False])
def test_constrained_answers_are_the_same_in_company(tiny: LocalModel, speculate: bool) -> None:
    forms = [
        Constraint.choice(["a cat", "a dog", "cat and dog"]),
        Constraint.regex("(a|b){3,9}c"),
        Constraint.json_schema({"type": "object", "properties": {"what": {"enum": ["cat", "dog"]}},
                                "required": ["what"], "additionalProperties": False}),
        None,
    ]  # fmt: skip
    engine = Engine(tiny.checkpoint, EngineOptions(running=4, rows=8, chunk=16, block=8, speculate=speculate))
    prompt, options = tiny.prompts.raw("USER: what is this ASSISTANT:"), SamplingOptions(max_tokens=24, logprobs=0)
    jobs = [engine.submit(prompt, options, form) for form in forms]
    together = {job: chunk.answer for job, chunk in engine.stream_all(jobs) if chunk.answer}
    for job, form in zip(jobs, forms, strict=True):
        fresh = Engine(tiny.checkpoint, SMALL)
        alone_now = [c.answer for c in fresh.stream(fresh.submit(prompt, options, form)) if c.answer]
        assert essence(together[job]) == essence(alone_now[0])
    assert together[jobs[0]].text.strip() in ("a cat", "a dog", "cat and dog")
    assert re.fullmatch("[ab]{3,9}c", together[jobs[1]].text.strip())
    assert json.loads(together[jobs[2]].text)["what"] in ("cat", "dog")
