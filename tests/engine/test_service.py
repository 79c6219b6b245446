"""A model in a process of its own: the same answers, the same errors, and nothing left behind by who leaves or dies."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib.resources
import io
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from adapters import write_adapter
from PIL import Image
from processes import ended

import lapilli
from lapilli.engine.ask import Ask, LoadOrder, News
from lapilli.engine.engine import EngineOptions
from lapilli.engine.grammar import Constraint
from lapilli.engine.local import LocalModel
from lapilli.engine.sampler import SamplingOptions
from lapilli.engine.service import EngineProcess
from lapilli.errors import (
    CheckpointError,
    EngineGoneError,
    ImageError,
    InputError,
    PromptError,
    TemplateError,
)
from lapilli.inputs.templates import TemplateText

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]
MINI_FOLDER = Path(str(importlib.resources.files("lapilli") / "models" / "mini"))
MINI = LoadOrder(path=MINI_FOLDER, device="cpu", engine={"running": 4, "rows": 8, "chunk": 64})


def png(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 48, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def user(text: str, *pictures: int) -> dict[str, Any]:
    return {"role": "user", "content": text, "pictures": list(pictures)}


ASKS = (
    Ask(messages=(user("What is in this picture?", 0),), pictures=(png(0),), sampling={"logprobs": 2}),
    Ask(messages=(user("Hello, who are you?"),), sampling={"temperature": 1.0, "seed": 5, "max_tokens": 12}),
    Ask(messages=(user("How many are there?", 0),), pictures=(png(1),), sampling={"max_tokens": 9}),
    Ask(messages=({"role": "system", "content": "Be short."}, user("What can you do?"))),
    Ask(prompt="USER: Hello! ASSISTANT:", sampling={"stop": ["e", "o"], "logprobs": 0}),
    Ask(messages=(user("Say something."),), constraint=("json", '{"type": "object", "maxProperties": 2}')),
)


@pytest.fixture(scope="module")
def run() -> Iterator[Run[Any]]:
    """One event loop for the module: a process belongs to the loop that started it."""
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture(scope="module")
def process(run: Run[Any]) -> Iterator[EngineProcess]:
    process = run(EngineProcess.start(MINI))
    yield process
    run(process.stop())


@pytest.fixture(scope="module")
def mini() -> LocalModel:
    return lapilli.load("mini", device="cpu", engine=EngineOptions(**MINI.engine))


async def all_news(process: EngineProcess, ask: Ask) -> list[News]:
    return [news async for news in process.ask(ask)]


async def failure(process: EngineProcess, ask: Ask) -> Exception:
    try:
        await all_news(process, ask)
    except Exception as error:
        return error
    raise AssertionError("it answered")


def essence(news: list[News]) -> tuple[Any, ...]:
    """What must be the same whatever else is asked; times and what the cache held are not."""
    finished = news[-1].finished
    assert finished is not None
    times = {item.name: 0 for item in dataclasses.fields(finished) if item.name.endswith("_seconds")}
    tokens = tuple(token for each in news for token in each.tokens)
    return "".join(each.text for each in news), tokens, dataclasses.replace(finished, cached_tokens=0, **times)


def test_it_imports_no_torch_where_it_is_asked() -> None:
    script = "import sys, lapilli.engine.service; assert not {'torch', 'numpy', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_it_says_what_the_engine_says_in_process(run: Run[Any], process: EngineProcess, mini: LocalModel) -> None:
    ask = ASKS[0]
    news = run(all_news(process, ask))
    answer = mini.chat("What is in this picture?", [png(0)], logprobs=2)
    text, tokens, finished = essence(news)
    assert (text, finished.reason, finished.stopped_by) == (answer.text, answer.finish_reason, "")
    assert finished.ids == (*mini.prompt("What is in this picture?", [png(0)]).token_ids, *answer.token_ids)
    assert finished.completion_tokens == len(answer.token_ids) == len(tokens)
    assert (finished.prompt_tokens, finished.image_tokens) == (answer.prompt_tokens, answer.image_tokens)
    assert [token.logprob for token in tokens] == [score.logprob for score in answer.logprobs[: len(tokens)]]
    assert [len(token.top) for token in tokens] == [2] * len(tokens)
    assert b"".join(token.data for token in tokens).decode().strip() == text
    assert len(news) > 3, "it comes in pieces"
    assert all(each.finished is None for each in news[:-1])
    assert run(all_news(process, ask))[-1].finished.cached_tokens > 0


def test_a_raw_prompt_and_what_stopped_it(run: Run[Any], process: EngineProcess, mini: LocalModel) -> None:
    text, _, finished = essence(run(all_news(process, ASKS[4])))
    (answer,) = mini.generate("USER: Hello! ASSISTANT:", stop=["e", "o"])
    assert (text, finished.stopped_by) == (answer.text, answer.stopped_by)
    assert finished.stopped_by in ("e", "o")


def test_many_at_once_are_answered_as_alone(run: Run[Any], process: EngineProcess) -> None:
    async def together() -> list[list[News]]:
        return await asyncio.gather(*(all_news(process, ask) for ask in ASKS * 3))

    alone = [essence(run(all_news(process, ask))) for ask in ASKS]
    assert [essence(news) for news in run(together())] == alone * 3


def test_who_leaves_frees_the_place(run: Run[Any], process: EngineProcess) -> None:
    """Aborts while a prompt is built, while it waits, is read, is answered, and at the last moment."""
    rng = random.Random(3)
    longer = [dataclasses.replace(ask, sampling={"max_tokens": 40, "temperature": 2.0}) for ask in ASKS[:4]]

    async def leave(number: int) -> bool:
        async with contextlib.aclosing(process.ask(rng.choice(longer))) as news:
            pieces = rng.randrange(12)
            if number % 2:  # by being cancelled, wherever it is
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(rng.random() * 0.3):
                        return len([each async for each in news]) > 0
                return False
            async for _ in news:
                pieces -= 1
                if pieces <= 0:
                    return True
        return True

    async def storm() -> dict[str, int]:
        before = essence(await all_news(process, ASKS[0]))
        left = await asyncio.gather(*(leave(number) for number in range(60)))
        assert {*left} == {True, False}
        assert essence(await all_news(process, ASKS[0])) == before, "the one after is answered as ever"
        return dict(await process.occupancy())

    state = run(storm())
    assert (state["asked"], state["running"], state["waiting"]) == (0, 0, 0)
    assert state["free_blocks"] == state["blocks"]


@pytest.mark.parametrize(
    ("ask", "kind", "message"),
    [
        (Ask(messages=(user("a " * 3000),)), PromptError, r"has \d{4} tokens, at most 2047 fit into a context of 2048"),
        (Ask(messages=(user("a", 0),), pictures=(b"GIF89a",)), ImageError, "."),
        (Ask(prompt="a", sampling={"top_p": 7}), InputError, "top_p is 7"),
        (Ask(prompt="a", sampling={"seed": {1, 2}}), InputError, "plain values"),
        (Ask(prompt="a", constraint=("lark", "start: (")), InputError, "."),
        (Ask(prompt="a", adapter=Path("/nowhere")), CheckpointError, "nowhere: holds no adapter_config.json"),
        (
            Ask(messages=(user("a"),), template=TemplateText(language="jinja", text="{{ raise_exception('no') }}")),
            TemplateError,
            "no",
        ),
    ],
)
def test_errors_cross_as_they_are(
    run: Run[Any], process: EngineProcess, ask: Ask, kind: type[Exception], message: str
) -> None:
    error = run(failure(process, ask))
    assert type(error) is kind
    with pytest.raises(kind, match=message):
        raise error
    assert process.alive


def test_truncation_says_how_much(run: Run[Any], process: EngineProcess) -> None:
    talk = (user("The secret is 7. " * 20), {"role": "assistant", "content": "Yes."}, user("What is a cat?"))
    whole = run(all_news(process, Ask(messages=talk)))[-1].finished
    alone = run(all_news(process, Ask(messages=talk[-1:])))[-1].finished
    cut = run(all_news(process, Ask(messages=talk, context=64, truncate=True)))[-1].finished
    assert (cut.prompt_tokens, cut.truncated) == (alone.prompt_tokens, whole.prompt_tokens - alone.prompt_tokens)
    assert cut.ids == alone.ids


def test_a_prompt_only_written_out(run: Run[Any], process: EngineProcess, mini: LocalModel) -> None:
    (news,) = run(all_news(process, dataclasses.replace(ASKS[0], render_only=True)))
    assert news.finished.rendered == "USER: <image>\nWhat is in this picture? ASSISTANT:"
    assert (news.text, news.finished.completion_tokens) == ("", 0)


def test_going_on_from_ids(run: Run[Any], process: EngineProcess) -> None:
    first = run(all_news(process, ASKS[1]))[-1].finished
    second = run(all_news(process, Ask(messages=(user("And what else?"),), before=first.ids)))[-1].finished
    assert second.ids[: len(first.ids)] == first.ids
    assert second.prompt_tokens > len(first.ids)


def test_a_heat_map_comes_with_the_last_news(run: Run[Any], process: EngineProcess) -> None:
    ask = dataclasses.replace(ASKS[2], heatmap=True)
    news = run(all_news(process, ask))
    picture = Image.open(io.BytesIO(news[-1].finished.heatmap))
    assert picture.format == "PNG"
    assert min(picture.size) > 100
    assert all(each.finished is None for each in news[:-1])
    plain = essence(run(all_news(process, ASKS[2])))
    assert essence(news)[:2] == plain[:2]
    assert dataclasses.replace(essence(news)[2], heatmap=b"") == plain[2]


def test_vectors(run: Run[Any], process: EngineProcess, mini: LocalModel) -> None:
    texts = ["a cat", "Two dogs sleep in the sun.", "a cat"]
    embedded = run(process.embed(texts))
    for text, vector in zip(texts, embedded.vectors, strict=True):
        assert np.allclose(vector, mini.embed(text), atol=1e-6)
    counts = [len(mini.prompts.raw(text).token_ids) for text in texts]
    assert (embedded.prompt_tokens, embedded.truncated) == (sum(counts), 0)
    cut = run(process.embed(texts, context=5))
    assert (cut.prompt_tokens, cut.truncated) == (sum(min(5, n) for n in counts), sum(max(0, n - 5) for n in counts))
    with pytest.raises(InputError, match=f"the input length exceeds the context length: it has {counts[1]} tokens"):
        run(process.embed(texts, context=5, truncate=False))
    assert run(process.embed([])).vectors == ()


def test_tokens_and_back(run: Run[Any], process: EngineProcess, mini: LocalModel) -> None:
    ids = run(process.tokenize("a cat </s>"))
    assert ids == mini.tokenizer.encode("a cat </s>")
    assert run(process.detokenize(ids)) == "a cat </s>"
    with pytest.raises(InputError, match="token ids go from 0 to"):
        run(process.detokenize([10**9]))


def test_facts_and_memory(process: EngineProcess, mini: LocalModel) -> None:
    facts, text = process.facts, mini.config.text
    assert (facts.context_length, facts.embedding_length) == (text.max_positions, text.hidden_size)
    assert facts.parameters == sum(p.numel() for p in mini.model.parameters())
    assert facts.weight_bytes == 4 * facts.parameters
    assert facts.sees
    assert process.memory_bytes() > facts.weight_bytes


# --- processes that end ---

LONG = Ask(
    prompt="USER: Tell me a long story. ASSISTANT:", sampling={"max_tokens": 1500, "temperature": 3.0, "seed": 1}
)
READ = Ask(prompt="one two three " * 450)


async def mourners(process: EngineProcess, blow: signal.Signals, *asks: Ask) -> list[tuple[Exception, float]]:
    """How each waiting ask fails once the child is struck, and how long after."""
    struck = 0.0

    async def wait(ask: Ask) -> tuple[Exception, float]:
        error = await failure(process, ask)
        return error, time.monotonic() - struck

    tasks = [asyncio.create_task(wait(ask)) for ask in asks]
    while (state := await process.occupancy())["running"] + state["waiting"] < len(asks):
        await asyncio.sleep(0.01)
    struck = time.monotonic()
    os.kill(process.pid, blow)
    async with asyncio.timeout(20):
        return await asyncio.gather(*tasks)


@pytest.mark.parametrize("times", [1, pytest.param(50, marks=pytest.mark.soak)])
def test_a_child_that_is_killed_is_told_of(run: Run[Any], times: int) -> None:
    """While some of what it was asked is read, some is answered, and some waits."""
    for _ in range(times):
        process = run(EngineProcess.start(dataclasses.replace(MINI, engine={"running": 3, "chunk": 32})))
        for error, seconds in run(mourners(process, signal.SIGKILL, READ, LONG, LONG, LONG)):
            assert isinstance(error, EngineGoneError)
            assert "killed" in str(error)
            assert seconds < 1
        require_gone(run, process)


@pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.soak)])
def test_a_child_that_is_stuck_is_killed(run: Run[Any], times: int) -> None:
    for _ in range(times):
        process = run(EngineProcess.start(MINI, ping_seconds=1))
        for error, seconds in run(mourners(process, signal.SIGSTOP, LONG, READ)):
            assert isinstance(error, EngineGoneError)
            assert "did not answer for 1 s" in str(error)
            assert seconds < 2
        require_gone(run, process)


def require_gone(run: Run[Any], process: EngineProcess) -> None:
    assert process.gone.is_set()
    assert not process.alive
    assert process.memory_bytes() == 0
    assert isinstance(run(failure(process, ASKS[0])), EngineGoneError), "nothing more comes in"
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)  # collected, not left as a zombie
    run(process.stop())


def test_a_child_is_stopped_when_it_has_said_all(run: Run[Any]) -> None:
    async def stopped() -> tuple[list[News], Exception, float]:
        process = await EngineProcess.start(MINI)
        telling = asyncio.create_task(all_news(process, ASKS[0]))
        while not (await process.occupancy())["asked"]:
            await asyncio.sleep(0)
        stopping = asyncio.create_task(process.stop())
        await asyncio.sleep(0)
        late = await failure(process, ASKS[1])
        await stopping
        begun = time.monotonic()
        await process.stop()
        assert not process.alive
        return await telling, late, time.monotonic() - begun

    news, late, seconds = run(stopped())
    assert news[-1].finished is not None
    assert isinstance(late, EngineGoneError)
    assert seconds < 0.5


def test_what_cannot_be_loaded(run: Run[Any], tmp_path: Path) -> None:
    async def start(order: LoadOrder, seconds: float = 300) -> Exception:
        try:
            await EngineProcess.start(order, seconds=seconds)
        except Exception as error:
            return error
        raise AssertionError("it started")

    async def both() -> list[Exception]:
        return await asyncio.gather(start(LoadOrder(path=tmp_path / "nothing.gguf")), start(MINI, seconds=0.05))

    missing, slow = run(both())
    assert isinstance(missing, CheckpointError)
    assert isinstance(slow, EngineGoneError)
    assert "longer than 0.05 s" in str(slow)


PARENT = """
import asyncio, sys, time
from pathlib import Path
from lapilli.engine.service import EngineProcess
from lapilli.engine.ask import LoadOrder

async def main():
    process = await EngineProcess.start(LoadOrder(path=Path(sys.argv[1])))
    print(process.pid, flush=True)
    time.sleep(60)

asyncio.run(main())
"""


def test_a_child_dies_with_its_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, str(MINI_FOLDER)], stdout=subprocess.PIPE) as parent:
        child = int(parent.stdout.readline())
        os.kill(child, 0)
        parent.kill()
    until = time.monotonic() + 5
    while not ended(child):
        assert time.monotonic() < until, "it lives on"
        time.sleep(0.02)


def test_an_answer_ends_when_its_time_is_over(run: Run[Any], process: EngineProcess) -> None:
    ask = Ask(messages=(user("What can you do?"),))
    whole = run(all_news(process, ask))[-1].finished
    cut = run(all_news(process, dataclasses.replace(ask, seconds=0.0)))[-1].finished
    assert (whole.reason, cut.reason) == ("stop", "length")
    assert cut.completion_tokens < whole.completion_tokens


def test_an_answer_goes_on_from_what_was_begun(run: Run[Any], process: EngineProcess) -> None:
    ask = Ask(messages=(user("What is in this picture?", 0),), pictures=(png(0),))
    whole = "".join(news.text for news in run(all_news(process, ask)))
    head = " ".join(whole.split()[:3])
    rest = run(all_news(process, dataclasses.replace(ask, begun=f" {head}")))
    assert (head + " " + "".join(news.text for news in rest)).startswith(whole)  # it has as many tokens left again


def test_adapters_by_request(run: Run[Any], process: EngineProcess, mini: LocalModel, tmp_path: Path) -> None:
    folder = write_adapter(mini.config.text, tmp_path, 1, strength=0.3)
    ask = dataclasses.replace(ASKS[0], sampling={"max_tokens": 8, "logprobs": 0})
    adapted = dataclasses.replace(ask, adapter=folder, heatmap=True)

    async def both() -> list[list[News]]:
        return await asyncio.gather(all_news(process, adapted), all_news(process, ask))

    plain = essence(run(all_news(process, ask)))
    first, second = run(both())
    assert essence(second) == plain
    prompt = mini.prompt("What is in this picture?", [png(0)])
    options = SamplingOptions(max_tokens=8, logprobs=0)
    job = mini.engine.submit(prompt, options, adapter=mini.engine.adapters.get(folder))
    expected = next(chunk.answer for chunk in mini.engine.stream(job) if chunk.answer)
    assert first[-1].finished.ids == (*prompt.token_ids, *expected.token_ids)
    tokens = essence(first)[1]
    assert [token.logprob for token in tokens] == [score.logprob for score in expected.logprobs[: len(tokens)]]
    assert first[-1].finished.ids != plain[2].ids
    assert first[-1].finished.heatmap
    vectors = run(process.embed(["a cat"], adapter=folder)).vectors, run(process.embed(["a cat"])).vectors
    assert not np.allclose(*vectors, atol=1e-2)


def test_a_context_is_no_longer_than_the_cache(run: Run[Any]) -> None:
    """An answer that nobody limited, or to more than there is room for, ends where the cache does."""

    async def asked() -> tuple[Exception, News]:
        bytes_a_token = 8192
        order = dataclasses.replace(MINI, engine={"cache_bytes": 128 * bytes_a_token, "running": 2})
        process = await EngineProcess.start(order)
        assert process.facts.cache_tokens == 128
        long = await failure(process, Ask(messages=(user("a " * 150),)))
        form = Constraint.regex("[a-z]{400}")
        limited = Ask(prompt="USER:", sampling={"max_tokens": 10**6}, constraint=(form.kind, form.text))
        news = await all_news(process, limited)
        await process.stop()
        return long, news[-1]

    long, last = run(asked())
    assert isinstance(long, PromptError)
    assert "at most 127 fit into a context of 128" in str(long)
    assert (last.finished.reason, len(last.finished.ids)) == ("length", 128)
