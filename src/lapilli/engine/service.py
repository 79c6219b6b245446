"""A model in a process of its own, which can be watched, killed, and its memory given back.

    process = await EngineProcess.start(LoadOrder(path=folder))
    async for news in process.ask(Ask(messages=({"role": "user", "content": "What is a cat?"},))):
        print(news.text, end="")
    await process.stop()

All that is asked at once is answered together by the child's one engine. Nothing here imports torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lapilli.engine import pipe
from lapilli.engine.ask import Ask, Embedded, LoadOrder, ModelFacts, News
from lapilli.errors import EngineGoneError

_BOOT = (
    "import json, sys; settings = json.loads(sys.argv[1]); sys.path[:] = settings['path'];"
    "from lapilli.engine.worker import main; main(settings['parent'])"
)
_SECRETS = ("KEY", "TOKEN", "SECRET", "PASSWORD")
_TICKS = 5  # looks at a child within the time that it has to answer
_LONGEST_STEP = 10  # times that


class EngineProcess:
    """A loaded model in a child process; made by `start`, used by the event loop that made it."""

    def __init__(
        self, order: LoadOrder, facts: ModelFacts, process: asyncio.subprocess.Process, ping_seconds: float
    ) -> None:
        self.order, self.facts = order, facts
        self.gone = asyncio.Event()
        """Set when the child has ended, for whatever reason."""
        self._process, self._ping_seconds = process, ping_seconds
        self._numbers = itertools.count(1)
        self._inboxes: dict[int, asyncio.Queue[pipe.Frame | None]] = {}
        self._sending = asyncio.Lock()
        self._silent, self._closing, self._why = 0, False, ""
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._watch())]

    @classmethod
    async def start(cls, order: LoadOrder, *, seconds: float = 300, ping_seconds: float = 30) -> EngineProcess:
        """Start a child and have it load the model; raises what loading raised there.

        Raises EngineGoneError where it takes longer than `seconds`, or the child dies of it. A child that has
        something to answer, and says nothing for `ping_seconds`, is killed.
        """
        settings = {"path": [path or os.getcwd() for path in sys.path], "parent": os.getpid()}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-B", "-c", _BOOT, json.dumps(settings)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if not _is_secret(name)},
            limit=1 << 20,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(pipe.order_frame(order).packed())
            frame = await asyncio.wait_for(pipe.receive(process.stdout), seconds)
            if frame.kind == "error":
                raise pipe.read_error(frame)
            return cls(order, pipe.read_facts(frame), process, ping_seconds)
        except BaseException as error:
            _kill(process)
            code = await process.wait()
            if isinstance(error, TimeoutError):
                raise EngineGoneError(f"loading the model took longer than {seconds:g} s") from None
            if isinstance(error, asyncio.IncompleteReadError | ConnectionError):
                raise EngineGoneError(f"the model's process ended while it loaded ({_how(code)})") from None
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return not self.gone.is_set() and self._process.returncode is None

    async def ask(self, ask: Ask) -> AsyncGenerator[News, None]:
        """What is said, as it is said; the last news has `finished`. Closing this aborts at the next step.

        Raises what the engine raises in process, and EngineGoneError within a second where the child dies.
        """
        async with contextlib.aclosing(self._request(lambda number: pipe.ask_frame(number, ask))) as frames:
            async for frame in frames:
                news = pipe.read_news(frame)
                yield news
                if news.finished is not None:
                    return

    async def embed(
        self,
        texts: Sequence[str],
        *,
        truncate: bool = True,
        context: int | None = None,
        adapter: Path | None = None,
    ) -> Embedded:
        """A vector for each text, each read by itself; longer ones than the context are cut at its end.

        Raises InputError where one is too long and `truncate` is False.
        """
        head = {
            "kind": "embed",
            "texts": list(texts),
            "truncate": truncate,
            "context": context,
            "adapter": None if adapter is None else str(adapter),
        }
        return pipe.read_embedded(await self._answer(head))

    async def tokenize(self, text: str) -> list[int]:
        """The ids of a text in which nothing is special."""
        return list((await self._answer({"kind": "tokenize", "text": text})).head["value"])

    async def detokenize(self, ids: Sequence[int]) -> str:
        """The text of ids. Raises InputError for ids that the model does not have."""
        return str((await self._answer({"kind": "detokenize", "ids": list(ids)})).head["value"])

    async def occupancy(self) -> Mapping[str, int]:
        """How many are `asked`, `running` and `waiting`, how many `blocks` the cache has, and `free_blocks` of them."""
        return dict((await self._answer({"kind": "occupancy"})).head["value"])

    def memory_bytes(self) -> int:
        """What the child has in memory: as the system counts it, else weights and cache; 0 when it is gone."""
        if not self.alive:
            return 0
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
            return pages * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, IndexError):
            return self.facts.weight_bytes + self.facts.cache_tokens * self.facts.bytes_a_token

    async def stop(self, *, seconds: float = 5) -> None:
        """Let nothing more in, wait `seconds` for what is being answered, then end the child."""
        self._closing = True
        if self.alive:
            with contextlib.suppress(ConnectionError, RuntimeError):
                self._write({"kind": "stop"})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.gone.wait(), seconds)
        self._kill("was stopped")
        await self.gone.wait()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- what is asked ---

    async def _answer(self, head: Mapping[str, Any]) -> pipe.Frame:
        """The one frame that answers this."""
        async with contextlib.aclosing(self._request(lambda n: pipe.Frame({**head, "number": n}))) as frames:
            async for frame in frames:
                return frame
        raise AssertionError("frames come until there is an error")

    async def _request(self, frame_of: Callable[[int], pipe.Frame]) -> AsyncGenerator[pipe.Frame, None]:
        """The frames that answer a request; left early, the child is told so."""
        number = next(self._numbers)
        packed = frame_of(number).packed()
        if self._closing or not self.alive:
            raise EngineGoneError(self._why or "the model's process is being stopped")
        inbox: asyncio.Queue[pipe.Frame | None] = asyncio.Queue()
        self._inboxes[number] = inbox
        try:
            await self._send(packed)
            while True:
                answer = await inbox.get()
                if answer is None:
                    raise EngineGoneError(self._why)
                if answer.kind == "error":
                    raise pipe.read_error(answer)
                yield answer
        finally:
            del self._inboxes[number]
            if self.alive:
                # Of what is over, the child knows nothing any more.
                with contextlib.suppress(ConnectionError, RuntimeError):
                    self._write({"kind": "abort", "number": number})

    async def _send(self, packed: bytes) -> None:
        """Write a whole frame; how fast depends on the child, how much waits in memory does not."""
        assert self._process.stdin is not None
        try:
            async with self._sending:
                self._process.stdin.write(packed)
                await self._process.stdin.drain()
        except (ConnectionError, RuntimeError):
            await self.gone.wait()  # whoever asks is told by the one who listens

    def _write(self, head: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(pipe.Frame(head).packed())

    # --- the child ---

    async def _listen(self) -> None:
        """Hand what comes to those who asked; when nothing comes any more, tell them so."""
        assert self._process.stdout is not None
        try:
            while True:
                frame = await pipe.receive(self._process.stdout)
                self._silent = 0
                if frame.kind == "pong" and frame.head.get("stalled", 0) > _LONGEST_STEP * self._ping_seconds:
                    self._kill(f"took longer than {_LONGEST_STEP * self._ping_seconds:g} s for a step and was ended")
                elif inbox := self._inboxes.get(frame.number):
                    inbox.put_nowait(frame)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except pipe.PipeError as error:
            self._kill(f"was ended: {error}")
        finally:
            await self._bury()

    async def _bury(self) -> None:
        _kill(self._process)
        code = await self._process.wait()
        self._why = f"the model's process {self._why or f'ended ({_how(code)})'}"
        if self._process.stdin is not None:
            self._process.stdin.close()
        self.gone.set()
        for inbox in self._inboxes.values():
            inbox.put_nowait(None)

    async def _watch(self) -> None:
        """Kill a child that is asked something and says nothing.

        Looks are counted, not seconds: while this process itself did not run, nobody could be heard.
        """
        while not self.gone.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.gone.wait(), self._ping_seconds / _TICKS)
            self._silent = self._silent + 1 if self._inboxes else 0
            if self._silent >= _TICKS:
                self._kill(f"did not answer for {self._ping_seconds:g} s and was ended")
            elif self._silent:
                with contextlib.suppress(ConnectionError, RuntimeError):
                    self._write({"kind": "ping"})

    def _kill(self, why: str) -> None:
        if self.alive:
            self._why = self._why or why
            _kill(self._process)


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        # Not `process.kill`: it would collect a child that has just ended, and asyncio then misses its exit code.
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)


def _how(code: int) -> str:
    """How a process ended, for a person."""
    if code >= 0:
        return f"exit code {code}"
    if code == -signal.SIGKILL:
        return "killed; the system does so when memory runs out"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-code).name}"
    return f"signal {-code}"


def _is_secret(name: str) -> bool:
    return any(part in name.upper() for part in _SECRETS)
