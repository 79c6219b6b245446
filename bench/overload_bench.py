"""What a server does under too much: 200 clients against 2 places and a queue of 16, with `mini`; then 500 that leave.

Who is let in must be answered as if alone; who is not must be told so at once. Clients come all at the same moment, and
those that were sent away do not come again. The server runs in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from numbers_page import Section, publish

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))
from processes import memory

ASK = {"model": "mini", "prompt": "What is there?", "format": "json"}
OPTIONS = {"temperature": 0, "num_predict": 40}


def main() -> None:
    parser = argparse.ArgumentParser(description="Overload a server with mini.")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--leavers", type=int, default=500)
    parser.add_argument("--times", type=int, default=5, help="waves of clients")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as (port, pid):
        alone = asyncio.run(ask(port))[2]
        assert alone, "mini says nothing"
        rows = [asyncio.run(wave(port, given.clients, alone)) for _ in range(given.times)]
        before = memory(pid)
        asyncio.run(leave(port, given.leavers))
        lost, after = occupied(port), memory(pid)
        assert asyncio.run(ask(port))[2] == alone
    section = Section("Too many clients")
    section.add(
        f"{given.clients} clients at once against 2 places and a queue of 16, {given.times} times; each is let in, or "
        "gets 503 with `Retry-After`. Every answer is the one that a client alone gets. Times are from a "
        "request's last byte to the head of its response; clients and server share the machine."
    )
    header = ["answered right", "wrong", "503", "503 p50, ms", "p99, ms", "longest, ms", "last answer, s"]
    section.table(header, rows)
    section.add(
        f"{given.leavers} clients that leave at random points (in the head, in the body, in the queue, in the answer; "
        f"FIN or RST), seed 91: {lost} places taken afterwards, {(after - before) / (1 << 20):+.1f} MiB in the server "
        "and its model's process."
    )
    publish(section)


@contextlib.contextmanager
def server(folder: Path) -> Iterator[tuple[int, int]]:
    """`lapilli serve` on a free port; yields the port and the process's id."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings = {"HOST": f"127.0.0.1:{port}", "MODELS": str(folder), "NUM_PARALLEL": "2", "MAX_QUEUE": "16"}
    environment = {**os.environ, **{f"LAPILLI_{name}": value for name, value in settings.items()}}
    command = [sys.executable, "-m", "lapilli", "serve"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 60
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                assert process.poll() is None, "the server did not start"
                assert time.monotonic() < deadline, "the server did not start in time"
                time.sleep(0.1)
            yield port, process.pid
        finally:
            process.terminate()


async def ask(port: int) -> tuple[int, float, str]:
    """Status, seconds, and what was said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request({**ASK, "options": OPTIONS, "stream": False}))
        began = time.monotonic()
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status = int(head.split(" ")[1])
        if status == 503:
            assert "retry-after: " in head
        took = time.monotonic() - began  # the body of a refusal comes with its head
        length = re.search(r"content-length: (\d+)", head)
        assert length is not None
        body = json.loads(await reader.readexactly(int(length[1])))
        return status, took, body.get("response", "")
    finally:
        writer.close()


async def wave(port: int, clients: int, alone: str) -> list[object]:
    began = time.monotonic()
    ends: list[float] = []

    async def one() -> tuple[int, float, str]:
        found = await ask(port)
        ends.append(time.monotonic() - began)
        return found

    found = await asyncio.gather(*(one() for _ in range(clients)))
    refused = sorted(1000 * seconds for status, seconds, _ in found if status == 503)
    answers = [said for status, _, said in found if status == 200]
    assert len(refused) + len(answers) == clients, "only 200 and 503 are expected"
    right = sum(said == alone for said in answers)
    shown = [f"{at(refused, part):.0f}" for part in (0.5, 0.99, 1)]
    return [right, len(answers) - right, len(refused), *shown, f"{max(ends):.1f}"]


async def leave(port: int, clients: int) -> None:
    draw = random.Random(91)
    gate = asyncio.Semaphore(40)

    async def one(whole: bytes, part: float, seconds: float, rudely: bool) -> None:
        async with gate:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(whole[: int(len(whole) * part)])
            await asyncio.sleep(seconds)
            if rudely:
                connection: socket.socket = writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.close()

    tasks = []
    for _ in range(clients):
        body = {**ASK, "prompt": "a dog and a cat " * draw.randint(1, 60), "stream": draw.random() < 0.6}
        part = 1.0 if draw.random() < 0.8 else draw.random()
        tasks.append(one(request(body), part, draw.random() * draw.choice([0.01, 0.1, 0.5]), draw.random() < 0.5))
    await asyncio.gather(*tasks)


def request(body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    return f"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


def at(values: Sequence[float], part: float) -> float:
    """The value below which that part of the sorted values lies; nan of none."""
    return values[min(len(values) - 1, int(part * len(values)))] if values else float("nan")


def occupied(port: int) -> int:
    """Places and waiting clients, a second after the last one left."""
    time.sleep(1)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        told = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    return sum(int(float(value)) for value in re.findall(r"^lapilli_requests_(?:running|queued) (\S+)$", told, re.M))


if __name__ == "__main__":
    main()
