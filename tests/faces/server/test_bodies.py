"""Bodies: small, flat and unambiguous, or refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lapilli.errors import InputError
from lapilli.faces.server.bodies import parse_object


@pytest.mark.parametrize(
    "value", [{}, {"a": [1, 2.5, None, True, "é😀"]}, {"a": {"a": {"a": 1}}}, {"n": -1e300}, {"n": 10**60}]
)
def test_json_is_read_as_it_is(value: Any) -> None:
    assert parse_object(json.dumps(value).encode()) == value
    assert parse_object(b" \n" + json.dumps(value, ensure_ascii=False).encode()) == value


def nested(depth: int, opened: str = "[", closed: str = "]") -> bytes:
    return b'{"a":' + opened.encode() * depth + b"1" + closed.encode() * depth + b"}"


def test_nesting_is_counted() -> None:
    parse_object(nested(127))
    for depth in (128, 500, 5_000, 100_000):
        with pytest.raises(InputError, match="nests too deep"):
            parse_object(nested(depth))
        with pytest.raises(InputError, match="nests too deep"):
            parse_object(nested(depth, '{"a":', "}"))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "missing request body"),
        (b"  \n", "missing request body"),
        (b"[1]", "must be a JSON object, not an array"),
        (b"null", "must be a JSON object, not null"),
        (b'"x"', "must be a JSON object, not a string"),
        (b"{", "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a": 1} x', "not JSON"),
        (b'{"a": NaN}', "NaN is not a number"),
        (b'{"a": -Infinity}', "-Infinity is not a number"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "a number of 5000 digits"),
        (b'{"a": ' + b"9" * 1_000_000 + b"}", "a number of 1000000 digits"),
        (b'{"a": 0.' + b"9" * 1_000_000 + b"}", "too large"),
        (b'{"a": 1, "b": 2, "a": 3}', "'a' is given twice"),
        (b'{"x": {"a": 1, "a": 1}}', "'a' is given twice"),
        (b'{"a": "\xff"}', "not UTF-8: byte 7"),
        (b'\xef\xbb\xbf{"a": 1}', "not JSON"),
        (b'{"a": "\\ud800"}', "half of a surrogate pair"),
        (b'{"\\udfff": 1}', "half of a surrogate pair"),
        (b"\x1f\x8b\x08\x00", "not UTF-8"),
        (b'{"a": "\x00"}', "not JSON"),
        (b"[" * 1_000_000, "nests too deep"),
    ],
)  # fmt: skip
def test_what_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_object(body)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 200
