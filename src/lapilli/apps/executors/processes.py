"""Several workers on this machine, a process each."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass

from lapilli.apps.executors.message import pack_shard, unpack_done
from lapilli.apps.executors.shares import Shares
from lapilli.apps.jobs.work import Done, Shard, Worker
from lapilli.errors import InputError
from lapilli.ground.machine import cores

_BOOT = (
    "import json, sys; settings = json.loads(sys.argv[1]); sys.path[:] = settings['path'];"
    "from lapilli.apps.executors.child import main; main(settings['parent'])"
)


@dataclass(frozen=True)
class ProcessExecutor:
    """`workers` processes, each with the worker opened in it and its share of the cores."""

    workers: int
    attempts: int = 3

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise InputError(f"{self.workers} workers do nothing: 1 is the least")

    def run(self, worker: Worker, shards: Iterator[Shard]) -> Generator[Done, None, None]:
        """Shards in whatever order they are done; a process that dies is replaced."""
        first = next(shards, None)
        if first is None:
            return
        shares = Shares(itertools.chain([first], shards), attempts=self.attempts)
        news: queue.SimpleQueue[tuple[_Child, bytes | None]] = queue.SimpleQueue()
        crew = {_Child(worker, news, self._threads()) for _ in range(self.workers)}
        try:
            while True:
                for child in crew:
                    while (shard := shares.take(child)) is not None:
                        child.send(shard)
                if shares.empty:
                    return
                child, line = news.get()
                if line is not None:
                    done = unpack_done(line)
                    shares.done(child, done.number)
                    yield done
                elif child in crew:
                    crew.remove(child)
                    shares.lost(child, child.ended())
                    crew.add(_Child(worker, news, self._threads()))
        finally:
            for child in crew:
                child.kill()

    def _threads(self) -> int:
        return max(1, cores() // self.workers)


class _Child:
    """One process, and the thread that hears it."""

    def __init__(self, worker: Worker, news: queue.SimpleQueue[tuple[_Child, bytes | None]], threads: int) -> None:
        settings = {"path": [path or os.getcwd() for path in sys.path], "parent": os.getpid()}
        environment: Mapping[str, str] = {"OMP_NUM_THREADS": str(threads), **os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-B", "-c", _BOOT, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env=environment,
        )
        self._news = news
        self._write(worker.to_json().encode() + b"\n")
        threading.Thread(target=self._listen, name="worker's pipe", daemon=True).start()

    def send(self, shard: Shard) -> None:
        self._write(pack_shard(shard))

    def ended(self) -> str:
        """How it ended, once it has closed its pipe."""
        self.kill()
        code = self._process.returncode
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def kill(self) -> None:
        """End it and everything it started."""
        assert self._process.stdin is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def _write(self, line: bytes) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its end is told by the one who listens
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    self._news.put((self, line))
        self._news.put((self, None))
