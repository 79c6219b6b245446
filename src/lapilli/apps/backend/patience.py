"""How long an application bears a machine that fails."""

from __future__ import annotations

from typing import TypeGuard

from lapilli.errors import InputError, LapilliError

_MOST = 20


class Patience:
    """Counts failures of the machine in a row: no question is to blame for them."""

    def __init__(self) -> None:
        self._failures = 0

    def weigh(self, reply: object) -> None:
        """Count what came for a question. Raises it when it is the twentieth failure with nothing else between."""
        self._failures = self._failures + 1 if is_machines(reply) else 0
        if is_machines(reply) and self._failures >= _MOST:
            raise reply


def is_machines(reply: object) -> TypeGuard[LapilliError]:
    """Whether this is an error, and none of the question's own."""
    return isinstance(reply, LapilliError) and not isinstance(reply, InputError)
