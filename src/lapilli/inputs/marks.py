"""Marks around what people wrote, so that it is known again in what a template's program writes.

A mark is a run of digits that nobody can guess: programs pass it on as it is, through JSON and changes of case. What
stands between two marks comes out as `Plain`. What a conversation says is there once; what describes tools (and the
calls that an answer made) is there as often as the program wants.
"""

from __future__ import annotations

import re
import secrets
import string
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lapilli.inputs.chat import ToolCall
from lapilli.inputs.formats import Picture, Plain, Segment, Trusted


class Unfit(Exception):
    """One way of giving content to a template did not work; the lowest rank explains it best."""

    def __init__(self, rank: int, message: str) -> None:
        super().__init__(message)
        self.rank = rank


# Words of JSON Schema that templates look up and compare; no markup can be made of them.
_SCHEMA_WORDS = """
    type function name description parameters properties required items enum anyOf oneOf allOf not const default format
    title examples minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength pattern minItems
    maxItems uniqueItems minProperties maxProperties additionalProperties patternProperties prefixItems definitions
    nullable strict return returns response if then else contains $defs $ref $id $schema
"""
_KEYWORDS = frozenset(_SCHEMA_WORDS.split())
_TYPES = frozenset({"function", "string", "number", "integer", "boolean", "array", "object", "null"})
# Under these, keys are names that people chose.
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions"})

_ID = re.compile(r"[A-Za-z0-9_-]{9,256}")
_LETTERS = string.ascii_letters + string.digits


@dataclass(frozen=True)
class _Text:
    """A marked text: whose it is, and how often a program may write it."""

    owner: int | None
    least: int
    most: float


class Marks:
    """The marks of one rendering; `roles` are those of the messages, for what an error says."""

    def __init__(self, roles: Sequence[str]) -> None:
        self._nonce = f"{secrets.randbelow(10**40):040d}"
        self._roles = roles
        self._texts: list[_Text] = []
        self._shared: dict[tuple[int | None, str], str] = {}
        self._stand_ins: dict[str, str] = {}
        self._prefix = _letters(5)
        self._pictures = 0

    # --- writing ---

    def once(self, text: str, owner: int, *, needed: bool = True) -> str:
        """Mark what message `owner` says: it is written once, or, where not `needed`, at most once."""
        return self._wrap(text, _Text(owner, int(needed), 1))

    def shared(self, text: str, owner: int | None) -> str:
        """Mark a text that may be written any number of times; the same text again is the same string again."""
        if (owner, text) not in self._shared:
            self._shared[owner, text] = self._wrap(text, _Text(owner, 0, float("inf")))
        return self._shared[owner, text]

    def picture(self) -> str:
        """Mark the place of the next picture."""
        self._pictures += 1
        return self._mark("3", self._pictures - 1)

    def count_picture(self) -> None:
        """Expect one more picture, whose place the program writes in its own way."""
        self._pictures += 1

    def id(self, text: str) -> str:
        """A stand-in of the same length for a call's id, as programs check its length; short ones are marked."""
        if not _ID.fullmatch(text):
            return self.shared(text, None)
        while text not in self._stand_ins:
            stand_in = self._prefix + _letters(len(text) - len(self._prefix))
            if stand_in not in self._stand_ins.values():
                self._stand_ins[text] = stand_in
        return self._stand_ins[text]

    def tools(self, tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The tools with all that people wrote in them marked; keywords and types of JSON Schema stay bare."""
        # In order of their text, so that a program that sorts by name does.
        for text in sorted(set(_strings(tools))):
            self.shared(text, None)
        return [self._schema(tool) for tool in tools]

    def _schema(self, value: Any, *, key: str = "", named: bool = False) -> Any:
        if isinstance(value, Mapping):
            return {
                name if name in _KEYWORDS and not named else self.shared(name, None): self._schema(
                    inner, key=name, named=not named and name in _NAMED
                )
                for name, inner in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self._schema(inner, key=key) for inner in value]
        if isinstance(value, str) and not (key == "type" and value in _TYPES):
            return self.shared(value, None)
        return value

    def arguments(self, call: ToolCall, owner: int) -> dict[str, Any]:
        """The arguments of a call with every key and every text marked."""
        for text in sorted(set(_strings(call.arguments))):
            self.shared(text, owner)
        marked = self._values(call.arguments, owner)
        assert isinstance(marked, dict)
        return marked

    def _values(self, value: Any, owner: int) -> Any:
        if isinstance(value, Mapping):
            return {self.shared(name, owner): self._values(inner, owner) for name, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._values(inner, owner) for inner in value]
        return self.shared(value, owner) if isinstance(value, str) else value

    def _wrap(self, text: str, kind: _Text) -> str:
        # White space stays outside, where a template may trim it.
        core = text.strip()
        if not core:
            return text
        self._texts.append(kind)
        index = len(self._texts) - 1
        before, _, after = text.partition(core)
        return before + self._mark("1", index) + core + self._mark("2", index) + after

    def _mark(self, kind: str, index: int) -> str:
        return f"{self._nonce}{kind}{index:08d}"

    # --- reading ---

    def read(self, text: str, image_token: str | None = None) -> list[Segment]:
        """Cut what a program wrote at the marks, and see that every text and picture is there as often as it must be.

        An `image_token` of the program's own stands for the next picture. Raises Unfit with the counts where a text or
        a picture is missing, or there too often.
        """
        segments: list[Segment] = []
        written: Counter[int] = Counter()
        opened: int | None = None
        pieces = re.split(f"{self._nonce}([123])([0-9]{{8}})", text)
        placed = _Placed(image_token)
        segments += self._trusted(pieces[0], placed)
        for kind, digits, piece in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
            index = int(digits)
            if kind == "1" and opened is None and index < len(self._texts):
                opened = index
                written[index] += 1
                segments.append(Plain(piece, self._texts[index].owner))
                continue
            if kind == "2" and opened == index:
                opened = None
            elif kind == "3" and opened is None:
                segments.append(Picture(index))
            else:
                raise Unfit(1, "the chat template cuts what people wrote into pieces")
            segments += self._trusted(piece, placed)
        self._require_all(segments, written, closed=opened is None)
        return segments

    def _trusted(self, text: str, placed: _Placed) -> Iterator[Segment]:
        """Text of the program: its own placeholders are the pictures in order, its stand-ins the ids of calls."""
        first, *rest = text.split(placed.image_token) if placed.image_token else [text]
        yield from self._without_stand_ins(first)
        for piece in rest:
            yield Picture(placed.count)
            placed.count += 1
            yield from self._without_stand_ins(piece)

    def _without_stand_ins(self, text: str) -> Iterator[Segment]:
        if not self._stand_ins:
            yield Trusted(text)
            return
        # A common beginning, so that many ids are found as quickly as one.
        ids = {stand_in.removeprefix(self._prefix): text for text, stand_in in self._stand_ins.items()}
        for place, piece in enumerate(re.split(f"{self._prefix}({'|'.join(ids)})", text)):
            yield Plain(ids[piece], None) if place % 2 else Trusted(piece)

    def _require_all(self, segments: list[Segment], written: Counter[int], *, closed: bool) -> None:
        for index, text in enumerate(self._texts):
            if not text.least <= written[index] <= text.most:
                assert text.owner is not None
                whose = f"message {text.owner + 1} ({self._roles[text.owner]})"
                raise Unfit(1, f"the chat template writes a text of {whose} {written[index]} times, it must be once")
        if not closed:
            raise Unfit(1, "the chat template cuts off the end of what people wrote")
        pictures = [segment.index for segment in segments if isinstance(segment, Picture)]
        if sorted(pictures) != list(range(self._pictures)):
            raise Unfit(1, f"the chat template places {len(pictures)} pictures, the messages show {self._pictures}")


def _letters(count: int) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(count))


@dataclass
class _Placed:
    image_token: str | None
    count: int = 0


def _strings(value: Any) -> Iterator[str]:
    """Every key and text within JSON values."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield key
            yield from _strings(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _strings(inner)
    elif isinstance(value, str):
        yield value
