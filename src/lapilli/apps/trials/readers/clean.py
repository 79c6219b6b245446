"""A register's text as people would read it: markup of web pages taken out, blanks put right, every word kept.

Only what is certainly HTML is taken for HTML: `<br>` is a line break, `<the guide of diagnosis>` and `a < 5` are words.
"""

from __future__ import annotations

import html
import re

_ODD = re.compile(
    r"[&<\x00-\x1f\x7f-\xa0\xad\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ud800-\udfff\ufeff]"
)
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")
_ATTRIBUTES = r"""(?:\s+[A-Za-z][\w:-]{0,40}\s*=\s*(?:"[^"<>]{0,500}"|'[^'<>]{0,500}'|[^\s"'<>]{1,200}))*"""
_TAG = re.compile(r"</?[A-Za-z]")
_BLOCK = re.compile(
    r"</?(?:br|p|div|li|ul|ol|tr|table|tbody|thead|h[1-6]|dl|dt|dd|hr|blockquote)" + _ATTRIBUTES + r"\s*/?>",
    re.IGNORECASE,
)
_INLINE = re.compile(
    r"</?(?:em|strong|sub|sup|span|font|small|big|td|th|center|tt|pre|code|strike|ins|del)" + _ATTRIBUTES + r"\s*/?>",
    re.IGNORECASE,
)
# One letter alone may be a word ("group <a>"): a tag of one letter has its end.
_LETTER = re.compile(r"<([abius])" + _ATTRIBUTES + r"\s*>(?=[^<]{0,2000}</\1\s*>)|</[abius]\s*>", re.IGNORECASE)
_RETURN = re.compile(r"_x000[dD]_\n?")
# Line ends and blanks of all kinds as one kind each; what is not seen is nothing.
_WIDE_TO = {
    **dict.fromkeys(map(chr, (0x85, 0x2028, 0x2029)), "\n"),
    **dict.fromkeys(map(chr, (0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000)), " "),
    **dict.fromkeys(
        map(chr, (*range(0x80, 0x85), *range(0x86, 0xA0), 0xAD, 0x180E, *range(0x200B, 0x2010), *range(0x202A, 0x202F),
                  *range(0x2060, 0x2070), 0xFEFF)), ""
    ),
}  # fmt: skip
_WIDE = re.compile(f"[{''.join(_WIDE_TO)}]")
_CONTROL = {**dict.fromkeys((*range(32), 127), None), 9: " ", 10: "\n", 13: "\n", 30: "\x1e"}
_AT_HYPHEN = re.compile(r"(?<=[^\W\d_]-)\n(?=[^\W\d_])")
_BETWEEN_CJK = re.compile(
    r"(?<=[\u3040-\u30ff\u3400-\u9fff\uff01-\uff5e])\n(?=[\u3040-\u30ff\u3400-\u9fff\uff01-\uff5e])"
)
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_EMPTY = frozenset({";", "-", "--", ".", "null", "none.", "n.a."})


def clean(text: str | None) -> str:
    """The text without markup and odd blanks; lines are kept where markup or an empty line made them.

    Entities that were escaped twice are read; a wrapped line goes on after a blank, or right after a hyphen or between
    Chinese and Japanese characters; what only stands for nothing (";", "NULL") is "".
    """
    if not text:
        return ""
    if not _is_odd(text):
        return "" if text.lower() in _EMPTY else text
    before = ""
    # Taking one thing out can bring another about; texts in which that goes on are made to be so.
    for _ in range(8):
        if text == before:
            break
        before, text = text, _without_markup(text)
    text = _with_even_blanks(text)
    return "" if text.lower() in _EMPTY else text


def _is_odd(text: str) -> bool:
    """Whether there is anything to do: anything but words with single blanks between them."""
    if "  " in text or text[0] == " " or text[-1] == " " or "_x000" in text:
        return True
    return _ODD.search(text) is not None


def _without_markup(text: str) -> str:
    """Without entities, control characters and HTML; \x1e stands where a tag broke the line."""
    if "&" in text:
        text = _ENTITY.sub(lambda hit: html.unescape(hit[0]), text)
    if not text.isascii():
        text = _WIDE.sub(lambda hit: _WIDE_TO[hit[0]], _SURROGATE.sub("\ufffd", text))
    if "_x000" in text:
        text = _RETURN.sub("\n", text)
    if not text.isprintable():
        text = text.replace("\r\n", "\n").translate(_CONTROL)
    if "<" in text and _TAG.search(text):
        text = _BLOCK.sub("\x1e", text)
        text = _INLINE.sub("", text)
        if "</" in text:
            text = _LETTER.sub("", text)
    return text


def _with_even_blanks(text: str) -> str:
    # Plain replacing, as most of a register's bytes are blanks, and patterns are slow at those.
    while "  " in text:
        text = text.replace("  ", " ")
    if "\n" in text:
        text = text.replace(" \n", "\n").replace("\n ", "\n")
        text = text.replace("\n\n", "\x1e").replace("\x1e\n", "\x1e")
        if "-\n" in text:
            text = _AT_HYPHEN.sub("", text)
        if not text.isascii():
            text = _BETWEEN_CJK.sub("", text)
        text = text.replace("\n", " ")
    if "\x1e" in text:
        text = text.replace(" \x1e", "\x1e").replace("\x1e ", "\x1e")
        while "\x1e\x1e" in text:
            text = text.replace("\x1e\x1e", "\x1e")
        text = text.replace("\x1e", "\n")
    return text.strip()
