"""A killable process with limits, for work on what strangers wrote: templates and documents.

Requests and answers are JSON over pipes, each behind its length; a request may have raw bytes behind it. A child runs
one function, is kept for the next call, and is replaced as soon as anything went wrong in it.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import math
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO, Literal, NoReturn

from lapilli.errors import LapilliError

Reason = Literal["time", "memory", "output", "raised", "died"]


class ChildError(LapilliError):
    """A call that gave no answer; callers turn it into an error that fits what was asked."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason


def call_in_child(
    function: str, payload: Any, *, seconds: float, memory_mb: int, max_output_bytes: int, data: bytes | None = None
) -> Any:
    """Call `function` (`"package.module:name"`) with one JSON value in a child process, and return its JSON answer.

    `data`, where given, is the function's second argument: bytes that go through the pipe as they are, so that a file
    costs its size once on each side, and the child needs no name to open.

    `seconds` is wall time, from the moment a ready child has the request. `memory_mb` is the child's whole address
    space, `max_output_bytes` the size of its answer. The child cannot write files. Safe to call from many threads;
    at most `_MOST` children of one function run at once, a further call waits for its turn.

    Raises ChildError, whose `reason` is "time", "memory", "output", "raised" (the function's own error) or "died".
    """
    parts = [_pack({"seconds": seconds, "payload": payload, "data": None if data is None else len(data)})]
    parts += [data] if data else []
    with _CHILDREN.turn(function, memory_mb):
        child = _CHILDREN.take(function, memory_mb)
        try:
            kind, value = _read_answer(child.ask(parts, seconds, max_output_bytes))
            if kind == "memory":
                raise ChildError("memory", f"needed more than {memory_mb} MB of memory")
        except BaseException:
            child.kill()
            raise
        _CHILDREN.give_back(child)
    if kind == "raised":
        raise ChildError("raised", str(value))
    return value


_MOST = 8
_KEPT_IDLE = 2
_START_SECONDS = 60.0
_HEADER = 8


def _pack(value: Any) -> bytes:
    # Half a surrogate pair may pass through: it is refused where text is read, not here.
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return len(body).to_bytes(_HEADER, "big") + body


def _unpack(body: bytes) -> Any:
    return json.loads(body.decode("utf-8", "surrogatepass"))


def _read_answer(body: bytes) -> tuple[str, Any]:
    try:
        answer = _unpack(body)
        return str(answer["kind"]), answer.get("value")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ChildError("died", "answered with something unreadable") from None


class _Child:
    """One process with its two pipes; used by one thread at a time."""

    def __init__(self, function: str, memory_mb: int) -> None:
        self.key = (function, memory_mb)
        settings = json.dumps({"path": [p or os.getcwd() for p in sys.path], "key": self.key})
        boot = (
            "import json, sys; settings = json.loads(sys.argv[1]); sys.path[:] = settings['path'];"
            "from lapilli.ground.child import serve; serve(*settings['key'])"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-B", "-c", boot, settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
            # Nothing else of ours goes in: no token, no key.
            env={name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TZ", "LANG") if name in os.environ},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._write, self._read = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._write, False)
        os.set_blocking(self._read, False)
        try:
            self._receive(time.monotonic() + _START_SECONDS, _START_SECONDS, 1 << 10)
        except BaseException:
            self.kill()
            raise

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, parts: list[bytes], seconds: float, max_output_bytes: int) -> bytes:
        deadline = time.monotonic() + seconds
        for part in parts:
            unsent = memoryview(part)
            while unsent:
                self._wait(self._write, select.POLLOUT, deadline, seconds)
                try:
                    unsent = unsent[os.write(self._write, unsent) :]
                except BlockingIOError:
                    continue
                except BrokenPipeError:
                    self._report_death(seconds)
        return self._receive(deadline, seconds, max_output_bytes)

    def kill(self) -> None:
        """End the process and everything it started, and collect it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        self._close_pipes()

    def forget(self) -> None:
        """Let go of a process that belongs to the one we were forked from."""
        self._process.returncode = 0
        self._close_pipes()

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _receive(self, deadline: float, seconds: float, max_bytes: int) -> bytes:
        length = int.from_bytes(self._read_exactly(_HEADER, deadline, seconds), "big")
        # The envelope around an answer is a few bytes.
        if length > max_bytes + 64:
            raise ChildError("output", f"answered with {length} bytes, {max_bytes} are allowed")
        return self._read_exactly(length, deadline, seconds)

    def _read_exactly(self, count: int, deadline: float, seconds: float) -> bytes:
        chunks: list[bytes] = []
        while count:
            self._wait(self._read, select.POLLIN, deadline, seconds)
            try:
                chunk = os.read(self._read, min(count, 1 << 20))
            except BlockingIOError:
                continue
            if not chunk:
                self._report_death(seconds)
            chunks.append(chunk)
            count -= len(chunk)
        return b"".join(chunks)

    def _wait(self, pipe: int, event: int, deadline: float, seconds: float) -> None:
        poll = select.poll()
        poll.register(pipe, event)
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise ChildError("time", f"ran longer than {seconds:g} s")

    def _report_death(self, seconds: float) -> NoReturn:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        code = self._process.returncode
        if code in (-signal.SIGXCPU, -signal.SIGALRM):
            raise ChildError("time", f"ran longer than {seconds:g} s")
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        raise ChildError("died", f"ended without an answer ({how})")


class _Children:
    """The children of this process: those idle, and how many more may start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, int], list[_Child]] = {}
        self._turns: dict[tuple[str, int], threading.BoundedSemaphore] = {}
        self._registered = False

    def turn(self, function: str, memory_mb: int) -> threading.BoundedSemaphore:
        with self._lock:
            if not self._registered:
                atexit.register(self.close)
                os.register_at_fork(after_in_child=self._forget)
                self._registered = True
            return self._turns.setdefault((function, memory_mb), threading.BoundedSemaphore(_MOST))

    def take(self, function: str, memory_mb: int) -> _Child:
        while True:
            with self._lock:
                idle = self._idle.get((function, memory_mb))
                child = idle.pop() if idle else None
            if child is None:
                return _Child(function, memory_mb)
            if child.alive:
                return child
            child.kill()

    def give_back(self, child: _Child) -> None:
        with self._lock:
            idle = self._idle.setdefault(child.key, [])
            if len(idle) < _KEPT_IDLE:
                idle.append(child)
                return
        child.kill()

    def close(self) -> None:
        with self._lock:
            children = [child for idle in self._idle.values() for child in idle]
            self._idle.clear()
        for child in children:
            child.kill()

    def _forget(self) -> None:
        for idle in self._idle.values():
            for child in idle:
                child.forget()
        self._lock, self._idle, self._turns = threading.Lock(), {}, {}


_CHILDREN = _Children()


def serve(function: str, memory_mb: int) -> None:
    """The child's side: import the function, then answer requests until the pipe closes."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # What the function prints must not mix with answers.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    _limit_space(memory_mb)
    call = _find(function)
    _send(answers, {"kind": "ready"})
    while header := requests.read(_HEADER):
        request = _unpack(requests.read(int.from_bytes(header, "big")))
        _limit_time(request["seconds"])
        answer = _answer(call, request["payload"], requests, request["data"])
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(answers, answer)


def _answer(call: Callable[..., Any], payload: Any, requests: BinaryIO, length: int | None) -> dict[str, Any]:
    try:
        value = call(payload) if length is None else call(payload, requests.read(length))
        json.dumps(value)
        return {"kind": "value", "value": value}
    except MemoryError:
        return {"kind": "memory"}
    except Exception as error:
        return {"kind": "raised", "value": " ".join(f"{type(error).__name__}: {error}".split())[:400]}


def _send(answers: BinaryIO, answer: dict[str, Any]) -> None:
    answers.write(_pack(answer))
    answers.flush()


def _find(function: str) -> Callable[..., Any]:
    module, _, name = function.partition(":")
    call: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return call


def _limit_space(memory_mb: int) -> None:
    import resource

    wanted = {
        resource.RLIMIT_AS: memory_mb << 20,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 64,
    }
    for limit, value in wanted.items():
        # macOS knows RLIMIT_AS and refuses to set it; the deadline still holds there.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, (value, value))


def _limit_time(seconds: float) -> None:
    """Make this process end by itself, should nobody be left to kill it."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + seconds) + 1, hard))
    signal.setitimer(signal.ITIMER_REAL, seconds + 1)
