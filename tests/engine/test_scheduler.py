"""Ten thousand requests come, run and leave in any order: no block is lost, none is shared by different contents."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapilli import PromptError
from lapilli.engine.blocks import ROOT, BlockPool
from lapilli.engine.request import Picture, Request, Status, Unit, units_of
from lapilli.engine.scheduler import Plan, Scheduler, SchedulerOptions

OPTIONS = SchedulerOptions(max_running=4, rows=6, chunk=8, grain=4, patience=3)


class Machine:
    """Computes plans with integers: a place of the cache holds the unit that it was computed for."""

    def __init__(self, blocks: int = 12, size: int = 4, options: SchedulerOptions = OPTIONS) -> None:
        self.pool = BlockPool(blocks, size)
        self.scheduler = Scheduler(self.pool, options)
        self.places: list[Unit | None] = [None] * (blocks * size)
        self.alive: list[Request] = []

    def add(self, units: list[Unit], limit: int = 5) -> Request:
        request = Request(str(len(self.alive)), list(units), limit)
        self.scheduler.add(request)
        self.alive.append(request)
        return request

    def place(self, request: Request, position: int) -> int:
        return request.blocks[position // self.pool.size] * self.pool.size + position % self.pool.size

    def step(self, speak: int = 7, guesses: int = 0, right: int = 0) -> Plan | None:
        """Of `guesses` that each answer is given, as far as there are rows, the first `right` are said."""
        for request in self.scheduler.running:
            request.drafts = [3] * min(guesses, max(0, request.limit - request.said - 1))
        plan = self.scheduler.plan()
        if plan is None:
            return None
        for work in plan.works:
            request = work.request
            for position in range(work.start):
                held = self.places[self.place(request, position)]
                assert held == request.units[position], f"place {position} holds {held}, not what was read there"
            end = work.stop + len(work.drafts)
            written = {self.place(request, position) for position in range(work.start, end)}
            for other in self.scheduler.running:
                if other is not request:
                    read = {self.place(other, position) for position in range(other.computed)}
                    assert not written & read, "a place that another request reads is overwritten"
            for position in range(work.start, work.stop):
                self.places[self.place(request, position)] = request.units[position]
            for position, draft in enumerate(work.drafts, work.stop):
                self.places[self.place(request, position)] = draft
        for work in plan.works:
            self.scheduler.settle(work, [*work.drafts[:right], speak] if work.speaks else [])
        for request in list(self.alive):
            if request.said >= request.limit:
                self.finish(request)
        return plan

    def finish(self, request: Request) -> None:
        self.scheduler.finish(request)
        self.alive.remove(request)

    def check(self) -> None:
        users = [0] * self.pool.count
        for request in self.scheduler.running:
            assert len(set(request.blocks)) == len(request.blocks)
            for number in request.blocks:
                users[number] += 1
        assert users == [self.pool.users(number) for number in range(self.pool.count)]
        assert self.pool.free == users.count(0), "a block that nobody uses is not free"

    def drain(self, steps: int = 10_000) -> None:
        for _ in range(steps):
            if self.step() is None:
                break
        assert not self.alive, "some request never ended"
        assert self.pool.free == self.pool.count


def units(rng: random.Random) -> list[Unit]:
    """A prompt that begins like many others, with a picture in it or none."""
    start: list[Unit] = list(range(100, 100 + rng.choice((0, 4, 6, 9))))
    if rng.random() < 0.6:
        picture = Picture(rng.choice("abc"), len(start), rng.choice((3, 8)))
        start = units_of([*start, *[9] * picture.length], [picture])
    return [*start, *(rng.randrange(3) for _ in range(rng.randrange(1, 9)))]


def test_ten_thousand_steps_of_any_kind_lose_no_block_and_mix_no_content() -> None:
    rng, machine = random.Random(5), Machine()
    added = preempted = aborted = reused = 0
    for _ in range(10_000):
        chance = rng.random()
        if chance < 0.25 and len(machine.alive) < 12:
            machine.add(units(rng), limit=rng.randrange(1, 14))
            added += 1
        elif chance < 0.30 and machine.alive:
            machine.finish(rng.choice(machine.alive))
            aborted += 1
        else:
            before = list(machine.scheduler.running)
            machine.step(rng.randrange(5), guesses=rng.choice((0, 0, 3)), right=rng.randrange(3))
            preempted += sum(request.status is Status.WAITING for request in before)
            reused += sum(request.reused > 0 and request not in before for request in machine.scheduler.running)
        machine.check()
    machine.drain()
    assert min(added, preempted, aborted, reused) > 100, (added, preempted, aborted, reused)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(3, 20),
    st.integers(1, 5),
    st.integers(1, 4),
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 9), st.booleans()), max_size=12),
    st.integers(0, 1000),
)
def test_every_request_that_is_taken_in_ends(
    blocks: int, size: int, running: int, asked: list[tuple[int, int, bool]], seed: int
) -> None:
    machine = Machine(blocks, size, SchedulerOptions(max_running=running, chunk=2 * size, patience=2))
    rng = random.Random(seed)
    for length, limit, pause in asked:
        prompt: list[Unit] = [rng.randrange(2) for _ in range(length)]
        if -(-(length + limit) // size) > blocks:
            with pytest.raises(PromptError, match=rf"{length} tokens .* {limit}.* {blocks * size}"):
                machine.add(prompt, limit)
        else:
            machine.add(prompt, max(limit, 1) if -(-(length + 1) // size) <= blocks else 0)
        if pause:
            machine.step()
            machine.check()
    machine.drain()


def test_two_pictures_never_share_a_block_and_one_picture_does() -> None:
    machine = Machine(blocks=20)
    first = machine.add(units_of([1, 2, *[9] * 8, 3], [Picture("dog", 2, 8)]), 1)
    machine.drain()
    same = machine.add(units_of([1, 2, *[9] * 8, 4], [Picture("dog", 2, 8)]), 1)
    other = machine.add(units_of([1, 2, *[9] * 8, 3], [Picture("cat", 2, 8)]), 1)
    machine.step()
    assert (first.reused, same.reused, other.reused) == (0, 8, 0)


def test_what_is_found_is_all_but_the_last_place() -> None:
    machine = Machine(blocks=20)
    machine.add(list(range(8)), 3)
    machine.drain()
    again = machine.add(list(range(8)), 3)
    plan = machine.step()
    assert again.reused == 4, "the last block is computed again: what is said next follows from it"
    assert plan is not None
    assert plan.prefill is not None
    assert (plan.prefill.start, plan.prefill.stop) == (4, 8)


def test_what_comes_together_is_read_once() -> None:
    machine = Machine(blocks=40)
    shared = list(range(16))
    requests = [machine.add([*shared, 50 + n, 60 + n, 70 + n], 2) for n in range(4)]
    machine.drain()
    assert [request.reused for request in requests] == [0, 16, 16, 16]
    assert machine.pool.free == machine.pool.count


def test_an_answer_is_read_anew_where_a_later_prompt_repeats_it() -> None:
    machine = Machine(blocks=20)
    first = machine.add(list(range(6)), 10)
    machine.drain()
    again = machine.add([*first.units, 1, 2], 1)
    machine.step()
    assert again.reused == 4, "sums of single tokens may differ from a prompt's in the last bit"


def test_a_newcomer_waits_until_a_block_is_left_for_each_that_runs() -> None:
    machine = Machine(blocks=4)
    first = machine.add(list(range(7)), 8)
    machine.step()
    newcomer = machine.add(list(range(20, 27)), 1)
    machine.step()
    assert newcomer.status is Status.WAITING
    while first.status is not Status.OVER:
        machine.step()
        assert len(machine.scheduler.running) <= 1, "it came in, only to give way at once"
    machine.drain()


def test_chunks_stand_at_absolute_positions_wherever_reading_begins() -> None:
    machine = Machine(blocks=30)
    machine.add(list(range(12)), 1)
    machine.drain()
    machine.add([*range(12), *range(50, 65)], 1)
    ranges = []
    while (plan := machine.step()) is not None:
        assert plan.prefill is not None
        ranges.append((plan.prefill.start, plan.prefill.stop))
    assert ranges == [(12, 16), (16, 24), (24, 27)]


def test_an_answer_is_computed_in_rows_even_after_it_gave_way() -> None:
    machine = Machine(blocks=6, options=SchedulerOptions(max_running=2, rows=3, chunk=8, patience=3))
    machine.add(list(range(7)), 13)
    second = machine.add(list(range(20, 27)), 10)
    gave_way, widths = 0, []
    while (plan := machine.step()) is not None:
        gave_way += second.status is Status.WAITING and second.said > 0
        widths.append(sum(len(work.tokens) for work in plan.decode))
        assert plan.prefill is None or plan.prefill.stop <= plan.prefill.request.prompt_length
        machine.check()
    assert gave_way > 0
    assert max(widths) == 3, "what it had said is read again as many rows at a time as a step has"
    assert second.said == 10


def test_guesses_take_rows_that_are_left_and_count_as_far_as_they_are_said() -> None:
    machine = Machine(blocks=20, options=SchedulerOptions(max_running=3, rows=4, chunk=8, patience=3))
    first, second = machine.add([1, 2, 3], 9), machine.add([4, 5, 6], 9)
    while first.said == 0 or second.said == 0:
        machine.step()
    first.drafts, before = [8, 9, 10], first.length
    plan = machine.scheduler.plan()
    assert plan is not None
    works = {work.request: work for work in plan.decode}
    assert works[first].drafts == (8, 9), "one row is the other's"
    assert len(works[second].tokens) == 1
    machine.scheduler.settle(works[first], [8, 7])
    machine.scheduler.settle(works[second], [5])
    assert (first.computed, first.length) == (before + 1, before + 2)
    assert first.units[-2:] == [8, 7]


def test_guesses_make_nobody_give_way_and_never_pass_the_limit() -> None:
    machine = Machine(blocks=4, options=SchedulerOptions(max_running=2, rows=8, chunk=8, patience=3))
    first = machine.add([1, 2, 3], 4)
    second = machine.add([4, 5, 6], 4)
    while first.said == 0 or second.said == 0:
        machine.step()
    first.drafts = [7] * 7
    plan = machine.scheduler.plan()
    assert plan is not None
    assert all(work.request.status is Status.RUNNING for work in plan.decode)
    work = next(work for work in plan.decode if work.request is first)
    assert work.start + len(work.tokens) <= min(first.prompt_length + first.limit, len(first.blocks) * 4)
    machine.check()


def test_what_is_found_is_whole_grains() -> None:
    options = SchedulerOptions(max_running=2, rows=2, chunk=8, grain=8)
    machine = Machine(blocks=30, options=options)
    machine.add(list(range(12)), 1)
    machine.drain()
    same = machine.add([*range(12), 50, 51, 52, 53, 54], 1)
    machine.step()
    assert same.reused == 8, "the third block was computed in a shorter chunk"
    machine.drain()
    third = machine.add([*range(12), 50, 51, 52, 53, 54], 1)
    machine.step()
    assert third.reused == 16


def test_another_root_finds_nothing_of_the_first() -> None:
    machine = Machine(blocks=20)
    machine.add(list(range(12)), 1)
    machine.drain()
    other = Request("other", list(range(12)), 1, root=ROOT - 1)
    machine.scheduler.add(other)
    machine.alive.append(other)
    machine.step()
    assert other.reused == 0
    machine.drain()


def test_a_short_prompt_overtakes_a_long_one_and_waits_two_chunks_at_most() -> None:
    machine = Machine(blocks=40)
    machine.add(list(range(80)), 1)
    machine.step()
    short = machine.add([7, 7, 7], 1)
    machine.step()
    assert short.said == 1


def test_the_overtaken_come_to_their_turn() -> None:
    machine = Machine(blocks=60)
    long = machine.add(list(range(100, 180)), 1)
    machine.step()
    steps = 0
    while long.said == 0:
        machine.add([steps, 1, 2], 1)
        machine.step()
        steps += 1
    assert steps <= 10 * (OPTIONS.patience + 1)


def test_speaking_and_aborting_in_the_same_step_is_no_fault() -> None:
    machine = Machine()
    request = machine.add([1, 2, 3], 5)
    plan = machine.scheduler.plan()
    assert plan is not None
    machine.finish(request)
    machine.scheduler.finish(request)
    machine.scheduler.settle(plan.works[0], [4])
    assert request.units == [1, 2, 3]
    machine.check()


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(PromptError, match="empty"):
        Machine().add([])


def test_the_block_that_lay_unused_longest_is_taken_first_and_endings_before_beginnings() -> None:
    pool = BlockPool(3, 2)
    blocks = pool.take(2)
    prefix = pool.seal(blocks[0], ROOT, [1, 2])
    pool.seal(blocks[1], prefix, [3, 4])
    pool.release(blocks)
    pool.take(2)
    assert pool.match([1, 2, 3, 4]).blocks == (blocks[0],)
