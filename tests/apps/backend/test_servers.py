"""Models on servers: the same answers as in this process, in both dialects, and every failure in one line."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from asking import calls
from live_server import Live
from serving import serving
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from lapilli.apps.backend.call import Backend, Call, Reply
from lapilli.apps.backend.opening import open_backend
from lapilli.errors import BusyError, InputError, LapilliError, ModelNotFoundError


@pytest.fixture(params=["ollama", "openai"])
def served(request: pytest.FixtureRequest, live: Live) -> Iterator[Backend]:
    with open_backend("mini", url=live.url, dialect=request.param) as found:
        yield found


def test_a_server_gives_the_answers_of_this_process(served: Backend, picture: bytes) -> None:
    asked = calls(picture)
    with open_backend("mini") as local:
        assert list(served.ask_all(asked)) == list(local.ask_all(asked))
        texts = ["a red circle", "an <image> in words"]
        assert np.allclose(served.embed(texts), local.embed(texts), atol=1e-6)
        call = Call.of("Hello, who are you?", max_tokens=6)
        assert list(served.stream(call)) == list(local.stream(call))
        assert served.name == "mini:latest"
        assert served.count(call) is None
        if served.context is not None:
            assert (served.digest, served.context, served.sees) == (local.digest, local.context, local.sees)


def test_failures_come_in_their_place(served: Backend) -> None:
    fine = Call.of("Hello", max_tokens=2)
    found = list(served.ask_all([fine, Call.of("x " * 4000), fine], window=2))
    assert isinstance(found[0], Reply)
    assert found[0] == found[2]
    assert isinstance(found[1], InputError)
    assert "2048" in str(found[1])


def test_leaving_a_stream_frees_the_server(served: Backend, live: Live) -> None:
    pieces = served.stream(Call.of("Tell me all about everything.", max_tokens=500))
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert live.is_idle(10)


@pytest.mark.parametrize("dialect", ["ollama", "openai"])
def test_a_model_that_is_not_there_is_told_with_those_that_are(live: Live, dialect: Any) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no model 'llava' at http.*: there are mini:latest"):
        open_backend("llava", url=live.url, dialect=dialect)


def test_a_server_that_is_not_there_is_told() -> None:
    for dialect in (None, "ollama", "openai"):
        with pytest.raises(LapilliError, match=r"no server answers at http://127\.0\.0\.1:9"):
            open_backend("mini", url="127.0.0.1:9", dialect=dialect)
    with pytest.raises(InputError, match="the server's URL is"):
        open_backend("mini", url="ftp://127.0.0.1")


def test_the_server_of_the_settings_is_asked_when_told_so(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAPILLI_HOST", live.url.removeprefix("http://"))
    with open_backend("MINI", url="server") as found:
        assert found.name == "mini:latest"
    with open_backend("mini") as found:
        assert not hasattr(found, "connection"), "a host alone is no order to use it"


class Made:
    """A server of any kind: what each path answers, and what was asked."""

    def __init__(self, **paths: Callable[[dict[str, Any]], Response]) -> None:
        self.paths = {name.replace("__", "/"): answer for name, answer in paths.items()}
        self.asked: list[tuple[str, dict[str, Any], str]] = []

    async def answer(self, request: Request) -> Response:
        path, body = request.url.path.strip("/"), json.loads(await request.body() or b"{}")
        self.asked.append((path, body, request.headers.get("authorization", "")))
        known = self.paths.get(path)
        return PlainTextResponse("404 page not found", 404) if known is None else known(body)

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/{path:path}", self.answer, methods=["GET", "POST"])])


def says(value: object, status: int = 200) -> Callable[[dict[str, Any]], Response]:
    return lambda _: JSONResponse(value, status)


TAGS = says({"models": [{"name": "llava:latest", "model": "llava:latest", "digest": "d1"}]})
SHOW = says({"model_info": {"llama.context_length": 131072}, "capabilities": ["completion", "thinking"]})
DONE = {"message": {"content": " Yes."}, "done": True, "done_reason": "length", "prompt_eval_count": 7, "eval_count": 2}


def test_an_ollama_server_is_asked_so_that_nothing_is_cut(picture: bytes) -> None:
    made = Made(api__version=says({"version": "0.1"}), api__tags=TAGS, api__show=SHOW, api__chat=says(DONE))
    with serving(made.app()) as url, open_backend("llava", url=url) as backend:
        assert (backend.name, backend.digest, backend.context, backend.sees) == ("llava:latest", "d1", 8192, False)
        reply = backend.ask(Call.of("Is it?", [picture], stop=("x",), seed=3, schema={"type": "object"}))
    assert reply == Reply(text="Yes.", finish="length", prompt_tokens=7, tokens=2)
    body = made.asked[-1][1]
    assert (body["truncate"], body["think"], body["format"]) == (False, False, {"type": "object"})
    assert base64.b64decode(body["messages"][0].pop("images")[0]).startswith(b"\x89PNG")
    assert body["messages"] == [{"role": "user", "content": "Is it?"}]
    assert body["options"] == {
        "temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0, "num_predict": 512,
        "seed": 3, "stop": ["x"], "num_ctx": 8192,
    }  # fmt: skip


def test_an_older_servers_vectors_come_one_by_one() -> None:
    made = Made(
        api__version=says({"version": "0.1"}), api__tags=TAGS, api__show=SHOW,
        api__embeddings=lambda body: JSONResponse({"embedding": [float(len(body["prompt"])), 0.0]}),
    )  # fmt: skip
    with serving(made.app()) as url, open_backend("llava:latest", url=url) as backend:
        assert backend.embed(["a", "bb"]).tolist() == [[1.0, 0.0], [1.0, 0.0]]
    assert [path for path, *_ in made.asked[-3:]] == ["api/embed", "api/embeddings", "api/embeddings"]


def test_a_model_is_pulled_when_asked_to_and_not_else() -> None:
    here: list[dict[str, str]] = []

    def pull(body: dict[str, Any]) -> Response:
        here.append({"name": f"{body['model']}:latest", "digest": "d"})
        return JSONResponse({"status": "success"})

    made = Made(
        api__version=says({}), api__tags=lambda _: JSONResponse({"models": here}), api__show=SHOW, api__pull=pull
    )
    with serving(made.app()) as url:
        with pytest.raises(ModelNotFoundError, match="it has none; pull one there"):
            open_backend("llava", url=url)
        assert not here
        with open_backend("llava", url=url, pull=True) as backend:
            assert backend.name == "llava:latest"


def test_an_openai_server_is_found_and_gets_its_key() -> None:
    said = {"choices": [{"message": {"content": "Yes."}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 4}}
    made = Made(v1__models=says({"data": [{"id": "gpt"}]}), v1__chat__completions=says(said))
    with serving(made.app()) as url, open_backend("gpt", url=url, key="secret") as backend:
        reply = backend.ask(Call.of("Is it?", schema={"type": "object"}))
        assert reply == Reply(text="Yes.", finish="stop", prompt_tokens=4, tokens=0)
        with open_backend("gpt", url=f"{url}/v1") as again:
            assert again.digest == backend.digest
    assert made.asked[-2][2] == "Bearer secret"
    assert made.asked[-1][2] == ""
    assert made.asked[-2][1]["response_format"]["json_schema"]["schema"] == {"type": "object"}


def test_a_full_server_is_asked_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("lapilli.apps.backend.connection.time", SimpleNamespace(sleep=waits.append))
    full = 2

    def chat(_: dict[str, Any]) -> Response:
        nonlocal full
        full -= 1
        if full >= 0:
            return JSONResponse({"error": "server busy"}, 503, headers={"Retry-After": "7"} if full else {})
        return JSONResponse(DONE)

    made = Made(api__version=says({}), api__tags=TAGS, api__show=SHOW, api__chat=chat)
    with serving(made.app()) as url, open_backend("llava", url=url) as backend:
        assert backend.ask(Call.of("?")).text == "Yes."
        assert waits == [7.0, 1.0]
        full = 1000
        (found,) = backend.ask_all([Call.of("?")])
    assert isinstance(found, BusyError)
    assert str(found) == "server busy"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda _: PlainTextResponse("oh no"), "no JSON"),
        (says([]), "list, an object was due"),
        (says({"error": "it broke"}, 500), "it broke"),
        (says({"error": {"message": "bad \n schema"}}, 400), "bad schema"),
        (says({"error": "it broke"}), "it broke"),
        (lambda _: PlainTextResponse("", 502), "the server answers 502"),
    ],
)
def test_whatever_a_server_says_ends_no_other(answer: Callable[[Any], Response], words: str) -> None:
    made = Made(api__version=says({}), api__tags=TAGS, api__show=SHOW, api__chat=answer)
    with serving(made.app()) as url, open_backend("llava", url=url) as backend:
        found = list(backend.ask_all([Call.of("?"), Call.of("?")]))
    assert [type(error) is not Reply and words in str(error) for error in found] == [True, True]
    assert not any("\n" in str(error) for error in found)


def test_what_is_no_answer_is_told() -> None:
    made = Made(v1__models=says({"data": []}), v1__chat__completions=says({"choices": []}))
    with serving(made.app()) as url:
        with pytest.raises(ModelNotFoundError, match="it has none"):
            open_backend("gpt", url=url)
        made.paths["v1/models"] = says({"data": [{"id": "gpt"}]})
        with open_backend("gpt", url=url) as backend, pytest.raises(LapilliError, match="an answer that is none"):
            backend.ask(Call.of("?"))
        made.paths.clear()
        with pytest.raises(LapilliError, match="no server of Ollama's or OpenAI's kind"):
            open_backend("gpt", url=url)


def test_a_window_of_requests_goes_on_at_once() -> None:
    together, most, now = threading.Barrier(4, timeout=20), 0, 0
    lock = threading.Lock()

    def chat(body: dict[str, Any]) -> Response:
        raise AssertionError

    async def wait(request: Request) -> Response:
        import asyncio

        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        await asyncio.to_thread(together.wait)
        with lock:
            now -= 1
        return JSONResponse(DONE)

    made = Made(api__version=says({}), api__tags=TAGS, api__show=SHOW, api__chat=chat)
    routes = [Route("/api/chat", wait, methods=["POST"]), *made.app().routes]
    with serving(Starlette(routes=routes)) as url, open_backend("llava", url=url) as backend:
        assert len(list(backend.ask_all([Call.of(str(n)) for n in range(8)], window=4))) == 8
    assert most == 4
