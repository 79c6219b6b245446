"""Messages: who said what, showed which pictures and called which tools, read from every shape that people send."""

from __future__ import annotations

import base64
import binascii
import json
import os
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

from lapilli.errors import ImageError, PromptError

if TYPE_CHECKING:
    from PIL.Image import Image

Role = Literal["system", "user", "assistant", "tool"]
_ROLES: tuple[str, ...] = get_args(Role)


@dataclass(frozen=True)
class TextPart:
    """Words that somebody wrote; never interpreted, whatever they look like."""

    text: str

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise PromptError(f"text must be a string, it is {type(self.text).__name__}")
        _require_whole(self.text, "the text holds")


def _require_whole(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PromptError(f"{what} half a surrogate pair at character {error.start}") from None


@dataclass(frozen=True)
class ImagePart:
    """An opened picture (RGB), at its place between the words."""

    image: Image


Part: TypeAlias = TextPart | ImagePart


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool: its name, its arguments as JSON values in their order, and the id that its result will name.

    Raises PromptError for a call without a name, and for arguments that are no JSON object.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise PromptError(f"a call of a tool needs the tool's name, it is {type(self.name).__name__}")
        if not isinstance(self.arguments, Mapping):
            raise PromptError(f"the arguments of a call must be an object, they are {type(self.arguments).__name__}")
        if not isinstance(self.id, str):
            raise PromptError(f"the id of a call must be a string, it is {type(self.id).__name__}")
        require_json(self.arguments, f"the arguments of {self.name[:40]!r}")


@dataclass(frozen=True)
class Message:
    """One turn of a conversation: a role, and texts and pictures in the order they were given.

    An assistant's turn may hold `tool_calls`, and the `thinking` that came before its words. A tool's turn says with
    `tool_name` and `tool_call_id` which call it answers.

    Raises PromptError for an unknown role, a picture outside a user's turn, calls outside an assistant's.
    """

    role: Role
    parts: tuple[Part, ...]
    tool_calls: tuple[ToolCall, ...] = ()
    tool_name: str = ""
    tool_call_id: str = ""
    thinking: str = ""

    def __post_init__(self) -> None:
        if self.role not in _ROLES:
            raise PromptError(f"role {self.role!r} is not one of {', '.join(_ROLES)}")
        if self.role != "user" and self.images:
            raise PromptError(f"a message of the {self.role} cannot hold a picture: show pictures in user messages")
        if self.role != "assistant" and self.tool_calls:
            raise PromptError(f"a message of the {self.role} cannot call a tool: the assistant does")
        for name in ("tool_name", "tool_call_id", "thinking"):
            if not isinstance(getattr(self, name), str):
                raise PromptError(f"{name} must be a string, it is {type(getattr(self, name)).__name__}")
            _require_whole(getattr(self, name), f"{name} holds")

    @property
    def text(self) -> str:
        """All words of this message, its parts one to a line."""
        return "\n".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def images(self) -> tuple[Image, ...]:
        return tuple(part.image for part in self.parts if isinstance(part, ImagePart))

    @property
    def is_empty(self) -> bool:
        return not self.images and not self.tool_calls and not self.text.strip()


# JSON nested deeper than this is an attack, not a description.
_DEEPEST = 32


def require_json(value: Any, what: str, depth: int = 0) -> None:
    """Raise PromptError where `what` holds something that JSON does not, or is nested too deep."""
    if depth > _DEEPEST:
        raise PromptError(f"{what} are nested deeper than {_DEEPEST} levels")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise PromptError(f"{what} have a key that is no string but {type(key).__name__}")
            _require_whole(key, f"{what} hold")
            require_json(inner, what, depth + 1)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            require_json(inner, what, depth + 1)
    elif isinstance(value, str):
        _require_whole(value, f"{what} hold")
    elif not isinstance(value, (bool, int, float, type(None))):
        raise PromptError(f"{what} hold a {type(value).__name__}, which JSON does not have")


def checked_tools(tools: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """The tools, each seen to be `{"type": "function", "function": {"name", "description", "parameters"}}`.

    Raises PromptError with the number of the tool that is none.
    """
    if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Sequence):
        raise PromptError(f"tools must be a list, it is {type(tools).__name__}")
    for number, tool in enumerate(tools, 1):
        function = tool.get("function") if isinstance(tool, Mapping) else None
        name = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(name, str) or not name:
            raise PromptError(f"tool {number} must be an object with a function that has a name")
        assert isinstance(function, Mapping)
        parameters = function.get("parameters") or {}
        if not isinstance(parameters, Mapping) or not isinstance(parameters.get("properties") or {}, Mapping):
            raise PromptError(f"the parameters of tool {number}, and their properties, must be objects")
        require_json(tool, f"the words of tool {number}")
    return tuple(tools)


def show(source: Any, *, paths: bool = True) -> ImagePart:
    """Open a picture: a path, bytes, base64, a `data:` URL, or an opened Pillow image.

    With `paths=False`, as for requests from elsewhere, a string never names a file of this machine.
    Raises ImageError for what is no picture.
    """
    from PIL.Image import Image

    from lapilli.inputs.images import open_image

    return ImagePart(open_image(source if isinstance(source, Image) else _picture(source, paths)))


def conversation(
    prompt_or_messages: str | Sequence[Message | Mapping[str, Any]],
    images: Sequence[Any] = (),
    *,
    paths: bool = True,
) -> list[Message]:
    """Read a prompt or messages into a list of `Message`, with every picture opened.

    A string is one user message; its `images` come before the words. Messages are `Message` objects or mappings in
    the shape of OpenAI (`image_url` parts holding `data:` URLs), Ollama (`images` beside `content`) or Hugging Face
    (`{"type": "image"}` parts that take the next of `images`, or hold their picture under `image`). `images` given
    with messages that name no place for them go before the words of the only user message.

    Each picture, and `paths`, is as for `show`.

    Raises PromptError where nothing is asked, a shape is not known, or pictures and places differ in number;
    ImageError for what is no picture.
    """
    if isinstance(images, (str, bytes, bytearray, Path)) or not isinstance(images, Sequence):
        raise PromptError(f"images must be a list of pictures, it is {type(images).__name__}")
    given: Any = prompt_or_messages
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if isinstance(given, (bytes, bytearray)) or not isinstance(given, Sequence):
        raise PromptError(f"a prompt is a string or a list of messages, not {type(given).__name__}")
    pending = _Pending(images, paths)
    messages = [_message(item, number, pending) for number, item in enumerate(given, 1)]
    messages = pending.place(messages)
    _require_something_asked(messages)
    return messages


class _Pending:
    """The pictures given beside the messages, handed out in order to the places that ask for one."""

    def __init__(self, images: Sequence[Any], paths: bool) -> None:
        self.images, self.paths, self.asked = images, paths, 0

    def take(self) -> Part:
        self.asked += 1
        # Too many places are reported by `place`, when all have been counted.
        return self.open(self.images[self.asked - 1]) if self.asked <= len(self.images) else TextPart("")

    def open(self, source: Any) -> ImagePart:
        return show(source, paths=self.paths)

    def place(self, messages: list[Message]) -> list[Message]:
        if self.asked == len(self.images):
            return messages
        users = [i for i, message in enumerate(messages) if message.role == "user"]
        if self.asked or len(users) != 1:
            raise PromptError(
                f"{len(self.images)} pictures were given for {self.asked} places in the messages; "
                'each place is a part {"type": "image"}'
            )
        shown = tuple(self.open(source) for source in self.images)
        at = users[0]
        return [*messages[:at], Message("user", (*shown, *messages[at].parts)), *messages[at + 1 :]]


def _require_something_asked(messages: list[Message]) -> None:
    if not messages:
        raise PromptError("there is no message: ask something, or show a picture")
    for number, message in enumerate(messages, 1):
        if message.role == "user" and message.is_empty:
            which = "the prompt" if len(messages) == 1 else f"message {number} (user)"
            raise PromptError(f"{which} is empty: ask something, or show a picture")
    if all(message.is_empty for message in messages):
        raise PromptError("no message says anything: ask something, or show a picture")


_KEYS = frozenset({"role", "content", "images", "tool_calls", "tool_call_id", "tool_name", "name", "thinking"})
# Thoughts under other names, and what changes nothing about what is read.
_THOUGHTS = ("thinking", "reasoning_content", "reasoning")
_IGNORED = frozenset({"refusal", "annotations", *_THOUGHTS})


def _message(item: Message | Mapping[str, Any], number: int, pending: _Pending) -> Message:
    if isinstance(item, Message):
        return item
    try:
        return _read_message(item, pending)
    except PromptError as error:
        raise PromptError(f"message {number}: {error}") from None


def _read_message(item: Any, pending: _Pending) -> Message:
    if not isinstance(item, Mapping):
        raise PromptError(f"a message must have a role and content, it is {type(item).__name__}")
    strange = [str(key) for key, value in item.items() if value and key not in _KEYS | _IGNORED]
    if strange:
        raise PromptError(f"{', '.join(sorted(strange))[:80]} is not understood here")
    role = "system" if item.get("role") == "developer" else item.get("role")
    if role not in _ROLES:
        raise PromptError(f"role {str(role)[:40]!r} is not one of {', '.join(_ROLES)}")
    shown = item.get("images") or ()
    if isinstance(shown, (str, bytes, Mapping)) or not isinstance(shown, Sequence):
        raise PromptError(f"images must be a list, it is {type(shown).__name__}")
    parts = (*(pending.open(source) for source in shown), *_parts(item.get("content"), pending))
    return Message(
        cast(Role, role),
        parts,
        tool_calls=_tool_calls(item.get("tool_calls")),
        tool_name=(item.get("tool_name") or item.get("name") or "") if role == "tool" else "",
        tool_call_id=item.get("tool_call_id") or "",
        thinking=next((item[key] for key in _THOUGHTS if item.get(key)), ""),
    )


def _tool_calls(calls: Any) -> tuple[ToolCall, ...]:
    if not calls:
        return ()
    if isinstance(calls, (str, bytes, Mapping)) or not isinstance(calls, Sequence):
        raise PromptError(f"tool_calls must be a list, it is {type(calls).__name__}")
    return tuple(_tool_call(call) for call in calls)


def _tool_call(call: Any) -> ToolCall:
    """A call in the shape of OpenAI (arguments as JSON text), Ollama (as an object), or flat."""
    if isinstance(call, ToolCall):
        return call
    if not isinstance(call, Mapping):
        raise PromptError(f"a call of a tool must be an object, it is {type(call).__name__}")
    function = call.get("function", call)
    if not isinstance(function, Mapping):
        raise PromptError(f"the function of a call must be an object, it is {type(function).__name__}")
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            raise PromptError("the arguments of a call must be JSON, they cannot be read as such") from None
    return ToolCall(function.get("name", ""), arguments, call.get("id") or "")


def _parts(content: Any, pending: _Pending) -> Iterator[Part]:
    if isinstance(content, str):
        yield TextPart(content)
    elif isinstance(content, Sequence) and not isinstance(content, (bytes, bytearray)):
        for item in content:
            yield _part(item, pending)
    elif content is not None:
        raise PromptError(f"content must be a string or a list of parts, it is {type(content).__name__}")


def _part(item: Any, pending: _Pending) -> Part:
    if isinstance(item, str):
        return TextPart(item)
    if isinstance(item, (TextPart, ImagePart)):
        return item
    if not isinstance(item, Mapping):
        raise PromptError(f"a part must be an object with a type, it is {type(item).__name__}")
    kind = item.get("type")
    if kind == "text":
        return TextPart(item.get("text", ""))
    if kind not in ("image", "image_url"):
        raise PromptError(f"a part of type {str(kind)[:40]!r} is not understood; known are text, image, image_url")
    keys = ("image", "image_url", "url", "path", "base64")
    source = next((item[key] for key in keys if item.get(key) is not None), None)
    if isinstance(source, Mapping):
        source = source.get("url")
    if source is not None:
        return pending.open(source)
    if kind == "image_url":
        raise PromptError("an image_url part needs a url")
    return pending.take()


def _picture(source: Any, paths: bool) -> bytes | Path:
    """The bytes of a picture, or the path of its file."""
    if isinstance(source, str):
        return _picture_in_text(source, paths)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    if isinstance(source, os.PathLike):
        if not paths:
            raise ImageError("a picture must come as bytes, base64 or a data: URL here, not as a path")
        return Path(source)
    raise ImageError(f"a picture is a path, bytes or a Pillow image, not {type(source).__name__}")


def _picture_in_text(source: str, paths: bool) -> bytes | Path:
    scheme = source[:12].partition(":")[0].lower()
    if scheme == "data":
        return _data_url(source)
    if scheme in ("http", "https", "file", "ftp"):
        ways = "a path, bytes or a data: URL" if paths else "base64 or a data: URL"
        raise ImageError(f"pictures are not fetched from {scheme}: addresses; give {ways}")
    if paths and _names_a_file(source):
        return Path(source)
    try:
        return base64.b64decode("".join(source.split()), validate=True)
    except (binascii.Error, ValueError):
        missing = f"there is no file {source[:80]!r}, and " if paths else ""
        raise ImageError(f"{missing}a picture given as text must be base64 or a data: URL") from None


# A picture of fewer bytes than this many characters of base64 does not exist; a file name with a dot is no base64.
_SHORTEST_BASE64 = 32


def _names_a_file(source: str) -> bool:
    if len(source) < _SHORTEST_BASE64 or "." in source:
        return True
    try:
        return Path(source).exists()
    except (OSError, ValueError):
        return False


def _data_url(url: str) -> bytes:
    head, comma, body = url.partition(",")
    if not comma:
        raise ImageError("a data: URL needs a comma before its data")
    try:
        if head.lower().rstrip().endswith(";base64"):
            return base64.b64decode("".join(urllib.parse.unquote(body).split()), validate=True)
        return urllib.parse.unquote_to_bytes(body)
    except (binascii.Error, ValueError):
        raise ImageError("the data: URL does not hold valid base64") from None
