"""Replies are split into thoughts, calls and words: however they are cut, whatever they hold, in linear time."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapilli.inputs.replies import ReplyForm, ReplyReader, reply_form
from lapilli.inputs.templates import ChatTemplate

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {"type": "object", "properties": {"place": {"type": "string"}, "days": {"type": "integer"}}},
        },
    }
    for name in ("weather", "add")
]


def jinja(signs: str) -> ChatTemplate:
    return ChatTemplate.from_jinja("{% if tools %}" + signs + "{% endif %}{{ messages[0].content }}" + "{{ cue }}")


QWEN = jinja("<tool_call></think>")
MISTRAL = jinja("[TOOL_CALLS]")
LLAMA = jinja("<|python_tag|>")
COMMAND = jinja("<|START_ACTION|> Action: ```json <|START_THINKING|> <|END_THINKING|>")
DEEPSEEK = jinja("<｜tool▁calls▁begin｜></think>")
GRANITE = jinja("<|tool_call|>")
PHI = jinja("functools[")
CODER = jinja("<function=")
ALL = jinja(
    "<tool_call></think>[TOOL_CALLS]<|python_tag|><|START_ACTION|>Action: ```json<｜tool▁calls▁begin｜><|tool_call|>"
    "functools[<function="
)


def read(template: ChatTemplate | ReplyForm, text: str, step: int = 1 << 30, **more: Any) -> dict[str, Any]:
    form = template if isinstance(template, ReplyForm) else reply_form(template, **{"tools": TOOLS, **more})
    reader = ReplyReader(form)
    parts = [part for at in range(0, len(text), step) for part in reader.feed(text[at : at + step])] + reader.end()
    calls = [(call.name, dict(call.arguments), call.id) for part in parts for call in part.tool_calls]
    assert reader.calls == len(calls)
    found: dict[str, Any] = {"thinking": "".join(p.thinking for p in parts), "text": "".join(p.text for p in parts)}
    return {key: value for key, value in {**found, "calls": calls}.items() if value}


ROME = ("weather", {"place": "Rome"}, "")
OBJECT = '{"name": "weather", "arguments": {"place": "Rome"}}'
CASES: dict[str, tuple[ChatTemplate, str, dict[str, Any]]] = {
    "words": (QWEN, " A cat.\n", {"text": " A cat.\n"}),
    "thoughts and words": (QWEN, "\n<think>\nHm. \n</think>\n\nA cat.", {"thinking": "Hm.", "text": "A cat."}),
    "no thoughts": (QWEN, "<think>\n\n</think>\n\nA cat.", {"text": "A cat."}),
    "a thought without an end": (QWEN, "<think>Hm. \n", {"thinking": "Hm."}),
    "a tag in words": (QWEN, "Use <think>.", {"text": "Use <think>."}),
    "a thought about a tag": (QWEN, "<think>a </thin b</think>c", {"thinking": "a </thin b", "text": "c"}),
    "Qwen": (QWEN, f"<tool_call>\n{OBJECT}\n</tool_call>", {"calls": [ROME]}),
    "Qwen, two": (QWEN, f"<tool_call>{OBJECT}</tool_call>\n<tool_call>{OBJECT}</tool_call>\n", {"calls": [ROME] * 2}),
    "Qwen, not closed": (QWEN, f"<tool_call>\n{OBJECT}\n", {"calls": [ROME]}),
    "all of it": (
        QWEN,
        f"<think>Hm.</think>Let me see.\n<tool_call>{OBJECT}</tool_call>\nSo.",
        {"thinking": "Hm.", "text": "Let me see.\nSo.", "calls": [ROME]},
    ),
    "Qwen Coder": (
        QWEN,
        "<tool_call>\n<function=weather>\n<parameter=place>\n5\n</parameter>\n<parameter=days>\n5\n</parameter>\n"
        "</function>\n</tool_call>",
        {"calls": [("weather", {"place": "5", "days": 5}, "")]},
    ),
    "GLM": (
        QWEN,
        "<tool_call>weather\n<arg_key>place</arg_key>\n<arg_value>5</arg_value>\n<arg_key>days</arg_key>\n"
        "<arg_value>5</arg_value>\n</tool_call>",
        {"calls": [("weather", {"place": "5", "days": 5}, "")]},
    ),
    "Hermes, a list": (QWEN, f"<tool_call>[{OBJECT}, {OBJECT}]</tool_call>", {"calls": [ROME] * 2}),
    "an object for nothing": (QWEN, "<tool_call>{}</tool_call>!", {"text": "<tool_call>{}</tool_call>!"}),
    "no JSON": (QWEN, "<tool_call>go</tool_call>", {"text": "<tool_call>go</tool_call>"}),
    "NaN": (QWEN, '<tool_call>{"name":"a","arguments":{"x":NaN}}</tool_call>', {"text": ...}),
    "arguments that are none": (QWEN, '<tool_call>{"name":"a","arguments":[1]}</tool_call>', {"text": ...}),
    "Mistral": (
        MISTRAL,
        '[TOOL_CALLS] [{"name":"weather","arguments":{"place":"]}"},"id":"abcdefghi"}]',
        {"calls": [("weather", {"place": "]}"}, "abcdefghi")]},
    ),
    "Mistral, newer": (
        MISTRAL,
        '[TOOL_CALLS]weather[ARGS]{"days": 1}[TOOL_CALLS]add[CALL_ID]abcdefghi[ARGS]{"days": 2}',
        {"calls": [("weather", {"days": 1}, ""), ("add", {"days": 2}, "abcdefghi")]},
    ),
    "Mistral, no call": (MISTRAL, "[TOOL_CALLS] are tags.", {"text": "[TOOL_CALLS] are tags."}),
    "Llama": (LLAMA, '\n{"name": "weather", "parameters": {"place": "Rome"}}', {"calls": [ROME]}),
    "Llama, two": (
        LLAMA,
        '{"name":"weather","parameters":{"place":"Rome"}}; {"name":"add","parameters":{}}',
        {"calls": [ROME, ("add", {}, "")]},
    ),
    "Llama, tagged": (
        LLAMA,
        '<|python_tag|>{"name":"x","parameters":{"a":"\\"}"}}',
        {"calls": [("x", {"a": '"}'}, "")]},
    ),
    "Llama, code": (LLAMA, "<|python_tag|>print(1)", {"text": "<|python_tag|>print(1)"}),
    "an unknown tool": (LLAMA, '{"name": "x", "parameters": {}}', {"text": '{"name": "x", "parameters": {}}'}),
    "an answer in JSON": (LLAMA, ' {"answer": 5}', {"text": ' {"answer": 5}'}),
    "a list": (LLAMA, "[1, 2]", {"text": "[1, 2]"}),
    "JSON in words": (LLAMA, f"See {OBJECT}", {"text": f"See {OBJECT}"}),
    "JSON cut off": (LLAMA, '{"name": "wea', {"text": '{"name": "wea'}),
    "Command R": (
        COMMAND,
        'Action: ```json\n[{"tool_name": "weather", "parameters": {"place": "Rome"}}]\n```',
        {"calls": [ROME]},
    ),
    "Command A": (
        COMMAND,
        "<|START_THINKING|>Hm.<|END_THINKING|><|START_ACTION|>[\n"
        '{"tool_call_id": "0", "tool_name": "weather", "parameters": {}}]<|END_ACTION|>',
        {"thinking": "Hm.", "calls": [("weather", {}, "0")]},
    ),
    "DeepSeek": (
        DEEPSEEK,
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n"
        '{"place": "Rome"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>add<｜tool▁sep｜>{"days": 1}'
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        {"calls": [ROME, ("add", {"days": 1}, "")]},
    ),
    "Granite": (GRANITE, f"<|tool_call|>[{OBJECT}]", {"calls": [ROME]}),
    "Phi, closed": (GRANITE, f"<|tool_call|>[{OBJECT}]<|/tool_call|>", {"calls": [ROME]}),
    "Phi": (PHI, f"functools[{OBJECT}]", {"calls": [ROME]}),
    "a function in tags": (CODER, '<function=weather>{"place": "Rome"}</function>', {"calls": [ROME]}),
    "arguments as text": (QWEN, '<tool_call>{"name":"add","arguments":"{\\"days\\":1}"}</tool_call>', {"calls": ...}),
    "in OpenAI's shape": (LLAMA, f'{{"type":"function","function":{OBJECT}}}', {"calls": [ROME]}),
}


@pytest.mark.parametrize("step", [1, 2, 7, 1 << 30])
@pytest.mark.parametrize("case", CASES)
def test_a_reply_is_split(case: str, step: int) -> None:
    template, text, expected = CASES[case]
    found = read(template, text, step)
    if ... in expected.values():
        assert list(found) == list(expected)
        assert expected.keys() != {"text"} or found["text"] == text
    else:
        assert found == expected


def test_a_call_comes_as_soon_as_it_is_whole() -> None:
    reader = ReplyReader.for_template(QWEN, tools=TOOLS)
    assert [part.text for part in reader.feed("So <tool_")] == ["So "]
    assert [part.text for part in reader.feed("x")] == ["<tool_x"]
    assert reader.feed(f"<tool_call>{OBJECT}") == []
    (part,) = reader.feed("</tool_call>")
    assert part.tool_calls[0].name == "weather"


def test_words_are_not_held_back() -> None:
    reader = ReplyReader.for_template(QWEN, tools=TOOLS)
    assert [part.text for part in reader.feed("A cat <")] == ["A cat "]
    assert [part.text for part in reader.feed(" b")] == ["< b"]
    reader = ReplyReader.for_template(LLAMA, tools=TOOLS)
    assert [part.text for part in reader.feed('{"answer"')] == ['{"answer"']


def test_without_tools_nothing_is_a_call_and_without_thoughts_nothing_a_thought() -> None:
    text = f"<think>a</think><tool_call>{OBJECT}</tool_call>"
    assert read(QWEN, text, tools=[]) == {"thinking": "a", "text": f"<tool_call>{OBJECT}</tool_call>"}
    assert read(ChatTemplate.built_in("chatml"), text) == {"text": text}
    assert read(jinja(""), text) == {"text": text}
    assert ReplyReader.for_template(ChatTemplate.built_in("vicuna_v1"), tools=[]).form == ReplyForm()


def test_a_thought_that_the_prompt_has_opened_is_known() -> None:
    opened = ChatTemplate.from_jinja(
        "{{ bos_token + messages[0].content }}<a>{% if enable_thinking is not defined or enable_thinking %}<think>\n"
        "{% else %}<think>\n\n</think>\n\n{% endif %}"
    )
    for step in (1, 1 << 30):
        assert read(opened, "Hm.\n</think>\n\nA cat.", step) == {"thinking": "Hm.", "text": "A cat."}
        assert read(opened, "<think>\nHm.</think><think>", step) == {"thinking": "Hm.", "text": "<think>"}
        assert read(opened, "A cat.", step, think=False) == {"text": "A cat."}
        assert read(opened, "Hm", step, think=True) == {"thinking": "Hm"}
    go = ChatTemplate.from_go("{{ .Prompt }}{{ if .Think }}<think>{{ end }}")
    assert read(go, "a</think>b", think=True) == {"text": "a</think>b"}
    go = ChatTemplate.from_go("{{ .Prompt }}{{/* </think> */}}{{ if .Think }}<think>{{ end }}")
    assert read(go, "a</think>b", think=True) == {"thinking": "a", "text": "b"}
    assert read(go, "a", think=False) == {"text": "a"}


def test_a_tag_of_a_template_in_go_is_known() -> None:
    go = ChatTemplate.from_go(
        "{{ .Tools }}{{ range .Messages }}{{ .Content }}{{ if .ToolCalls }}<<call>> "
        '{{ range .ToolCalls }}{"name": "{{ .Function.Name }}"}{{ end }}{{ end }}{{ end }}'
    )
    assert read(go, f"<<call>> {OBJECT}") == {"calls": [ROME]}
    assert read(go, OBJECT) == {"calls": [ROME]}
    assert "<<call>>" in reply_form(go, tools=TOOLS).markers


def test_the_tags_that_may_be_special_tokens_are_named() -> None:
    assert reply_form(MISTRAL, tools=TOOLS).markers == {"[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", ";"}
    assert reply_form(QWEN, tools=TOOLS).markers >= {"<tool_call>", "</tool_call>", "<think>", "</think>"}
    assert reply_form(QWEN).markers == {"<think>", "</think>"}
    assert reply_form(ChatTemplate.built_in("chatml")).markers == frozenset()


# Whatever a model says (T70).

_TAGS = sorted(reply_form(ALL, tools=TOOLS).markers)
_HALVES = [half for tag in _TAGS for half in (tag[: len(tag) // 2], tag[len(tag) // 2 :])]
_SIGNS = '{ } [ ] " \\ a weather <parameter= </parameter> <arg_key> </arg_key> <arg_value> ```json 日 \x00 1 ,'
_CALLS = [OBJECT, OBJECT[:-1], '{"name":"add","arguments":{}}', " ", "\n"]
bits = st.sampled_from([*_TAGS, *_HALVES, *_SIGNS.split(), *_CALLS])
FORMS = {"all": ALL, "qwen": QWEN, "mistral": MISTRAL, "llama": LLAMA, "command": COMMAND}


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=100, deadline=None)
@given(parts=st.lists(bits, max_size=20), cuts=st.lists(st.integers(1, 9), min_size=1, max_size=30))
def test_where_a_reply_is_cut_changes_nothing(name: str, parts: list[str], cuts: list[int]) -> None:
    text, form = "".join(parts), reply_form(FORMS[name], tools=TOOLS)
    whole = read(form, text)
    assert read(form, text, 1) == whole
    reader, at, pieces = ReplyReader(form), 0, []
    for cut in cuts * (len(text) // len(cuts) + 1):
        pieces += reader.feed(text[at : at + cut])
        at += cut
    pieces += reader.feed(text[at:]) + reader.end()
    assert "".join(piece.text for piece in pieces) == whole.get("text", "")
    assert "".join(piece.thinking for piece in pieces) == whole.get("thinking", "")
    assert sum(len(piece.tool_calls) for piece in pieces) == len(whole.get("calls", []))
    if "calls" not in whole and "thinking" not in whole and not form.thoughts:
        assert whole.get("text", "") == text


HOSTILE = {
    "opening tags": "<tool_call>",
    "halves of tags": "<tool_cal",
    "tags for nothing": "<tool_call></tool_call>",
    "angles": "<",
    "nested objects": '{"name":',
    "nested lists": "[",
    "a list of tags": "[TOOL_CALLS][",
    "objects": OBJECT,
    "calls": f"<tool_call>{OBJECT}</tool_call>",
    "blanks": " ",
    "lines in a thought": "<think>" + "\n" * 40,
    "quotes": '[TOOL_CALLS]"',
    "backslashes": '<|tool_call|>["\\',
    "semicolons": ";",
    "parameters": "<function=a><parameter=",
    "keys": "<tool_call><arg_key>",
    "fences": "Action: ```json",
    "names": "[TOOL_CALLS]aaaaaaaaaaaaaaaa",
}


@pytest.mark.parametrize("step", [1 << 30, 5])
@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_reply_takes_time_in_proportion(what: str, step: int) -> None:
    form = reply_form(ALL, tools=TOOLS)
    length = 300_000 if step > 5 else 20_000
    text = HOSTILE[what] * (length // len(HOSTILE[what]))
    for opening in ("", "<think>", "x"):
        began = time.process_time()
        read(form, opening + text, step)
        # Far above what it takes, far below what anything quadratic would.
        assert time.process_time() - began < 10
