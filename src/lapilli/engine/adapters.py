"""Adapters that requests name: read once, those used last kept in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import torch

from lapilli.checkpoints.adapter import read_adapter
from lapilli.config import LlavaConfig
from lapilli.model.lora import Adapter

Stamp = tuple[str, tuple[tuple[str, int, int], ...]]


@dataclass(frozen=True, eq=False)
class Loaded:
    """An adapter, and a number from 1 that no other one of this engine has, nor the same one before its files changed.

    What a prompt leaves in the cache depends on the adapter, so the number goes into the root of its blocks.
    """

    adapter: Adapter
    number: int


class Adapters:
    """The adapters of one engine by their folders; safe from several threads."""

    def __init__(self, config: LlavaConfig, device: torch.device, kept: int = 4) -> None:
        self._config, self._device, self._most = config, device, kept
        self._kept: OrderedDict[Stamp, Loaded] = OrderedDict()
        self._numbers: dict[Stamp, int] = {}
        self._lock = threading.Lock()

    def get(self, folder: Path) -> Loaded:
        """The adapter in that folder, read where it is not kept. Raises CheckpointError as `read_adapter`."""
        with self._lock:
            stamp = _stamp(folder)
            loaded = self._kept.get(stamp)
            if loaded is None:
                adapter = read_adapter(folder, self._config, self._device)
                loaded = Loaded(adapter, self._numbers.setdefault(stamp, len(self._numbers) + 1))
                self._kept[stamp] = loaded
            self._kept.move_to_end(stamp)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
            return loaded

    def __len__(self) -> int:
        return len(self._kept)


def _stamp(folder: Path) -> Stamp:
    """What tells one state of a folder from another: its files' names, sizes and times."""
    try:
        files = sorted((path.name, path.stat()) for path in folder.iterdir())
    except OSError:
        files = []  # reading it says what is wrong
    return str(folder.resolve()), tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in files)
