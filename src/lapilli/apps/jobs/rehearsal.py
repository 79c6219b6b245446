"""A worker without a model: it tries a folder, a cluster or an executor, and shows what they cost by themselves."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lapilli.apps.jobs.columns import Columns, canonical
from lapilli.apps.jobs.work import Item, Row

COLUMNS: Columns = {"item": "json", "line": "int", "sha256": "text"}


class Rehearsal:
    """Each item with its digest, on `lines` rows, after `seconds` of waiting or of work (`busy`)."""

    def __init__(self, *, lines: int = 1, seconds: float = 0.0, busy: bool = False) -> None:
        self.lines, self.seconds, self.busy = lines, seconds, busy

    def rows(self, items: Iterable[Item]) -> Iterator[Sequence[Row]]:
        for item in items:
            self._take_time()
            digest = hashlib.sha256(canonical(item).encode()).hexdigest()
            yield [{"item": item, "line": line, "sha256": digest} for line in range(self.lines)]

    def close(self) -> None:
        pass

    def _take_time(self) -> None:
        if not self.busy:
            time.sleep(self.seconds)
            return
        end = time.process_time() + self.seconds
        while time.process_time() < end:
            hashlib.sha256(bytes(4096)).digest()


def open_rehearsal(settings: Mapping[str, Any]) -> Rehearsal:
    """The worker; settings are `lines`, `seconds` and `busy`."""
    return Rehearsal(**settings)
