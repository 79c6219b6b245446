"""Ollama's bodies become questions, and what is said becomes its objects."""

from __future__ import annotations

import base64
import math
from typing import Any

import pytest

from lapilli.errors import InputError, ModelNotFoundError
from lapilli.wire import ollama
from lapilli.wire.question import Account, Likelihood, Said, ToolCall, join

PICTURE = base64.b64encode(b"picture").decode()


def generate(**body: Any) -> Any:
    return ollama.read_generate({"model": "m", **body})


def chat(**body: Any) -> Any:
    return ollama.read_chat({"model": "m", **body})


def test_a_question_carries_what_was_asked_and_no_more() -> None:
    question = generate(
        prompt="hi", system="s", template="t", suffix="x", context=[1, 2], images=[PICTURE], options={"top_k": 3},
        format="json", think="low", keep_alive="1m", truncate=True, logprobs=True, top_logprobs=2, heatmap=True,
    )  # fmt: skip
    assert (question.prompt, question.system, question.template, question.suffix) == ("hi", "s", "t", "x")
    assert (question.context, question.pictures, question.sampling) == ((1, 2), (b"picture",), {"top_k": 3})
    assert (question.form, question.think, question.keep_alive) == ("json", "low", 60)
    assert question.truncate
    assert question.logprobs
    assert question.top_logprobs == 2
    assert question.heatmap
    plain = generate()
    assert plain.sampling == {}
    assert plain.defaults == {}
    assert plain.form is None
    assert plain.think is None
    assert plain.prompt == ""
    assert plain.keep_alive is None
    assert not plain.truncate


def test_pictures_are_numbered_over_the_whole_conversation() -> None:
    other = base64.b64encode(b"other").decode()
    question = chat(
        messages=[
            {"role": "USER", "content": "a", "images": [PICTURE]},
            {"role": "assistant", "content": "b", "tool_calls": [{"function": {"name": "f", "arguments": {"z": 1}}}]},
            {"role": "tool", "content": "c", "tool_name": "f"},
            {"role": "user", "content": "d", "images": [other, PICTURE]},
        ]
    )
    assert [turn.role for turn in question.turns] == ["user", "assistant", "tool", "user"]
    assert [turn.pictures for turn in question.turns] == [(0,), (), (), (1, 2)]
    assert question.pictures == (b"picture", b"other", b"picture")
    assert question.turns[1].tool_calls == (ToolCall(name="f", arguments={"z": 1}),)
    assert question.turns[2].tool_name == "f"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"raw": True, "system": "s"}, "raw mode does not support template, system, or context"),
        ({"raw": True, "template": "s"}, "raw mode does not support template, system, or context"),
        ({"raw": True, "context": [1]}, "raw mode does not support template, system, or context"),
        ({"format": "xml"}, 'invalid format: "xml"; expected "json" or a valid JSON Schema object'),
        ({"format": 3}, 'invalid format: a number; expected "json" or a valid JSON Schema object'),
        ({"top_logprobs": 21}, "top_logprobs must be between 0 and 20"),
        ({"top_logprobs": -1}, "top_logprobs must be between 0 and 20"),
        ({"images": ["not base64!"]}, "illegal base64 data at input byte 3"),
        ({"images": ["data:image/png;base64,AAAA"]}, "illegal base64 data at input byte 4"),
        ({"images": ["AAA"]}, "illegal base64 data at input byte 0"),
        ({"images": [3]}, "images must be a base64 string, not a number"),
        ({"images": ["AAAA"] * 33}, "33 images in one request: at most 32 are taken"),
        ({"think": "hard"}, 'invalid think value: "hard"'),
        ({"think": 1}, "invalid think value: a number"),
        ({"prompt": 1}, "prompt must be a string, not a number"),
        ({"prompt": ["a"]}, "prompt must be a string, not an array"),
        ({"stream": "yes"}, "stream must be true or false, not a string"),
        ({"options": [1]}, "options must be an object, not an array"),
        ({"context": [-1]}, "context must be an array of token ids"),
        ({"context": [1.5]}, "context must be an array of token ids"),
        ({"context": "1"}, "context must be an array, not a string"),
        ({"keep_alive": "x"}, 'time: invalid duration "x"'),
        ({"truncate": 1}, "truncate must be true or false"),
        ({"top_logprobs": 2**40}, "top_logprobs is out of range"),
    ],
)
def test_what_generate_refuses(body: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        generate(**body)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"messages": {}}, "messages must be an array, not an object"),
        ({"messages": ["hi"]}, "messages[0] must be an object, not a string"),
        ({"messages": [{"role": "wizard", "content": ""}]}, "messages[0].role 'wizard' is not known"),
        ({"messages": [{"content": ""}]}, "messages[0].role '' is not known"),
        ({"messages": [{"role": "user", "content": 5}]}, "content must be a string"),
        ({"messages": [{"role": "system", "images": [PICTURE]}]}, "a picture can be shown by the user or a tool"),
        ({"messages": [{"role": "assistant", "images": [PICTURE]}]}, "a picture can be shown by the user or a tool"),
        ({"messages": [{"role": "user", "tool_calls": [1]}]}, "tool_calls must be an object"),
        ({"messages": [{"role": "user", "images": [PICTURE] * 20}] * 2}, "40 images in one request"),
        ({"tools": [1]}, "tools[0] must be an object"),
        ({"tools": [{"type": "plugin"}]}, "tools[0].type must be function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name is required"),
        ({"tools": [{"function": {"name": "f", "parameters": 3}}]}, "parameters must be an object"),
    ],
)
def test_what_chat_refuses(body: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        chat(**body)
    assert words in str(caught.value)


def test_a_model_must_be_named_in_each_call_s_own_words() -> None:
    with pytest.raises(ModelNotFoundError, match="model '' not found"):
        ollama.read_generate({})
    with pytest.raises(InputError, match="model is required"):
        ollama.read_chat({})


@pytest.mark.parametrize(
    ("given", "texts"), [("a", ("a",)), ("", ()), (None, ()), ([], ()), (["a", "b"], ("a", "b")), ([""], ("",))]
)
def test_texts_to_embed(given: Any, texts: tuple[str, ...]) -> None:
    assert ollama.read_embed({"model": "m", "input": given}).texts == texts


@pytest.mark.parametrize("given", [1, {}, ["a", 1], [["a"]], True])
def test_other_inputs_are_refused(given: Any) -> None:
    with pytest.raises(InputError, match="invalid input type"):
        ollama.read_embed({"model": "m", "input": given})


def test_a_piece_of_generate_holds_only_what_is_not_empty() -> None:
    piece = ollama.generate_piece("m", Said(text="Hi"))
    assert list(piece) == ["model", "created_at", "response", "done"]
    assert piece["response"] == "Hi"
    assert piece["done"] is False


def test_zero_figures_are_left_out() -> None:
    account = Account(reason="stop", prompt_tokens=3, total_seconds=1.5, context=(1, 2))
    piece = ollama.generate_piece("m", Said(account=account))
    assert set(piece) == {
        "model", "created_at", "response", "done", "done_reason", "context", "total_duration", "prompt_eval_count"
    }  # fmt: skip
    assert piece["total_duration"] == 1_500_000_000
    assert piece["context"] == [1, 2]
    assert "context" not in ollama.generate_piece("m", Said(account=account), raw=True)
    assert "context" not in ollama.chat_piece("m", Said(account=account))


def test_what_we_tell_beyond_ollama() -> None:
    account = Account(
        reason="length", cached_tokens=1, image_tokens=2, truncated=7, queue_seconds=0.1, image_seconds=0.2,
        prefill_seconds=0.3, heatmap=b"png",
    )  # fmt: skip
    piece = ollama.chat_piece("m", Said(account=account))
    assert piece["truncated"] is True
    assert piece["truncated_tokens"] == 7
    assert (piece["cached_tokens"], piece["image_tokens"]) == (1, 2)
    assert (piece["queue_duration"], piece["image_duration"]) == (100_000_000, 200_000_000)
    assert piece["prompt_eval_duration"] == 500_000_000
    assert base64.b64decode(piece["heatmap"]) == b"png"


def test_loading_tells_no_figures() -> None:
    piece = ollama.chat_piece("m", Said(account=Account(reason="load", total_seconds=3)))
    assert set(piece) == {"model", "created_at", "message", "done", "done_reason"}
    assert piece["message"] == {"role": "assistant", "content": ""}


def test_calls_of_tools_are_numbered_over_the_whole_answer() -> None:
    call = ToolCall(name="f", arguments={"b": 1, "a": 2}, id="call_1")
    piece = ollama.chat_piece("m", Said(tool_calls=(call,)), 3)
    assert piece["message"]["tool_calls"] == [
        {"id": "call_1", "function": {"index": 3, "name": "f", "arguments": {"b": 1, "a": 2}}}
    ]


def test_logprobs_carry_bytes() -> None:
    top = Likelihood(token="é", logprob=-0.5, data="é".encode())
    piece = ollama.generate_piece("m", Said(logprobs=(Likelihood(token="a", logprob=-1.0, data=b"a", top=(top,)),)))
    assert piece["logprobs"] == [
        {
            "token": "a",
            "logprob": -1.0,
            "bytes": [97],
            "top_logprobs": [{"token": "é", "logprob": -0.5, "bytes": [195, 169]}],
        }
    ]


def test_what_cannot_be_said_is_not_among_the_likeliest() -> None:
    never = Likelihood(token="b", logprob=-math.inf, data=b"b")
    (told,) = ollama.logprobs([Likelihood(token="a", logprob=-math.inf, data=b"a", top=(never,))])
    assert told == {"token": "a", "logprob": -9999.0, "bytes": [97]}


def test_a_whole_answer_is_its_pieces_joined() -> None:
    account = Account(reason="stop")
    whole = join([Said(text="a", thinking="x"), Said(text="b"), Said(account=account)])
    assert (whole.text, whole.thinking, whole.account) == ("ab", "x", account)
