"""T41, T63 to T74 over every dialect: numbers, forms, tools and texts that no honest client sends."""

from __future__ import annotations

import contextlib
import json
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from asked import ALL, ANTHROPIC, CHAT, COMPLETIONS, GENERATE, OPENAI, RESPONSES, SEEING, Dialect, assert_shape, records

pytestmark = pytest.mark.usefixtures("oracles")
each = pytest.mark.parametrize("dialect", ALL, ids=str)
each_with_forms = pytest.mark.parametrize("dialect", SEEING, ids=str)

ODD: tuple[Any, ...] = (-1, -(1 << 31), 1 << 31, 1 << 63, 1 << 64, 1e308, "5", True, [], {}, 0.5)
NUMBERS = {
    OPENAI.path: (
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "frequency_penalty",
        "presence_penalty",
        "seed",
        "n",
        "top_logprobs",
    ),
    COMPLETIONS.path: (
        "max_tokens",
        "temperature",
        "top_p",
        "frequency_penalty",
        "presence_penalty",
        "seed",
        "n",
        "best_of",
        "logprobs",
    ),
    RESPONSES.path: ("max_output_tokens", "temperature", "top_p", "top_logprobs"),
    ANTHROPIC.path: ("max_tokens", "temperature", "top_p", "top_k"),
}


@pytest.mark.parametrize("dialect", [OPENAI, COMPLETIONS, RESPONSES, ANTHROPIC], ids=str)
def test_t63_odd_numbers(live: Any, dialect: Dialect) -> None:
    for name in NUMBERS[dialect.path]:
        for value in ODD:
            body = {**dialect.body(most=1), name: value}
            if name == "top_logprobs":
                body["logprobs"], body["include"] = True, ["message.output_text.logprobs"]
            if name in ("max_completion_tokens", "max_tokens") and value in (-1, True):
                body["stop"] = ["a", "e", "i", "o", "."]
            response = live.post(dialect.path, body)
            if response.status_code != 200:
                assert response.status_code == 400, (name, value, response.text)
                named = assert_shape(dialect.path, response)
                shown = "num_predict" if name.startswith("max") and name not in named else name
                assert shown in named, (name, value, named)


@each
def test_t63_fields_of_the_wrong_kind(live: Any, dialect: Dialect) -> None:
    body = dialect.body(most=1)
    for name in (*body, "tools", "stop", "options", "keep_alive", "format", "stream_options", "user", "system"):
        for value in (5, [5], {"a": 5}):
            found = dialect.status(live, {**body, name: value, "num_predict": 1})
            assert found in (200, 400, 404), (name, value, found)


@each
def test_t64_numbers_beyond_reason_cost_nothing(live: Any, dialect: Dialect) -> None:
    longest = {
        OPENAI.path: "max_tokens",
        COMPLETIONS.path: "max_tokens",
        RESPONSES.path: "max_output_tokens",
        ANTHROPIC.path: "max_tokens",
    }
    many = {OPENAI.path: ("n",), COMPLETIONS.path: ("n", "best_of")}.get(dialect.path, ())
    bodies = [dialect.body() | {name: 1 << 31} for name in many]
    if dialect.path in longest:
        bodies.append(dialect.body() | {longest[dialect.path]: 1 << 40})
        stop = "stop_sequences" if dialect is ANTHROPIC else "stop"
        if dialect is not RESPONSES:
            bodies += [dialect.body() | {stop: ["x"] * 100_000}, dialect.body() | {stop: ["x" * 100_000]}]
    else:
        bodies += [dialect.body() | {"options": {name: 1 << 40}} for name in ("num_predict", "num_ctx", "top_k")]
        bodies.append(dialect.body() | {"options": {"num_ctx": 10**9}})
    for body in bodies:
        dialect.refusal(live, body)


def test_t64_texts_without_number_to_embed(live: Any) -> None:
    for path in ("/api/embed", "/v1/embeddings"):
        for value in ([5], [[5]], [None], {}, 5, True, [{"text": "a"}]):
            response = live.post(path, {"model": "mini", "input": value})
            assert response.status_code == 400
            assert_shape(path, response)
        for value in (-1, 1 << 31, 1 << 64, "5", 0.5, []):
            response = live.post(path, {"model": "mini", "input": "a", "dimensions": value})
            assert response.status_code == 400, value
            assert_shape(path, response)
        response = live.post(path, {"model": "mini", "input": ["a"] * 200_000})
        assert response.status_code == 400, "each would be a vector in memory"
        assert "at most" in assert_shape(path, response)


@pytest.mark.parametrize(("dialect", "name"), [(OPENAI, "logit_bias"), (COMPLETIONS, "logit_bias")], ids=str)
def test_t67_biases_are_refused_whatever_token_they_name(live: Any, dialect: Dialect, name: str) -> None:
    for token in ("-1", "0", "4095", "4096", "1000000", str(1 << 31), "x"):
        dialect.refusal(live, dialect.body(**{name: {token: 100}}))


def test_t67_context_of_tokens_that_are_none(live: Any) -> None:
    for ids in ([-1], [1 << 30], [1 << 31], [1 << 64], [0.5], ["a"], [True], [None], [[1]]):
        GENERATE.refusal(live, GENERATE.body(context=ids))


def test_t68_logprobs_within_their_limits(live: Any) -> None:
    for top in (-1, 21, 1 << 31, 1 << 64):
        GENERATE.refusal(live, GENERATE.body(logprobs=True, top_logprobs=top))
        OPENAI.refusal(live, OPENAI.body(logprobs=True, top_logprobs=top))
        RESPONSES.refusal(live, RESPONSES.body(include=["message.output_text.logprobs"], top_logprobs=top))
        COMPLETIONS.refusal(live, COMPLETIONS.body(logprobs=top))
    COMPLETIONS.refusal(live, COMPLETIONS.body(logprobs=5, echo=True))
    for form in (None, {"enum": ["yes", "no"]}):
        for _ in range(2):  # the second time from the cache
            body = OPENAI.body("Is it so?", most=4, form=form, logprobs=True, top_logprobs=20)
            tokens = live.post(OPENAI.path, body).json()["choices"][0]["logprobs"]["content"]
            assert tokens
            for token in tokens:
                assert sum(2.718281828459045 ** other["logprob"] for other in token["top_logprobs"]) <= 1.0001
                assert token["logprob"] <= 0


BAD_SCHEMAS: tuple[Any, ...] = (
    {"type": "nothing"},
    {"type": 5},
    {"type": []},
    {"properties": []},
    {"enum": []},
    {"type": "string", "pattern": "("},
    {"type": "string", "pattern": "[z-a]"},
    {"type": "string", "pattern": "(?=a)b"},
    {"$ref": "#/nowhere"},
    {"$ref": "https://127.0.0.1:1/x"},
    {"$ref": "file:///etc/passwd"},
    {"allOf": 5},
    {"anyOf": []},
    {"items": 5},
    {"type": "object", "required": 5},
    {"type": "string", "minLength": -1},
    {"type": "string", "pattern": "a{1,99999}"},
    {"type": "string", "pattern": "(a{1,999}){1,999}"},
    {"type": "array", "items": 5},
    {"not": {}},
)


@each_with_forms
def test_t69_schemas_that_are_none(live: Any, dialect: Dialect) -> None:
    for schema in BAD_SCHEMAS:
        dialect.refusal(live, dialect.body(form=schema))
    for form in (5, True, [], "yaml", [{}], ""):
        found = dialect.status(live, dialect.body(most=1, form=form))
        assert found == 400 or (found == 200 and form == ""), form


def test_t69_a_thousand_random_schemas(live: Any) -> None:
    """A sample of them in every run."""
    draw = random.Random(69)
    words: list[Any] = [
        "string",
        "integer",
        "object",
        "array",
        "null",
        5,
        -1,
        None,
        True,
        [],
        {},
        "(",
        "a*",
        1e300,
        "#",
    ]
    keys = [
        "type",
        "properties",
        "items",
        "enum",
        "const",
        "pattern",
        "required",
        "anyOf",
        "oneOf",
        "$ref",
        "minimum",
        "maxLength",
        "minItems",
        "additionalProperties",
        "format",
        "$defs",
        "prefixItems",
        "maxItems",
        "not",
    ]

    def schema(depth: int) -> Any:
        if depth == 0 or draw.random() < 0.4:
            return draw.choice(words)
        if draw.random() < 0.2:
            return [schema(depth - 1) for _ in range(draw.randint(0, 3))]
        return {draw.choice(keys): schema(depth - 1) for _ in range(draw.randint(1, 4))}

    for _ in range(80):
        form = schema(3)
        if isinstance(form, dict):
            assert GENERATE.status(live, GENERATE.body(most=1, form=form)) in (200, 400), form


def test_t69_tools_that_are_none(live: Any) -> None:
    odd: tuple[Any, ...] = (
        5,
        "x",
        [5],
        [None],
        [[]],
        [{}],
        [{"type": "x"}],
        [{"type": "function"}],
        [{"type": "function", "function": 5}],
        [{"type": "function", "function": {"name": 5}}],
        [{"type": "function", "function": {"name": ""}}],
        [{"type": "function", "function": {"name": "a", "parameters": 5}}],
        [{"name": 5}],
        [{"name": "a", "parameters": []}],
        [{"type": "function", "function": {"name": "a", "parameters": {"type": 5, "pattern": "("}}}],
        [{"name": "a", "input_schema": []}],
        [{"type": "function", "function": {"name": "a"}}] * 2000,
    )
    for dialect in (CHAT, OPENAI, RESPONSES, ANTHROPIC):
        for tools in odd:
            assert dialect.status(live, dialect.body(tools=tools)) == 400, (dialect.path, str(tools)[:80])


def test_t69_calls_of_tools_that_make_no_sense(live: Any) -> None:
    deep = "[" * 5000 + "]" * 5000
    texts = (
        "{",
        "5",
        "[]",
        deep,
        '{"a":' + deep + "}",
        '{"a": "\\ud800"}',
        '{"a": NaN}',
        '{"a": 1e999}',
        "9" * 10_000,
        "null",
        '{"\\udfff": 1}',
        '{"a": ' + "9" * 5000 + "}",
    )
    user = {"role": "user", "content": "Hello"}
    for text in texts:
        call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": text}}
        turns = [user, {"role": "assistant", "content": "", "tool_calls": [call]}, user]
        assert OPENAI.status(live, OPENAI.body() | {"messages": turns}) == 400, text[:40]
        item = {"type": "function_call", "call_id": "1", "name": "f", "arguments": text}
        assert RESPONSES.status(live, RESPONSES.body() | {"input": [user, item, user]}) == 400, text[:40]


PATTERNS = (
    "(a+)+b",
    "(.*){1,32000}",
    "a{1,99999}",
    "(a|a)*" * 50,
    "^(([a-z])+.)+[A-Z]([a-z])+$",
    "(x+x+)+y",
    "(" * 6000,
    "((((a{0,100}){0,100}){0,100}){0,100}){0,100}",
    "[a-z]{0,9999}" * 9,
    "\\p{L}{1,5000}",
)


@pytest.mark.parametrize("dialect", [GENERATE, OPENAI, ANTHROPIC], ids=str)
def test_t70_patterns_that_explode(live: Any, dialect: Dialect) -> None:
    for pattern in PATTERNS:
        began = time.process_time()
        assert dialect.status(live, dialect.body(most=2, form={"type": "string", "pattern": pattern})) in (200, 400)
        assert time.process_time() - began < 2, pattern  # of the server's own process: nobody else waits for it
    GENERATE.said(live, "Hello")


@pytest.mark.parametrize("dialect", [GENERATE, OPENAI, ANTHROPIC], ids=str)
def test_t71_nesting(live: Any, dialect: Dialect) -> None:
    deep: dict[str, Any] = {"type": "integer"}
    for _ in range(40):
        deep = {"type": "object", "properties": {"a": deep}, "required": ["a"], "additionalProperties": False}
    assert dialect.status(live, dialect.body(most=2, form=deep)) in (200, 400)
    for form in (
        {"$ref": "#"},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
    ):
        assert dialect.status(live, dialect.body(most=2, form=form)) in (200, 400)
    text = json.dumps(dialect.body())[:-1]
    for depth in (200, 1000, 100_000):
        for opened, closed in (("[", "]"), ('{"a":', "}")):
            body = f'{text}, "tools": {opened * depth}5{closed * depth}}}'
            response = live.http.post(dialect.path, content=body)
            assert response.status_code == 400
            assert "nest" in assert_shape(dialect.path, response)


@pytest.fixture
def disk(live: Any) -> Iterator[None]:
    """Nothing is written while a test runs."""
    before = _sizes(live.home)
    yield
    assert _sizes(live.home) == before


def _sizes(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("count", [160, pytest.param(20_000, marks=pytest.mark.soak)])
def test_t72_schemas_without_number_leave_memory_flat(live: Any, count: int) -> None:
    def ask(first: int, last: int) -> None:
        for number in range(first, last):
            form = {"type": "integer", "minimum": number, "maximum": number, "title": f"{number}" * 10}
            assert live.post(GENERATE.path, GENERATE.body(most=1, form=form)).status_code == 200

    ask(0, 40)  # more than are kept, and the allocator's own growth
    before = live.memory()
    ask(40, 40 + count)
    assert live.memory() - before < (24 << 20)


@each_with_forms
def test_t73_json_parses_or_says_that_it_was_cut(live: Any, dialect: Dialect) -> None:
    form: Any = "json" if dialect is not ANTHROPIC else {"type": "object"}
    for prompt in ("Write", "[[[["):
        body = dialect.body(prompt, most=40, form=form, stream=True)
        response = live.post(dialect.path, body)
        assert response.status_code == 200, response.text
        last = records(response)[-2:]
        text = dialect.said(live, prompt, most=40, form=form)
        assert "    " not in text
        assert "\n\n\n" not in text
        if not any(word in json.dumps(last) for word in ('"length"', "max_tokens", "incomplete")):
            json.loads(text)


def test_t74_an_answer_that_would_not_end(live: Any) -> None:
    looping = "a a a a a a a a " * 4
    options = {"temperature": 0, "num_predict": -1, "num_ctx": 128, "repeat_penalty": 1.0, "stop": []}
    answer = live.whole(GENERATE.path, prompt=looping, raw=True, options=options)
    assert answer["done_reason"] in ("stop", "length")
    assert answer["prompt_eval_count"] + answer["eval_count"] <= 128


def test_t65_tiny_contexts_write_no_log(live: Any, caplog: pytest.LogCaptureFixture) -> None:
    for context in (1, 8, 16, 64):
        live.post(GENERATE.path, GENERATE.body("Hello " * 50, options={"num_ctx": context, "num_predict": -1}))
    assert sum(len(record.getMessage()) for record in caplog.records) < 100 << 10


def test_t66_a_huge_context_is_refused_and_the_model_stays(live: Any) -> None:
    live.post(GENERATE.path, {"model": "mini"})
    processes = [resident.process.pid for resident in live.app.state.residents.running()]
    for context in (1_000_000, 1_000_000_000):
        text = GENERATE.refusal(live, GENERATE.body(options={"num_ctx": context}))
        assert "num_ctx" in text
    assert [resident.process.pid for resident in live.app.state.residents.running()] == processes
    assert all(os.path.exists(f"/proc/{pid}") for pid in processes) or not os.path.exists("/proc")


@each
def test_t41_a_template_s_innards_are_not_a_request_s_to_set(live: Any, dialect: Dialect) -> None:
    plain = dialect.said(live, "Hello", most=6)
    for name in ("chat_template_kwargs", "template_kwargs", "chat_template", "extra_body", "add_generation_prompt"):
        for value in ({"tokenize": True, "conversation": [], "messages": [], "template": "evil"}, {"x": "y" * 100_000}):
            assert dialect.said(live, "Hello", most=6, **{name: value}) == plain


def test_t52_t67_tokens_of_pictures_that_are_not_there(live: Any) -> None:
    """What an earlier answer gave as its context may come back changed."""
    draw = random.Random(67)
    rows = live.whole("/api/show", model="mini")["model_info"]
    size = next(value for name, value in rows.items() if name.endswith(".vocab_size"))
    for _ in range(40):
        ids = [draw.choice([0, 1, 2, 3, 3, 3, 4, size - 1, draw.randrange(size)]) for _ in range(draw.randint(1, 60))]
        assert GENERATE.status(live, GENERATE.body(most=1, context=ids)) in (200, 400)
    GENERATE.refusal(live, GENERATE.body(context=[size]))
    GENERATE.refusal(live, GENERATE.body(context=[1] * 100_000))


@each
def test_t52_words_of_every_kind(live: Any, dialect: Dialect) -> None:
    odd = (
        "\0",
        "\x01\x02\x1b[2J",
        "\ufeff",
        "\u202e",
        "\uffff",
        "\U0010ffff",
        "\u0301" * 300,
        "a\r\n\r\nb",
        "\u2028",
        " ",
        "\t",
    )
    for text in odd:
        assert dialect.status(live, dialect.body(text, most=1)) in (200, 400), ascii(text)


def test_t63_t93_create_of_fields_of_the_wrong_kind(live: Any) -> None:
    before = live.get("/api/tags").json()
    fields = (
        "from",
        "files",
        "adapters",
        "template",
        "license",
        "system",
        "parameters",
        "messages",
        "quantize",
        "renderer",
        "parser",
        "requires",
        "stream",
        "info",
        "remote_host",
        "draft",
    )
    values: tuple[Any, ...] = (5, {"a": {}}, [{"role": 5, "content": []}])
    for name in fields:
        for value in values:
            body = {"model": "odd", "from": "mini", "stream": False, name: value}
            response = live.post("/api/create", body)
            if response.status_code == 200:
                live.delete("/api/delete", {"model": "odd"})
                continue
            assert response.status_code in (400, 404, 501, 502), (name, str(value)[:60], response.text)
            assert_shape("/api/create", response)
    assert live.get("/api/tags").json() == before


def test_t93_a_storm_of_loading_and_unloading(live: Any) -> None:
    """Everybody is answered or told why not, and nothing is left behind."""
    draw = random.Random(93)
    live.post("/api/copy", {"source": "mini", "destination": "storm"})
    found: list[int] = []

    def ask(dialect: Dialect, kind: str, keep_alive: int, leave: bool) -> None:
        body = {**dialect.body("Hello", most=8), "model": kind, "keep_alive": keep_alive}
        if leave:
            with contextlib.suppress(httpx2.TimeoutException):
                httpx2.post(live.url + dialect.path, json=body, timeout=0.05)
            return
        response = httpx2.post(live.url + dialect.path, json=body, timeout=60)
        if response.status_code != 200:
            assert_shape(dialect.path, response)
        found.append(response.status_code)

    threads = []
    for turn in range(30):
        given = (draw.choice(ALL), draw.choice(["mini", "storm"]), draw.choice([0, 0, 60]), draw.random() < 0.2)
        threads.append(threading.Thread(target=ask, args=given))
        threads[-1].start()
        time.sleep(draw.random() * 0.03)
        if turn == 20:
            assert live.delete("/api/delete", {"model": "storm"}).status_code == 200
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert set(found) <= {200, 404, 503}
    assert found.count(200) > len(found) // 3
    assert live.is_idle(5)
