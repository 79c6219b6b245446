"""A child's tie to the process that began it: the one ends when the other does."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG


def die_with(parent: int) -> None:
    """Have the system end this process when its parent ends; where it cannot, the closing pipe does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
        with contextlib.suppress(OSError):  # where memory runs out, this one goes before the one who can start another
            Path("/proc/self/oom_score_adj").write_text("300")
    if os.getppid() != parent:
        os._exit(0)
