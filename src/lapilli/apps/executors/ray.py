"""Workers on a Ray cluster, an actor each; shards go out and rows come back, so that nodes need no shared disk.

Actors rather than Ray Data: a job's parts are its shards, by position, and Ray Data cuts blocks of its own; and what
was done is kept in the job's folder, where it outlives the cluster. So all that is asked of Ray is to hold models in
memory near their GPUs, and to say when one has died.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import lapilli
from lapilli.apps.executors.message import pack_shard, unpack, unpack_done
from lapilli.apps.executors.ray_worker import RayWorker
from lapilli.apps.executors.shares import Shares
from lapilli.apps.jobs.work import Done, Shard, Worker
from lapilli.errors import InputError, LapilliError

LOCAL = "local"
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
# Ray's name for it is odd; it has a cluster of one machine listen at 127.0.0.1 alone.
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
# How often it tries to reach a cluster, each time for half a minute; else it is twenty times.
_IMPATIENT = {"RAY_gcs_server_port_wait_time_s": "1"}
_STORE_BYTES = 128 << 20  # shards and rows are small


@dataclass(frozen=True)
class RayExecutor:
    """`address` is a cluster's ("auto", "host:port"), or "local" for one on this machine that ends with the run.

    `workers` are as many as there are GPUs, or nodes, unless told. A worker takes a GPU where there are some, else its
    share of a node's processors. `patience` is how many seconds no worker may be there before the run gives up.
    """

    address: str = LOCAL
    workers: int | None = None
    attempts: int = 3
    patience: float = 300.0

    def run(self, worker: Worker, shards: Iterator[Shard]) -> Generator[Done, None, None]:
        """Shards in whatever order they are done; a worker that died, or its node, is replaced where there is room.

        Raises InputError where no cluster is there, or its nodes have another lapilli.
        """
        first = next(shards, None)
        if first is None:
            return
        shares = Shares(itertools.chain([first], shards), attempts=self.attempts)
        ray = _ray(self.address)
        ours = not ray.is_initialized()
        if ours:
            _connect(ray, self.address)
        crew = _Crew(ray, worker, self.workers, self.patience)
        try:
            while True:
                crew.give(shares)
                if shares.empty:
                    return
                yield from crew.wait(shares)
        finally:
            crew.end()
            if ours:
                ray.shutdown()


class _Crew:
    """The actors, and what each of them was asked."""

    def __init__(self, ray: Any, worker: Worker, count: int | None, patience: float) -> None:
        self._ray, self._worker, self._patience = ray, worker, patience
        self._count, self._needs = _share_out(ray.nodes(), count)
        self._kind = ray.remote(RayWorker)
        self._opening: dict[Any, Any] = {}
        self._asked: dict[Any, Any] = {}
        self._ready: list[Any] = []
        self._deaths, self._since = 0, time.monotonic()
        for _ in range(self._count):
            self._start()

    def give(self, shares: Shares) -> None:
        """Hand out shards while there is somebody to take them."""
        for actor in self._ready:
            while (shard := shares.take(actor)) is not None:
                self._asked[actor.rows.remote(pack_shard(shard))] = actor

    def wait(self, shares: Shares) -> Iterator[Done]:
        """Wait until something happens, and give what is done."""
        happened, _ = self._ray.wait([*self._opening, *self._asked], num_returns=1, timeout=1.0)
        for reference in happened:
            opening, actor = reference in self._opening, self._opening.pop(reference, None)
            actor = actor if opening else self._asked.pop(reference, None)
            if actor is None:
                continue  # it was one of those that died together
            try:
                line: bytes = self._ray.get(reference)
            except self._ray.exceptions.RayTaskError:
                raise
            except self._ray.exceptions.RayError as error:
                self._bury(actor, shares, error)
                continue
            if opening:
                self._welcome(actor, unpack(line))
            else:
                done = unpack_done(line)
                shares.done(actor, done.number)
                self._deaths = 0
                yield done
        self._require_somebody()

    def end(self) -> None:
        """Take all actors off the cluster."""
        for actor in {*self._opening.values(), *self._ready}:
            self._ray.kill(actor)

    def _start(self) -> None:
        actor = self._kind.options(**self._needs).remote()
        self._opening[actor.open.remote(self._worker.to_json())] = actor

    def _welcome(self, actor: Any, said: dict[str, Any]) -> None:
        if "error" in said:
            raise InputError(f"a worker on {said['node']} cannot open the model: {said['text']}")
        if said["lapilli"] != lapilli.__version__:
            raise InputError(
                f"node {said['node']} has lapilli {said['lapilli']}, here it is {lapilli.__version__}: "
                "all need the same"
            )
        self._ready.append(actor)

    def _bury(self, actor: Any, shares: Shares, error: Exception) -> None:
        for told in [told for told, whose in self._asked.items() if whose is actor]:
            del self._asked[told]
        self._ready = [other for other in self._ready if other is not actor]
        self._ray.kill(actor)
        why = " ".join(str(error).split())[:200]
        self._deaths += 1
        if self._deaths > 3 * self._count:
            raise LapilliError(f"{self._deaths} workers in a row ended with nothing done, the last: {why}")
        shares.lost(actor, why)
        self._start()

    def _require_somebody(self) -> None:
        if self._ready:
            self._since = time.monotonic()
        elif time.monotonic() - self._since > self._patience:
            there = {name: self._ray.cluster_resources().get(name, 0) for name in ("CPU", "GPU")}
            raise LapilliError(
                f"no worker was ready for {self._patience:g} s: each needs {self._needs['num_cpus']:g} CPU and "
                f"{self._needs['num_gpus']:g} GPU, the cluster has {there['CPU']:g} and {there['GPU']:g}"
            )


def _share_out(nodes: list[dict[str, Any]], count: int | None) -> tuple[int, dict[str, Any]]:
    """How many workers there are, and what each takes of a node."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    gpus = int(sum(node.get("GPU", 0) for node in alive))
    able = [node["CPU"] for node in alive if node.get("CPU", 0) >= 1]
    count = count or gpus or max(1, len(able))
    on_a_node = -(-count // max(1, len(able)))
    cpus = max(1, int(min(able, default=1) // on_a_node))
    needs = {"num_gpus": 1, "num_cpus": 1} if gpus else {"num_gpus": 0, "num_cpus": cpus}
    return count, {**needs, "scheduling_strategy": "SPREAD", "max_concurrency": 4, "max_restarts": 0}


def _ray(address: str) -> Any:
    """The library, told to be quiet before it is imported: it reads its variables then."""
    for name, value in {**_QUIET, **(_LOOPBACK if address == LOCAL else _IMPATIENT)}.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise InputError("a cluster needs Ray: pip install 'lapilli[scale]'") from None
    return ray


def _connect(ray: Any, address: str) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    try:
        if address == LOCAL:
            ray.init(
                address=LOCAL, include_dashboard=False, object_store_memory=_STORE_BYTES,
                _system_config={"enable_metrics_collection": False}, **quiet,
            )  # fmt: skip
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"no Ray cluster at {address}: {' '.join(str(error).split())[:200]}") from None
