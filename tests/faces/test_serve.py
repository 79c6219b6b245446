"""`lapilli serve` as a process of its own: where it listens, whom it lets in, how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from lapilli.errors import InputError
from lapilli.faces.serving import check_reach, claim
from lapilli.ground.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
SLOW = ROOT / "tests" / "support" / "slow_serve.py"
ASK = {"model": "mini", "prompt": "Hello, canary-prompt?"}
Start = Callable[..., "Served"]


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.body.splitlines()]


class Served:
    """The process, and what it logs."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self.process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
        self.log: list[str] = []
        self.port = 0
        self.up = threading.Event()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.search(r"serves at http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                self.up.set()
        self.up.set()

    def wait_up(self) -> None:
        assert self.up.wait(60)
        assert self.port, "".join(self.log)

    async def post(
        self, body: dict[str, Any], path: str = "/api/generate", began: asyncio.Event | None = None
    ) -> Answer:
        """An answer, whole or until it breaks off; `began` is set with its first byte."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + data)
        try:
            first = await reader.readuntil(b"\r\n\r\n")
            body_read = b""
            while piece := await reader.read(65536):
                if began is not None:
                    began.set()
                body_read += piece
        finally:
            writer.close()
        status, *rest = first.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in rest if line)
        if headers.get("transfer-encoding") == "chunked":
            body_read = _unchunked(body_read)
        return Answer(int(status.split()[1]), headers, body_read)

    def end(self) -> int:
        code = self.process.wait(60)
        self.reader.join(10)
        return code


def _unchunked(data: bytes) -> bytes:
    whole = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        if int(size, 16) == 0:
            return whole
        whole, data = whole + data[: int(size, 16)], data[int(size, 16) + 2 :]
    raise AssertionError("the response was cut off")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a server with these variables, the real one or the slow one."""
    made: list[Served] = []

    def started(*, real: bool = False, wait: bool = True, **variables: object) -> Served:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("LAPILLI_", "OLLAMA_"))}
        env |= {"HOME": str(tmp_path), "LAPILLI_HOST": "127.0.0.1:0", "LAPILLI_MODELS": str(tmp_path / "models")}
        env |= {"PYTHONPATH": str(SLOW.parent), "OMP_NUM_THREADS": "1"}
        env |= {name: str(value) for name, value in variables.items()}
        served = Served([sys.executable, "-m", "lapilli", "serve"] if real else [sys.executable, str(SLOW)], env)
        made.append(served)
        if wait:
            served.wait_up()
        return served

    yield started
    for served in made:
        if served.process.poll() is None:
            served.process.kill()
        served.end()
        assert served.process.stderr is not None
        served.process.stderr.close()


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


# --- where it listens ---


@pytest.mark.parametrize("host", ["0.0.0.0:1", "[::]:1", ":1", "192.168.1.5:1", "example.com:1"])
def test_nobody_from_elsewhere_without_keys(host: str) -> None:
    """T15."""
    with pytest.raises(InputError, match="there are no keys: set LAPILLI_API_KEYS"):
        check_reach(Settings(host=host))
    check_reach(Settings(host=host, api_keys=("a-long-secret",)))


def test_what_may_be_reached_is_looked_at() -> None:
    check_reach(Settings(host="127.0.0.1:1"))
    with pytest.raises(InputError, match=r"LAPILLI_ALLOWED_HOSTS .* there are no keys"):
        check_reach(Settings(host="127.0.0.1:1", allowed_hosts=("x.ngrok-free.app",)))
    check_reach(Settings(host="127.0.0.1:1", allowed_hosts=("x.ngrok-free.app",), api_keys=("a-long-secret",)))
    with pytest.raises(InputError, match="plain HTTP"):
        check_reach(Settings(host="https://127.0.0.1:1"))


def test_a_refusal_is_one_line(start: Start) -> None:
    served = start(wait=False, LAPILLI_HOST="0.0.0.0:0")
    assert served.end() == 2
    assert len(served.log) == 1
    assert served.log[0].startswith("lapilli: error: LAPILLI_HOST is 0.0.0.0:0, which other machines can reach")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells who listens on Linux alone")
def test_a_port_that_is_taken_says_by_whom(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(InputError) as caught:
            claim(Settings(host=f"127.0.0.1:{port}"))
    said = str(caught.value)
    assert said.startswith(f"127.0.0.1:{port} is taken (process {os.getpid()}, ")
    assert "LAPILLI_HOST" in said
    served = start()
    with pytest.raises(InputError, match=r"is taken: lapilli answers there, version \d.*\(process \d+, \w+"):
        claim(Settings(host=f"127.0.0.1:{served.port}"))


# --- how many it lets in ---


@pytest.mark.parametrize("loaded", [True, False])
def test_five_are_answered_and_fortyfive_sent_away(start: Start, loaded: bool) -> None:
    """T92: a queue of 4 and one place, 50 at once, over two names."""
    served = start(OLLAMA_NUM_PARALLEL=1, OLLAMA_MAX_QUEUE=4, TEST_LOAD=0.3, TEST_PAUSE=0.01)

    async def work() -> None:
        if loaded:
            await served.post({"model": "mini"})
        names = ["mini", "library/mini:latest"]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(served.post({**ASK, "model": names[n % 2]})) for n in range(50)]
        answers = [task.result() for task in tasks]
        assert sorted(answer.status for answer in answers) == [200] * 5 + [503] * 45
        for answer in answers:
            if answer.status == 200:
                assert answer.lines[-1]["done"] is True
                continue
            busy = "server busy, please try again.  maximum pending requests exceeded"
            assert json.loads(answer.body) == {"error": busy}
            assert int(answer.headers["retry-after"]) >= 1
        assert (await served.post(ASK)).status == 200, "all places are free again"

    asyncio.run(work())


# --- how it ends ---


def test_told_to_stop_it_lets_who_is_answered_finish(start: Start) -> None:
    served = start(LAPILLI_NUM_PARALLEL=1, TEST_PAUSE=0.05)

    async def work() -> None:
        began = asyncio.Event()
        running = asyncio.create_task(served.post(ASK, began=began))
        await began.wait()
        waiting = [asyncio.create_task(served.post(ASK)) for _ in range(3)]
        await asyncio.sleep(0.2)
        served.process.send_signal(signal.SIGTERM)
        for answer in await asyncio.gather(*waiting):
            assert answer.status == 503
            assert json.loads(answer.body) == {"error": "the server is shutting down"}
            assert "retry-after" in answer.headers
        assert not running.done()
        with pytest.raises(ConnectionError):
            await served.post(ASK)
        answer = await running
        assert "".join(line.get("response", "") for line in answer.lines) == "".join(f"{n} " for n in range(20))
        assert answer.lines[-1]["done"] is True

    asyncio.run(work())
    assert served.end() == 0
    assert is_free(served.port)


@pytest.mark.parametrize("again", [False, True])
def test_who_is_not_done_in_time_is_told_so(start: Start, again: bool) -> None:
    served = start(LAPILLI_DRAIN=30 if again else 1, TEST_PAUSE=1)

    async def work() -> None:
        began = asyncio.Event()
        running = asyncio.create_task(served.post(ASK, began=began))
        await began.wait()
        told = time.monotonic()
        served.process.send_signal(signal.SIGTERM)
        if again:
            await asyncio.sleep(0.3)
            served.process.send_signal(signal.SIGTERM)
        answer = await running
        assert answer.lines[-1] == {"error": "the server is shutting down"}
        assert time.monotonic() - told < 15

    asyncio.run(work())
    assert served.end() == 0


@pytest.mark.parametrize("times", [3, pytest.param(50, marks=pytest.mark.soak)])
def test_stopped_at_any_moment_no_record_is_cut(start: Start, times: int) -> None:
    """B16, seed 1."""
    dice = random.Random(1)

    async def work(served: Served) -> None:
        tasks = [asyncio.create_task(served.post(ASK)) for _ in range(4)]
        await asyncio.sleep(dice.random() * 1.2)
        served.process.send_signal(signal.SIGTERM)
        for answer in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(answer, Answer):
                last = answer.lines[-1]
                assert last.get("done") is True or "error" in last
            else:
                assert isinstance(answer, ConnectionError | asyncio.IncompleteReadError), answer

    for _ in range(times):
        served = start(LAPILLI_DRAIN=1, LAPILLI_NUM_PARALLEL=2, TEST_PAUSE=0.05)
        asyncio.run(work(served))
        assert served.end() == 0, "".join(served.log)
        assert is_free(served.port)


def test_the_real_thing_answers_and_leaves_nothing_behind(start: Start) -> None:
    served = start(real=True)

    async def work() -> None:
        body = {**ASK, "stream": False, "options": {"num_predict": 4}}
        answer = await served.post(body)
        assert answer.status == 200
        assert json.loads(answer.body)["eval_count"] == 4

    asyncio.run(work())
    children = [child.pid for child in psutil.Process(served.process.pid).children()]
    assert children or not sys.platform.startswith("linux")
    served.process.send_signal(signal.SIGTERM)
    assert served.end() == 0
    assert is_free(served.port)
    assert not any(map(psutil.pid_exists, children))
    log = "".join(served.log)
    assert re.search(r"127\.0\.0\.1 POST /api/generate 200 \d+\.\d{3}s", log)
    assert "canary-prompt" not in log
