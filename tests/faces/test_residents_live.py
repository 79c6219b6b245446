"""Residents over real processes: killed, swapped and given up under traffic."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from lapilli.errors import EngineGoneError, LapilliError
from lapilli.faces.answering import answer
from lapilli.faces.residents import Residents
from lapilli.ground.settings import Settings
from lapilli.store.library import Library
from lapilli.store.naming import ModelName
from lapilli.store.package import Package
from lapilli.store.sources import built_in, package_at
from lapilli.wire.question import Question

QUESTION = Question(model="mini", prompt="Hello, who are you?", sampling={"num_predict": 8})


class _Two(Library):
    """`mini`, and the same weights in another folder: another base model."""

    def find(self, name: str | ModelName, *, paths: bool = False) -> Package:
        if str(name) != "twin":
            return super().find(name, paths=paths)
        found = package_at(self.root / "twin", "twin")
        assert found is not None
        return found


def make(folder: Path, **settings: object) -> Residents:
    shutil.copytree(built_in("mini"), folder / "twin")
    return Residents(_Two(folder), Settings(models=folder, cache_memory=64 << 20, device="cpu", **settings))


async def words(residents: Residents, model: str = "mini", limit: int = 8) -> str:
    question = Question(model=model, prompt=QUESTION.prompt, sampling={"num_predict": limit})
    return "".join([said.text async for said in answer(question, residents)])


def resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])


@pytest.mark.parametrize("times", [1, pytest.param(50, marks=pytest.mark.soak)])
def test_a_child_that_is_killed_is_told_of_and_replaced(tmp_path: Path, times: int) -> None:
    """T96, B15."""

    async def work() -> None:
        residents = make(tmp_path, num_parallel=1)
        before = await words(residents)
        for _ in range(times):
            pid = residents.running()[0].process.pid
            tasks = [asyncio.create_task(words(residents, limit=1000)) for _ in range(3)]
            while residents.answering + residents.waiting < 3:
                await asyncio.sleep(0.001)
            os.kill(pid, signal.SIGKILL)
            killed = time.monotonic()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(result) for result in results] == [EngineGoneError] * 3
            assert time.monotonic() - killed < 5
            assert await words(residents) == before
        assert (residents.answering, residents.waiting) == (0, 0)
        await residents.close(1)

    asyncio.run(work())


@pytest.mark.soak
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="/proc tells what this process has in memory")
def test_swaps_under_traffic(tmp_path: Path) -> None:
    """B14 and T93: one model at a time in memory, two asked for, given up and killed at random; seed 5."""

    async def work() -> None:
        dice = random.Random(5)
        residents = make(tmp_path, max_loaded_models=1, num_parallel=2)
        wanted = await words(residents)
        assert await words(residents, "twin") == wanted
        before, said = resident_pages(), []

        async def client() -> None:
            for _ in range(20):
                try:
                    async with asyncio.timeout(dice.choice([None, 0.05])):
                        said.append(await words(residents, dice.choice(["mini", "twin"])))
                except (LapilliError, TimeoutError):
                    said.append("")
                if dice.random() < 0.2:
                    await residents.unload("mini")
                if dice.random() < 0.1 and residents.running():
                    os.kill(residents.running()[0].process.pid, signal.SIGKILL)

        await asyncio.wait_for(asyncio.gather(*(client() for _ in range(4))), 3600)
        assert len(said) == 80
        assert set(said) <= {"", wanted}
        assert said.count(wanted) > 20
        assert (residents.answering, residents.waiting) == (0, 0)
        assert resident_pages() < before * 1.1
        await residents.close(1)

    asyncio.run(work())
