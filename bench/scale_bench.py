"""Many records: all together on the engine beside one request after another, and what more workers bring.

The records are made: an instruction that all share, then the words of a trial, answered as JSON under a schema, by
`mini`. The executors themselves are timed with a worker that only waits, so that a machine's cores do not matter.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
from numbers_page import Section, publish

from lapilli.apps.backend.call import Backend
from lapilli.apps.backend.opening import open_backend
from lapilli.apps.batch import Answering, Asking, Questions, run_batch
from lapilli.apps.executors.opening import open_executor
from lapilli.apps.jobs import rehearsal
from lapilli.apps.jobs.job import Job
from lapilli.apps.jobs.work import Executor, Row, Worker
from lapilli.ground.machine import cores

BAR = 3.0
LONGEST = 48
SHARD = 8
WAIT = 0.1  # seconds that the waiting worker takes for an item
INSTRUCTION = (
    "You read the entry of a register of clinical trials and say what is given or done to the people who take part. "
    "Answer as JSON. Copy each name as it is written in the entry, without the dose, and leave out what is measured. "
    "A drug has a dose, a route and how often it is given; a device or a procedure has none of these. Where two things "
    "are given together, name the first. Where a placebo is given as well, it is a comparison and not what is tried. "
) * 2
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 32},
        "kind": {"enum": ["Drug", "Device", "Procedure", "Behavioral", "Other"]},
        "new": {"type": "boolean"},
    },
    "required": ["name", "kind", "new"],
    "additionalProperties": False,
}
STEMS = ("cor", "vel", "tan", "mi", "ras", "lo", "pex", "dur", "fen", "gal")
ENDS = ("mab", "tinib", "gliptin", "statin", "cept", "prazole")
PLACES = ("the knee", "the liver", "the lung", "the skin", "the eye", "the heart")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time many records: together, one by one, and on more workers.")
    parser.add_argument("--records", type=int, default=96)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--no-ray", action="store_true", help="processes alone")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        questions = made(Path(folder), options.records)
        publish(together(questions, Path(folder)))
        publish(scaling(questions, Path(folder), options.workers, ray=not options.no_ray))


def made(folder: Path, count: int) -> Questions:
    """The records as a file of questions."""
    draw = random.Random(7)
    path = folder / "records.jsonl"
    with path.open("w") as file:
        for _ in range(count):
            line = {"system": INSTRUCTION, "question": record(draw), "schema": SCHEMA}
            file.write(json.dumps({**line, "options": {"max_tokens": LONGEST}}) + "\n")
    return Questions.read(path)


def record(draw: random.Random) -> str:
    """An entry that nobody has registered."""
    drug = "".join(draw.sample(STEMS, 2)).capitalize() + draw.choice(ENDS)
    place, dose, weeks = draw.choice(PLACES), draw.randrange(5, 500, 5), draw.randrange(2, 60)
    people = f"{draw.randrange(20, 900)} people with pain of {place}, aged {draw.randrange(18, 50)} or more"
    return (
        f"Title: {drug} {dose} mg for pain of {place}, a randomised trial. Conditions: pain of {place}. "
        f"Interventions: Drug: {drug}; Drug: Placebo. Arms: {drug} {dose} mg by mouth twice a day for {weeks} weeks; "
        f"a placebo that looks the same, for {weeks} weeks. Summary: {people} are given {drug} or a placebo at random, "
        f"and say each week how strong the pain is. Nobody knows who has been given what until the end."
    )


def together(questions: Questions, folder: Path) -> Section:
    """Records a second on the engine, all together, beside one request after another to a server with the model."""
    with open_backend("mini") as here, served(folder) as url, open_backend("mini", url=url) as there:
        batched, one_by_one = Asking(here, folder), Asking(OneByOne(there), folder)  # type: ignore[arg-type]
        first = list(questions.each())[:4]
        for asking in (batched, one_by_one):  # warm
            list(asking.rows(iter(first)))
        here_seconds, said = timed(batched, questions)
        there_seconds, told = timed(one_by_one, questions)
    agree = sum(a["answer"] == b["answer"] for a, b in zip(said, told, strict=True))
    prompt, answer = (sum(row[name] for row in said) / len(said) for name in ("prompt_tokens", "tokens"))
    section = Section("Records together, and one after another")
    section.add(
        f"`mini`, {len(said)} made records under one instruction: {prompt:.0f} tokens of prompt and {answer:.0f} of "
        f"JSON each. Of the answers {agree} are the same."
    )
    rates = [len(said) / here_seconds, len(told) / there_seconds]
    section.table(
        ["", "records/s"],
        [
            ["all together on the engine", f"{rates[0]:.1f}"],
            ["one request after another to our server", f"{rates[1]:.1f}"],
            ["ratio", f"{rates[0] / rates[1]:.2f} (bar {BAR:g})"],
        ],
    )
    return section


def timed(asking: Asking, questions: Questions) -> tuple[float, list[Row]]:
    started = time.perf_counter()
    rows = [row for rows in asking.rows(questions.each()) for row in rows]
    return time.perf_counter() - started, rows


class OneByOne:
    """A backend of which nobody asks a second thing before the first is answered."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def ask_all(self, calls: Any, *, window: int) -> Iterator[Any]:
        return map(self._backend.ask, calls)


def scaling(questions: Questions, folder: Path, counts: list[int], *, ray: bool) -> Section:
    """Items a second with more workers, and each count's share of the ideal."""
    section = Section("More workers")
    section.add(
        f"Workers on one machine with {cores()} cores; the waiting worker takes {1000 * WAIT:.0f} ms for an item, mini "
        f"answers {questions.items} records. Opening models is counted, Ray's own start is not: the time is that from "
        "the first part to the last. Parts are the same bytes in every row."
    )
    rows, digests = [], set()
    for name in ("processes", "Ray nodes") if ray else ("processes",):
        base: dict[str, float] = {}
        for count in counts:
            with executor_of(name, count) as executor:
                for what, run in (("waiting", waiting), ("mini", answering)):
                    place = folder / f"{name}-{count}-{what}"
                    rate = run(questions, place, executor, count)
                    digests.add((what, content(place)))
                    base.setdefault(what, rate / counts[0])
                    rows.append([name, count, what, f"{rate:.1f}", f"{rate / base[what]:.2f}"])
    assert len(digests) == 2, "the parts differ"
    section.table(["executor", "workers", "work", "items/s", "times one worker"], rows)
    return section


def waiting(questions: Questions, out: Path, executor: Executor, count: int) -> float:
    worker = Worker("lapilli.apps.jobs.rehearsal:open_rehearsal", {"seconds": WAIT})
    clock = Clock()
    with Job.open(out, {}, shard=SHARD, columns=rehearsal.COLUMNS) as job:
        job.run(lambda: iter({"n": n} for n in range(40 * SHARD)), worker, executor=executor, progress=clock.hear)
    return clock.rate


def answering(questions: Questions, out: Path, executor: Executor, count: int) -> float:
    clock = Clock()
    run_batch(questions, out, Answering(), executor=executor, shard=SHARD, progress=clock.hear)
    return clock.rate


class Clock:
    """Items a second from the first part on."""

    def __init__(self) -> None:
        self._heard: list[tuple[float, int]] = []

    def hear(self, report: Any) -> None:
        self._heard.append((time.perf_counter(), report.items))

    @property
    def rate(self) -> float:
        (began, before), (ended, after) = self._heard[0], self._heard[-1]
        return (after - before) / max(ended - began, 1e-9)


def content(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted((folder / "parts").iterdir()))


@contextlib.contextmanager
def executor_of(name: str, count: int) -> Iterator[Executor]:
    """So many processes, or a cluster of so many nodes with a worker on each."""
    if name == "processes":
        yield open_executor(workers=count)
        return
    with cluster(count) as address:
        yield open_executor(workers=count, ray=address)


@contextlib.contextmanager
def cluster(count: int) -> Iterator[str]:
    """So many nodes on this machine, at 127.0.0.1 alone."""
    for variable, value in (("RAY_USAGE_STATS_ENABLED", "0"), ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")):
        os.environ[variable] = value
    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=node)
    try:
        for _ in range(count - 1):
            nodes.add_node(**node)
        ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR", configure_logging=False)
        yield nodes.address
    finally:
        ray.shutdown()
        nodes.shutdown()


@contextlib.contextmanager
def served(home: Path) -> Iterator[str]:
    """A live server on a free port, with a store of its own."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {**os.environ, "LAPILLI_HOST": f"127.0.0.1:{port}", "LAPILLI_MODELS": str(home / "models")}
    with (home / "log").open("wb") as log:
        server = subprocess.Popen([sys.executable, "-m", "lapilli", "serve"], env=environment, stderr=log, stdout=log)
        url = f"http://127.0.0.1:{port}"
        try:
            for _ in range(600):
                with contextlib.suppress(httpx2.HTTPError):
                    if httpx2.get(f"{url}/readyz").status_code == 200:
                        break
                time.sleep(0.1)
            yield url
        finally:
            server.terminate()
            server.wait(60)


if __name__ == "__main__":
    main()
