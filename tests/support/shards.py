"""One process of a training run in several, to be forked off where torch is loaded already."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
from pathlib import Path

OWN_RECIPE = """
train = "projector+language"
batch = 4
rate = 5e-3
pack = 400
at_once = 1
bf16 = false
log_every = 1
"""
_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(["torch.distributed.fsdp", "torch.distributed.checkpoint", "lapilli.training.teach"])


def train(
    base: Path, data: Path, work: Path, *changes: str, world: int = 1, minutes: float | None = None
) -> list[float]:
    """Teach in so many processes; returns the loss of every step so far. The model goes to `work` with `.out`."""
    recipe = work.parent / "own.toml"
    recipe.write_text(OWN_RECIPE)
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port = door.getsockname()[1]
    started = [
        _FORKING.Process(target=_teach, args=(base, data, work, recipe, changes, rank, world, port, minutes))
        for rank in range(world)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(100)
        process.kill()
    assert [process.exitcode for process in started] == [0] * world
    return losses(work)


def losses(work: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (work / "metrics.jsonl").read_text().splitlines()]


def _teach(
    base: Path, data: Path, work: Path, recipe: Path, changes: tuple[str, ...], rank: int, world: int, port: int,
    minutes: float | None,
) -> None:  # fmt: skip
    import torch

    from lapilli.training import conversations
    from lapilli.training.distributed import leave
    from lapilli.training.recipe import Recipe
    from lapilli.training.talks import open_talks
    from lapilli.training.teach import prepare, teach

    torch.set_num_threads(1)
    if world > 1:
        os.environ |= {
            "RANK": str(rank),
            "WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    if "tower" in changes:
        conversations.LARGE_TOWER = 1
    chosen = Recipe.read(recipe, [change for change in changes if change != "tower"])
    teach(prepare(chosen, base, open_talks(data), work), work.with_name(f"{work.name}.out"), minutes=minutes,
          dtype=torch.float32)  # fmt: skip
    leave()
