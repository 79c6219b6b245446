"""Models in memory: loaded when somebody asks, kept for a while, given up when another needs the room.

residents = Residents(library, settings)
async with residents.seat("mini") as resident:
    async for news in resident.process.ask(...): ...

Each base model (the same files, loaded in the same way) has one process and so many places; names and adapters that
share the files share both. All of this is for one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from lapilli.engine.ask import LoadOrder
from lapilli.engine.service import EngineProcess
from lapilli.errors import BusyError, CheckpointError, EngineGoneError, LapilliError, ModelNotFoundError, NoMemoryError
from lapilli.faces.admission import CLOSED, Admission
from lapilli.faces.bases import Base, Key, Resident, is_plain, key_of
from lapilli.faces.footprint import computes_elsewhere, engine_options, footprint, taken
from lapilli.faces.places import Places
from lapilli.ground.amounts import memory_text
from lapilli.ground.machine import available_memory
from lapilli.ground.settings import Settings
from lapilli.store.library import Library
from lapilli.store.naming import ModelName
from lapilli.store.package import Package

log = logging.getLogger("lapilli.residents")

Start = Callable[[LoadOrder], Awaitable[EngineProcess]]
_STOP_SECONDS = 5.0


class Residents:
    """See the module. `start` makes a process from an order."""

    def __init__(self, library: Library, settings: Settings, *, start: Start | None = None) -> None:
        self.library, self.settings = library, settings
        self.admission = Admission(settings.num_parallel, settings.max_queue)
        self.draining = False
        self._start = start or self._start_process
        self._bases: dict[Key, Base] = {}
        self._making_room = asyncio.Lock()
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def find(self, name: str) -> Package:
        """The model of that name, with all that is told without loading it read already.

        Raises ModelNotFoundError, InputError, StoreError, CheckpointError.
        """

        def look() -> Package:
            package = self.library.find(name)
            # Each of these is read from the disk once, here and not in the event loop.
            _ = package.template, package.system, package.parameters, package.messages, package.capabilities
            return package

        return await asyncio.to_thread(look)

    @contextlib.asynccontextmanager
    async def seat(self, name: str | Package, keep_alive: float | None = None) -> AsyncIterator[Resident]:
        """A place at the model of that name, which is loaded if it is not there; waits for both.

        `keep_alive` says from now on how long the model stays once it is idle: 0 not at all, negative for ever.
        Raises what `find` and loading raise, NoMemoryError where it could never fit, BusyError when the server stops,
        EngineGoneError where the process ends while this waits.
        """
        package = name if isinstance(name, Package) else await self.find(name)
        came = time.perf_counter()
        try:
            base = await self._enter(package)
        except CheckpointError:
            if not package.model.exists():  # it was removed while this waited
                raise ModelNotFoundError(f"model '{package.name}' not found") from None
            raise
        try:
            if keep_alive is not None:
                base.keep_alive = keep_alive
            loaded = time.perf_counter()
            await base.places.take()
            try:
                assert base.process is not None, "a base that was entered has its process"
                yield Resident(
                    package=package,
                    process=base.process,
                    load_seconds=loaded - came,
                    queue_seconds=time.perf_counter() - loaded,
                    expires_at=base.leaves_at(),
                )
            finally:
                base.places.give()
        except EngineGoneError:
            if self.draining:
                raise BusyError(CLOSED) from None
            raise
        finally:
            self._leave(base)

    def running(self) -> list[Resident]:
        """Every model in memory."""
        return [
            Resident(package=base.package, process=base.process, expires_at=base.leaves_at())
            for base in self._bases.values()
            if base.process is not None and base.process.alive
        ]

    @property
    def answering(self) -> int:
        """Requests that have a place."""
        return sum(self.settings.num_parallel - base.places.free for base in self._bases.values())

    @property
    def waiting(self) -> int:
        """Requests that wait for a place, or for a model to be loaded."""
        return sum(base.users for base in self._bases.values()) - self.answering

    async def unload(self, name: str | Package) -> None:
        """Give a model up: at once if it is idle, else when the last request at it is over. Nothing if not there."""
        wanted = {name.name} if isinstance(name, Package) else await self._spellings(name)
        for base in list(self._bases.values()):
            if wanted & base.packages.keys():
                base.keep_alive = 0
                base.used_at = time.time()
                if base.users == 0 and base.process is not None:
                    await asyncio.shield(self._give_up(base))

    def drain(self) -> None:
        """Let nobody in any more and send away who waits; who is being answered goes on."""
        self.draining = self.admission.closed = True
        for base in list(self._bases.values()):
            if base.loading is not None and not base.loading.done():
                base.loading.cancel()
            base.places.refuse(BusyError(CLOSED))
        self._tell()

    async def close(self, drain_seconds: float) -> None:
        """Drain, wait so long for those who are being answered, then end all processes."""
        self.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain_seconds):
                while any(base.users for base in self._bases.values()):
                    await self._next_change()
        for base in list(self._bases.values()):
            base.leaving = True
        await asyncio.gather(*(self._end(base, seconds=0) for base in list(self._bases.values())))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_STOP_SECONDS)

    # --- coming and going ---

    async def _enter(self, package: Package) -> Base:
        """The base of this package, loaded, with one more at it; who enters must `_leave`."""
        try:
            key = await asyncio.to_thread(key_of, package, self.settings)
        except OSError as error:
            why = (error.strerror or "unknown error").lower()
            raise CheckpointError(f"{package.name}: its files cannot be opened: {why}") from None
        while True:
            if self.draining:
                raise BusyError(CLOSED)
            base = self._bases.get(key)
            if base is not None and base.leaving:
                await base.gone.wait()  # its memory first, or there would be two of it
                continue
            if base is None:
                base = await self._begin(key, package)
                if base is None:
                    continue
            base.users += 1
            base.packages.pop(package.name, None)
            base.packages[package.name] = package
            if base.timer is not None:
                base.timer.cancel()
            try:
                await self._loaded(base)
            except BaseException:
                self._leave(base)
                raise
            if base.ready:
                return base
            self._leave(base)
            await base.gone.wait()

    async def _loaded(self, base: Base) -> None:
        assert base.loading is not None
        try:
            await asyncio.shield(base.loading)
        except asyncio.CancelledError:
            if self.draining and base.loading.cancelled():
                raise BusyError(CLOSED) from None
            raise

    def _leave(self, base: Base) -> None:
        base.users -= 1
        base.used_at = time.time()
        if base.users == 0 and not base.gone.is_set() and base.process is not None:
            self._rest(base)
        self._tell()

    def _rest(self, base: Base) -> None:
        """Nobody is at it any more: it goes at once, later, or never."""
        if base.timer is not None:
            base.timer.cancel()
        if base.leaving or base.keep_alive == 0:
            self._give_up(base)
        elif base.keep_alive > 0:
            # Longer waits than the loop's clock can hold are asked for anew when they are over.
            wait = min(base.expires_at - time.time(), 86400.0)
            base.timer = asyncio.get_running_loop().call_later(max(0.0, wait), self._expire, base)

    def _expire(self, base: Base) -> None:
        if base.users or base.leaving:
            return
        if base.expires_at <= time.time():
            self._give_up(base)
        else:
            self._rest(base)

    # --- loading ---

    async def _begin(self, key: Key, package: Package) -> Base | None:
        """Have a base loaded; None where another request began it meanwhile."""
        settings = self.settings
        need = await asyncio.to_thread(footprint, package, settings)
        if key in self._bases or self.draining:
            return None
        order = LoadOrder(
            path=package.model,
            projector=package.projector,
            quantize=settings.quantize if is_plain(package) else None,
            device=settings.device,
            context=settings.context_length or None,
            engine=engine_options(settings),
        )
        base = Base(key, order, {package.name: package}, Places(settings.num_parallel), settings.keep_alive, need)
        self._bases[key] = base
        base.loading = asyncio.create_task(self._load(base))
        base.loading.add_done_callback(_look_at)
        return base

    async def _load(self, base: Base) -> None:
        name = base.package.name
        try:
            async with self._making_room:
                await self._make_room(base)
                base.held = base.need
            began = time.perf_counter()
            base.process = process = await self._start(base.order)
            base.held = taken(process.facts, self.settings)
            log.info("%s is loaded: %s in %.2f s", name, memory_text(base.held), time.perf_counter() - began)
            self._keep(asyncio.create_task(self._watch(base, process)))
        except BaseException as error:
            self._forget(base)
            if isinstance(error, LapilliError):
                log.warning("%s cannot be loaded: %s", name, error)
            raise
        if base.users == 0:
            self._rest(base)
        self._tell()

    async def _start_process(self, order: LoadOrder) -> EngineProcess:
        return await EngineProcess.start(order, seconds=self.settings.load_timeout)

    async def _watch(self, base: Base, process: EngineProcess) -> None:
        """See a process end that nobody ended: who waits is told, who asks next has it started anew."""
        await process.gone.wait()
        if not base.leaving:
            log.warning("%s: its process ended by itself; the next request starts another", base.package.name)
        self._forget(base)

    def _forget(self, base: Base) -> None:
        if self._bases.get(base.key) is base:
            del self._bases[base.key]
        if base.timer is not None:
            base.timer.cancel()
        base.held = 0
        base.gone.set()
        base.places.refuse(BusyError(CLOSED) if self.draining else EngineGoneError("the model's process has ended"))
        self._tell()

    # --- room ---

    async def _make_room(self, base: Base) -> None:
        """Have others go until this one fits; those first that would go soonest anyway, and idle ones before others."""
        while True:
            others = [other for other in self._bases.values() if other is not base]
            most = self.settings.max_loaded_models
            crowded = bool(most) and sum(other.held > 0 for other in others) >= most
            free = self._free()
            if not crowded and base.need <= free:
                return
            if base.need > (reach := free + sum(max(other.held, other.memory()) for other in others)):
                raise NoMemoryError(
                    f"model requires more memory ({memory_text(base.need)}) than there is "
                    f"({memory_text(max(0, reach))}): quantize it, give it less with LAPILLI_NUM_PARALLEL or "
                    "LAPILLI_CACHE_MEMORY, or allow more"
                )
            ready = [other for other in others if other.ready and not other.leaving]
            victim = min(ready, key=lambda other: (other.users > 0, other.expires_at), default=None)
            if victim is None:
                await self._next_change()
            elif victim.users == 0:
                await asyncio.shield(self._give_up(victim))
            else:
                victim.leaving = True  # who comes from now on waits until it has gone, then loads it anew
                await victim.gone.wait()

    def _free(self) -> int:
        """Bytes that are left for models, less what loaded ones have a right to and have not used yet."""
        bases = self._bases.values()
        if self.settings.max_memory:
            return self.settings.max_memory - sum(max(base.held, base.memory()) for base in bases)
        left = 0 if computes_elsewhere(self.settings) else available_memory()
        if not left:
            return 1 << 62  # the system does not say, or it is not the memory in question
        return left - sum(max(0, base.held - base.memory()) for base in bases)

    def _give_up(self, base: Base) -> asyncio.Task[None]:
        """End a base's process; those who ask for it meanwhile wait until it has gone."""
        base.leaving = True
        return self._keep(asyncio.create_task(self._end(base, seconds=_STOP_SECONDS)))

    async def _end(self, base: Base, *, seconds: float) -> None:
        if base.loading is not None and not base.loading.done():
            base.loading.cancel()
            await asyncio.wait([base.loading])
        if base.process is not None:
            await base.process.stop(seconds=seconds)
            log.info("%s was unloaded", base.package.name)
        self._forget(base)

    # --- the rest ---

    async def _spellings(self, name: str) -> set[str]:
        """The names that a base may be known by, also where the model was removed meanwhile."""
        found = {name}
        with contextlib.suppress(LapilliError):
            found.add(ModelName.parse(name).short)
        with contextlib.suppress(LapilliError):
            found.add((await self.find(name)).name)
        return found

    def _keep(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        """Hold on to a task: the loop itself holds it weakly."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_look_at)
        return task

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _next_change(self) -> None:
        await self._changed.wait()


def _look_at(task: asyncio.Task[None]) -> None:
    """Have an error count as seen: whoever waits for the task is told, and nobody may."""
    if not task.cancelled():
        task.exception()
