"""A chat template in Go's text/template, with the values that Ollama gives one.

See https://github.com/ollama/ollama/blob/main/docs/template.md for the names. Where this differs: pictures always come
before the words of their message, and nothing in the words is taken for their place; what nobody wrote a place for is
refused instead of being left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lapilli.errors import TemplateError
from lapilli.inputs.chat import ImagePart, Message
from lapilli.inputs.formats import Segment, joined
from lapilli.inputs.go.functions import typescript_type
from lapilli.inputs.go.nodes import Action, Block, Command, Field, Pipe, Program, cut_after
from lapilli.inputs.go.parser import parse
from lapilli.inputs.go.run import Budget, run
from lapilli.inputs.go.values import JsonList, JsonMap, Record, Types
from lapilli.inputs.marks import Marks, Unfit

_RESPONSE: Block = (Action(Pipe(1, (Command(1, (Field(("Response",)),)),))),)
# Every message may cost this many steps, on top of what a program may in any case.
_STEPS_A_MESSAGE = 200


@dataclass(frozen=True)
class Go:
    """A chat template's program in Go's text/template; raises TemplateError for one that cannot be read."""

    source: str

    def __post_init__(self) -> None:
        parse(self.source)

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool,
        tools: Sequence[Mapping[str, Any]] = (),
        think: bool | str | None = None,
        suffix: str = "",
    ) -> list[Segment]:
        marks = Marks([message.role for message in messages])
        program = parse(self.source)
        budget = Budget()
        budget.steps += _STEPS_A_MESSAGE * len(messages)
        common = {
            "Response": "",
            "Think": bool(think),
            "ThinkLevel": think if isinstance(think, str) else "medium" if think else "",
            "IsThinkSet": think is not None,
        }
        if suffix:
            text = _around(program, messages, suffix, common, marks, budget)
        elif "messages" in program.names:
            turns = _turns(messages, marks)
            system = "\n\n".join(turn.content for turn in turns if turn.role == "system")
            data = {**common, "System": system, "Messages": tuple(turn.record() for turn in turns)}
            data["Tools"] = JsonList(_tool(tool) for tool in marks.tools(tools))
            text = run(program.main, program.defined, data, budget)
        else:
            text = _turn_by_turn(program, _turns(messages, marks), common, budget, cut=add_generation_prompt)
        try:
            return joined(marks.read(text))
        except Unfit as failure:
            raise TemplateError(str(failure)) from None


@dataclass
class _Turn:
    """Messages of one role that stand together, marked."""

    role: str
    content: str
    thinking: str
    calls: tuple[Record, ...]
    tool_name: str
    tool_call_id: str

    def record(self) -> Record:
        return Record(
            "message",
            {
                "Role": self.role,
                "Content": self.content,
                "Thinking": self.thinking,
                "Images": (),
                "ToolCalls": self.calls,
                "ToolName": self.tool_name,
                "ToolCallID": self.tool_call_id,
            },
        )


def _turns(messages: Sequence[Message], marks: Marks) -> list[_Turn]:
    """The messages, neighbours of one role made one with a blank line between them; a tool's stay apart."""
    turns: list[_Turn] = []
    asked = not messages or messages[-1].role == "user"
    for number, message in enumerate(messages):
        pictures = "".join(marks.picture() for part in message.parts if isinstance(part, ImagePart))
        # Published templates leave out what stands beside calls, and the system's words while a tool's result is last.
        needed = not message.tool_calls and (asked or message.role != "system")
        words = marks.once(message.text, number, needed=needed)
        turn = _Turn(
            role=message.role,
            content=pictures + words,
            thinking=marks.once(message.thinking, number, needed=False),
            calls=tuple(_call(message, place, number, marks) for place in range(len(message.tool_calls))),
            tool_name=marks.shared(message.tool_name, number),
            tool_call_id=marks.id(message.tool_call_id),
        )
        last = turns[-1] if turns else None
        if last is not None and last.role == turn.role and turn.role != "tool":
            last.content = _joined(last.content, turn.content)
            last.thinking = _joined(last.thinking, turn.thinking) if turn.thinking else last.thinking
            last.calls += turn.calls
        else:
            turns.append(turn)
    return turns


def _joined(first: str, second: str) -> str:
    return f"{first}\n\n{second}" if first and second else first or second


def _call(message: Message, place: int, number: int, marks: Marks) -> Record:
    call = message.tool_calls[place]
    function = {
        "Index": place,
        "Name": marks.shared(call.name, number),
        "Arguments": JsonMap(marks.arguments(call, number)),
    }
    return Record("tool call", {"ID": marks.id(call.id), "Function": Record("function", function)})


def _around(
    program: Program,
    messages: Sequence[Message],
    suffix: str,
    common: Mapping[str, Any],
    marks: Marks,
    budget: Budget,
) -> str:
    """What stands before a gap and after it, for models that fill it."""
    if "suffix" not in program.names:
        raise TemplateError("this chat template has no place for a suffix")
    *others, last = messages
    if last.role != "user" or last.images or any(message.role != "system" for message in others):
        raise TemplateError("a suffix goes with one message of the user, in words alone")
    data = {
        **common,
        "System": "\n\n".join(marks.once(m.text, number, needed=False) for number, m in enumerate(others)),
        "Prompt": marks.once(last.text, len(others)),
        "Suffix": marks.once(suffix, len(others)),
    }
    return run(program.main, program.defined, data, budget)


def _turn_by_turn(
    program: Program, turns: Sequence[_Turn], common: Mapping[str, Any], budget: Budget, *, cut: bool
) -> str:
    """A template for one turn, run for each; the last is cut where the answer goes.

    Nothing is taken over from one turn to the next, and a tool's message has no place.
    """
    main = program.main if "response" in program.names else program.main + _RESPONSE
    written = []
    held = {"System": "", "Prompt": "", "Response": ""}

    def write(block: Block) -> None:
        written.append(run(block, program.defined, {**common, **held}, budget))
        held.update(System="", Prompt="", Response="")

    for turn in turns:
        if turn.role == "system":
            if held["Prompt"] or held["Response"]:
                write(main)
            held["System"] = turn.content
        elif turn.role == "user":
            if held["Response"]:
                write(main)
            held["Prompt"] = turn.content
        elif turn.role == "assistant":
            held["Response"] = turn.content
    write(cut_after(main, "Response")[0] if cut else main)
    return "".join(written)


def _tool(tool: Mapping[str, Any]) -> Record:
    function = tool["function"]
    parameters = function.get("parameters") or {}
    known = {
        "type": parameters.get("type", "object"),
        "$defs": parameters.get("$defs"),
        "items": parameters.get("items"),
        "required": _list(parameters.get("required")),
        "properties": _properties(parameters.get("properties")),
    }
    names = {"type": "Type", "$defs": "Defs", "items": "Items", "required": "Required", "properties": "Properties"}
    inner = _record("set of parameters", known, names, parameters, always=("properties",))
    known = {"name": function["name"], "description": function.get("description") or "", "parameters": inner}
    names = {"name": "Name", "description": "Description", "parameters": "Parameters"}
    described = _record("function", known, names, function, always=tuple(known))
    known = {"type": tool.get("type", "function"), "items": tool.get("items"), "function": described}
    return _record(
        "tool", known, {"type": "Type", "items": "Items", "function": "Function"}, tool, always=("function",)
    )


def _property(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    kinds = value.get("type", ())
    known = {
        "anyOf": tuple(_property(inner) for inner in _list(value.get("anyOf"))),
        "type": Types((kinds,) if isinstance(kinds, str) else (kind for kind in _list(kinds) if isinstance(kind, str))),
        "items": value.get("items"),
        "description": value.get("description") or "",
        "enum": _list(value.get("enum")),
        "properties": _properties(value.get("properties")),
        "required": _list(value.get("required")),
    }
    names = {"anyOf": "AnyOf", "type": "Type", "items": "Items", "description": "Description", "enum": "Enum"}
    names |= {"properties": "Properties", "required": "Required"}
    record = _record("property", known, names, value)
    return Record("property", {**record.fields, "ToTypeScriptType": typescript_type(record)}, record.json)


def _properties(value: Any) -> JsonMap:
    return JsonMap({name: _property(inner) for name, inner in value.items()} if isinstance(value, Mapping) else {})


def _list(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list) else ()


def _record(
    kind: str,
    known: Mapping[str, Any],
    names: Mapping[str, str],
    given: Mapping[str, Any],
    *,
    always: Sequence[str] = (),
) -> Record:
    """A record; its JSON has the keys that Ollama knows, in its order, without empty ones, then what else was given."""
    first = {key: value for key, value in known.items() if value or key in always}
    rest = {key: value for key, value in given.items() if key not in known}
    return Record(kind, {names[key]: value for key, value in known.items()}, {**first, **rest})
