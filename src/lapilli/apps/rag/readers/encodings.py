"""From bytes to characters, by one rule that is the same for every kind.

A byte order mark decides, or that every second byte is zero (UTF-16); then what the document or its server says, where
it is an encoding of several bytes a letter; then UTF-8, where it fits; and else what was said, or windows-1252, whose
letters are those of Latin-1.
"""

from __future__ import annotations

import codecs
import re

# The encodings of the WHATWG's standard; Python's own list has some that are no encodings, or slow on purpose.
_KNOWN = frozenset({
    "utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "ascii", "iso8859-1", "iso8859-2", "iso8859-3",
    "iso8859-4", "iso8859-5", "iso8859-6", "iso8859-7", "iso8859-8", "iso8859-9", "iso8859-10", "iso8859-13",
    "iso8859-14", "iso8859-15", "iso8859-16", "cp1250", "cp1251", "cp1252", "cp1253", "cp1254", "cp1255", "cp1256",
    "cp1257", "cp1258", "cp437", "cp850", "cp852", "cp855", "cp858", "cp866", "cp874", "koi8-r", "koi8-u",
    "mac-roman", "mac-cyrillic", "gb2312", "gbk", "gb18030", "big5", "big5hkscs", "shift_jis", "cp932", "euc_jp",
    "iso2022_jp", "euc_kr", "cp949", "tis-620",
})  # fmt: skip
# As browsers read them: who says the former writes the latter.
_WIDER = {"iso8859-1": "cp1252", "ascii": "cp1252", "gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932",
          "euc_kr": "cp949", "iso8859-9": "cp1254", "tis-620": "cp874", "big5": "big5hkscs"}  # fmt: skip
_SEVERAL_BYTES = frozenset(
    {"big5", "big5hkscs", "gb18030", "cp932", "euc_jp", "iso2022_jp", "cp949", "utf-8", "utf-32"}
)
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CHARSET = re.compile(r"charset\s*=\s*[\"']?([A-Za-z0-9_.:-]+)", re.IGNORECASE)


def decode(data: bytes, declared: str | None = None) -> tuple[str, str]:
    """The text of some bytes, and the encoding it was in. Bytes that fit nothing become U+FFFD."""
    for mark, name in _MARKS:
        if data.startswith(mark):
            return data.decode(name, "replace").removeprefix("\ufeff"), name
    wide = _looks_wide(data)
    if wide:
        return data.decode(wide, "replace"), wide
    said = known_encoding(declared) if declared else None
    if said and said in _SEVERAL_BYTES:
        try:
            return data.decode(said), said
        except UnicodeDecodeError:
            pass  # said wrongly, as often happens
    # Where letters of several bytes fit, nobody meant one of the encodings with a byte a letter, whatever was said.
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError as error:
        if error.start >= len(data) - 3 and error.reason == "unexpected end of data":
            return data[: error.start].decode("utf-8") + "\ufffd", "utf-8"
    guess = data.decode("utf-8", "replace")
    damaged = guess.count("\ufffd")
    # A few bad bytes among many letters that can only be UTF-8: a flipped bit, and no other encoding.
    if said == "utf-8" or damaged * 4 <= _letters_of_several_bytes(guess) - damaged:
        return guess, "utf-8"
    name = said if said and not said.startswith(("utf-16", "utf-32")) else "cp1252"
    return data.decode(name, "replace"), name


def known_encoding(name: str) -> str | None:
    """Python's name of an encoding that documents are in; None for all else."""
    try:
        found = codecs.lookup(name.strip()).name
    except (LookupError, ValueError):
        return None
    return _WIDER.get(found, found) if found in _KNOWN else None


def charset_of(content_type: str) -> str | None:
    """The encoding that a Content-Type, or a `<meta>`, says."""
    found = _CHARSET.search(content_type)
    return found[1] if found else None


def _looks_wide(data: bytes) -> str | None:
    """UTF-16 without a mark, by the zeros that every text in it has."""
    head = data[:4096]
    half = len(head) // 2
    if half < 2:
        return None
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if odd > half * 0.4 and even < half * 0.05:
        return "utf-16-le"
    return "utf-16-be" if even > half * 0.4 and odd < half * 0.05 else None


def _letters_of_several_bytes(text: str) -> int:
    return len(text) - len(text.encode("ascii", "ignore"))
