"""Stand-ins for what takes long: a library of packages without files, processes without models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lapilli.engine.ask import Ask, Embedded, Finished, LoadOrder, ModelFacts, News
from lapilli.errors import EngineGoneError, ModelNotFoundError
from lapilli.inputs.templates import TemplateText
from lapilli.store.description import Header
from lapilli.store.package import Package

CACHE = 1 << 20


def package(
    name: str,
    model: Path,
    *,
    weights: int = 0,
    capabilities: tuple[str, ...] = ("completion", "vision"),
    template: TemplateText | None = None,
    system: str = "",
    parameters: dict[str, Any] | None = None,
    messages: tuple[dict[str, str], ...] = (),
    adapters: tuple[Path, ...] = (),
) -> Package:
    """A package of so many bytes of weights, whose parts are told and not read."""
    model.touch()
    made = Package(name=name, digest="0" * 64, size=weights, modified=datetime.now(UTC), model=model, adapters=adapters)
    header = Header("gguf", "llama", weights // 4, "F32", {}, (("w", "F32", (weights // 4,)),))
    made.__dict__.update(
        header=header, eyes=None, capabilities=capabilities, template=template, system=system,
        parameters=parameters or {}, messages=messages, details={},
    )  # fmt: skip
    return made


class FakeLibrary:
    """Finds what it was given."""

    def __init__(self, *packages: Package) -> None:
        self.known = {made.name: made for made in packages}

    def find(self, name: str) -> Package:
        for spelt in (name, f"{name}:latest"):
            if spelt in self.known:
                return self.known[spelt]
        raise ModelNotFoundError(f"model {name!r} not found")


class FakeProcess:
    """Answers at once, or with what `reply` makes of an ask; counts who is at it."""

    def __init__(self, order: LoadOrder, weights: int = 0, **facts: Any) -> None:
        self.order = order
        self.gone = asyncio.Event()
        self.asked: list[Ask] = []
        self.reply: Callable[[Ask], Sequence[News]] = lambda ask: [News(text="Hello."), News(finished=finished())]
        self.weights = weights
        self.stopped = False
        self.pause = 0.0
        values: dict[str, Any] = {
            "context_length": 4096, "embedding_length": 8, "vocabulary": 100, "parameters": weights // 4,
            "weight_bytes": weights, "bytes_a_token": 1, "cache_tokens": CACHE, "sees": False, "uses_tools": False,
            "thinks": False, "inserts": False, "device": "cpu",
        }  # fmt: skip
        self.facts = ModelFacts(**(values | facts))

    @property
    def alive(self) -> bool:
        return not self.gone.is_set()

    def memory_bytes(self) -> int:
        return self.weights if self.alive else 0

    async def ask(self, ask: Ask) -> AsyncGenerator[News, None]:
        self.asked.append(ask)
        for news in self.reply(ask):
            await asyncio.sleep(self.pause)
            if not self.alive:
                raise EngineGoneError("the model's process has ended")
            yield news

    async def embed(self, texts: Sequence[str], **options: Any) -> Embedded:
        self.embedding = options
        return Embedded(vectors=((3.0, 4.0, 0.0),) * len(texts), prompt_tokens=len(texts))

    async def stop(self, *, seconds: float = 5) -> None:
        await asyncio.sleep(0)
        self.stopped = True
        self.gone.set()

    def crash(self) -> None:
        self.gone.set()


def finished(**values: Any) -> Finished:
    """The end of an answer."""
    return Finished(**{"reason": "stop", "prompt_tokens": 5, "completion_tokens": 2, "ids": (1, 2, 3)} | values)


class Starter:
    """Makes fake processes; `started` are all that were, each load takes `seconds`, and `failure` is raised by it."""

    def __init__(self, seconds: float = 0.0, **facts: Any) -> None:
        self.seconds, self.facts = seconds, facts
        self.failure: Exception | None = None
        self.started: list[FakeProcess] = []

    async def __call__(self, order: LoadOrder) -> Any:
        await asyncio.sleep(self.seconds)
        if self.failure is not None:
            raise self.failure
        weights = int(order.path.stem.rpartition("-")[2]) if "-" in order.path.stem else 0
        process = FakeProcess(order, weights << 20, **self.facts)
        self.started.append(process)
        return process

    @property
    def alive(self) -> list[FakeProcess]:
        return [process for process in self.started if process.alive]
