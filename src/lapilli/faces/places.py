"""The places of one model: so many are answered at once, the others wait in the order in which they came."""

from __future__ import annotations

import asyncio
from collections import deque


class Places:
    """For one event loop. Whoever `take`s a place must `give` it back."""

    def __init__(self, count: int) -> None:
        self.free = count
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def take(self) -> None:
        """Wait for a place; raises what `refuse` was told meanwhile."""
        if self.free and not self._waiting:
            self.free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.give()  # the turn came in the moment in which its owner left
            raise
        finally:
            if turn in self._waiting:
                self._waiting.remove(turn)

    def give(self) -> None:
        """Give a place back: the first one that waits has it."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1

    def refuse(self, error: Exception) -> None:
        """Send all away that wait."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_exception(error)
