"""OpenAI's /v1/chat/completions (contract, table 1.10)."""

from __future__ import annotations

import base64
import json
import math
import re
from typing import Any

import pytest
from dialects import HELLO, TOOL, ask, refused, saying, stream

from lapilli.errors import EngineGoneError
from lapilli.ground.fetch import Fetched
from lapilli.wire.question import Account, Likelihood, Question, Said, ToolCall

CHAT = "/v1/chat/completions"
DONE = Account(reason="stop", prompt_tokens=10, completion_tokens=5, cached_tokens=4, image_tokens=3)


def url_part(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def showing(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "text", "text": "What is in this picture?"}, *parts]}]


# --- whole answers ---


def test_a_whole_answer(live: Any) -> None:
    found = ask(live, CHAT, messages=HELLO, max_tokens=5)
    assert re.fullmatch(r"chatcmpl-\w+", found["id"])
    assert found["object"] == "chat.completion"
    assert isinstance(found["created"], int)
    assert found["model"] == "mini"
    assert found["system_fingerprint"] == "fp_ollama"
    (choice,) = found["choices"]
    assert choice["index"] == 0
    assert choice["finish_reason"] == "length"
    assert choice["logprobs"] is None
    assert set(choice["message"]) == {"role", "content"}
    assert choice["message"]["role"] == "assistant"
    native = live.whole("/api/chat", messages=HELLO, options={"num_predict": 5})
    assert choice["message"]["content"] == native["message"]["content"]
    usage = found["usage"]
    assert usage["completion_tokens"] == 5
    assert usage["prompt_tokens"] == native["prompt_eval_count"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + 5


@pytest.mark.parametrize(
    ("more", "tokens"),
    [
        ({"max_tokens": 3}, 3),
        ({"max_completion_tokens": 3}, 3),
        ({"max_completion_tokens": 2, "max_tokens": 4}, 2),
        ({"max_completion_tokens": None, "max_tokens": 4}, 4),
    ],
)
def test_the_longest_answer(live: Any, more: dict[str, Any], tokens: int) -> None:
    found = ask(live, CHAT, messages=HELLO, **more)
    assert found["usage"]["completion_tokens"] == tokens
    assert found["choices"][0]["finish_reason"] == "length"


def test_an_answer_that_ends_by_itself_or_at_a_text(live: Any) -> None:
    assert ask(live, CHAT, messages=HELLO)["choices"][0]["finish_reason"] == "stop"
    found = ask(live, CHAT, messages=HELLO, stop=["mini"])["choices"][0]
    assert found["finish_reason"] == "stop"
    assert "mini" not in found["message"]["content"]


def test_options_reach_the_model_and_heat_is_1_where_nothing_is_said(live: Any, monkeypatch: Any) -> None:
    asked = saying(monkeypatch)([Said(text="a"), Said(account=DONE)])
    live.post(CHAT, {"model": "mini", "messages": HELLO})
    given = {"temperature": 0.5, "top_p": 0.4, "seed": 3, "frequency_penalty": 1, "presence_penalty": 2, "stop": "a"}
    live.post(CHAT, {"model": "mini", "messages": HELLO, **given, "max_tokens": -1, "user": "u", "keep_alive": "5m"})
    assert asked[0].defaults == asked[1].defaults == {"temperature": 1.0, "top_p": 1.0}
    assert asked[0].sampling == {}
    assert asked[1].sampling == {**given, "num_predict": -1}
    assert asked[1].keep_alive == 300


def test_the_same_seed_says_the_same(live: Any) -> None:
    told = {
        ask(live, CHAT, messages=HELLO, seed=7, temperature=1, max_tokens=8)["choices"][0]["message"]["content"]
        for _ in range(2)
    }
    assert len(told) == 1


# --- streams ---


def test_a_stream(live: Any) -> None:
    told = stream(live, CHAT, messages=HELLO, max_tokens=5)
    assert {name for name, _ in told} == {""}
    *chunks, last = [data for _, data in told]
    assert last == "[DONE]"
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    assert all(chunk["object"] == "chat.completion.chunk" for chunk in chunks)
    assert all("usage" not in chunk for chunk in chunks)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert ["role" in delta for delta in deltas] == [True] + [False] * (len(deltas) - 1)
    assert deltas[-1] == {}
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    whole = ask(live, CHAT, messages=HELLO, max_tokens=5)
    assert "".join(delta.get("content", "") for delta in deltas) == whole["choices"][0]["message"]["content"]


def test_figures_of_a_stream_when_asked(live: Any) -> None:
    told = [
        data for _, data in stream(live, CHAT, messages=HELLO, max_tokens=2, stream_options={"include_usage": True})
    ]
    assert told[-2]["choices"] == []
    assert told[-2]["usage"]["completion_tokens"] == 2
    assert all("usage" not in chunk for chunk in told[:-2])


def test_a_stream_of_thoughts_words_and_calls(live: Any, monkeypatch: Any) -> None:
    call = ToolCall(name="weather", arguments={"b": 1, "a": "ü"}, id="call_1")
    parts = [Said(thinking="hm"), Said(text="so"), Said(tool_calls=(call,)), Said(tool_calls=(call,))]
    asked = saying(monkeypatch)([*parts, Said(account=DONE)])
    told = [data for _, data in stream(live, CHAT, messages=HELLO, tools=[TOOL])]
    assert asked[0].tools == (TOOL,)
    deltas = [chunk["choices"][0]["delta"] for chunk in told[:-1]]
    assert deltas[0] == {"role": "assistant", "reasoning": "hm", "content": ""}
    assert deltas[1] == {"content": "so"}
    function = {"name": "weather", "arguments": '{"b": 1, "a": "ü"}'}
    assert deltas[2] == {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]}
    assert deltas[3]["tool_calls"][0]["index"] == 1
    assert told[-2]["choices"][0]["finish_reason"] == "tool_calls"
    whole = ask(live, CHAT, messages=HELLO, tools=[TOOL])["choices"][0]
    assert whole["message"]["reasoning"] == "hm"
    assert whole["message"]["content"] == "so"
    assert [item["function"] for item in whole["message"]["tool_calls"]] == [function, function]
    assert whole["finish_reason"] == "tool_calls"


def test_a_stream_of_nothing_still_has_a_role(live: Any, monkeypatch: Any) -> None:
    saying(monkeypatch)([Said(account=DONE)])
    first, last, _ = [data for _, data in stream(live, CHAT, messages=HELLO)]
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert last["choices"][0]["delta"] == {}


def test_a_call_without_a_name_gets_one(live: Any, monkeypatch: Any) -> None:
    saying(monkeypatch)([Said(tool_calls=(ToolCall(name="f"), ToolCall(name="f"))), Said(account=DONE)])
    message = ask(live, CHAT, messages=HELLO)["choices"][0]["message"]
    assert message["content"] is None
    ids = [call["id"] for call in message["tool_calls"]]
    assert all(name.startswith("call_") for name in ids)
    assert len(set(ids)) == 2


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/responses", "/v1/messages"])
def test_a_client_that_leaves_frees_its_place(live: Any, path: str) -> None:
    asked = {"messages": HELLO, "prompt": "Hello", "input": "Hello"}
    long = {"max_tokens": 2000, "temperature": 1, "stop": None}
    with live.http.stream("POST", path, json={"model": "mini", "stream": True, **asked, **long}) as response:
        assert next(response.iter_lines())
    assert live.is_idle(5)


def test_what_breaks_off_is_told_in_the_stream(live: Any, monkeypatch: Any) -> None:
    saying(monkeypatch)([Said(text="a")], EngineGoneError("the model's process has ended"))
    told = [data for _, data in stream(live, CHAT, messages=HELLO)]
    assert told[-1] == {
        "error": {"message": "the model's process has ended", "type": "api_error", "param": None, "code": None}
    }


def test_what_breaks_before_the_first_word_has_a_status(live: Any, monkeypatch: Any) -> None:
    saying(monkeypatch)([], EngineGoneError("the model's process has ended"))
    body = {"model": "mini", "messages": HELLO, "stream": True}
    assert refused(live, CHAT, 500, body) == ("api_error", "the model's process has ended")


def test_figures_tell_what_was_read_before_and_what_was_seen(live: Any, monkeypatch: Any) -> None:
    more = {"queue_seconds": 1.0, "image_seconds": 2.0, "truncated": 7}
    saying(monkeypatch)([Said(account=Account(**{**vars(DONE), **more}))])
    assert ask(live, CHAT, messages=HELLO)["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 4, "image_tokens": 3},
        "queue_duration": 1_000_000_000,
        "image_duration": 2_000_000_000,
        "truncated_tokens": 7,
    }


# --- pictures ---


def test_a_picture(live: Any, picture64: str) -> None:
    found = ask(live, CHAT, messages=showing(url_part(f"data:image/png;base64,{picture64}")), max_tokens=4)
    assert found["usage"]["prompt_tokens_details"]["image_tokens"] > 0
    asked = [{"role": "user", "content": "What is in this picture?", "images": [picture64]}]
    native = live.whole("/api/chat", messages=asked)
    assert found["choices"][0]["message"]["content"] == native["message"]["content"]
    assert found["usage"]["prompt_tokens"] == native["prompt_eval_count"]


@pytest.mark.parametrize("head", ["data:;base64,", "data:image/jpeg;base64,", "DATA:image/PNG;base64,"])
def test_how_a_picture_may_be_told(live: Any, picture64: str, head: str) -> None:
    for part in (url_part(head + picture64), {"type": "image_url", "image_url": head + picture64}):
        found = ask(live, CHAT, messages=showing(part), max_tokens=1)
        assert found["usage"]["prompt_tokens_details"]["image_tokens"] > 0


def test_a_heat_map_when_asked(live: Any, picture64: str) -> None:
    messages = showing(url_part(f"data:image/png;base64,{picture64}"))
    found = ask(live, CHAT, messages=messages, max_tokens=2, heatmap=True)
    assert base64.b64decode(found["heatmap"]).startswith(b"\x89PNG")
    last = stream(live, CHAT, messages=messages, max_tokens=2, heatmap=True)[-2][1]
    assert base64.b64decode(last["heatmap"]).startswith(b"\x89PNG")
    assert "heatmap" not in ask(live, CHAT, messages=messages, max_tokens=2)


NOT_BY_URL = "image URLs are not currently supported, please use base64 encoded data instead"


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("https://example.org/cat.png", NOT_BY_URL),
        ("HTTP://127.0.0.1/cat.png", NOT_BY_URL),
        ("file:///etc/passwd", "invalid image input"),
        ("/etc/passwd", "invalid image input"),
        ("data:image/svg+xml;base64,AAAA", "invalid image input"),
        ("data:image/png,AAAA", "invalid image input"),
        ("data:image/png;base64,*", "illegal base64 data at input byte 0"),
        ("data:image/png;base64,AAAA", "picture"),
        (None, "must be a string, not null"),
    ],
)
def test_pictures_that_are_refused(live: Any, url: Any, text: str) -> None:
    kind, told = refused(live, CHAT, 400, {"model": "mini", "messages": showing(url_part(url))})
    assert kind == "invalid_request_error"
    assert text in told


def test_too_many_pictures(live: Any) -> None:
    parts = [url_part("data:image/png;base64,AAAA")] * 33
    assert "more than 32" in refused(live, CHAT, 400, {"model": "mini", "messages": showing(*parts)})[1]


def test_pictures_by_url_where_that_is_switched_on(live: Any, picture: bytes, monkeypatch: Any) -> None:
    from lapilli.faces.server import asking

    fetched = []

    def fetch(url: str) -> Fetched:
        fetched.append(url)
        return Fetched(picture, "image/png", url)

    state, settings = live.app.state, live.app.state.settings
    messages = showing(*[url_part("https://example.org/cat.png")] * 2)
    local = {"model": "mini", "messages": showing(url_part("http://127.0.0.1:9/cat.png"))}
    try:
        state.settings = settings.model_copy(update={"fetch": True})
        # The guarded door itself is what refuses addresses of this machine.
        assert refused(live, CHAT, 403, local)[0] == "invalid_request_error"
        monkeypatch.setattr(asking, "fetch", fetch)
        assert ask(live, CHAT, messages=messages, max_tokens=1)["usage"]["prompt_tokens_details"]["image_tokens"] > 0
        assert fetched == ["https://example.org/cat.png"]
        state.settings = settings.model_copy(update={"fetch": True, "offline": True})
        assert refused(live, CHAT, 400, {"model": "mini", "messages": messages})[1] == NOT_BY_URL
    finally:
        state.settings = settings


# --- messages ---


def read(live: Any, monkeypatch: Any, messages: list[Any], **more: Any) -> Question:
    """What the server makes of messages."""
    asked = saying(monkeypatch)([Said(account=DONE)])
    ask(live, CHAT, messages=messages, **more)
    return asked[0]


def test_parts_roles_and_calls(live: Any, monkeypatch: Any) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"where": "Rome"}'}}
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    turns = read(
        live,
        monkeypatch,
        [
            {"role": "developer", "content": "Be brief."},
            {"role": "USER", "content": parts},
            {"role": "assistant", "content": None, "reasoning": "hm", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        ],
    ).turns
    assert [turn.role for turn in turns] == ["system", "user", "assistant", "tool"]
    assert turns[1].content == "a\n\nb"
    assert turns[2].thinking == "hm"
    assert turns[2].tool_calls == (ToolCall(name="weather", arguments={"where": "Rome"}, id="c1"),)
    assert (turns[3].tool_name, turns[3].tool_call_id, turns[3].content) == ("weather", "c1", "sunny")


@pytest.mark.parametrize(
    ("more", "think"),
    [
        ({}, None),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "minimal"}, "low"),
        ({"reasoning": {"effort": "low"}}, "low"),
        ({"reasoning": {"effort": "medium"}}, "medium"),
        ({"reasoning_effort": "high"}, "high"),
        ({"reasoning_effort": "xhigh"}, "max"),
        ({"reasoning_effort": "ultra"}, "max"),
        ({"reasoning_effort": "max"}, "max"),
    ],
)
def test_how_hard_to_think(live: Any, monkeypatch: Any, more: dict[str, Any], think: Any) -> None:
    assert read(live, monkeypatch, HELLO, **more).think == think


def test_tools_may_be_kept_from_the_model(live: Any, monkeypatch: Any) -> None:
    assert read(live, monkeypatch, HELLO, tools=[TOOL], tool_choice="none").tools == ()
    assert read(live, monkeypatch, HELLO, tools=[TOOL], tool_choice="auto").tools == (TOOL,)


# --- forms ---


SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "maximum": 9, "minimum": 1}},
    "required": ["n"],
    "additionalProperties": False,
}


def test_a_schema_is_kept(live: Any) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "number", "strict": True, "schema": SCHEMA}}
    found = ask(live, CHAT, messages=HELLO, response_format=form, max_tokens=60)["choices"][0]
    assert found["finish_reason"] == "length" or 1 <= json.loads(found["message"]["content"])["n"] <= 9


def test_json_is_json(live: Any) -> None:
    found = ask(live, CHAT, messages=HELLO, response_format={"type": "json_object"}, max_tokens=60)["choices"][0]
    assert found["message"]["content"].lstrip().startswith("{")
    if found["finish_reason"] == "stop":
        json.loads(found["message"]["content"])
    plain = ask(live, CHAT, messages=HELLO, response_format={"type": "text"}, max_tokens=3)
    assert not plain["choices"][0]["message"]["content"].startswith("{")


# --- likelihoods ---


@pytest.mark.parametrize("top", [0, 2])
def test_likelihoods(live: Any, top: int) -> None:
    more = {"logprobs": True, "top_logprobs": top, "max_tokens": 4}
    found = ask(live, CHAT, messages=HELLO, **more)["choices"][0]["logprobs"]
    assert list(found) == ["content", "refusal"]
    assert len(found["content"]) == 4
    for token in found["content"]:
        assert list(token) == ["token", "logprob", "bytes", "top_logprobs"]
        assert bytes(token["bytes"]).decode() == token["token"]
        assert token["logprob"] <= 0
        assert len(token["top_logprobs"]) == top
    chunks = [data for _, data in stream(live, CHAT, messages=HELLO, **more)][:-1]
    told = [choice["logprobs"] for chunk in chunks for choice in chunk["choices"]]
    assert sum(len(each["content"]) for each in told if each) == 4


def test_what_is_impossible_is_told_in_json(live: Any, monkeypatch: Any) -> None:
    never = Likelihood(token="b", logprob=-math.inf, data=b"b")
    token = Likelihood(token="a", logprob=-math.inf, data=b"a", top=(never,))
    saying(monkeypatch)([Said(logprobs=(token,)), Said(account=DONE)])
    (found,) = ask(live, CHAT, messages=HELLO, logprobs=True)["choices"][0]["logprobs"]["content"]
    assert found == {"token": "a", "logprob": -9999.0, "bytes": [97], "top_logprobs": []}


# --- refusals ---


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"model": ""}, "model is required"),
        ({"messages": []}, "[] is too short - 'messages'"),
        ({"messages": None}, "[] is too short - 'messages'"),
        ({"messages": "hello"}, "messages must be an array, not a string"),
        ({"messages": ["hello"]}, "messages[0] must be an object, not a string"),
        ({"messages": [{"role": "wizard", "content": "a"}]}, "messages[0].role 'wizard' is not known"),
        ({"messages": [{"role": "function", "content": "a"}]}, "messages[0].role 'function' is not known"),
        ({"messages": [{"role": "user"}]}, "messages[0].content must be a string or an array of parts, not null"),
        ({"messages": [{"role": "user", "content": 1}]}, "not a number"),
        ({"messages": [{"role": "user", "content": ["a"]}]}, "messages[0].content[0] must be an object"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "'input_audio' is not supported"),
        ({"messages": [{"role": "user", "content": [{"type": "file"}]}]}, "'file' is not supported"),
        ({"n": 2}, "n must be 1"),
        ({"n": 0}, "n must be 1"),
        ({"n": True}, "n must be 1"),
        ({"logit_bias": {"50256": -100}}, "logit_bias is not supported"),
        ({"functions": [{"name": "f"}]}, "functions is not supported"),
        ({"function_call": "auto"}, "function_call is not supported"),
        ({"modalities": ["text", "audio"]}, "modalities: only text is made here"),
        ({"audio": {"voice": "a"}}, "audio is not supported"),
        ({"web_search_options": {"a": 1}}, "web_search_options is not supported"),
        ({"tool_choice": "required"}, "tool_choice must be auto or none"),
        ({"tool_choice": TOOL}, "tool_choice must be auto or none"),
        ({"tools": [TOOL], "parallel_tool_calls": False}, "parallel_tool_calls cannot be false"),
        ({"tools": [TOOL]}, "does not support tools"),
        ({"tools": {}}, "tools must be an array, not an object"),
        ({"tools": [{"type": "custom", "name": "f"}]}, "tools[0].type 'custom' is not supported"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name is required"),
        ({"reasoning_effort": "much"}, "invalid reasoning effort: 'much'"),
        ({"reasoning_effort": "low"}, '"mini" does not support thinking'),
        ({"response_format": {"type": "xml"}}, "response_format.type 'xml' is not supported"),
        ({"response_format": {"type": "json_schema"}}, "response_format of type json_schema needs a schema"),
        ({"response_format": "json"}, "response_format must be an object, not a string"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs must be between 0 and 20"),
        ({"top_logprobs": 2}, "top_logprobs needs logprobs to be true"),
        ({"logprobs": 2}, "logprobs must be true or false, not a number"),
        ({"max_tokens": -2}, "max_tokens is -2: it must be 0 or more"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens must be of type integer"),
        ({"temperature": "hot"}, 'option "temperature" must be of type float32'),
        ({"temperature": -1}, 'option "temperature" is -1'),
        ({"top_p": 2}, 'option "top_p" is 2'),
        ({"stop": [1]}, 'option "stop" must be of an array of strings'),
        ({"stream": "yes"}, "stream must be true or false, not a string"),
        ({"stream_options": True, "stream": True}, "stream_options must be an object, not a boolean"),
    ],
)  # fmt: skip
def test_refusals(live: Any, body: dict[str, Any], text: str) -> None:
    kind, told = refused(live, CHAT, 400, {"model": "mini", "messages": HELLO, **body})
    assert kind == "invalid_request_error"
    assert text in told


@pytest.mark.parametrize("more", [{"n": 1}, {"logit_bias": {}}, {"functions": None}, {"store": True, "metadata": {}}])
def test_what_changes_nothing_is_taken(live: Any, more: dict[str, Any]) -> None:
    assert ask(live, CHAT, messages=HELLO, max_tokens=1, **more)["choices"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "must be JSON"),
        ("[1]", "must be an object, not an array"),
        ('{"a": NaN}', "must be JSON"),
        ('{"a": "\\ud800"}', "half a surrogate pair"),
        ('{"a": ' + "1" * 5000 + "}", "must be JSON"),
        ('{"a":' * 200 + "1" + "}" * 200, "nests too deep"),
        ('{"a":' * 200_000, "must be JSON"),
    ],
)
def test_arguments_that_are_none(live: Any, text: str, said: str) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": text}}
    messages = [*HELLO, {"role": "assistant", "content": "", "tool_calls": [call]}]
    assert said in refused(live, CHAT, 400, {"model": "mini", "messages": messages})[1]


def test_a_model_that_is_not_here(live: Any) -> None:
    for stream_it in (False, True):
        body = {"model": "nothing", "messages": HELLO, "stream": stream_it}
        assert refused(live, CHAT, 404, body) == ("not_found_error", "model 'nothing' not found")


def test_bodies_and_methods(live: Any) -> None:
    assert refused(live, CHAT, 400) == ("invalid_request_error", "missing request body")
    assert "not JSON" in refused(live, CHAT, 400, content=b"{", headers={"content-type": "application/json"})[1]
    response = live.get(CHAT)
    assert response.status_code == 405
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_a_large_body_is_read_beside_the_loop(live: Any, picture64: str, monkeypatch: Any) -> None:
    """Past 256 KiB a body is read in a thread; what it says is the same."""
    asked = saying(monkeypatch)([Said(account=DONE)])
    messages = [*showing(url_part(f"data:image/png;base64,{picture64}")), {"role": "user", "content": "a" * 300_000}]
    ask(live, CHAT, messages=messages)
    assert len(asked[0].pictures) == 1
    assert [len(turn.content) for turn in asked[0].turns] == [24, 300_000]
    assert "n must be 1" in refused(live, CHAT, 400, {"model": "mini", "messages": messages, "n": 2})[1]


def test_a_conversation_too_long_is_refused_unless_it_may_be_cut(live: Any) -> None:
    most = 2 * live.post("/api/show", {"model": "mini"}).json()["model_info"]["llama.context_length"]
    messages = [{"role": "user", "content": "word " * most}, {"role": "assistant", "content": "a"}, *HELLO]
    assert str(most // 2) in refused(live, CHAT, 400, {"model": "mini", "messages": messages})[1]
    usage = ask(live, CHAT, messages=messages, truncate=True, max_tokens=1)["usage"]
    assert usage["truncated_tokens"] > 0
