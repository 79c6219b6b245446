"""How many requests are let in: counted before a body is read, so that a queue that is full costs nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from lapilli.errors import BusyError

BUSY = "server busy, please try again.  maximum pending requests exceeded"
CLOSED = "the server is shutting down"


class Admission:
    """Lets `places` requests be answered and `queue` more wait; for one event loop.

    with admission.admit():     # raises BusyError where one more would be too many
        ...
    """

    def __init__(self, places: int, queue: int) -> None:
        self.most = places + queue
        self.inside = 0
        self.closed = False

    @contextlib.contextmanager
    def admit(self) -> Iterator[None]:
        """Count a request in, and out at its end. Raises BusyError."""
        if self.closed:
            raise BusyError(CLOSED)
        if self.inside >= self.most:
            raise BusyError(BUSY)
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1
