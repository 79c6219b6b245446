"""Memory that was freed, given back to the system."""

from __future__ import annotations

import ctypes
import functools
from typing import Any


def give_back() -> None:
    """Let the system have the memory that was freed; glibc keeps much of it to itself, other systems' libraries do not.

    Costs a fraction of a millisecond; where the C library has no `malloc_trim` it does nothing.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@functools.cache
def _trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return None
