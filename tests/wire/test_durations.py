"""Times as Ollama writes them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from lapilli.errors import InputError
from lapilli.wire.durations import keep_alive, moment, nanoseconds, now


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (None, None), ("", None), (0, 0), ("0", 0), (300, 300), (1.5, 1.5), (-1, -1), (-0.5, -1), ("5m", 300),
        ("1h30m", 5400), ("-1m", -1), ("-1s", -1), ("+2s", 2), ("1.5h", 5400), ("100ms", 0.1), (".5s", 0.5),
        ("5m0s", 300), ("1h2m3s4ms", 3723.004), ("7us", 7e-6), ("7µs", 7e-6), ("9ns", 9e-9), (2**70, -1),
        ("9999999h", -1),
    ],
)  # fmt: skip
def test_a_keep_alive_is_a_number_of_seconds_or_a_go_duration(given: object, seconds: float | None) -> None:
    assert keep_alive(given) == (pytest.approx(seconds) if seconds is not None else None)


@pytest.mark.parametrize("given", ["5", "m", "5x", "5m 3s", "1h-3m", "soon", "--1m", True, [], {}, " 5m", "-"])
def test_anything_else_is_refused(given: object) -> None:
    with pytest.raises(InputError):
        keep_alive(given)


def test_the_words_are_go_s() -> None:
    with pytest.raises(InputError, match='time: missing unit in duration "300"'):
        keep_alive("300")
    with pytest.raises(InputError, match='time: invalid duration "abc"'):
        keep_alive("abc")


def test_now_is_rfc3339_with_nanoseconds() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,8}[1-9])?Z", now())


def test_a_moment_has_its_zone() -> None:
    assert moment(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) == "2026-01-02T03:04:05Z"
    assert re.search(r"(Z|[+-]\d\d:\d\d)$", moment(datetime(2026, 1, 2)))


def test_nanoseconds_are_whole_and_never_negative() -> None:
    assert nanoseconds(0.25) == 250_000_000
    assert nanoseconds(-1) == 0
