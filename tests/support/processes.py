"""Processes as tests look at them: one that ends while it is looked at is as good as gone."""

from __future__ import annotations

import psutil


def ended(pid: int) -> bool:
    """Whether a process has ended, buried or not; `psutil.pid_exists` says whether it is buried too."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def family(pid: int | None = None) -> set[int]:
    """The processes that this one, or another, has begun, and those that they have."""
    try:
        return {child.pid for child in psutil.Process(pid).children(recursive=True)}
    except psutil.NoSuchProcess:
        return set()


def memory(pid: int) -> int:
    """Bytes in memory of a process and of those it has begun."""
    total = 0
    for each in (pid, *family(pid)):
        try:
            total += psutil.Process(each).memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def zombies() -> set[int]:
    """The children of this process that have ended and were never waited for."""
    return {pid for pid in family() if psutil.pid_exists(pid) and ended(pid)}
