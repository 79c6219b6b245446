"""Ollama's /api/chat (contract, table 1.3)."""

from __future__ import annotations

import re
from typing import Any

import pytest

CHAT = "/api/chat"
FIGURES = (
    "total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration",
)  # fmt: skip
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")
HELLO = [{"role": "user", "content": "Hello, who are you?"}]


def rendered(live: Any, **body: Any) -> str:
    response = live.post(CHAT, {"model": "mini", "_debug_render_only": True, **body})
    assert response.status_code == 200, response.text
    return str(response.json()["_debug_info"]["rendered_template"])


def test_a_stream_is_words_and_then_figures(live: Any) -> None:
    *words, last = live.lines(CHAT, messages=HELLO, options={"num_predict": 8})
    assert words
    for word in words:
        assert list(word) == ["model", "created_at", "message", "done"]
        assert word["message"]["role"] == "assistant"
        assert set(word["message"]) == {"role", "content"}
        assert word["done"] is False
        assert MOMENT.fullmatch(word["created_at"])
    assert last["done"] is True
    assert last["message"] == {"role": "assistant", "content": ""}
    assert last["done_reason"] == "length"
    assert "context" not in last
    for name in FIGURES:
        assert isinstance(last[name], int)
        assert last[name] > 0


def test_a_whole_answer_is_the_stream_joined(live: Any) -> None:
    pieces = live.lines(CHAT, messages=HELLO, options={"num_predict": 12})
    whole = live.whole(CHAT, messages=HELLO, options={"num_predict": 12})
    assert whole["message"]["content"] == "".join(piece["message"]["content"] for piece in pieces)
    assert whole["message"]["role"] == "assistant"
    assert whole["done"] is True
    assert "context" not in whole


@pytest.mark.parametrize("more", [{}, {"messages": []}, {"messages": None}, {"messages": [], "stream": False}])
def test_no_messages_load(live: Any, more: dict[str, Any]) -> None:
    found = live.post(CHAT, {"model": "mini", **more}).json()
    assert MOMENT.fullmatch(found.pop("created_at"))
    message = {"role": "assistant", "content": ""}
    assert found == {"model": "mini", "message": message, "done": True, "done_reason": "load"}


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({}, 400, "model is required"),
        ({"model": "", "messages": HELLO}, 400, "model is required"),
        ({"model": "nothing", "messages": HELLO}, 404, "model 'nothing' not found"),
        ({"model": "mini:7b", "messages": []}, 404, "model 'mini:7b' not found"),
    ],
)
def test_a_model_that_is_not_here(live: Any, body: dict[str, Any], status: int, text: str) -> None:
    assert live.refused(CHAT, status, body) == text


TOOL = {"type": "function", "function": {"name": "weather", "description": "d", "parameters": {"type": "object"}}}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"messages": "hello"}, "messages must be an array, not a string"),
        ({"messages": ["hello"]}, "messages[0] must be an object, not a string"),
        ({"messages": [{"role": "wizard", "content": "a"}]}, "messages[0].role 'wizard' is not known"),
        ({"messages": [{"role": "user", "content": ["a"]}]}, "content must be a string, not an array"),
        ({"messages": [{"role": "user", "images": ["*"]}]}, "illegal base64 data at input byte 0"),
        ({"messages": [{"role": "user", "images": "AAAA"}]}, "images must be an array, not a string"),
        (
            {"messages": [{"role": "assistant", "content": "", "images": ["AAAA"]}]},
            "a picture can be shown by the user",
        ),
        ({"messages": [{"role": "system", "content": "", "images": ["AAAA"]}]}, "a picture can be shown by the user"),
        ({"tools": [TOOL]}, "does not support tools"),
        ({"tools": {}}, "tools must be an array, not an object"),
        ({"tools": [{"type": "function"}]}, "tools[0].function.name is required"),
        ({"think": True}, '"mini" does not support thinking'),
        ({"think": "medium"}, '"mini" does not support thinking'),
        ({"think": "much"}, 'invalid think value: "much"'),
        ({"format": "xml"}, 'invalid format: "xml"; expected "json" or a valid JSON Schema object'),
        ({"top_logprobs": 21}, "top_logprobs must be between 0 and 20"),
        ({"keep_alive": []}, "keep_alive must be a number of seconds or a duration such as 5m, not an array"),
        ({"options": {"temperature": []}}, "temperature"),
        ({"options": "hot"}, "options must be an object, not a string"),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_what_is_refused(live: Any, body: dict[str, Any], text: str, stream: bool) -> None:
    assert text in live.refused(CHAT, 400, {"model": "mini", "messages": HELLO, "stream": stream} | body)


@pytest.mark.parametrize("role", ["User", "USER", "user"])
def test_roles_in_every_spelling(live: Any, role: str) -> None:
    same = live.whole(CHAT, messages=HELLO)["message"]
    assert live.whole(CHAT, messages=[{"role": role, "content": HELLO[0]["content"]}])["message"] == same


def test_a_conversation_is_read_whole(live: Any) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "First question"},
        {"role": "assistant", "content": "First answer"},
        {"role": "user", "content": "Second question"},
    ]
    text = rendered(live, messages=turns)
    places = [text.index(turn["content"]) for turn in turns]
    assert places == sorted(places)
    assert (
        live.whole(CHAT, messages=turns)["prompt_eval_count"]
        > live.whole(CHAT, messages=turns[:2])["prompt_eval_count"]
    )


def test_what_people_write_is_never_markup(live: Any) -> None:
    tokens = [
        live.whole(CHAT, messages=[{"role": "user", "content": text}])
        for text in ("[img-0]", "[img]", "<image>", "</s>", "USER: a ASSISTANT: b")
    ]
    assert all("image_tokens" not in found for found in tokens)


def test_a_picture_is_seen_in_whichever_turn(live: Any, picture64: str) -> None:
    asked = {"role": "user", "content": "What is in this picture?", "images": [picture64]}
    first = live.whole(CHAT, messages=[asked], options={"num_predict": 6})
    assert first["image_tokens"] > 0
    answer = {"role": "assistant", "content": first["message"]["content"]}
    later = live.whole(
        CHAT, messages=[asked, answer, {"role": "user", "content": "And where?"}], options={"num_predict": 6}
    )
    assert later["image_tokens"] == first["image_tokens"]
    both = live.whole(CHAT, messages=[asked, answer, asked], options={"num_predict": 1})
    assert both["image_tokens"] == 2 * first["image_tokens"]


def test_generate_and_chat_show_the_model_the_same(live: Any, picture64: str) -> None:
    body = {"model": "mini", "prompt": "Hi", "images": [picture64], "system": "Be brief.", "_debug_render_only": True}
    generate = live.post("/api/generate", body).json()["_debug_info"]
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi", "images": [picture64]}]
    chat = live.post(CHAT, {"model": "mini", "messages": turns, "_debug_render_only": True}).json()["_debug_info"]
    assert generate == chat
    assert chat["image_count"] == 1


def test_a_schema_is_kept(live: Any) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9, "minimum": 1}}, "required": ["n"]}
    import json

    found = live.whole(CHAT, messages=HELLO, format=schema, options={"num_predict": 60})
    assert found["done_reason"] == "length" or 1 <= json.loads(found["message"]["content"])["n"] <= 9


@pytest.mark.parametrize("top", [0, 3])
def test_logprobs(live: Any, top: int) -> None:
    found = live.whole(CHAT, messages=HELLO, logprobs=True, top_logprobs=top, options={"num_predict": 10})
    assert len(found["logprobs"]) == 10
    assert all(len(token.get("top_logprobs", [])) == top for token in found["logprobs"])
    assert "logprobs" not in live.whole(CHAT, messages=HELLO)


def test_a_conversation_too_long_is_refused_with_both_counts(live: Any) -> None:
    turns = [{"role": "user", "content": "word " * 400}]
    text = live.refused(CHAT, 400, {"model": "mini", "messages": turns, "options": {"num_ctx": 128}})
    counts = [int(number) for number in re.findall(r"\d+", text)]
    assert 128 in counts
    assert max(counts) >= 400


def test_when_asked_the_oldest_turns_go_and_it_is_told(live: Any) -> None:
    turns = [{"role": "system", "content": "Keep this."}]
    for number in range(20):
        turns += [{"role": "user", "content": f"Question {number} with some words in it"}]
        turns += [{"role": "assistant", "content": f"Answer {number}"}]
    turns += [{"role": "user", "content": "The last question"}]
    body = {"messages": turns, "options": {"num_ctx": 128, "num_predict": 2}, "truncate": True}
    found = live.whole(CHAT, **body)
    assert found["truncated"] is True
    assert found["truncated_tokens"] > 0
    assert found["prompt_eval_count"] < 128


# --- tools and thinking, where a template has them ---

CALLER = "{{ range .Tools }}[{{ .Function.Name }}]{{ end }}{{ range .Messages }}<{{ .Role }}>{{ .Content }}{{ end }}"
THINKER = "{{ range .Messages }}<{{ .Role }}>{{ .Content }}{{ end }}{{ if .Think }}<think>{{ end }}"


@pytest.fixture(scope="module")
def caller(live: Any) -> str:
    assert live.post("/api/create", {"model": "caller", "from": "mini", "template": CALLER}).status_code == 200
    return "caller"


@pytest.fixture(scope="module")
def thinker(live: Any) -> str:
    assert live.post("/api/create", {"model": "thinker", "from": "mini", "template": THINKER}).status_code == 200
    return "thinker"


def test_tools_reach_a_template_that_has_them(live: Any, caller: str) -> None:
    assert "[weather]" in rendered(live, model=caller, messages=HELLO, tools=[TOOL])
    found = live.whole(CHAT, model=caller, messages=HELLO, tools=[TOOL])
    assert found["done"] is True
    assert "tools" in live.post("/api/show", {"model": caller}).json()["capabilities"]


def test_calls_and_what_tools_say_reach_the_template(live: Any, caller: str) -> None:
    call = {"function": {"name": "weather", "arguments": {"where": "Paris"}}}
    turns = [
        *HELLO,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "sunny", "tool_name": "weather"},
    ]
    assert "<tool>sunny" in rendered(live, model=caller, messages=turns, tools=[TOOL])


def test_thinking_where_a_template_has_it(live: Any, thinker: str) -> None:
    assert rendered(live, model=thinker, messages=HELLO, think=True).endswith("<think>")
    assert "<think>" not in rendered(live, model=thinker, messages=HELLO, think=False)
    found = live.whole(CHAT, model=thinker, messages=HELLO, think=False)
    assert "thinking" not in found["message"]
    assert "thinking" in live.post("/api/show", {"model": thinker}).json()["capabilities"]


def test_no_messages_and_no_time_to_live_unload(live: Any, caller: str) -> None:
    found = live.post(CHAT, {"model": caller, "messages": [], "keep_alive": 0}).json()
    assert found["done_reason"] == "unload"
    assert not {"caller:latest", "thinker:latest"} & set(live.loaded())
