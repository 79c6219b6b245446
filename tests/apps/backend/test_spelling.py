"""Tokens' texts, put together, are the answer."""

from __future__ import annotations

import pytest

from lapilli.apps.backend.spelling import spell


@pytest.mark.parametrize(
    ("tokens", "answer", "texts"),
    [
        ([b"a", b" b"], "a b", ("a", " b")),
        ([b" a", b" b"], "a b", ("a", " b")),
        ([b" ", b"a", b"b"], "ab", ("", "a", "b")),
        ([b"a", b" b\n", b"\nc"], "a b", ("a", " b", "")),
        ([b"\xe2\x98", b"\x83", b"!"], "☃!", ("", "☃", "!")),
        ([b"a", b"\xe2"], "a\ufffd", ("a", "\ufffd")),
        ([b"a", b"b"], "something else", ("a", "b")),
        ([b"a"], "", ("",)),
        ([], "", ()),
    ],
)
def test_texts_are_cut_to_the_answer(tokens: list[bytes], answer: str, texts: tuple[str, ...]) -> None:
    assert spell(tokens, answer) == texts
