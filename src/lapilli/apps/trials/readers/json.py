"""JSON of any size as one value a record: a value alone, an array, a page with `studies`, values or lines in a row."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

MAX_RECORD = 32 << 20
"""Characters of one record."""

_CHUNK = 1 << 18
_SALVAGED = 4 << 20  # of a record that is damaged
_BLANK = re.compile(r"[ \t\r\n\ufeff]*")
# What API v2 writes before the list itself; its keys come in any order.
_PAGE = re.compile(
    r'\{\s*(?:"(?:totalCount|nextPageToken)"\s*:\s*(?:\d{1,15}|"[^"\\]{0,500}"|null)\s*,\s*)*"studies"\s*:\s*\['
)
_REST = re.compile(r'\s*(?:,\s*"[A-Za-z]{1,40}"\s*:\s*(?:\d{1,15}|"[^"\\]{0,500}"|null)\s*)*\}')
_STUDY, _NEXT_LINE = re.compile(r'\{\s*"protocolSection"'), re.compile(r"\n(?=\{)")
_OVERLAP = 60  # characters in which a pattern may begin
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s"\[\]{},:]+', re.DOTALL)
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)


def read_values(stream: TextIO) -> Iterator[tuple[Any, str]]:
    """Each record's value, and what was wrong with it ("" where nothing was); None where nothing could be saved."""
    window = _Window(stream)
    while window.has_more():
        start = window.text[window.place]
        if start == "[":
            window.place += 1
            yield from _elements(window)
        elif start == "{" and (page := window.match(_PAGE)):
            window.place = page
            yield from _elements(window)
            window.skip_rest_of_page()
        else:
            value, told = window.value()
            yield value, told
            if told and not window.go_to(_NEXT_LINE):
                return


def read_lines(stream: TextIO) -> Iterator[tuple[Any, str]]:
    """The value of each line, and what was wrong with it: a damaged line costs itself alone."""
    while line := stream.readline(MAX_RECORD):
        text = line.strip().removeprefix("\ufeff")
        if not text:
            continue
        try:
            yield _DECODER.decode(text), ""
        except (ValueError, RecursionError) as error:
            yield _salvage(text[:_SALVAGED]), f"its JSON is damaged: {_reason(error)}"
        if len(line) >= MAX_RECORD:
            while line and not line.endswith("\n"):
                line = stream.readline(MAX_RECORD)


def _elements(window: _Window) -> Iterator[tuple[Any, str]]:
    while window.has_more():
        if window.text[window.place] == "]":
            window.place += 1
            return
        value, told = window.value()
        yield value, told
        if told and not window.go_to(_STUDY):
            return
        if window.has_more() and window.text[window.place] == ",":
            window.place += 1
    yield None, "the file ends before its list does"


class _Window:
    """The part of a stream that is being looked at."""

    def __init__(self, stream: TextIO) -> None:
        self.text = ""
        self.place = 0
        self._stream = stream
        self._over = False

    def more(self, least: int = _CHUNK) -> bool:
        """Read on; what was looked at already is let go."""
        chunk = "" if self._over else self._stream.read(max(least, _CHUNK))
        self._over = not chunk
        self.text, self.place = self.text[self.place :] + chunk, 0
        return bool(chunk)

    def has_more(self) -> bool:
        """Go to the next character that is no blank, if there is one."""
        while True:
            self.place = _BLANK.match(self.text, self.place).end()  # type: ignore[union-attr]
            if self.place < len(self.text):
                return True
            if not self.more():
                return False

    def match(self, pattern: re.Pattern[str]) -> int | None:
        """Where a pattern that begins here ends."""
        if len(self.text) - self.place < 2000:
            self.more()
        hit = pattern.match(self.text, self.place)
        return hit.end() if hit else None

    def value(self) -> tuple[Any, str]:
        """The value that begins here, and what was wrong with it."""
        while True:
            try:
                found, end = _DECODER.raw_decode(self.text, self.place)
            except RecursionError as error:
                return None, _reason(error)
            except ValueError as error:
                size = len(self.text) - self.place
                # Twice as much each time: looking again and again costs twice the size, not its square.
                if size < MAX_RECORD and self.more(size):
                    continue
                return _salvage(
                    self.text[self.place : self.place + _SALVAGED]
                ), f"its JSON is damaged: {_reason(error)}"
            if end == len(self.text) and self.more():
                continue  # a number may go on
            self.place = end
            return found, ""

    def go_to(self, pattern: re.Pattern[str]) -> bool:
        """After a damaged value, go to where a pattern stands next; to the end where it stands nowhere."""
        self.place += 1
        while True:
            if hit := pattern.search(self.text, self.place):
                self.place = hit.start()
                return True
            self.place = max(len(self.text) - _OVERLAP, self.place)
            if not self.more():
                self.place = len(self.text)
                return False

    def skip_rest_of_page(self) -> None:
        """Go past what a page has after its list."""
        if end := self.match(_REST):
            self.place = end


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "its values are nested deeper than is read"
    return getattr(error, "msg", str(error)).split("\n")[0]


def _salvage(text: str) -> Any:
    """What was written before a value breaks off: cut after its last whole part, and closed."""
    closers: list[str] = []
    safe: tuple[int, list[str]] | None = None
    for token in _TOKEN.finditer(text):
        what = token[0]
        if what in ("{", "["):
            closers.append("}" if what == "{" else "]")
            if len(closers) > 200:
                break
            continue
        if what in ("}", "]"):
            if not closers or closers.pop() != what:
                break
            if not closers:
                break
            safe = (token.end(), list(closers))
        elif what == ",":
            safe = (token.start(), list(closers))
    if safe is None:
        return None
    try:
        return _DECODER.decode(text[: safe[0]] + "".join(reversed(safe[1])))
    except (ValueError, RecursionError):
        return None
