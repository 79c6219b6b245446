"""What this machine is: its processor and cores, and the memory that it, or the container that we are in, has left."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 60


def processor() -> str:
    """What the processor calls itself."""
    told = _CPUINFO.read_text() if _CPUINFO.exists() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", told, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def total_memory() -> int:
    """Bytes that all programs here may have together; 0 where the system does not say."""
    limits = [limit for limit, _ in _groups()]
    known = _meminfo("MemTotal") or _pages("SC_PHYS_PAGES")
    return min([*limits, known] if known else limits, default=0)


def available_memory() -> int:
    """Bytes that a program could still get without pushing others out; 0 where the system does not say."""
    left = [max(0, limit - used) for limit, used in _groups()]
    known = _meminfo("MemAvailable") or _pages("SC_AVPHYS_PAGES")
    return min([*left, known] if known else left, default=0)


def _groups() -> Iterator[tuple[int, int]]:
    """Limit and use of the control group that we are in, in either version; the cache of files counts as free."""
    for limit, used, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        most, now = _number(_CGROUP / limit), _number(_CGROUP / used)
        if most is not None and now is not None and most < _NO_LIMIT:
            yield most, now - _cached((_CGROUP / used).with_name("memory.stat"), cache)


def _cached(path: Path, name: str) -> int:
    found = re.search(rf"^{name} (\d+)$", _text(path), re.MULTILINE)
    return int(found[1]) if found else 0


def _meminfo(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", _text(_MEMINFO), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _pages(name: str) -> int:
    try:
        return max(0, os.sysconf(name) * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return 0


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
