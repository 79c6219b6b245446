"""Counting in and out: T92's figures, the same whether a model is loaded or not."""

from __future__ import annotations

import asyncio

import pytest

from lapilli.errors import BusyError
from lapilli.faces.admission import Admission


def test_so_many_and_no_more() -> None:
    async def work() -> None:
        admission = Admission(places=1, queue=4)
        gate = asyncio.Event()

        async def one() -> str:
            try:
                with admission.admit():
                    await gate.wait()
                    return "answered"
            except BusyError as error:
                return str(error)

        tasks = [asyncio.create_task(one()) for _ in range(50)]
        await asyncio.sleep(0.01)
        assert sum(task.done() for task in tasks) == 45, "a refusal waits for nobody"
        gate.set()
        # Two blanks, as clients know it.
        busy = "server busy, please try again.  maximum pending requests exceeded"
        assert sorted(await asyncio.gather(*tasks)) == ["answered"] * 5 + [busy] * 45
        assert admission.inside == 0

    asyncio.run(work())


def test_whoever_fails_is_counted_out() -> None:
    admission = Admission(places=1, queue=0)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), admission.admit():
            _ = 1 / 0
    assert admission.inside == 0


def test_closed() -> None:
    admission = Admission(places=1, queue=0)
    admission.closed = True
    with pytest.raises(BusyError, match="shutting down"), admission.admit():
        raise AssertionError("nobody is let in")
