"""T90, T91, T92 and T96 over every dialect: too long a prompt, clients that leave, a full house, a dead child."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import struct
import threading
import time
from collections.abc import Sequence
from typing import Any

import httpx2
import pytest
from asked import ALL, ANTHROPIC, CHAT, COMPLETIONS, GENERATE, OPENAI, RESPONSES, Dialect, assert_shape, records
from live_server import no_leak
from serving import Raw

pytestmark = pytest.mark.usefixtures("oracles")
SECRET = "The word to keep is HELIOTROPE. "


@pytest.fixture(scope="module")
def context(live: Any) -> int:
    """The tokens that mini reads at most."""
    live.post(GENERATE.path, {"model": "mini"})
    return int(live.loaded()["mini:latest"]["context_length"])


# --- too long (T90) ---


@pytest.mark.parametrize("dialect", ALL, ids=str)
def test_t90_a_prompt_too_long_is_refused_with_both_counts(live: Any, context: int, dialect: Dialect) -> None:
    for times in (1, 4):
        prompt = SECRET + "a dog and a cat " * (context * times // 4) + "Which word?"
        for more in ({}, {"truncate": True}, {"truncation": "auto"} if dialect is RESPONSES else {}):
            told = dialect.refusal(live, dialect.body(prompt, **more))
            counts = [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", told)]
            assert context in counts, told
            assert max(counts) > context


def conversation(dialect: Dialect, turns: Sequence[tuple[str, str]], **more: Any) -> dict[str, Any]:
    spoken = [{"role": role, "content": words} for role, words in turns]
    return {**dialect.body(most=2), "input" if dialect is RESPONSES else "messages": spoken, **more}


@pytest.mark.parametrize("dialect", [CHAT, OPENAI, RESPONSES, ANTHROPIC], ids=str)
def test_t90_what_is_left_out_is_told(live: Any, context: int, dialect: Dialect) -> None:
    filler = "a dog and a cat " * (context // 12)
    turns = [
        ("user", SECRET + filler),
        ("assistant", filler),
        ("user", filler),
        ("assistant", filler),
        ("user", "Which word?"),
    ]
    told = dialect.refusal(live, conversation(dialect, turns))
    assert str(context) in told.replace(",", "")
    asked = {"truncation": "auto"} if dialect is RESPONSES else {"truncate": True}
    answer = live.post(dialect.path, conversation(dialect, turns, **asked)).json()
    shown = json.dumps(answer)
    left_out = re.search(r'"truncated_tokens": (\d+)', shown)
    assert left_out is not None, shown
    assert int(left_out[1]) > 0
    read = sum(
        int(n)
        for n in re.findall(r'"(?:prompt_eval_count|prompt_tokens|input_tokens|cache_read_input_tokens)": (\d+)', shown)
    )
    assert 0 < read <= context
    if dialect is CHAT:
        assert answer["truncated"] is True
    short = live.post(dialect.path, conversation(dialect, turns[-1:], **asked))
    assert "truncated" not in short.text.replace('"truncation"', "")


def test_t90_texts_to_embed_too(live: Any, context: int) -> None:
    text = SECRET + "a dog and a cat " * context
    for path, extra in (("/api/embed", {}), ("/api/embed", {"truncate": False}), ("/v1/embeddings", {})):
        response = live.post(path, {"model": "mini", "input": ["short", text], **extra})
        assert response.status_code == 400
        assert str(context) in assert_shape(path, response).replace(",", "")
        response = live.post(path, {"model": "mini", "input": ["short", text], "truncate": True})
        assert response.status_code == 200
        assert int(re.search(r'"truncated_tokens": ?(\d+)', response.text)[1]) > 0  # type: ignore[index]


# --- leaving (T91) ---


def bodies(draw: random.Random, picture: str) -> tuple[str, dict[str, Any]]:
    """A long question, in a dialect drawn by chance."""
    dialect = draw.choice([*ALL, None])
    if dialect is None:
        path = draw.choice(["/api/embed", "/v1/embeddings"])
        return path, {"model": "mini", "input": ["a dog and a cat " * draw.randint(1, 40)] * draw.randint(1, 400)}
    pictures = [picture] if dialect.sees and draw.random() < 0.4 else []
    body = dialect.body("Hello " * draw.randint(1, 250), *pictures, most=200)
    return dialect.path, {**body, "stream": draw.random() < 0.6}


@pytest.mark.parametrize("count", [40, pytest.param(500, marks=pytest.mark.soak)])
def test_t91_clients_that_leave_at_any_moment(live: Any, picture64: str, count: int) -> None:
    """In the head, in the body, in the queue, while a picture is looked at, while it is said; politely or not."""
    draw = random.Random(91)
    GENERATE.said(live, "Hello", picture64)
    before = live.memory()
    files = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0

    def leave(path: str, body: dict[str, Any], part: float, seconds: float, rudely: bool) -> None:
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n".encode()
        whole = head + data
        with Raw(live.url) as raw:
            raw.send(whole[: int(len(whole) * part)])
            time.sleep(seconds)
            if rudely:
                raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    for start in range(0, count, 20):
        threads = []
        for _ in range(min(20, count - start)):
            part = 1.0 if draw.random() < 0.8 else draw.random()
            given = (
                *bodies(draw, picture64),
                part,
                draw.choice([0, 0.01, 0.1, 0.3]) * draw.random() * 2,
                draw.random() < 0.5,
            )
            threads.append(threading.Thread(target=leave, args=given))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert live.is_idle(5)
    assert GENERATE.said(live, "Hello", picture64)
    assert live.memory() - before < 96 << 20
    if files:
        assert len(os.listdir("/proc/self/fd")) < files + 15


def test_t91_who_leaves_an_embedding_holds_nobody_up(live: Any) -> None:
    live.post("/api/embed", {"model": "mini", "input": "a"})
    body = json.dumps({"model": "mini", "input": ["a dog and a cat " * 30] * 9000}).encode()
    with Raw(live.url) as raw:
        raw.send(f"POST /api/embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        time.sleep(0.3)
    assert live.is_idle(5)
    began = time.monotonic()
    assert live.post("/api/embed", {"model": "mini", "input": "a"}).status_code == 200
    assert time.monotonic() - began < 5


# --- a dead child (T96) ---


def test_t96_each_stream_ends_with_a_word_when_the_child_dies(live: Any) -> None:
    live.post(GENERATE.path, {"model": "mini"})
    [child] = [each.process for each in live.app.state.residents.running() if each.package.name.startswith("mini")]
    before = GENERATE.said(live, "Hello", most=8)
    found: dict[str, str] = {}
    begun = threading.Semaphore(0)

    def ask(dialect: Dialect) -> None:
        # drawn hot, so that the answer is long
        body = {**dialect.body("Write.", most=500), "stream": True}
        if "options" in body:
            body["options"] = {"num_predict": 500, "temperature": 3.0}
        else:
            body["temperature"] = 3.0
        with httpx2.stream("POST", live.url + dialect.path, json=body, timeout=60) as response:
            assert response.status_code == 200
            pieces = []
            for piece in response.iter_text():
                if not pieces:
                    begun.release()
                pieces.append(piece)
            found[dialect.path] = "".join(pieces)

    threads = [threading.Thread(target=ask, args=(dialect,)) for dialect in ALL]
    for thread in threads:
        thread.start()
    for _ in ALL:
        assert begun.acquire(timeout=20)
    os.kill(child.pid, signal.SIGKILL)
    killed = time.monotonic()
    for thread in threads:
        thread.join(20)
    assert time.monotonic() - killed < 5
    assert len(found) == len(ALL)
    told = 0
    for path, text in found.items():
        assert no_leak(text), path
        assert text.endswith("\n"), "no record is cut in two"
        lines = [line.removeprefix("data: ") for line in text.splitlines()]
        last = json.loads([line for line in lines if line.startswith("{")][-1])
        inner = last.get("response")
        told += bool(last.get("error") or (isinstance(inner, dict) and inner.get("error")))
    assert told >= 2, "the others had said all they had to say"
    assert GENERATE.said(live, "Hello", most=8) == before


def test_t92_a_full_house_is_told_in_every_dialect(live: Any) -> None:
    """The places are taken from inside; a request is counted before its body is read."""
    admission = live.app.state.residents.admission
    kept, admission.most = admission.most, admission.inside
    try:
        for dialect in ALL:
            for stream in (False, True):
                response = live.post(dialect.path, dialect.body() | {"stream": stream})
                assert response.status_code == 503
                assert response.headers["retry-after"] == "1"
                assert "busy" in assert_shape(dialect.path, response)
        for path in ("/api/embed", "/v1/embeddings"):
            assert live.post(path, {"model": "mini", "input": "a"}).status_code == 503
        assert live.get("/api/tags").status_code == 200
    finally:
        admission.most = kept
    assert COMPLETIONS.said(live, "Hello")
    assert records(live.post(OPENAI.path, OPENAI.body(stream=True)))
