"""The REPL's commands: what follows a slash."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lapilli.errors import InputError
from lapilli.faces.columns import models_table
from lapilli.faces.showing import PARTS, info_text, part_text
from lapilli.wire.question import LEVELS

if TYPE_CHECKING:
    from lapilli.faces.conversation import Conversation

HELP = '''Available commands:
  /set            Change how the model answers, and how that is shown
  /show           Show what is known about the model
  /load <model>   Go on with another model, from the beginning
  /save <model>   Keep this conversation and its settings as a model
  /clear          Forget the conversation
  /list           List the models that are here
  /bye            Leave
  /?, /help       This help; also /? set, /? show, /? shortcuts

A picture is named by its path: What is in ./photo.png ?
Use """ to begin a message of several lines, and """ to end it.'''
HELP_SET = """Available commands:
  /set parameter ...      Set a parameter, such as temperature 0.7
  /set system <text>      Set the system message
  /set history            Keep what is sent
  /set nohistory          Keep nothing of what is sent
  /set wordwrap           Break lines between words
  /set nowordwrap         Leave lines to the terminal
  /set format json        Answer in JSON
  /set noformat           Answer in any form
  /set verbose            Say what each answer took
  /set quiet              Say nothing of what answers took
  /set think [level]      Have the model think: low, medium, high or max
  /set nothink            Have the model answer at once"""
HELP_SHOW = """Available commands:
  /show info              Sizes, context, capabilities
  /show license           The model's license
  /show modelfile         The model's Modelfile
  /show parameters        Parameters, the model's and yours
  /show system            The system message
  /show template          The chat template"""
HELP_SHORTCUTS = """Available keyboard shortcuts:
  Ctrl + a            Move to the beginning of the line
  Ctrl + e            Move to the end of the line
  Alt + b             Move back by a word
  Alt + f             Move forward by a word
  Ctrl + k            Delete what follows the cursor
  Ctrl + u            Delete what precedes the cursor
  Ctrl + w            Delete the word before the cursor
  Ctrl + r            Search in what was sent before
  Alt + Enter         Begin another line
  Tab                 Complete a command or a path
  Ctrl + l            Clear the screen
  Ctrl + g            Write the message in an editor
  Ctrl + c            Stop the answer
  Ctrl + d            Leave"""


def run_command(talk: Conversation, line: str) -> bool:
    """Do what a line that begins with a slash says; False ends the conversation."""
    name, _, rest = line.partition(" ")
    command = _COMMANDS.get(name)
    if name in ("/bye", "/exit"):
        return False
    if command is None:
        talk.say(f"Unknown command '{name}'. Type /? for help")
    else:
        command(talk, rest.strip())
    return True


def _help(talk: Conversation, rest: str) -> None:
    pages = {"set": HELP_SET, "show": HELP_SHOW, "shortcuts": HELP_SHORTCUTS}
    talk.say(pages.get(rest.removeprefix("/"), HELP) + "\n")


def _set(talk: Conversation, rest: str) -> None:
    name, _, value = rest.partition(" ")
    value, session = value.strip(), talk.session
    switches: Mapping[str, tuple[str, Any]] = {
        "wordwrap": ("wrap", True), "nowordwrap": ("wrap", False), "verbose": ("verbose", True),
        "quiet": ("verbose", False),
    }  # fmt: skip
    if name in switches:
        setattr(session, *switches[name])
        talk.say(f"Set '{name}' mode.")
    elif name in ("history", "nohistory"):
        talk.history_on = name == "history"
        talk.say("What you send is kept." if talk.history_on else "What you send is not kept.")
    elif name == "format":
        _set_format(talk, value)
    elif name == "noformat":
        session.format = None
        talk.say("Disabled format.")
    elif name in ("think", "nothink"):
        _set_think(talk, value if name == "think" else None)
    elif name == "parameter":
        _set_parameter(talk, value)
    elif name == "system":
        if not value:
            raise InputError("/set system wants the message after it")
        session.system = _unquoted(value)
        talk.say("Set system message.")
    else:
        if name:
            talk.say(f"Unknown command '/set {name}'. Type /? set for help")
        else:
            talk.say(HELP_SET + "\n")


def _set_format(talk: Conversation, value: str) -> None:
    if value != "json":
        raise InputError("the format can be json: /set format json")
    talk.session.format = "json"
    talk.say("Set format to 'json' mode.")


def _set_think(talk: Conversation, level: str | None) -> None:
    if level and level not in LEVELS:
        raise InputError(f"/set think {level}: the level can be {', '.join(LEVELS)}")
    if level is not None and "thinking" not in (talk.shown.get("capabilities") or ("thinking",)):
        talk.remark(f"warning: model {talk.session.model!r} does not support thinking")
    talk.session.think = False if level is None else level or True
    talk.say("Set 'nothink' mode." if level is None else f"Set 'think' mode{f' to {level!r}' if level else ''}.")


def _set_parameter(talk: Conversation, value: str) -> None:
    try:
        name, *texts = shlex.split(value)
    except ValueError:
        name, *texts = value.split() or [""]
    if not texts:
        raise InputError("/set parameter wants a name and a value: /set parameter temperature 0.7")
    talk.session.options[name] = parameter_value(name, texts)
    talk.say(f"Set parameter '{name}' to '{', '.join(texts)}'")


def _show(talk: Conversation, rest: str) -> None:
    session = talk.session
    if rest not in ("info", *PARTS):
        talk.say(f"Unknown command '/show {rest}'. Type /? show for help" if rest else HELP_SHOW + "\n")
        return
    talk.shown = talk.client.show(session.model)
    if rest == "info":
        talk.say(info_text(talk.shown) + "\n")
        return
    text = part_text(talk.shown, rest)
    if rest == "system" and session.system is not None:
        text = session.system
    if rest == "parameters":
        talk.say(_parameters_text(text, session.options))
        return
    missing = {"license": "No license was specified", "system": "No system message was specified",
               "template": "No prompt template was specified", "modelfile": "No Modelfile is known"}  # fmt: skip
    talk.say(text.rstrip("\n") + "\n" if text else f"{missing[rest]} for this model.")


def _parameters_text(own: str, given: Mapping[str, Any]) -> str:
    blocks = []
    if own:
        blocks.append("Model defined parameters:\n" + "\n".join(f"  {line}" for line in own.splitlines()))
    if given:
        lines = [f"  {name:<30} {' '.join(map(str, v)) if isinstance(v, list) else v}" for name, v in given.items()]
        blocks.append("User defined parameters:\n" + "\n".join(lines))
    return "\n\n".join(blocks) + "\n" if blocks else "No parameters were specified for this model."


def _load(talk: Conversation, rest: str) -> None:
    if not rest or " " in rest:
        raise InputError("/load wants the name of a model")
    talk.say(f"Loading model '{rest}'")
    talk.open(rest)
    # Like a fresh start: what was set for the other model may mean nothing to this one.
    talk.session.messages, talk.session.options, talk.session.system = [], {}, None


def _save(talk: Conversation, rest: str) -> None:
    if not rest or " " in rest:
        raise InputError("/save wants a name for the new model")
    session = talk.session
    if session.model == session.unstored:
        raise InputError("this model is in no store: `lapilli create NAME` in its folder makes it one to build on")
    turns = [{"role": m["role"], "content": m["content"]} for m in session.messages]
    request: dict[str, Any] = {"from": session.model}
    if session.system is not None:
        request["system"] = session.system
    if session.options:
        request["parameters"] = session.options
    if turns:
        request["messages"] = [*(talk.shown.get("messages") or ()), *turns]
    for _ in talk.client.create(rest, request):
        pass
    talk.say(f"Created new model '{rest}'")
    if any("images" in message for message in session.messages):
        talk.remark("note: words are kept, pictures are not")


def _clear(talk: Conversation, rest: str) -> None:
    talk.session.messages = []
    talk.say("Cleared session context")


def _list(talk: Conversation, rest: str) -> None:
    talk.say(models_table(m for m in talk.client.tags() if m.name.startswith(rest)))


def parameter_value(name: str, texts: list[str]) -> Any:
    """What a parameter is set to, of the kind that it is; raises InputError where it is unknown or of another kind."""
    from lapilli.store.modelfile import PARAMETERS, read_parameter

    if PARAMETERS.get(name) is list:
        return texts
    if len(texts) > 1:
        raise InputError(f"{name} takes one value, here are {len(texts)}: {' '.join(texts)}")
    return read_parameter(name, texts[0])


def _unquoted(text: str) -> str:
    for mark in ('"""', '"'):
        if len(text) >= 2 * len(mark) and text.startswith(mark) and text.endswith(mark):
            return text[len(mark) : -len(mark)].strip("\n")
    return text


_COMMANDS: Mapping[str, Callable[[Conversation, str], None]] = {
    "/?": _help, "/help": _help, "/set": _set, "/show": _show, "/load": _load, "/save": _save, "/clear": _clear,
    "/list": _list,
}  # fmt: skip
