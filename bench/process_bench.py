"""What it costs that a model runs in a process of its own: first token and rate, beside the same engine in this one.

Both answer the same questions in turn, with `mini`; every answer must be the same. They are drawn (hot, with a seed),
so that they are long. Processor time is the child's and the asking process's together. Medians.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.resources
import io
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numbers_page import Section, publish
from PIL import Image

from lapilli.engine.ask import Ask, LoadOrder
from lapilli.engine.local import LocalModel, open_checkpoint
from lapilli.engine.sampler import SamplingOptions
from lapilli.engine.service import EngineProcess

MINI = Path(str(importlib.resources.files("lapilli") / "models" / "mini"))
SAID = 96
SAMPLING: dict[str, Any] = {"max_tokens": SAID, "temperature": 2.0, "seed": 1}
# Seconds to the first token, tokens a second after it, milliseconds of processor time a token, the answers.
Measured = tuple[float, float, float, list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Time mini in a process of its own, and in this one.")
    parser.add_argument("--count", type=int, default=20, help="turns of each")
    parser.add_argument("--write", action="store_true")
    asyncio.run(measure(parser.parse_args().count))


async def measure(count: int) -> None:
    here = LocalModel(open_checkpoint(MINI, device="cpu"))
    there = await EngineProcess.start(LoadOrder(path=MINI, device="cpu"))
    rows = []
    for name, users, pictures in (
        ("a text, alone", 1, False),
        ("a picture, alone", 1, True),
        ("8 texts at once", 8, False),
    ):
        inside: list[Measured] = []
        outside: list[Measured] = []
        for turn in range(count + 2):  # the first two are for warming up
            asked = [question(turn, user, pictures) for user in range(users)]
            inside.append(in_process(here, asked))
            outside.append(await through_pipe(there, asked))
        assert [each[3] for each in inside] == [each[3] for each in outside], "the answers differ"
        first, rate, spent = (
            [statistics.median(float(each[n]) for each in runs[2:]) for runs in (inside, outside)] for n in (0, 1, 2)
        )
        rows.append(
            [
                name,
                *(f"{1000 * seconds:.1f}" for seconds in first),
                f"{first[1] / first[0]:.2f}",
                *(f"{tokens:.0f}" for tokens in rate),
                f"{rate[1] / rate[0]:.2f}",
                *(f"{milliseconds:.2f}" for milliseconds in spent),
            ]
        )
    await there.stop()
    section = Section("A process of its own")
    section.add(
        f"`mini`, {SAID} tokens an answer, medians of {count} turns; the same engine in this process and behind the "
        "pipe, in turn. All answers are the same. Of 8 at once the first word is the last one's."
    )
    header = ["", "first word here, ms", "there, ms", "ratio", "tokens/s here", "there", "ratio"]
    header += ["processor, ms a token, here", "there"]
    section.table(header, rows)
    publish(section)


def question(turn: int, user: int, pictures: bool) -> tuple[str, bytes | None]:
    """A question that was not asked before."""
    words = f"Tell me about number {turn} and about number {user}, please."
    return words, png(100 * turn + user) if pictures else None


def png(seed: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (128, 128, 3), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


def in_process(model: LocalModel, asked: Sequence[tuple[str, bytes | None]]) -> Measured:
    began = time.perf_counter()
    spent, jobs = time.process_time(), []
    for words, picture in asked:
        prompt = model.prompt(words, [picture] if picture else [])
        jobs.append(model.engine.submit(prompt, SamplingOptions(**SAMPLING)))
    first, answers = {}, {}
    for job, chunk in model.engine.stream_all(jobs):
        if chunk.text.strip():
            first.setdefault(job, time.perf_counter() - began)
        if chunk.answer is not None:
            answers[job] = chunk.answer
    counts = [len(answer.token_ids) for answer in answers.values()]
    texts = [answers[job].text for job in jobs]
    return told(began, list(first.values()), counts, time.process_time() - spent, texts)


async def through_pipe(process: EngineProcess, asked: Sequence[tuple[str, bytes | None]]) -> Measured:
    began, spent = time.perf_counter(), time.process_time() + processor_time(process.pid)

    async def ask(words: str, picture: bytes | None) -> tuple[float, int, str]:
        message = {"role": "user", "content": words, "pictures": [0] if picture else []}
        first, text, count = 0.0, "", 0
        async for news in process.ask(
            Ask(messages=(message,), pictures=(picture,) if picture else (), sampling=SAMPLING)
        ):
            if news.text.strip():
                first = first or time.perf_counter() - began
            text += news.text
            count = news.finished.completion_tokens if news.finished else 0
        return first, count, text

    answers = await asyncio.gather(*(ask(*each) for each in asked))
    spent = time.process_time() + processor_time(process.pid) - spent
    return told(began, [a[0] for a in answers], [a[1] for a in answers], spent, [a[2] for a in answers])


def processor_time(pid: int) -> float:
    """Seconds that a process has computed."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def told(began: float, first: list[float], counts: list[int], spent: float, texts: list[str]) -> Measured:
    spoken, said = time.perf_counter() - began - max(first), sum(counts)
    return max(first), (said - len(counts)) / spoken, 1000 * spent / said, [text.strip() for text in texts]


if __name__ == "__main__":
    main()
