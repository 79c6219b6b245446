"""What the server costs: first word and rate of `mini` over HTTP, beside the same engine in this process.

A live `lapilli serve` and an engine here answer the same questions in turn (drawn with a seed, so that they are long);
every answer must be the same. Then the same again while 5,000 other connections lie idle. Medians.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx2
from numbers_page import Section, publish
from process_bench import MINI, SAID, Measured, in_process, question, told

from lapilli.engine.local import LocalModel, open_checkpoint

OPTIONS = {"num_predict": SAID, "temperature": 2.0, "seed": 1, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time mini over HTTP, and in this process.")
    parser.add_argument("--count", type=int, default=20, help="turns of each")
    parser.add_argument("--idle", type=int, default=5000, help="connections that lie idle in the second half")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, served(Path(home)) as url:
        asyncio.run(measure(url, arguments.count, arguments.idle))


async def measure(url: str, count: int, idle: int) -> None:
    here, rows = LocalModel(open_checkpoint(MINI, device="cpu")), []
    async with httpx2.AsyncClient(base_url=url, timeout=600) as client:
        for name, users, pictures in (
            ("a text, alone", 1, False),
            ("a picture, alone", 1, True),
            ("8 texts at once", 8, False),
        ):
            rows.append([name, *await compare(here, client, count, users, pictures)])
        with idling(url, idle) as connected:
            rows.append([f"a text, {connected:,} connections idle", *await compare(here, client, count, 1, False)])
    section = Section("The server")
    section.add(
        f"`mini`, {SAID} tokens an answer, medians of {count} turns; the same engine in this process and behind "
        "`lapilli serve`, streamed, in turn. All answers are the same. Of 8 at once the first word is the "
        "last one's."
    )
    header = ["", "first word here, ms", "served, ms", "ratio", "tokens/s here", "served", "ratio"]
    section.table(header, rows)
    publish(section)


async def compare(
    here: LocalModel, client: httpx2.AsyncClient, count: int, users: int, pictures: bool
) -> Sequence[str]:
    """First word and rate, here and served, each pair with its ratio."""
    inside: list[Measured] = []
    outside: list[Measured] = []
    for turn in range(count + 2):  # the first two are for warming up
        asked = [question(turn, user, pictures) for user in range(users)]
        inside.append(in_process(here, asked))
        outside.append(await over_http(client, asked))
    assert [each[3] for each in inside] == [each[3] for each in outside], "the answers differ"
    first, rate = ([statistics.median(each[n] for each in runs[2:]) for runs in (inside, outside)] for n in (0, 1))
    return [
        *(f"{1000 * seconds:.1f}" for seconds in first),
        f"{first[1] / first[0]:.2f}",
        *(f"{tokens:.0f}" for tokens in rate),
        f"{rate[1] / rate[0]:.2f}",
    ]


async def over_http(client: httpx2.AsyncClient, asked: Sequence[tuple[str, bytes | None]]) -> Measured:
    began = time.perf_counter()

    async def ask(words: str, picture: bytes | None) -> tuple[float, int, str]:
        message = {"role": "user", "content": words}
        if picture:
            message["images"] = [base64.b64encode(picture).decode()]  # type: ignore[assignment]
        body = {"model": "mini", "messages": [message], "options": OPTIONS}
        first, text, said = 0.0, "", 0
        async with client.stream("POST", "/api/chat", json=body) as response:
            async for line in response.aiter_lines():
                news = json.loads(line)
                text += news["message"]["content"]
                if text.strip():
                    first = first or time.perf_counter() - began
                said = news.get("eval_count", 0)
        return first, said, text

    answers = await asyncio.gather(*(ask(*each) for each in asked))
    return told(began, [a[0] for a in answers], [a[1] for a in answers], 0.0, [a[2] for a in answers])


@contextlib.contextmanager
def served(home: Path) -> Iterator[str]:
    """A live server on a free port, with a store of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "LAPILLI_HOST": f"127.0.0.1:{port}", "LAPILLI_MODELS": str(home)}
    command = [sys.executable, "-m", "lapilli", "serve"]
    with (home / "log").open("wb") as log, subprocess.Popen(command, env=environment, stderr=log, stdout=log) as server:
        url = f"http://127.0.0.1:{port}"
        try:
            for _ in range(600):
                with contextlib.suppress(httpx2.HTTPError):
                    if httpx2.get(f"{url}/readyz").status_code == 200:
                        break
                time.sleep(0.1)
            yield url
        finally:
            server.terminate()
            server.wait(60)


@contextlib.contextmanager
def idling(url: str, count: int) -> Iterator[int]:
    """So many open connections that have each asked once and ask no more."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    port = int(url.rpartition(":")[2])
    connections: list[socket.socket] = []
    try:
        for _ in range(min(count, most - 200)):
            connection = socket.create_connection(("127.0.0.1", port), timeout=30)
            connection.sendall(f"GET /api/version HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            connection.recv(4096)
            connections.append(connection)
        yield len(connections)
    finally:
        for connection in connections:
            connection.close()


if __name__ == "__main__":
    main()
