"""Anthropic's /v1/messages (contract, table 1.11)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from dialects import HELLO, TOOL, ask, refused, saying, stream

from lapilli.errors import BusyError, EngineGoneError
from lapilli.wire.question import Account, Question, Said, ToolCall

MESSAGES = "/v1/messages"
DONE = Account(reason="stop", prompt_tokens=10, completion_tokens=5, cached_tokens=4, image_tokens=3)
OWN_TOOL = {"name": "weather", "description": "d", "input_schema": {"type": "object", "properties": {}}}
FORM: Any = {"type": "json_schema", "schema": {"type": "object"}}
CALL = ToolCall(name="weather", arguments={"b": 1, "a": "ü"}, id="toolu_1")


def test_a_whole_answer(live: Any) -> None:
    found = ask(live, MESSAGES, messages=HELLO, max_tokens=5)
    assert found["id"].startswith("msg_")
    assert (found["type"], found["role"], found["model"]) == ("message", "assistant", "mini")
    native = live.whole("/api/chat", messages=HELLO, options={"num_predict": 5})
    assert found["content"] == [{"type": "text", "text": native["message"]["content"]}]
    assert found["stop_reason"] == "max_tokens"
    assert found["stop_sequence"] is None
    usage = found["usage"]
    assert usage["output_tokens"] == 5
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == native["prompt_eval_count"]


def test_why_it_ended(live: Any) -> None:
    assert ask(live, MESSAGES, messages=HELLO, max_tokens=500)["stop_reason"] == "end_turn"
    found = ask(live, MESSAGES, messages=HELLO, max_tokens=500, stop_sequences=["mini"])
    assert (found["stop_reason"], found["stop_sequence"]) == ("stop_sequence", "mini")
    assert "Show" not in found["content"][0]["text"]


def test_a_stop_of_the_models_own_is_the_end_of_its_turn(live: Any, monkeypatch: Any) -> None:
    saying(monkeypatch)([Said(account=Account(reason="stop", stopped_by="</s>"))])
    found = ask(live, MESSAGES, messages=HELLO, max_tokens=5, stop_sequences=["mini"])
    assert (found["stop_reason"], found["stop_sequence"]) == ("end_turn", None)


def test_a_stream(live: Any) -> None:
    told = stream(live, MESSAGES, messages=HELLO, max_tokens=5)
    names = [name for name, _ in told]
    assert [data["type"] for _, data in told] == names
    assert names[:3] == ["message_start", "ping", "content_block_start"]
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(names[3:-3]) == {"content_block_delta"}
    by_name = dict(told)
    message = by_name["message_start"]["message"]
    assert message["content"] == []
    assert message["stop_reason"] is None
    assert message["usage"]["output_tokens"] == 0
    assert by_name["content_block_start"] == {
        "type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""},
    }  # fmt: skip
    deltas = [data["delta"] for name, data in told if name == "content_block_delta"]
    assert {delta["type"] for delta in deltas} == {"text_delta"}
    whole = ask(live, MESSAGES, messages=HELLO, max_tokens=5)
    assert "".join(delta["text"] for delta in deltas) == whole["content"][0]["text"]
    assert by_name["message_delta"]["delta"] == {"stop_reason": "max_tokens", "stop_sequence": None}
    assert by_name["message_delta"]["usage"]["output_tokens"] == 5


def test_thoughts_words_and_calls_are_blocks(live: Any, monkeypatch: Any) -> None:
    parts = [Said(thinking="h"), Said(thinking="m"), Said(text="so"), Said(tool_calls=(CALL, CALL)), Said(account=DONE)]
    asked = saying(monkeypatch)(parts)
    told = stream(live, MESSAGES, messages=HELLO, max_tokens=5, tools=[OWN_TOOL], thinking={"type": "enabled"})
    assert asked[0].tools == (TOOL,)
    starts = [data for name, data in told if name == "content_block_start"]
    assert [data["index"] for data in starts] == [0, 1, 2, 3]
    use = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}
    assert [data["content_block"] for data in starts] == [
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "text", "text": ""},
        use,
        use,
    ]
    deltas = [(data["index"], data["delta"]) for name, data in told if name == "content_block_delta"]
    assert deltas[:4] == [
        (0, {"type": "thinking_delta", "thinking": "h"}),
        (0, {"type": "thinking_delta", "thinking": "m"}),
        (0, {"type": "signature_delta", "signature": ""}),
        (1, {"type": "text_delta", "text": "so"}),
    ]
    assert deltas[4][1]["type"] == "input_json_delta"
    assert json.loads(deltas[4][1]["partial_json"]) == {"b": 1, "a": "ü"}
    assert [data["index"] for name, data in told if name == "content_block_stop"] == [0, 1, 2, 3]
    assert told[-2][1]["delta"]["stop_reason"] == "tool_use"
    whole = ask(live, MESSAGES, messages=HELLO, max_tokens=5, tools=[OWN_TOOL])
    assert whole["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "text", "text": "so"},
        *[{**use, "input": {"b": 1, "a": "ü"}}] * 2,
    ]
    assert whole["stop_reason"] == "tool_use"


def test_figures_count_what_was_read_before_apart(live: Any, monkeypatch: Any) -> None:
    saying(monkeypatch)([Said(account=DONE)])
    found = ask(live, MESSAGES, messages=HELLO, max_tokens=5)
    assert found["usage"] == {
        "input_tokens": 6,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 4,
        "output_tokens": 5,
        "image_tokens": 3,
    }
    assert found["content"] == [{"type": "text", "text": ""}]
    told = stream(live, MESSAGES, messages=HELLO, max_tokens=5)
    assert [name for name, _ in told][2:4] == ["content_block_start", "content_block_stop"]


def test_what_breaks_off_is_an_event(live: Any, monkeypatch: Any) -> None:
    saying(monkeypatch)([Said(text="a")], EngineGoneError("the model's process has ended"))
    name, data = stream(live, MESSAGES, messages=HELLO, max_tokens=5)[-1]
    assert name == data["type"] == "error"
    assert data["error"] == {"type": "api_error", "message": "the model's process has ended"}


def test_a_full_server_is_overloaded(live: Any, monkeypatch: Any) -> None:
    saying(monkeypatch)([], BusyError("server busy"))
    body = {"model": "mini", "messages": HELLO, "max_tokens": 5, "stream": True}
    assert refused(live, MESSAGES, 503, body) == ("overloaded_error", "server busy")


# --- requests ---


def read(live: Any, monkeypatch: Any, messages: list[Any], **more: Any) -> Question:
    """What the server makes of messages."""
    asked = saying(monkeypatch)([Said(account=DONE)])
    ask(live, MESSAGES, messages=messages, **{"max_tokens": 5, **more})
    return asked[0]


def test_blocks_become_turns(live: Any, monkeypatch: Any) -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "so"},
                {"type": "tool_use", "id": "t1", "name": "weather", "input": {"where": "Rome"}},
                {"type": "tool_use", "id": "t2", "name": "time", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "sunny"},
                {"type": "tool_result", "tool_use_id": "t2", "content": [{"type": "text", "text": "noon"}]},
                {"type": "text", "text": "and?"},
            ],
        },
    ]
    turns = read(live, monkeypatch, messages, system=[{"type": "text", "text": "Be brief."}]).turns
    assert [turn.role for turn in turns] == ["system", "user", "assistant", "tool", "tool", "user"]
    assert [turn.content for turn in turns] == ["Be brief.", "a", "so", "sunny", "noon", "and?"]
    assert turns[2].thinking == "hm"
    assert turns[2].tool_calls[0] == ToolCall(name="weather", arguments={"where": "Rome"}, id="t1")
    assert [(turn.tool_name, turn.tool_call_id) for turn in turns[3:5]] == [("weather", "t1"), ("time", "t2")]
    only = read(live, monkeypatch, [*messages[:2], {"role": "user", "content": messages[2]["content"][:1]}])
    assert [turn.role for turn in only.turns] == ["user", "assistant", "tool"]


@pytest.mark.parametrize(
    ("more", "name", "value"),
    [
        ({}, "think", False),
        ({"thinking": {"type": "disabled"}}, "think", False),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "think", True),
        ({"thinking": {"type": "adaptive"}}, "think", True),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "medium"}}, "think", "medium"),
        ({"output_config": {"effort": "high"}}, "think", False),
        ({"tools": [OWN_TOOL], "tool_choice": {"type": "none"}}, "tools", ()),
        ({"tools": [OWN_TOOL], "tool_choice": {"type": "auto"}}, "tools", (TOOL,)),
        ({"output_config": {"format": FORM}}, "form", FORM["schema"]),
        ({"output_format": FORM}, "form", FORM["schema"]),
        ({"top_p": 0.5, "top_k": 3}, "sampling",
            {"temperature": 0, "top_p": 0.5, "top_k": 3, "num_predict": 5}),
        ({"system": "Be brief.", "metadata": {"user_id": "u"}}, "defaults", {"temperature": 1.0, "top_p": 1.0}),
    ],
)  # fmt: skip
def test_what_becomes_of_fields(live: Any, monkeypatch: Any, more: dict[str, Any], name: str, value: Any) -> None:
    assert getattr(read(live, monkeypatch, HELLO, **more), name) == value


def test_thoughts_are_not_refused_where_there_are_none(live: Any) -> None:
    assert ask(live, MESSAGES, messages=HELLO, max_tokens=1, thinking={"type": "enabled"})["content"]


def test_stops_of_the_models_package_stay_where_none_are_given(live: Any, monkeypatch: Any) -> None:
    assert "stop" not in read(live, monkeypatch, HELLO, stop_sequences=[]).sampling
    assert read(live, monkeypatch, HELLO, stop_sequences=["a"]).sampling["stop"] == ["a"]


def test_a_picture(live: Any, picture64: str) -> None:
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": picture64}}
    words = {"type": "text", "text": "What is in this picture?"}
    found = ask(live, MESSAGES, messages=[{"role": "user", "content": [picture, words]}], max_tokens=4)
    asked = [{"role": "user", "content": "What is in this picture?", "images": [picture64]}]
    assert found["content"][0]["text"] == live.whole("/api/chat", messages=asked)["message"]["content"]
    assert found["usage"]["image_tokens"] > 0


def user(*blocks: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"model": None}, "model is required"),
        ({"max_tokens": None}, "max_tokens is required and must be positive"),
        ({"max_tokens": 0}, "max_tokens is required and must be positive"),
        ({"max_tokens": -1}, "max_tokens is required and must be positive"),
        ({"max_tokens": "5"}, "max_tokens must be of type integer"),
        ({"messages": None}, "messages is required"),
        ({"messages": []}, "messages is required"),
        ({"messages": ["a"]}, "messages[0] must be an object, not a string"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role 'tool' is not known"),
        ({"messages": [{"role": "user"}]}, "messages[0].content must be a string or an array of blocks, not null"),
        (user({"type": "document"}), "'document' is not supported in a message of the user's"),
        (user({"type": "tool_use", "name": "f"}), "'tool_use' is not supported in a message of the user's"),
        (user({"type": "image", "source": {"type": "file", "file_id": "f"}}), "source.type 'file' is not supported"),
        (
            user({"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}),
            "image URLs are not currently supported, please use base64 encoded data instead",
        ),
        (user({"type": "image", "source": {"type": "base64", "data": "*"}}), "illegal base64 data"),
        ({"messages": [*HELLO, {"role": "assistant", "content": "I am"}]}, "messages must end with the user's"),
        ({"system": 1}, "system must be a string or an array of blocks"),
        ({"system": [{"type": "image"}]}, "system: only blocks of text are taken"),
        ({"tools": [{"type": "web_search_20250305", "name": "w"}]}, "tools[0].type 'web_search_20250305'"),
        ({"tools": [{"description": "d"}]}, "tools[0].name is required"),
        ({"tools": [OWN_TOOL]}, "does not support tools"),
        ({"tool_choice": {"type": "any"}}, "tool_choice must be auto or none"),
        ({"tool_choice": {"type": "tool", "name": "f"}}, "tool_choice must be auto or none"),
        (
            {"tools": [OWN_TOOL], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
            "disable_parallel_tool_use is not supported",
        ),
        ({"thinking": {"type": "much"}}, "thinking.type 'much' is not known"),
        ({"output_config": {"effort": "much"}}, "output_config.effort 'much' is not known"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format must be of type json_schema"),
        ({"mcp_servers": [{"type": "url"}]}, "mcp_servers is not supported"),
        ({"container": "c"}, "container is not supported"),
        ({"temperature": -1}, 'option "temperature" is -1'),
        ({"stop_sequences": "a"}, "stop_sequences must be an array"),
    ],
)
def test_refusals(live: Any, body: dict[str, Any], text: str) -> None:
    kind, told = refused(live, MESSAGES, 400, {"model": "mini", "messages": HELLO, "max_tokens": 5, **body})
    assert kind == "invalid_request_error"
    assert text in told


def test_what_is_not_here(live: Any) -> None:
    body = {"model": "nothing", "messages": HELLO, "max_tokens": 5}
    assert refused(live, MESSAGES, 404, body) == ("not_found_error", "model 'nothing' not found")
    assert refused(live, f"{MESSAGES}/count_tokens", 404, body)[0] == "not_found_error"
    assert refused(live, f"{MESSAGES}/batches", 404, body)[0] == "not_found_error"
    assert refused(live, MESSAGES, 400) == ("invalid_request_error", "missing request body")
