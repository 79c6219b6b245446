"""Pulls through a faulty registry, judged: how each ended, and how many bytes it took."""

from __future__ import annotations

import hashlib
import random
import tempfile
import threading
from pathlib import Path

import httpcore2
from faulty_registry import FaultyRegistry

from lapilli import LapilliError, RegistryError
from lapilli.ground import door
from lapilli.store.library import Library
from lapilli.store.registry import pull
from lapilli.store.transfer import TransferSettings


class Counting:
    """A network that counts the bytes that arrive."""

    def __init__(self) -> None:
        self.received = 0
        self._lock = threading.Lock()

    def connect(self, address: str, port: int, seconds: float) -> httpcore2.NetworkStream:
        return _CountingStream(door.connect(address, port, seconds), self)

    def count(self, data: bytes) -> bytes:
        with self._lock:
            self.received += len(data)
        return data


class _CountingStream(httpcore2.NetworkStream):
    def __init__(self, inner: httpcore2.NetworkStream, counting: Counting) -> None:
        self._inner = inner
        self._counting = counting

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._counting.count(self._inner.read(max_bytes, timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, timeout)

    def close(self) -> None:
        self._inner.close()

    def get_extra_info(self, info: str) -> object:
        return self._inner.get_extra_info(info)


def fault_rate(seed: int) -> float:
    """Between 5 and 30 %."""
    return 0.05 + 0.25 * random.Random(seed).random()


def pull_once(seed: int, rate: float, size: int) -> tuple[str, int, int, list[str]]:
    """One pull; how it ended (`right`, `error: …`, `WRONG: …`), bytes of the model, bytes received, faults met."""
    data = random.Random(seed).randbytes(size)
    counting = Counting()
    with tempfile.TemporaryDirectory() as folder, FaultyRegistry(seed=seed, rate=rate, stall=0.6) as registry:
        blobs = registry.add("library/model:latest", data, b"a license\n" * 50, b"a template")
        settings = TransferSettings(
            least_part=size // 16,
            segment=size // 64,
            stall=0.3,
            backoff=0.01,
            longest_backoff=0.2,
            allowed_registries=frozenset({registry.host}),
            network=door.Network(connect=counting.connect),
        )
        library = Library(Path(folder))
        try:
            pull(library, f"{registry.host}/library/model", insecure=True, settings=settings)
            ending = "right"
            for digest, content in blobs.items():
                if library.blobs.path(digest).read_bytes() != content:
                    ending = f"WRONG: {digest}"
        except RegistryError as error:
            ending = f"error: {error}"
        except LapilliError as error:
            ending = f"WRONG: {type(error).__name__}: {error}"
        for digest in library.blobs:
            if f"sha256:{hashlib.sha256(library.blobs.path(digest).read_bytes()).hexdigest()}" != digest:
                ending = f"WRONG: {digest} is kept with other bytes"
        return ending, sum(map(len, blobs.values())), counting.received, registry.faults
