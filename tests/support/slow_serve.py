"""`lapilli serve` with a model that says twenty words, one every TEST_PAUSE seconds, and takes TEST_LOAD to load."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from fakes import FakeProcess, finished

from lapilli.engine.ask import LoadOrder, News
from lapilli.faces.cli import main
from lapilli.faces.residents import Residents


async def start(self: Residents, order: LoadOrder) -> Any:
    await asyncio.sleep(float(os.environ.get("TEST_LOAD", "0")))
    process = FakeProcess(order, sees=True)
    process.pause = float(os.environ.get("TEST_PAUSE", "0"))
    process.reply = lambda ask: [*(News(text=f"{number} ") for number in range(20)), News(finished=finished())]
    return process


if __name__ == "__main__":
    Residents._start_process = start  # type: ignore[method-assign]
    sys.exit(main(["serve"]))
