"""A port to listen at, and who has it where it is taken."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

from lapilli.errors import InputError

BACKLOG = 2048
_LISTENING = "0A"
_INODE = re.compile(r"socket:\[(\d+)\]")


class PortTakenError(InputError):
    """Another program listens there."""


def listen_at(host: str, port: int) -> socket.socket:
    """A socket that listens; for `::` it takes IPv4 as well.

    Raises PortTakenError, and InputError for a host that is not this machine's or a port that may not be had.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # Of several addresses the IPv4 one, as everything that asks a server on this machine expects.
        family, _, _, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
        both = host == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(address[:2], family=family, backlog=BACKLOG, dualstack_ipv6=both)  # type: ignore[arg-type,unused-ignore]
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTakenError(f"{host}:{port} is taken") from None
        raise InputError(f"nobody can listen at {host}:{port} here: {error.strerror or error}") from None


def owner_of(port: int) -> tuple[int, str] | None:
    """Number and name of the process that listens at this port; None where that cannot be told."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        for line in _text(Path("/proc/net") / table).splitlines()[1:]:
            fields = line.split()
            if len(fields) > 9 and fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(fields[9])
    for process in Path("/proc").glob("[0-9]*") if inodes else ():
        if any((found := _INODE.fullmatch(link)) and found[1] in inodes for link in _links(process / "fd")):
            return int(process.name), _text(process / "comm").strip()
    return None


def _links(folder: Path) -> Iterator[str]:
    """Where the links of a folder lead, as far as they are there and ours to see."""
    with contextlib.suppress(OSError):
        for link in folder.iterdir():
            with contextlib.suppress(OSError):
                yield os.readlink(link)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
