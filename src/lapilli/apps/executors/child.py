"""A worker in a process of its own: shards come in through a pipe, their rows go out through another."""

from __future__ import annotations

import io
import os
import queue
import signal
import sys
import threading
import traceback
from typing import BinaryIO

from lapilli.apps.executors.flow import flow, what_is_there
from lapilli.apps.executors.message import pack_done, pack_error, unpack_shard
from lapilli.apps.jobs.work import Shard, Work, Worker
from lapilli.ground.parent import die_with


def main(parent: int) -> None:
    """Work until the pipe closes; `parent` is the process that must live."""
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who started us decides
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), io.FileIO(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # what anything prints goes to the log, not between the lines
    try:
        _work(Worker.of_json(incoming.readline().decode()).open(), incoming, outgoing)
    except BrokenPipeError:
        os._exit(0)  # nobody is there any more
    except BaseException as error:
        traceback.print_exc()
        _write(outgoing, pack_error(error))
        os._exit(1)
    os._exit(0)


def _work(work: Work, incoming: BinaryIO, outgoing: io.FileIO) -> None:
    waiting: queue.SimpleQueue[Shard | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(incoming, waiting), name="pipe", daemon=True).start()
    while (first := waiting.get()) is not None:
        for done in flow(work, what_is_there(first, waiting)):
            _write(outgoing, pack_done(done))
    sys.stdout.flush()


def _listen(incoming: BinaryIO, waiting: queue.SimpleQueue[Shard | None]) -> None:
    for line in incoming:
        waiting.put(unpack_shard(line))
    waiting.put(None)


def _write(outgoing: io.FileIO, line: bytes) -> None:
    left = memoryview(line)
    while left:
        left = left[outgoing.write(left) :]
