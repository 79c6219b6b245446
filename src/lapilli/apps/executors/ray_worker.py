"""What runs on a node of a Ray cluster: one worker, its model in memory."""

from __future__ import annotations

import os
import platform
import queue
import threading
from concurrent.futures import Future

import lapilli
from lapilli.apps.executors.flow import flow, what_is_there
from lapilli.apps.executors.message import pack, pack_done, pack_error, unpack, unpack_shard
from lapilli.apps.jobs.work import Shard, Work, Worker


class RayWorker:
    """An actor: `open` once, then `rows` of several shards at a time, which go through the model without a seam.

    Everything that goes in or out is bytes of JSON.
    """

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[Shard | None] = queue.SimpleQueue()
        self._asked: dict[int, Future[bytes]] = {}

    def open(self, worker: str) -> bytes:
        """Open the worker; what this node is, or why it could not."""
        node = {"node": platform.node(), "lapilli": lapilli.__version__, "pid": os.getpid()}
        try:
            work = Worker.of_json(worker).open()
        except Exception as error:
            return pack({**node, **unpack(pack_error(error))})
        threading.Thread(target=self._work, args=(work,), name="work", daemon=True).start()
        return pack(node)

    def rows(self, shard: bytes) -> bytes:
        """A shard's rows, or what went wrong in their place."""
        asked = unpack_shard(shard)
        answer: Future[bytes] = Future()
        self._asked[asked.number] = answer
        self._waiting.put(asked)
        return answer.result()

    def _work(self, work: Work) -> None:
        while (first := self._waiting.get()) is not None:
            try:
                for done in flow(work, what_is_there(first, self._waiting)):
                    self._asked.pop(done.number).set_result(pack_done(done))
            except Exception as error:
                for number in list(self._asked):
                    self._asked.pop(number).set_result(pack_error(error))
