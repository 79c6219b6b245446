"""Who runs next: every answer a token further, and one chunk of one prompt, as long as there are blocks.

Plain Python: a plan names requests and ranges, the runner alone makes tensors. Chunks stand at absolute positions
and answers are only ever computed token by token, so a request's sums have the same shapes alone, in company, after
a preemption, and where its beginning was found in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lapilli.engine.blocks import BlockPool, Match
from lapilli.engine.request import Request, Status
from lapilli.errors import PromptError


@dataclass(frozen=True, kw_only=True)
class SchedulerOptions:
    """How many requests hold blocks at once, how long a chunk is, and for how many steps a prompt may be overtaken.

    `rows` is how many tokens of answers a step may compute. What is found in the cache is a multiple of `grain`
    tokens, whole blocks: as fine as sums can be cut without a different last bit; None for a chunk.
    """

    max_running: int = 8
    chunk: int = 128
    rows: int = 8
    grain: int | None = None
    patience: int = 16


@dataclass(frozen=True)
class Work:
    """Places [start, stop) of a request to be computed in this step, and guesses at those that follow."""

    request: Request
    start: int
    stop: int
    drafts: tuple[int, ...] = ()

    @property
    def speaks(self) -> bool:
        """Whether the next token follows from it: it ends at the last place known."""
        return self.stop == self.request.length

    @property
    def tokens(self) -> list[int]:
        """What stands at its places, in an answer."""
        known = self.request.units[self.start : self.stop]
        return [*(unit for unit in known if isinstance(unit, int)), *self.drafts]


@dataclass(frozen=True)
class Plan:
    """One step: a chunk of at most one prompt, and one place or more of each answer."""

    prefill: Work | None
    decode: tuple[Work, ...]

    @property
    def works(self) -> tuple[Work, ...]:
        return self.decode if self.prefill is None else (self.prefill, *self.decode)


class Scheduler:
    """Requests in, plans out; usage: `add`, then `plan`, compute it, `settle` each work, `finish` what has ended."""

    def __init__(self, pool: BlockPool, options: SchedulerOptions) -> None:
        if options.chunk % pool.size:
            raise ValueError(f"a chunk of {options.chunk} tokens is no whole number of blocks of {pool.size}")
        if (options.grain or options.chunk) % pool.size:
            raise ValueError(f"a grain of {options.grain} tokens is no whole number of blocks of {pool.size}")
        if options.rows < options.max_running:
            raise ValueError(f"{options.rows} rows are too few for {options.max_running} answers at once")
        self.pool, self.options = pool, options
        self.grain = options.grain or options.chunk
        self.waiting: list[Request] = []
        self.running: list[Request] = []
        self._arrivals = 0
        self._overtaken: dict[Request, int] = {}

    def add(self, request: Request) -> None:
        """Take a request in; raises PromptError where it could never fit, with both numbers."""
        if not request.units:
            raise PromptError("the prompt is empty: ask something")
        places = request.prompt_length + request.limit
        if self.pool.blocks_of(places) > self.pool.count:
            raise PromptError(
                f"the prompt has {request.prompt_length} tokens and its answer up to {request.limit}, the cache holds "
                f"{self.pool.count * self.pool.size}: shorten the prompt or lower max_tokens"
            )
        request.arrival, self._arrivals = self._arrivals, self._arrivals + 1
        self.waiting.append(request)

    def finish(self, request: Request) -> None:
        """The request is over, done or aborted: its blocks are free from now on. Once more does nothing."""
        if request.status is Status.OVER:
            return
        if request.status is Status.RUNNING:
            self._leave(request)
        else:
            self.waiting.remove(request)
        request.status = Status.OVER

    def plan(self) -> Plan | None:
        """What to compute next, or None where there is nothing."""
        decode = self._plan_decode()
        self._admit()
        reading = [request for request in self.running if request.reading]
        prefill = self._plan_prefill(reading) if reading else None
        return Plan(prefill, tuple(decode)) if decode or prefill else None

    def settle(self, work: Work, tokens: Sequence[int] = ()) -> None:
        """The work was computed; `tokens` are what the request says next, where the work speaks.

        All of them but the last were among its drafts: their places are computed too.
        """
        request = work.request
        if request.status is not Status.RUNNING:
            return  # aborted while it was computed
        assert bool(tokens) == work.speaks, "a token follows from the last place known, and from no other"
        assert tuple(tokens[:-1]) == work.drafts[: max(0, len(tokens) - 1)], "what was not guessed is not computed"
        request.computed = work.stop + max(0, len(tokens) - 1)
        request.units += tokens
        self._seal(request)

    # --- how a step is put together ---

    def _plan_decode(self) -> list[Work]:
        """The next place of each answer, the oldest request first; where blocks run out, the youngest gives way.

        Rows that are left go to places that are known already, then to guesses, as far as blocks are free.
        """
        speaking: list[Request] = []
        for request in sorted(self.running, key=lambda r: r.arrival):
            if request.status is Status.RUNNING and not request.reading and self._make_room(request):
                speaking.append(request)
        spare, planned = self.options.rows - len(speaking), []
        for request in speaking:
            known = request.length - request.computed
            width = min(known + len(request.drafts), 1 + spare)
            width = self._stretch(request, min(width, request.prompt_length + request.limit - request.computed))
            spare -= width - 1
            stop = request.computed + min(width, known)
            planned.append(Work(request, request.computed, stop, tuple(request.drafts[: max(0, width - known)])))
        return planned

    def _stretch(self, request: Request, width: int) -> int:
        """As many of `width` places as have blocks, or can have some that nobody uses; one at least."""
        wanted = self.pool.blocks_of(request.computed + width) - len(request.blocks)
        # One is left for each that runs: a guess must make nobody give way.
        if wanted > 0 and self.pool.free >= wanted + len(self.running):
            request.blocks += self.pool.take(wanted)
        return min(width, len(request.blocks) * self.pool.size - request.computed)

    def _make_room(self, request: Request) -> bool:
        """A block for the next place; False where the request itself had to give way."""
        if self.pool.blocks_of(request.computed + 1) <= len(request.blocks):
            return True
        while not self.pool.free:
            youngest = max(self.running, key=lambda r: r.arrival)
            self._preempt(youngest)
            if youngest is request:
                return False
        request.blocks += self.pool.take(1)
        return True

    def _admit(self) -> None:
        """Let requests in, in the order of their arrival, while there are seats and blocks for their prompts."""
        while self.waiting and len(self.running) < self.options.max_running:
            request = min(self.waiting, key=lambda r: r.arrival)
            match = self._found(request)
            fresh = self.pool.blocks_of(request.prompt_length) - len(match.blocks)
            # A block in reserve for each that runs, or the newcomer would be the next to give way.
            if not self.pool.fits(match, fresh + len(self.running)):
                return
            self.pool.hold(match.blocks)
            self._begin(request, match, self.pool.take(fresh))
            request.status = Status.RUNNING
            self.waiting.remove(request)
            self.running.append(request)

    def _found(self, request: Request) -> Match:
        """The blocks that hold its prompt's beginning already, whole grains of it."""
        # The last place of a prompt is always computed: what is said next follows from it.
        match = self.pool.match(request.units[: request.prompt_length - 1], request.root)
        return match.first(len(match.blocks) * self.pool.size // self.grain * self.grain // self.pool.size)

    def _begin(self, request: Request, match: Match, fresh: Sequence[int]) -> None:
        """Have a request begin behind blocks that were found, which are held for it, with others for the rest."""
        request.blocks = [*match.blocks, *fresh]
        request.sealed, request.prefix = len(match.blocks), (request.root, *match.prefixes)[-1]
        request.computed = request.reused = len(match.blocks) * self.pool.size

    def _look_again(self, request: Request) -> None:
        """What others have read since it was let in, a request that has read nothing yet need not read."""
        if request.computed > request.reused:
            return
        match = self._found(request)
        count = len(match.blocks)
        if count * self.pool.size > request.computed:
            self.pool.hold(match.blocks)
            mine, rest = request.blocks[:count], request.blocks[count:]
            self.pool.release(mine)
            self._begin(request, match, rest)

    def _plan_prefill(self, reading: list[Request]) -> Work:
        """The next chunk of the prompt with the least left, unless another was overtaken too often."""
        impatient = [r for r in reading if self._overtaken.get(r, 0) >= self.options.patience]
        if impatient:
            chosen = min(impatient, key=lambda r: r.arrival)
        else:
            chosen = min(reading, key=lambda r: (self._chunks_left(r), r.arrival))
        for request in reading:
            if request.arrival < chosen.arrival:
                self._overtaken[request] = self._overtaken.get(request, 0) + 1
        self._overtaken.pop(chosen, None)
        self._look_again(chosen)
        chunk_end = (chosen.computed // self.options.chunk + 1) * self.options.chunk
        return Work(chosen, chosen.computed, min(chunk_end, chosen.prompt_length))

    def _chunks_left(self, request: Request) -> int:
        size = self.options.chunk
        return -(-request.prompt_length // size) - request.computed // size

    def _preempt(self, request: Request) -> None:
        """Undo an admission: the request waits again and keeps what it has said."""
        self._leave(request)
        request.status = Status.WAITING
        self.waiting.append(request)

    def _leave(self, request: Request) -> None:
        self.running.remove(request)
        self._overtaken.pop(request, None)
        self.pool.release(request.blocks)
        request.blocks = []

    def _seal(self, request: Request) -> None:
        """Blocks that lie in whole grains of the prompt and are computed can be found by others from now on.

        Not those of the answer: computed token by token, they may differ in the last bit from what a prompt gives.
        """
        size = self.pool.size
        whole = min(request.computed, request.prompt_length) // self.grain * self.grain
        while (request.sealed + 1) * size <= whole:
            start = request.sealed * size
            units = request.units[start : start + size]
            request.prefix = self.pool.seal(request.blocks[request.sealed], request.prefix, units)
            request.sealed += 1
