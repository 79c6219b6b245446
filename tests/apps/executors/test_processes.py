"""Workers in processes of their own: one that dies costs nothing, one that always dies is told of."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest
from processes import family

from lapilli.apps.executors.opening import open_executor
from lapilli.apps.executors.processes import ProcessExecutor
from lapilli.apps.executors.shares import Shares
from lapilli.apps.jobs.work import Done, Shard, Worker
from lapilli.errors import InputError, LapilliError


def rehearsal(**settings: float) -> Worker:
    return Worker("lapilli.apps.jobs.rehearsal:open_rehearsal", settings)


def shards(count: int, each: int = 2) -> Iterator[Shard]:
    return (Shard(number, [{"n": number * each + n} for n in range(each)]) for number in range(count))


def numbers(done: list[Done]) -> list[list[int]]:
    return [[row["item"]["n"] for row in each.rows] for each in sorted(done, key=lambda each: each.number)]


def test_all_is_done_once() -> None:
    done = list(ProcessExecutor(2).run(rehearsal(), shards(9)))
    assert numbers(done) == [[2 * n, 2 * n + 1] for n in range(9)]


def test_nobody_is_begun_for_nothing() -> None:
    before = family()
    assert list(ProcessExecutor(2).run(rehearsal(), iter(()))) == []
    assert family() == before


def test_a_worker_that_is_killed_is_replaced_and_its_shards_are_done_again() -> None:
    before, done, killed = family(), [], set()
    for each in ProcessExecutor(2).run(rehearsal(seconds=0.03), shards(12)):
        done.append(each)
        if len(done) in (2, 6):
            victim = min(family() - before - killed)
            os.kill(victim, signal.SIGKILL)
            killed.add(victim)
    assert len(killed) == 2
    assert numbers(done) == [[2 * n, 2 * n + 1] for n in range(12)]
    assert family() == before


def test_leaving_early_ends_all() -> None:
    before = family()
    run = ProcessExecutor(2).run(rehearsal(seconds=0.01), shards(1000))
    next(run)
    assert len(family() - before) == 2
    run.close()
    assert family() == before


def test_workers_end_with_the_process_that_began_them() -> None:
    program = """
import time
import psutil
from lapilli.apps.executors.processes import ProcessExecutor
from lapilli.apps.jobs.work import Shard, Worker
worker = Worker("lapilli.apps.jobs.rehearsal:open_rehearsal", {"seconds": 0.01})
run = ProcessExecutor(2).run(worker, (Shard(n, [{"n": n}]) for n in range(10_000)))
next(run)
print(*(child.pid for child in psutil.Process().children()), flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as coordinator:
        assert coordinator.stdout is not None
        found = coordinator.stdout.readline().split()
        coordinator.kill()
    assert len(found) == 2
    end = time.monotonic() + 10
    while any(psutil.pid_exists(int(child)) for child in found):
        assert time.monotonic() < end, "a worker outlived its coordinator"
        time.sleep(0.02)


def test_what_a_worker_raises_comes_here() -> None:
    with pytest.raises(InputError, match="no such worker here"):
        list(ProcessExecutor(1).run(Worker("lapilli.apps.jobs.rehearsal:nobody"), shards(1)))
    with pytest.raises(LapilliError, match=r"the worker failed: TypeError: .* 'colour'"):
        list(ProcessExecutor(1).run(rehearsal(colour=1), shards(1)))


@pytest.mark.parametrize(("workers", "ray"), [(0, None), (-1, None)])
def test_less_than_one_worker_is_refused(workers: int, ray: str | None) -> None:
    with pytest.raises(InputError, match="1 is the least"):
        open_executor(workers=workers, ray=ray)


class TestShares:
    def test_a_worker_has_two_at_a_time(self) -> None:
        shares = Shares(shards(3))
        assert [shard and shard.number for shard in (shares.take("a"), shares.take("a"), shares.take("a"))] == [
            0,
            1,
            None,
        ]
        shares.done("a", 0)
        third = shares.take("a")
        assert third is not None
        assert third.number == 2
        assert not shares.empty
        shares.done("a", 1)
        shares.done("a", 2)
        assert shares.take("a") is None
        assert shares.empty

    def test_what_was_lost_is_done_again_alone(self) -> None:
        shares = Shares(shards(4))
        shares.take("a"), shares.take("a")
        shares.lost("a", "signal SIGKILL")
        again = shares.take("b")
        assert again is not None
        assert again.number == 0
        assert shares.take("b") is None  # alone, so that it is known which one kills
        shares.done("b", 0)
        other = shares.take("b")
        assert other is not None
        assert other.number == 1
        shares.done("b", 1)
        assert [getattr(shares.take("b"), "number", None) for _ in range(3)] == [2, 3, None]

    def test_a_shard_that_kills_is_told_by_its_number(self) -> None:
        shares = Shares(shards(4), attempts=3)
        shares.take("a"), shares.take("a")
        shares.lost("a", "signal SIGSEGV")
        first = shares.take("b")
        assert first is not None
        shares.lost("b", "signal SIGSEGV")  # goes to the end of those to be done again
        other = shares.take("c")
        assert other is not None
        assert (first.number, other.number) == (0, 1)
        shares.done("c", 1)
        shares.take("c")
        with pytest.raises(LapilliError, match="3 workers ended at shard 0, the last: signal SIGSEGV"):
            shares.lost("c", "signal SIGSEGV")
