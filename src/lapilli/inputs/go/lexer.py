"""The words of a program in Go's text/template."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from lapilli.errors import TemplateError

Kind = Literal["text", "open", "close", "blank", "string", "number", "field", "variable", "name", "sign"]


@dataclass(frozen=True)
class Token:
    kind: Kind
    text: str
    line: int


_BLANK = " \t\r\n"
_TRIMS = tuple("-" + blank for blank in _BLANK)
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_CLOSE = re.compile(r"(?:[ \t\r\n]+-)?\}\}")
# Alternatives that cannot match the same text in two ways, so that no program makes the expression slow.
_WORD = re.compile(
    r"""
      (?P<blank>[ \t\r\n]+)
    | (?P<string>"[^"\\\n]*(?:\\.[^"\\\n]*)*" | `[^`]*` | '(?:\\.[^'\\\n]*|[^'\\\n])')
    | (?P<number>[+-]?(?:0[xX][0-9a-fA-F_]+|(?:[0-9][0-9_]*(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?))
    | (?P<variable>\$\w*)
    | (?P<field>\.[^\W\d]\w*)
    | (?P<name>[^\W\d]\w*)
    | (?P<sign>:=|[=|().,])
    """,
    re.VERBOSE,
)


def words(source: str) -> Iterator[Token]:
    """The tokens of a program, white space around trimming delimiters already taken off.

    Raises TemplateError with the line of what cannot be read.
    """
    at, line, trims = 0, 1, False
    while True:
        begin = source.find("{{", at)
        text = source[at:] if begin < 0 else source[at:begin]
        opens_trimming = begin >= 0 and source[begin + 2 : begin + 4] in _TRIMS
        shown = text.lstrip(_BLANK) if trims else text
        shown = shown.rstrip(_BLANK) if opens_trimming else shown
        if shown:
            yield Token("text", shown, line)
        line += text.count("\n")
        if begin < 0:
            return
        inside = begin + 4 if opens_trimming else begin + 2
        line += source.count("\n", begin, inside)
        if source.startswith("/*", inside):
            at, trims = _skip_comment(source, inside, line)
            line += source.count("\n", inside, at)
            continue
        yield Token("open", "{{", line)
        at = inside
        while (close := _CLOSE.match(source, at)) is None:
            word = _WORD.match(source, at)
            if word is None:
                what = f"unexpected {source[at]!r}" if at < len(source) else "an action that does not end with }}"
                raise TemplateError(f"line {line} of the template: {what}")
            kind = word.lastgroup
            assert kind is not None
            follows = source[word.end() : word.end() + 1]
            if kind == "number" and (follows.isalnum() or follows == "_"):
                raise TemplateError(f"line {line} of the template: {(word[0] + follows)[:40]!r} is no number")
            yield Token(kind, word[0], line)  # type: ignore[arg-type]
            line += word[0].count("\n")
            at = word.end()
        yield Token("close", "}}", line)
        line += close[0].count("\n")
        at, trims = close.end(), close[0] != "}}"


def _skip_comment(source: str, begin: int, line: int) -> tuple[int, bool]:
    comment = _COMMENT.match(source, begin)
    if comment is None:
        raise TemplateError(f"line {line} of the template: a comment that does not end with */")
    close = _CLOSE.match(source, comment.end())
    if close is None:
        raise TemplateError(f"line {line} of the template: a comment must be followed by }}}}")
    return close.end(), close[0] != "}}"


_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-7]{3}|.)", re.DOTALL)
_PLAIN_ESCAPES = dict(zip("abfnrtv\\'\"", "\a\b\f\n\r\t\v\\'\"", strict=True))


def unquote(token: Token) -> str | int:
    """The value of a string or of a character, which is its number."""
    quote, body = token.text[0], token.text[1:-1]
    if quote == "`":
        return body.replace("\r", "")

    def escape(match: re.Match[str]) -> str:
        code = match[1]
        if code in _PLAIN_ESCAPES:
            return _PLAIN_ESCAPES[code]
        if len(code) == 1:
            raise TemplateError(f"line {token.line} of the template: \\{code} is no escape")
        number = int(code, 8) if code[0].isdigit() else int(code[1:], 16)
        if number > 0x10FFFF or 0xD800 <= number < 0xE000:
            raise TemplateError(f"line {token.line} of the template: \\{code} is no character")
        return chr(number)

    text = _ESCAPE.sub(escape, body)
    if quote == '"':
        return text
    if len(text) != 1:
        raise TemplateError(f"line {token.line} of the template: {token.text[:20]} is not one character")
    return ord(text)
