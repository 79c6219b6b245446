"""OpenAI's /v1/responses (contract, table 1.10)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from dialects import HELLO, TOOL, TOOL_WORDS, ask, refused, saying, stream

from lapilli.errors import EngineGoneError
from lapilli.wire.question import Account, Question, Said, ToolCall

RESPONSES = "/v1/responses"
DONE = Account(reason="stop", prompt_tokens=10, completion_tokens=5, cached_tokens=4, image_tokens=3)
FLAT_TOOL = {"type": "function", **TOOL_WORDS}


def test_a_whole_answer(live: Any) -> None:
    found = ask(live, RESPONSES, input="Hello, who are you?", max_output_tokens=5)
    assert found["object"] == "response"
    assert found["id"].startswith("resp_")
    assert found["status"] == "incomplete"
    assert found["incomplete_details"] == {"reason": "max_output_tokens"}
    assert found["error"] is None
    assert found["store"] is False
    assert found["previous_response_id"] is None
    assert found["tool_choice"] == "auto"
    assert found["temperature"] == 0
    assert found["top_p"] == 1
    (item,) = found["output"]
    assert item["type"] == "message"
    assert item["role"] == "assistant"
    (part,) = item["content"]
    native = live.whole("/api/chat", messages=HELLO, options={"num_predict": 5})
    assert part == {
        "type": "output_text", "text": native["message"]["content"], "annotations": [], "logprobs": [],
    }  # fmt: skip
    usage = found["usage"]
    assert usage["input_tokens"] == native["prompt_eval_count"]
    assert usage["output_tokens"] == 5
    assert usage["total_tokens"] == usage["input_tokens"] + 5
    assert {"cached_tokens", "image_tokens"} <= set(usage["input_tokens_details"])


def test_an_answer_that_ends_by_itself(live: Any) -> None:
    found = ask(live, RESPONSES, input=HELLO, instructions="Be brief.")
    assert found["status"] == "completed"
    assert found["incomplete_details"] is None
    assert found["instructions"] == "Be brief."


NAMES = [
    *("created", "in_progress", "output_item.added", "content_part.added"),
    *("output_text.delta", "output_text.done", "content_part.done", "output_item.done", "incomplete"),
]


def test_a_stream(live: Any) -> None:
    told = stream(live, RESPONSES, input="Hello, who are you?", max_output_tokens=5)
    names = [name for name, _ in told]
    assert [data["type"] for _, data in told] == names
    assert [data["sequence_number"] for _, data in told] == list(range(len(told)))
    assert list(dict.fromkeys(names)) == [f"response.{name}" for name in NAMES]
    deltas = [data["delta"] for name, data in told if name == "response.output_text.delta"]
    last = told[-1][1]["response"]
    text = last["output"][0]["content"][0]["text"]
    assert "".join(deltas) == text
    assert text == ask(live, RESPONSES, input=HELLO, max_output_tokens=5)["output"][0]["content"][0]["text"]
    by_name = dict(told)
    assert by_name["response.output_text.done"]["text"] == text
    assert by_name["response.created"]["response"]["status"] == "in_progress"
    assert by_name["response.created"]["response"]["output"] == []
    assert by_name["response.created"]["response"]["id"] == last["id"]
    item = by_name["response.output_item.added"]["item"]
    assert item["content"] == []
    assert {data["item_id"] for _, data in told if "item_id" in data} == {item["id"]} == {last["output"][0]["id"]}


def test_thoughts_words_and_calls_are_items_in_their_order(live: Any, monkeypatch: Any) -> None:
    call = ToolCall(name="weather", arguments={"b": 1, "a": 2}, id="call_1")
    parts = [Said(thinking="h"), Said(thinking="m"), Said(text="so"), Said(tool_calls=(call,)), Said(account=DONE)]
    asked = saying(monkeypatch)(parts)
    told = stream(live, RESPONSES, input="Hello", tools=[FLAT_TOOL])
    assert asked[0].tools == (TOOL,)
    names = [name.removeprefix("response.") for name, _ in told]
    assert names == [
        *("created", "in_progress"),
        *("output_item.added", "reasoning_summary_part.added"),
        *("reasoning_summary_text.delta", "reasoning_summary_text.delta", "reasoning_summary_text.done"),
        *("reasoning_summary_part.done", "output_item.done"),
        *("output_item.added", "content_part.added", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done"),
        *("output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"),
        "completed",
    ]
    assert [data["output_index"] for name, data in told if name == "response.output_item.done"] == [0, 1, 2]
    output = told[-1][1]["response"]["output"]
    assert [item["type"] for item in output] == ["reasoning", "message", "function_call"]
    assert output[0]["summary"] == [{"type": "summary_text", "text": "hm"}]
    assert (output[2]["call_id"], output[2]["name"]) == ("call_1", "weather")
    assert output[2]["arguments"] == '{"b": 1, "a": 2}'
    whole = ask(live, RESPONSES, input="Hello", tools=[FLAT_TOOL])["output"]
    assert [{**item, "id": ""} for item in whole] == [{**item, "id": ""} for item in output]


def test_what_breaks_off_is_told_in_the_stream(live: Any, monkeypatch: Any) -> None:
    saying(monkeypatch)([Said(text="a")], EngineGoneError("the model's process has ended"))
    told = stream(live, RESPONSES, input="Hello")
    name, data = told[-1]
    assert name == "response.failed"
    assert data["sequence_number"] == len(told) - 1
    assert data["response"]["status"] == "failed"
    assert data["response"]["error"] == {"code": "server_error", "message": "the model's process has ended"}


def test_a_response_repeats_what_it_was_asked(live: Any, monkeypatch: Any) -> None:
    saying(monkeypatch)([Said(account=DONE)])
    more = {"metadata": {"a": "b"}, "reasoning": {"effort": "low"}, "top_p": 0.5, "truncation": "auto", "user": "u"}
    found = ask(live, RESPONSES, input="Hello", tools=[FLAT_TOOL], text={"format": {"type": "text", "x": 1}}, **more)
    expected = {**more, "reasoning": {"effort": "low", "summary": None}, "text": {"format": {"type": "text"}}}
    assert {name: found[name] for name in expected} == expected
    assert found["tools"] == [{"strict": False, **FLAT_TOOL}]


def test_an_answer_of_nothing_is_an_empty_message(live: Any, monkeypatch: Any) -> None:
    saying(monkeypatch)([Said(account=DONE)])
    found = ask(live, RESPONSES, input="Hello")
    assert found["output"][0]["content"][0]["text"] == ""
    assert found["usage"] == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0, "image_tokens": 3},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 15,
    }


def test_likelihoods_when_asked(live: Any) -> None:
    more = {"include": ["message.output_text.logprobs"], "top_logprobs": 2, "max_output_tokens": 3}
    told = stream(live, RESPONSES, input="Hello", **more)
    deltas = [token for name, data in told if name.endswith("text.delta") for token in data["logprobs"]]
    last = told[-1][1]["response"]["output"][0]["content"][0]["logprobs"]
    assert deltas == last
    assert len(last) == 3
    assert all(len(token["top_logprobs"]) == 2 for token in last)


def test_a_picture(live: Any, picture64: str) -> None:
    parts = [
        {"type": "input_text", "text": "What is in this picture?"},
        {"type": "input_image", "image_url": f"data:image/png;base64,{picture64}", "detail": "auto"},
    ]
    found = ask(live, RESPONSES, input=[{"role": "user", "content": parts}], max_output_tokens=1)
    assert found["usage"]["input_tokens_details"]["image_tokens"] > 0


def test_a_schema_is_kept(live: Any) -> None:
    schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
    form = {"type": "json_schema", "name": "number", "schema": schema}
    found = ask(live, RESPONSES, input="Hello", text={"format": form}, max_output_tokens=60)
    assert found["text"] == {"format": form}
    text = found["output"][0]["content"][0]["text"]
    assert found["status"] == "incomplete" or json.loads(text)["n"] in (1, 2)


def read(live: Any, monkeypatch: Any, given: Any, **more: Any) -> Question:
    """What the server makes of an input."""
    asked = saying(monkeypatch)([Said(account=DONE)])
    ask(live, RESPONSES, input=given, **more)
    return asked[0]


def test_items_of_one_answer_are_one_turn(live: Any, monkeypatch: Any) -> None:
    items = [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
        {"role": "user", "content": "Hello"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}], "id": "rs_1"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "so"}]},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"where": "Rome"}'},
        {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "sunny"}]},
    ]
    turns = read(live, monkeypatch, items, instructions="Be kind.").turns
    assert [turn.role for turn in turns] == ["system", "system", "user", "assistant", "tool"]
    assert (turns[3].thinking, turns[3].content) == ("hm", "so")
    assert turns[3].tool_calls == (ToolCall(name="weather", arguments={"where": "Rome"}, id="c1"),)
    assert (turns[4].tool_name, turns[4].tool_call_id, turns[4].content) == ("weather", "c1", "sunny")


@pytest.mark.parametrize(
    ("more", "name", "value"),
    [
        ({}, "think", None),
        ({"reasoning": {"effort": "medium"}}, "think", "medium"),
        ({"max_output_tokens": 7}, "sampling", {"temperature": 0, "num_predict": 7}),
        ({"truncation": "auto"}, "truncate", True),
        ({"truncation": "disabled"}, "truncate", False),
        ({"text": {"format": {"type": "json_object"}}}, "form", "json"),
        ({"text": {"format": {"type": "text"}, "verbosity": "low"}}, "form", None),
        ({"tools": [FLAT_TOOL], "tool_choice": "none"}, "tools", ()),
        ({}, "defaults", {"temperature": 1.0, "top_p": 1.0}),
    ],
)
def test_what_becomes_of_fields(live: Any, monkeypatch: Any, more: dict[str, Any], name: str, value: Any) -> None:
    assert getattr(read(live, monkeypatch, "Hello", **more), name) == value


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"model": ""}, "model is required"),
        ({"input": None}, "input must be a string or an array of items, not null"),
        ({"input": 1}, "input must be a string or an array of items, not a number"),
        ({"input": []}, "input is empty"),
        ({"input": ["a"]}, "input[0] must be an object, not a string"),
        ({"input": [{"type": "item_reference", "id": "a"}]}, "input[0].type 'item_reference' is not supported"),
        ({"input": [{"role": "wizard", "content": "a"}]}, "input[0].role 'wizard' is not known"),
        ({"input": [{"role": "user"}]}, "input[0].content must be a string or an array of parts, not null"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "'input_file' is not supported"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
            "files are not kept here",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "https://a.example/b"}]}]},
            "image URLs are not currently supported, please use base64 encoded data instead",
        ),
        ({"input": [{"type": "function_call", "name": "f", "arguments": "{"}]}, "input[0].arguments must be JSON"),
        ({"previous_response_id": "resp_1"}, "previous_response_id is not supported"),
        ({"conversation": "c"}, "conversation is not supported"),
        ({"background": True}, "background is not supported"),
        ({"prompt": {"id": "p"}}, "prompt is not supported"),
        ({"truncation": "some"}, "truncation 'some' is not known"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type 'web_search' is not supported"),
        ({"tool_choice": "required"}, "tool_choice must be auto or none"),
        ({"reasoning": {"effort": "much"}}, "invalid reasoning effort"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format of type json_schema needs a schema"),
        ({"max_output_tokens": -5}, "max_output_tokens is -5"),
        ({"metadata": {str(number): "a" for number in range(17)}}, "metadata has 17 keys: at most 16 are taken"),
        ({"metadata": {"a": "b" * 513}}, "metadata must hold strings of at most 512 characters"),
        ({"metadata": {"a": 1}}, "metadata must hold strings"),
    ],
)
def test_refusals(live: Any, body: dict[str, Any], text: str) -> None:
    kind, told = refused(live, RESPONSES, 400, {"model": "mini", "input": "Hello", **body})
    assert kind == "invalid_request_error"
    assert text in told


def test_a_model_that_is_not_here(live: Any) -> None:
    assert refused(live, RESPONSES, 404, {"model": "nothing", "input": "a", "stream": True}) == (
        "not_found_error",
        "model 'nothing' not found",
    )
