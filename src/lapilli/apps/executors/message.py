"""What goes between a coordinator and its workers: one line of JSON each way, never code."""

from __future__ import annotations

import json
from typing import Any

from lapilli import errors
from lapilli.apps.jobs.work import Done, Shard
from lapilli.errors import LapilliError


def pack(value: Any) -> bytes:
    """One line. Half a surrogate pair may pass."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


def unpack(line: bytes) -> Any:
    """What `pack` made a line of."""
    return json.loads(line.decode("utf-8", "surrogatepass"))


def pack_shard(shard: Shard) -> bytes:
    return pack({"number": shard.number, "items": list(shard.items)})


def unpack_shard(line: bytes) -> Shard:
    value = unpack(line)
    return Shard(value["number"], value["items"])


def pack_done(done: Done) -> bytes:
    return pack({"number": done.number, "rows": list(done.rows)})


def pack_error(error: BaseException) -> bytes:
    """An error as its class's name and its text; what is none of ours is told as one of ours."""
    name, text = type(error).__name__, " ".join(str(error).split())
    if not isinstance(error, LapilliError):
        name, text = "LapilliError", f"the worker failed: {name}: {text}"[:500]
    return pack({"error": name, "text": text})


def unpack_done(line: bytes) -> Done:
    """A shard's rows; raises the error that was sent in their place."""
    value = unpack(line)
    if "error" in value:
        kind = getattr(errors, str(value["error"]), None)
        ours = isinstance(kind, type) and issubclass(kind, LapilliError)
        raise (kind if ours and kind is not None else LapilliError)(str(value["text"]))
    return Done(value["number"], value["rows"])
