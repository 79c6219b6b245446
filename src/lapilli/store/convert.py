"""Making GGUF files of other models: in a process of its own, since this one knows no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lapilli import errors
from lapilli.errors import CheckpointError, LapilliError, StoreError

_MAX_LINE = 1 << 16
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "HOME", "TMPDIR", "TZ", "LANG", "OMP_NUM_THREADS")
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1));"
    "from lapilli.checkpoints.conversion import main; main()"
)


class CancelledError(StoreError):
    """Nobody wants the result any more."""


def convert(
    source: Path,
    out: Path,
    kind: str | None,
    *,
    cancel: threading.Event | None = None,
    told: Callable[[int, int], None] = lambda total, completed: None,
) -> list[Path]:
    """Write the model at `source` as GGUF to `out`, tower and projector beside it: the files, the model's first.

    `kind` is F32, F16, BF16, or what to quantize to; None keeps what is stored, in 16 bits at most. `told` hears the
    bytes to write and those written. Raises CheckpointError and its like for what is no model, StoreError where the
    disk refuses or `cancel` is set.
    """
    order = json.dumps({"source": str(source), "out": str(out), "kind": kind})
    child = subprocess.Popen(
        [sys.executable, "-I", "-B", "-c", _BOOT, json.dumps(sys.path), order],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        # Nothing else of ours goes in: no token, no key.
        env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
    )
    assert child.stdout is not None
    assert child.stdin is not None
    done = threading.Event()
    if cancel is not None:
        threading.Thread(target=_kill_when, args=(child, cancel, done), daemon=True).start()
    total = completed = 0
    try:
        while line := child.stdout.readline(_MAX_LINE):
            news = json.loads(line)
            if "files" in news:
                return [Path(file) for file in news["files"]]
            if "error" in news:
                raise _error(news)
            total, completed = news.get("begin", total), completed + news.get("wrote", 0)
            told(total, completed)
    finally:
        done.set()
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()
    if cancel is not None and cancel.is_set():
        raise CancelledError("cancelled")
    raise CheckpointError(f"the conversion ended without an answer ({_ending(child.returncode)})")


def _kill_when(child: subprocess.Popen[bytes], cancel: threading.Event, done: threading.Event) -> None:
    while not done.is_set():
        if cancel.wait(0.2):
            child.kill()
            return


def _error(news: dict[str, Any]) -> LapilliError:
    kind = getattr(errors, str(news["error"]), CheckpointError)
    return kind(str(news["message"])) if issubclass(kind, LapilliError) else CheckpointError(str(news["message"]))


def _ending(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
