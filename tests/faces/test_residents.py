"""Models in memory: who loads, who waits, who has to go, and what happens when a process dies."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from fakes import CACHE, FakeLibrary, Starter, package

from lapilli.engine.ask import LoadOrder
from lapilli.errors import BusyError, CheckpointError, EngineGoneError, ModelNotFoundError, NoMemoryError
from lapilli.faces.footprint import PROCESS_BYTES, footprint
from lapilli.faces.residents import Residents
from lapilli.ground.settings import Settings

MIB = 1 << 20
Make = Callable[..., Residents]


def run(work: Coroutine[Any, Any, None], seconds: float = 20) -> None:
    asyncio.run(asyncio.wait_for(work, seconds))


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Residents over fakes: models a, b, c of 10, 20, 30 MiB, and an alias of a."""
    fixed: dict[str, Any] = {
        "cache_memory": CACHE,
        "feature_memory": 0,
        "models": tmp_path,
        "max_memory": 1 << 40,
    }

    def made(starter: Starter, **settings: Any) -> Residents:
        known = [package(f"{name}:latest", tmp_path / f"{name}-{size}", weights=size * MIB) for name, size in SIZES]
        alias = package("alias:latest", tmp_path / "a-10", weights=10 * MIB, system="Be another.")
        return Residents(FakeLibrary(*known, alias), Settings(**fixed | settings), start=starter)  # type: ignore[arg-type]

    return made


SIZES = (("a", 10), ("b", 20), ("c", 30))


@contextlib.asynccontextmanager
async def sitting(residents: Residents, name: str, keep_alive: float | None = None) -> AsyncIterator[Any]:
    async with residents.seat(name, keep_alive) as resident:
        yield resident


async def ask(residents: Residents, name: str, keep_alive: float | None = None, seconds: float = 0.0) -> Any:
    async with residents.seat(name, keep_alive) as resident:
        await asyncio.sleep(seconds)
        return resident


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.002)


def names(residents: Residents) -> list[str]:
    return sorted(one.package.name.partition(":")[0] for one in residents.running())


def test_two_that_ask_at_once_load_it_once(make: Make) -> None:
    async def work() -> None:
        starter = Starter(0.05)
        residents = make(starter)
        first, second = await asyncio.gather(ask(residents, "a"), ask(residents, "a"))
        assert len(starter.started) == 1
        assert first.process is second.process
        assert 0.05 <= first.load_seconds < 2
        third = await ask(residents, "a")
        assert third.load_seconds < 0.05
        assert names(residents) == ["a"]

    run(work())


def test_names_of_the_same_files_share_one_process(make: Make) -> None:
    async def work() -> None:
        starter = Starter()
        residents = make(starter)
        one, other = await ask(residents, "a"), await ask(residents, "alias")
        assert one.process is other.process
        assert (one.package.system, other.package.system) == ("", "Be another.")
        assert len(residents.running()) == 1
        assert starter.started[0].order.engine["running"] == 8
        await residents.unload("a")
        assert residents.running() == []

    run(work())


def test_files_that_changed_are_another_model(make: Make) -> None:
    async def work() -> None:
        starter = Starter()
        residents = make(starter)
        found = (await ask(residents, "a")).package
        found.model.write_bytes(b"new")
        await ask(residents, "a")
        assert len(starter.started) == 2

    run(work())


def test_it_goes_when_nobody_asked_for_long_enough(make: Make) -> None:
    async def work() -> None:
        starter = Starter()
        residents = make(starter, keep_alive=0.15)
        await ask(residents, "a")
        await asyncio.sleep(0.09)
        await ask(residents, "a")  # its time starts anew
        await asyncio.sleep(0.09)
        assert names(residents) == ["a"]
        await until(lambda: not residents.running())
        assert starter.started[0].stopped

    run(work())


def test_the_time_does_not_run_while_it_is_asked(make: Make) -> None:
    async def work() -> None:
        residents = make(Starter(), keep_alive=0.05)
        await ask(residents, "a", seconds=0.15)
        assert names(residents) == ["a"]
        await until(lambda: not residents.running())

    run(work())


def test_a_given_keep_alive_replaces_the_stored_one(make: Make) -> None:
    async def work() -> None:
        residents = make(Starter(), keep_alive=0.02)
        await ask(residents, "a", keep_alive=-1)
        assert residents.running()[0].expires_at is None
        await asyncio.sleep(0.05)
        await ask(residents, "a")  # says nothing of it: for ever still
        assert residents.running()[0].expires_at is None
        await ask(residents, "a", keep_alive=3600)
        expires = residents.running()[0].expires_at
        assert expires is not None
        assert 3590 < expires.timestamp() - time.time() < 3610
        await ask(residents, "a", keep_alive=0)
        await until(lambda: not residents.running())

    run(work())


def test_nothing_to_keep_goes_when_the_last_one_leaves(make: Make) -> None:
    async def work() -> None:
        residents = make(Starter())
        async with sitting(residents, "a"):
            await ask(residents, "a", keep_alive=0)
            assert names(residents) == ["a"]
        await until(lambda: not residents.running())

    run(work())


def test_unloading_waits_for_who_is_being_answered(make: Make) -> None:
    async def work() -> None:
        starter = Starter()
        residents = make(starter)
        async with sitting(residents, "a"):
            await residents.unload("a")
            assert starter.alive
        await until(lambda: not starter.alive)
        await residents.unload("a")  # not there: nothing to do
        await residents.unload("no-such-model")

    run(work())


def test_a_removed_model_can_be_unloaded_by_its_name(make: Make) -> None:
    async def work() -> None:
        residents = make(Starter())
        await ask(residents, "a")
        residents.library.known.clear()  # type: ignore[attr-defined]
        await residents.unload("a")
        assert residents.running() == []
        with pytest.raises(ModelNotFoundError):
            await ask(residents, "a")

    run(work())


def room(*sizes: int) -> int:
    """Memory for models of so many MiB."""
    return sum(PROCESS_BYTES + size * MIB + CACHE for size in sizes)


def test_idle_models_give_way_the_soonest_to_go_first(make: Make) -> None:
    async def work() -> None:
        starter = Starter()
        residents = make(starter, max_memory=room(10, 20))
        await ask(residents, "a", keep_alive=100)
        await ask(residents, "b", keep_alive=50)
        assert names(residents) == ["a", "b"]
        residents.settings = residents.settings.model_copy(update={"max_memory": room(10, 30)})
        await ask(residents, "c")
        assert names(residents) == ["a", "c"]

    run(work())


def test_what_can_never_fit_is_refused_with_both_numbers(make: Make) -> None:
    async def work() -> None:
        starter = Starter()
        residents = make(starter, max_memory=room(10) + MIB)
        await ask(residents, "a")
        with pytest.raises(NoMemoryError, match=r"requires more memory \(351\.0 MiB\) than there is \(332\.0 MiB\)"):
            await ask(residents, "c")
        assert names(residents) == ["a"], "nobody gave way for nothing"
        await ask(residents, "a")

    run(work())


def test_no_more_models_than_allowed(make: Make) -> None:
    async def work() -> None:
        starter = Starter()
        residents = make(starter, max_loaded_models=1)
        for name in "abcab":
            await ask(residents, name)
            assert names(residents) == [name]
        assert len(starter.started) == 5

    run(work())


def test_who_must_go_finishes_first_and_comes_back_after(make: Make) -> None:
    async def work() -> None:
        starter = Starter()
        residents = make(starter, max_loaded_models=1)
        said: list[str] = []

        async def told(name: str, seconds: float = 0) -> None:
            await ask(residents, name, seconds=seconds)
            said.append(name)

        async with asyncio.TaskGroup() as group:
            group.create_task(told("a", 0.1))
            await until(lambda: starter.started)
            group.create_task(told("b"))
            await asyncio.sleep(0.02)
            group.create_task(told("alias"))  # the same model as a: it must not keep b waiting for ever
        assert said == ["a", "b", "alias"]
        assert [process.order.path.stem for process in starter.started] == ["a-10", "b-20", "a-10"]

    run(work())


def test_places_are_given_in_order(make: Make) -> None:
    async def work() -> None:
        residents = make(Starter(), num_parallel=2)
        order: list[int] = []
        most = 0

        async def one(number: int) -> float:
            nonlocal most
            async with sitting(residents, "a") as resident:
                order.append(number)
                most = max(most, residents.answering)
                await asyncio.sleep(0.005)
                return float(resident.queue_seconds)

        tasks = []
        async with sitting(residents, "a"), sitting(residents, "a"):
            for number in range(8):
                tasks.append(asyncio.create_task(one(number)))
                await until(lambda: residents.waiting == len(tasks))
            await asyncio.sleep(0.01)
        waits = await asyncio.gather(*tasks)
        assert order == list(range(8))
        assert most == 2
        assert min(waits) >= 0.01
        assert (residents.answering, residents.waiting) == (0, 0)

    run(work())


def test_who_leaves_the_queue_takes_no_place_along(make: Make) -> None:
    async def work() -> None:
        residents = make(Starter(), num_parallel=1)
        async with sitting(residents, "a"):
            waiting = [asyncio.create_task(ask(residents, "a")) for _ in range(10)]
            await until(lambda: residents.waiting == 10)
            for task in waiting[::2]:
                task.cancel()
        last = asyncio.create_task(ask(residents, "a", seconds=0.01))
        await asyncio.sleep(0)
        waiting[1].cancel()
        results = await asyncio.gather(*waiting, last, return_exceptions=True)
        assert sum(isinstance(result, asyncio.CancelledError) for result in results) in (5, 6)
        assert (residents.answering, residents.waiting) == (0, 0)
        await ask(residents, "a")

    run(work())


def test_who_leaves_while_it_loads_does_not_stop_it(make: Make) -> None:
    async def work() -> None:
        starter = Starter(0.05)
        residents = make(starter, keep_alive=0.1)
        leaving = asyncio.create_task(ask(residents, "a"))
        await asyncio.sleep(0.02)
        leaving.cancel()
        await until(lambda: residents.running())
        assert (await ask(residents, "a")).process is starter.started[0]
        await until(lambda: not residents.running())

    run(work())


def test_a_process_that_dies_is_told_of_and_started_anew(make: Make) -> None:
    async def work() -> None:
        starter = Starter()
        residents = make(starter, num_parallel=1)
        async with sitting(residents, "a"):
            waiting = [asyncio.create_task(ask(residents, "a")) for _ in range(3)]
            await until(lambda: residents.waiting == 3)
            began = time.perf_counter()
            starter.started[0].crash()
            results = await asyncio.gather(*waiting, return_exceptions=True)
            assert time.perf_counter() - began < 1
            assert [type(result) for result in results] == [EngineGoneError] * 3
            assert residents.running() == []
            assert (await ask(residents, "a")).process is starter.started[1]
        assert (await ask(residents, "a")).process is starter.started[1]

    run(work())


def test_a_load_that_fails_is_told_to_all_and_tried_again(make: Make) -> None:
    async def work() -> None:
        starter = Starter(0.02)
        residents = make(starter)
        starter.failure = CheckpointError("damaged")
        results = await asyncio.gather(*(ask(residents, "a") for _ in range(3)), return_exceptions=True)
        assert [str(result) for result in results] == ["damaged"] * 3
        assert residents.running() == []
        starter.failure = None
        await ask(residents, "a")

    run(work())


def test_draining_sends_away_who_waits_and_lets_the_others_finish(make: Make) -> None:
    async def work() -> None:
        starter = Starter()
        residents = make(starter, num_parallel=1)
        done: list[bool] = []

        async def answered() -> None:
            async with sitting(residents, "a"):
                await asyncio.sleep(0.1)
                done.append(True)

        inside = asyncio.create_task(answered())
        await until(lambda: residents.answering)
        waiting = asyncio.create_task(ask(residents, "a"))
        await until(lambda: residents.waiting)
        began = time.perf_counter()
        residents.drain()
        with pytest.raises(BusyError, match="shutting down"):
            await waiting
        with pytest.raises(BusyError, match="shutting down"):
            await ask(residents, "a")
        with pytest.raises(BusyError, match="shutting down"), residents.admission.admit():
            raise AssertionError("nobody is let in")
        assert time.perf_counter() - began < 0.09
        await residents.close(5)
        await inside
        assert done
        assert not starter.alive
        assert residents.running() == []

    run(work())


def test_closing_does_not_wait_longer_than_told(make: Make) -> None:
    async def work() -> None:
        starter = Starter()
        residents = make(starter)

        async def stuck() -> None:
            async with sitting(residents, "a") as resident:
                await resident.process.gone.wait()
                raise EngineGoneError("was stopped")

        inside = asyncio.create_task(stuck())
        await until(lambda: residents.answering)
        began = time.perf_counter()
        await residents.close(0.05)
        assert time.perf_counter() - began < 1
        with pytest.raises(BusyError, match="shutting down"):
            await inside

    run(work())


def test_closing_while_something_loads(make: Make) -> None:
    async def work() -> None:
        starter = Starter(60)
        residents = make(starter)
        waiting = asyncio.create_task(ask(residents, "a"))
        await asyncio.sleep(0.05)
        await residents.close(1)
        with pytest.raises(BusyError, match="shutting down"):
            await waiting
        assert not starter.started

    run(work())


def test_a_storm_leaves_nobody_stuck_and_no_place_lost(make: Make) -> None:
    """T93 and B14: swaps under traffic, crashes, unloads and people who leave, all at random; seed 4."""

    async def work() -> None:
        dice = random.Random(4)
        starter = Starter(0.001)
        residents = make(starter, max_loaded_models=1, num_parallel=2, keep_alive=0.01)
        outcomes: list[str] = []

        async def client() -> None:
            for _ in range(25):
                name = dice.choice(["a", "b", "alias"])
                keep = dice.choice([None, None, 0, 0.01, -1])
                try:
                    async with asyncio.timeout(dice.choice([None, 0.01])):
                        await ask(residents, name, keep, dice.random() * 0.004)
                    outcomes.append("answered")
                except (EngineGoneError, TimeoutError) as error:
                    outcomes.append(type(error).__name__)

        async def trouble() -> None:
            for _ in range(30):
                await asyncio.sleep(0.005)
                if dice.random() < 0.3 and starter.alive:
                    dice.choice(starter.alive).crash()
                else:
                    await residents.unload(dice.choice(["a", "b"]))

        await asyncio.gather(trouble(), *(client() for _ in range(8)))
        assert len(outcomes) == 200
        assert outcomes.count("answered") > 100
        assert (residents.answering, residents.waiting) == (0, 0)
        assert len(starter.alive) <= 1
        await ask(residents, "c")
        await residents.close(1)
        assert not starter.alive

    run(work(), 60)


def test_an_estimate_counts_weights_keys_and_features(tmp_path: Path) -> None:
    settings = Settings(cache_memory=1 << 30, feature_memory=5 * MIB, num_parallel=2)
    made = package("m:latest", tmp_path / "m", weights=64 * MIB)
    info = {"llama.block_count": 4, "llama.attention.head_count": 8, "llama.attention.head_count_kv": 2,
            "llama.embedding_length": 256, "llama.context_length": 1000}  # fmt: skip
    object.__setattr__(made.header, "info", info)
    keys = 2 * 4 * (4 * 2 * 32) * 1024 * 2  # keys and values, 4 bytes, 4 layers of 2 heads of 32, 2 contexts of 1024
    assert footprint(made, settings) == PROCESS_BYTES + 64 * MIB + keys + 5 * MIB
    object.__setattr__(made.header, "tensors", (("w", "Q4_0", (4096, 4096)), ("n", "F32", (4096,))))
    assert footprint(made, settings) - PROCESS_BYTES - keys - 5 * MIB == 4096 * 4096 * 18 // 32 + 4096 * 4
    object.__setattr__(made.header, "tensors", (("w", "BF16", (4096, 4096)),))
    whole = footprint(made, settings)
    assert footprint(made, settings.model_copy(update={"quantize": "int4"})) < whole - 50 * MIB


def test_how_the_process_is_told_to_load(make: Make) -> None:
    async def work() -> None:
        starter = Starter()
        residents = make(starter, quantize="int8", context_length=512, num_parallel=9)
        await ask(residents, "a")
        order: LoadOrder = starter.started[0].order
        assert (order.quantize, order.context, order.template) == ("int8", 512, None)
        assert (order.engine["running"], order.engine["rows"]) == (9, 16)

    run(work())
