"""Times as Ollama writes them: Go's durations ("1h30m"), RFC 3339 to the nanosecond."""

from __future__ import annotations

import math
import time
from datetime import datetime
from typing import Any

from lapilli.errors import InputError
from lapilli.ground.amounts import parse_duration
from lapilli.wire.fields import kind_of

FOR_EVER = -1.0
LONGEST = 100 * 365.25 * 86400


def keep_alive(value: Any) -> float | None:
    """Seconds out of a `keep_alive`: a number of them, or a Go duration; negative is for ever (-1), null is None.

    Raises InputError.
    """
    if value is None or value == "":
        return None
    if isinstance(value, str):
        seconds = parse_duration(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(min(max(value, -1), LONGEST)) if math.isfinite(value) else math.inf
    else:
        raise InputError(f"keep_alive must be a number of seconds or a duration such as 5m, not {kind_of(value)}")
    return FOR_EVER if seconds < 0 or seconds >= LONGEST else seconds


def nanoseconds(seconds: float) -> int:
    """Seconds as the whole nanoseconds that Ollama's answers count in."""
    return max(0, round(seconds * 1e9))


def now() -> str:
    """This moment in RFC 3339, UTC, to the nanosecond, without trailing zeros."""
    seconds, rest = divmod(time.time_ns(), 1_000_000_000)
    fraction = f".{rest:09d}".rstrip("0").rstrip(".")
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}{fraction}Z"


def moment(when: datetime) -> str:
    """A moment in RFC 3339 with its offset; one without a zone is taken as local."""
    return (when if when.tzinfo is not None else when.astimezone()).isoformat().replace("+00:00", "Z")
