"""Replies: what a model says, as it is said, split into thoughts, calls of tools and words.

    reader = ReplyReader.for_template(template, tools=tools)
    for piece in stream: print(reader.feed(piece))
    print(reader.end())

How the text is cut into pieces changes nothing. What looks like the beginning of a tag is held back until it is known;
what looks like a call and is none comes out as words. The time is linear in what was said, whatever that is.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lapilli.errors import LapilliError
from lapilli.inputs.abilities import THOUGHT_TAGS
from lapilli.inputs.calls import BARE, SYNTAXES, CallSyntax, Signatures, syntax_for_tag
from lapilli.inputs.chat import Message, TextPart, ToolCall, checked_tools
from lapilli.inputs.formats import Format, Trusted
from lapilli.inputs.go.calls import call_tag
from lapilli.inputs.templates import ChatTemplate, Go

# A call longer than this is words; so are blanks past that many, and a beginning that is not decided by then.
_LONGEST_CALL = 1 << 20
_LONGEST_BLANK = 1 << 10
_LONGEST_HEAD = 1 << 8


@dataclass(frozen=True)
class ReplyPart:
    """A piece of a reply: thoughts, calls or words."""

    text: str = ""
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class ReplyForm:
    """How a template's model writes: the tags around its thoughts, its ways to call, the tools it may call.

    `inside` are the tags of a thought that the prompt has opened already.
    """

    thoughts: tuple[tuple[str, str], ...] = ()
    calls: tuple[CallSyntax, ...] = ()
    signatures: Signatures = field(default_factory=lambda: Signatures({}))
    inside: tuple[str, str] | None = None

    @property
    def markers(self) -> frozenset[str]:
        """The tags, for `TextStream(keep=...)`: where they are special tokens they would not be in the text."""
        tags = {tag for pair in self.thoughts for tag in pair}
        for syntax in self.calls:
            tags |= {syntax.opens, syntax.closes, *syntax.inner, *syntax.trails}
        return frozenset(tags - {""})


def reply_form(
    template: ChatTemplate, *, tools: Sequence[Mapping[str, Any]] = (), think: bool | str | None = None
) -> ReplyForm:
    """What to expect of a model that was taught this template; calls only where there are `tools`.

    Raises PromptError for tools that are none.
    """
    tools = checked_tools(tools)
    if isinstance(template.form, Format):
        return ReplyForm()
    source = template.form.source
    thoughts = tuple(tags for tags in THOUGHT_TAGS if tags[1] in source) if template.thinks else ()
    cue = _cue(template, think).rstrip() if thoughts else ""
    inside = next((tags for tags in thoughts if cue.endswith(tags[0])), None)
    if not tools:
        return ReplyForm(thoughts, inside=inside)
    return ReplyForm(thoughts, _syntaxes(template.form), Signatures.of(tools), inside)


def _syntaxes(form: Any) -> tuple[CallSyntax, ...]:
    found = tuple(syntax for syntax in SYNTAXES if any(sign in form.source for sign in syntax.signs))
    tag = call_tag(form.source) if isinstance(form, Go) else ""
    if tag and not any(tag.startswith(syntax.opens.partition(" ")[0]) for syntax in found):
        found = (*found, syntax_for_tag(tag))
    # Whatever they were taught, models also begin with the bare object.
    return (*found, BARE)


def _cue(template: ChatTemplate, think: bool | str | None) -> str:
    """What a template writes last, before the answer; nothing where it cannot be asked."""
    assert not isinstance(template.form, Format)
    return _cue_of(template.language or "jinja", template.form.source, think)


@functools.lru_cache(maxsize=64)
def _cue_of(language: Any, source: str, think: bool | str | None) -> str:
    # Whatever the vocabulary calls them: the end of the prompt does not depend on it.
    special = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), "")
    try:
        template = ChatTemplate.from_text(language, source, special)
        segments = template.render([Message("user", (TextPart("a"),))], think=think)
    except LapilliError:
        return ""
    last = segments[-1] if segments else None
    return last.text if isinstance(last, Trusted) else ""


class ReplyReader:
    """Splits one reply; see the module for how to use it."""

    def __init__(self, form: ReplyForm) -> None:
        self.form = form
        self.calls = 0
        self._tags = {syntax.opens: syntax for syntax in form.calls if syntax.opens}
        self._bare = next((syntax for syntax in form.calls if not syntax.opens), None)
        longest_first = sorted(self._tags, key=len, reverse=True)
        self._opens = re.compile("|".join(map(re.escape, longest_first))) if self._tags else None
        self._parts: list[ReplyPart] = []
        self._data, self._at = "", 0
        self._call: _Call | None = None
        self._thought = form.inside
        self._thought_begins, self._may_reopen = True, form.inside is not None
        # Nothing was taken off yet; nothing but blanks came since the beginning, a thought or a call.
        self._untouched, self._fresh, self._may_think = True, True, form.inside is None
        self._trails: tuple[str, ...] = ()

    @classmethod
    def for_template(
        cls, template: ChatTemplate, *, tools: Sequence[Mapping[str, Any]] = (), think: bool | str | None = None
    ) -> ReplyReader:
        """A reader for a model that was taught this template, see `reply_form`."""
        return cls(reply_form(template, tools=tools, think=think))

    def feed(self, text: str) -> list[ReplyPart]:
        """Take the next piece in; what is known by now comes out."""
        return self._read(text, ended=False)

    def end(self) -> list[ReplyPart]:
        """Nothing more comes: what was held back comes out, a call that only was not closed as a call."""
        return self._read("", ended=True)

    def _read(self, text: str, *, ended: bool) -> list[ReplyPart]:
        self._data, self._at = self._data[self._at :] + text, 0
        while self._step(ended):
            pass
        parts, self._parts = self._parts, []
        return parts

    def _step(self, ended: bool) -> bool:
        """Read on, in whatever we are within; False where more is needed for that, what is left is looked at again."""
        if self._call is not None:
            return self._read_call(self._call, ended)
        if self._at == len(self._data):
            return False
        if self._thought is not None:
            return self._read_thought(*self._thought, ended)
        return self._read_beginning(ended) if self._fresh else self._read_words(ended)

    def _read_beginning(self, ended: bool) -> bool:
        """Blanks, then a thought, a call, or the first of the words."""
        begin = _after_blanks(self._data, self._at)
        if begin - self._at > _LONGEST_BLANK:
            return self._begin_words(self._at + _LONGEST_BLANK)
        if begin == len(self._data):
            return self._begin_words(begin) if ended else False
        for opening, closing in self.form.thoughts if self._may_think else ():
            if self._data.startswith(opening, begin):
                self._thought, self._may_think, self._untouched = (opening, closing), False, False
                self._at = begin + len(opening)
                return True
        for trail in self._trails:
            if self._data.startswith(trail, begin):
                self._at = begin + len(trail)
                return True
        if self._opens is not None and (found := self._opens.match(self._data, begin)):
            return self._begin_call(self._tags[found[0]], found.end(), found[0])
        if self._bare is not None and self._data[begin] in "{[":
            return self._begin_call(self._bare, begin, "")
        expected = [*self._trails, *self._tags, *(opening for opening, _ in self.form.thoughts if self._may_think)]
        if not ended and _may_become(self._data, begin, expected):
            return False
        return self._begin_words(begin)

    def _begin_words(self, at: int) -> bool:
        """Blanks after a thought or a call are left out, before the first words they are part of them."""
        self._at = self._at if self._untouched else at
        self._fresh = self._may_think = False
        return True

    def _read_words(self, ended: bool) -> bool:
        found = self._opens.search(self._data, self._at) if self._opens is not None else None
        if found:
            self._say(self._data[self._at : found.start()])
            self._at = found.start()
            return self._begin_call(self._tags[found[0]], found.end(), found[0])
        end = len(self._data) - (0 if ended else _overlap(self._data, self._at, self._tags))
        self._say(self._data[self._at : end])
        self._at = end
        return False

    def _read_thought(self, opening: str, closing: str, ended: bool) -> bool:
        if self._thought_begins:
            self._at = _after_blanks(self._data, self._at)
            if self._may_reopen:
                if not ended and _may_become(self._data, self._at, [opening]):
                    return False
                # Some write the tag that the prompt has written for them.
                self._at += len(opening) if self._data.startswith(opening, self._at) else 0
                self._at, self._may_reopen = _after_blanks(self._data, self._at), False
            self._thought_begins = self._at == len(self._data)
        found = self._data.find(closing, self._at)
        end = found if found >= 0 else len(self._data) - (0 if ended else _overlap(self._data, self._at, [closing]))
        # Blanks may turn out to be the last before the tag.
        said = self._data[self._at : end]
        blanks = min(len(said) - len(said.rstrip()), _LONGEST_BLANK)
        said = said[: len(said) - blanks]
        if said:
            self._parts.append(ReplyPart(thinking=said))
        if found < 0:
            self._at = len(self._data) if ended else self._at + len(said)
            return False
        self._at = found + len(closing)
        self._thought, self._fresh, self._untouched = None, True, False
        return True

    def _begin_call(self, syntax: CallSyntax, at: int, tag: str) -> bool:
        """What stands before `at` is kept with the tag, and is said again if this is no call."""
        begin = at - len(tag)
        self._call = _Call(syntax, (self._data[self._at : begin] if self._untouched else "") + tag)
        self._at = at
        return True

    def _read_call(self, call: _Call, ended: bool) -> bool:
        if not call.begun:
            begun = call.begins(self._data[self._at : self._at + _LONGEST_HEAD], ended)
            if begun is None:
                return False
            if not begun:
                return self._no_call(call)
        limit = min(len(self._data), self._at + _LONGEST_CALL - call.size)
        end = call.find_end(self._data, self._at, limit)
        stop = limit if end is None else end
        call.add(self._data[self._at : stop])
        self._at = stop
        if end is None and call.size >= _LONGEST_CALL:
            return self._no_call(call)
        if end is None and not ended:
            return False
        found = call.syntax.read(call.body, self.form.signatures)
        if found is None or not (call.syntax.opens or all(one.name in self.form.signatures.texts for one in found)):
            return self._no_call(call)
        self.calls += len(found)
        self._parts.append(ReplyPart(tool_calls=tuple(found)))
        self._call, self._trails = None, call.syntax.trails
        self._fresh, self._may_think, self._untouched = True, False, False
        return True

    def _no_call(self, call: _Call) -> bool:
        """What was taken for a call is words."""
        self._say(call.before + call.text)
        self._call = None
        self._fresh = self._may_think = self._untouched = False
        return True

    def _say(self, text: str) -> None:
        if text:
            self._parts.append(ReplyPart(text=text))


class _Call:
    """A call being read: its text so far, and where in it we are."""

    def __init__(self, syntax: CallSyntax, before: str) -> None:
        self.syntax, self.before = syntax, before
        self.begun = syntax.head is None
        self.size = 0
        self._pieces: list[str] = []
        self._tail = ""
        self._skip, self._depth, self._quoted, self._escaped = 0, 0, False, False

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    @property
    def body(self) -> str:
        return self.text.removesuffix(self.syntax.closes) if self.syntax.closes else self.text

    def add(self, text: str) -> None:
        self._pieces.append(text)
        self.size += len(text)
        if self.syntax.closes:
            self._tail = (self._tail + text[-len(self.syntax.closes) :])[1 - len(self.syntax.closes) :]

    def begins(self, head: str, ended: bool) -> bool | None:
        """Whether JSON begins as it must; None where that is not known yet."""
        assert self.syntax.head is not None
        if (found := self.syntax.head.begins.match(head)) and found.lastindex:
            self.begun, self._skip = True, found.start(found.lastindex)
            return True
        decided = ended or len(head) >= _LONGEST_HEAD or self.syntax.head.never.match(head)
        return False if decided else None

    def find_end(self, data: str, at: int, limit: int) -> int | None:
        """Where the call ends in what came now, if it does."""
        return self._find_tag(data, at, limit) if self.syntax.closes else self._find_json_end(data, at, limit)

    def _find_tag(self, data: str, at: int, limit: int) -> int | None:
        closes = self.syntax.closes
        joint = (self._tail + data[at : min(limit, at + len(closes) - 1)]).find(closes)
        if joint >= 0:
            return at + joint + len(closes) - len(self._tail)
        found = data.find(closes, at, limit)
        return found + len(closes) if found >= 0 else None

    def _find_json_end(self, data: str, at: int, limit: int) -> int | None:
        at, self._skip = at + self._skip, 0
        if self._escaped and at < limit:
            self._escaped, at = False, at + 1
        while at < limit:
            sign = (_WITHIN_TEXT if self._quoted else _OUTSIDE).search(data, at, limit)
            if sign is None:
                return None
            at = sign.end()
            if sign[0] == "\\":
                self._escaped = at >= limit
                at += 1
            elif sign[0] == '"':
                self._quoted = not self._quoted
            else:
                self._depth += 1 if sign[0] in "{[" else -1
                if self._depth <= 0:
                    return at
        return None


_BLANKS = re.compile(r"\s*")
_WITHIN_TEXT = re.compile(r'["\\]')
_OUTSIDE = re.compile(r'["{}\[\]]')


def _after_blanks(data: str, at: int) -> int:
    blanks = _BLANKS.match(data, at)
    return blanks.end() if blanks else at


def _may_become(data: str, at: int, texts: Iterable[str]) -> bool:
    """Whether all that is left is the beginning of one of the texts."""
    left = len(data) - at
    return any(left < len(text) and text.startswith(data[at:]) for text in texts)


def _overlap(data: str, at: int, texts: Iterable[str]) -> int:
    """How many characters at the end may be the beginning of one of the texts."""
    longest = min(max(map(len, texts), default=1) - 1, len(data) - at)
    return next((n for n in range(longest, 0, -1) if _may_become(data, len(data) - n, texts)), 0)
