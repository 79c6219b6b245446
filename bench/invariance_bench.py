"""The same bits alone and in company: `mini` asked 8 at a time, pictures and texts mixed, beside each request alone.

One request in ten is aborted, and the cache is so small that some must give way and are read again. Every token and
every log-probability is compared with those of an engine that has nothing else to do.
"""

from __future__ import annotations

import argparse
import importlib.resources
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numbers_page import Section, publish
from PIL import Image

from lapilli.engine.answer import Answer
from lapilli.engine.engine import Engine, EngineOptions, Job
from lapilli.engine.grammar import Constraint
from lapilli.engine.local import LocalModel, open_checkpoint
from lapilli.engine.sampler import SamplingOptions
from lapilli.inputs.prompt import Prompt
from lapilli.store.features import FeatureCache

Request = tuple[Prompt, SamplingOptions, Constraint | None]
MINI = Path(str(importlib.resources.files("lapilli") / "models" / "mini"))
AT_ONCE = 8
BLOCKS = 16  # of the small cache: the longest request nearly fills it
QUESTIONS = (
    "What is in this picture?", "How many things are there?", "What colour is it?", "Hello!", "What can you do?",
    "Say something about a cat, a dog, and everything else that comes to your mind when you think of them.",
)  # fmt: skip


@dataclass
class Seen:
    """What happened while all were asked together."""

    answers: dict[int, Answer]
    aborted: int = 0
    gave_way: int = 0
    cached: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare answers in company with answers alone.")
    parser.add_argument("--count", type=int, default=1000, help="requests")
    parser.add_argument("--seed", type=int, default=7, help="other requests")
    parser.add_argument("--quantize", choices=("int8", "int4"), help="round the weights on loading")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    model = LocalModel(open_checkpoint(MINI, device="cpu", quantize=options.quantize))
    rng = random.Random(options.seed)
    pictures = [picture(seed) for seed in range(24)]
    requests = [drawn(model, rng, pictures) for _ in range(options.count)]
    began = time.perf_counter()
    seen = together(model, requests, rng)
    seconds, said = time.perf_counter() - began, sum(len(answer.token_ids) for answer in seen.answers.values())
    different = [n for n, answer in seen.answers.items() if essence(answer) != essence(alone(model, requests[n]))]
    name = "Alone and in company" + (f", {options.quantize}" if options.quantize else "")
    section = Section(name)
    shown = sum(bool(prompt.images) for prompt, *_ in requests)
    section.add(
        f"{options.count} requests to `mini`, {AT_ONCE} at a time, {shown} of them with pictures, half of them drawn "
        f"with a seed, some under a grammar, in a cache of {BLOCKS} blocks: {seen.aborted} were aborted, "
        f"{seen.gave_way} times one gave way and was read again, {seen.cached} tokens were found in the cache. "
        f"Of the {len(seen.answers)} answers, with {said} tokens, **{len(different)}** differ from the answer alone "
        f"in any token or any bit of a log-probability. Together they took {seconds:.0f} s."
    )
    publish(section)
    sys.exit(1 if different else 0)


def picture(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((int(rng.integers(40, 200)), 96))


def drawn(model: LocalModel, rng: random.Random, pictures: Sequence[Image.Image]) -> Request:
    shown = [rng.choice(pictures) for _ in range(rng.choice((0, 0, 1, 1, 2)))]
    system = rng.choice((None,) * 4 + ("You answer in short sentences, and only what can be seen. " * 8,))
    hot = {"temperature": 2.5, "seed": rng.randrange(1000)} if rng.random() < 0.5 else {}
    options = SamplingOptions(max_tokens=rng.choice((8, 100, 150)), logprobs=1, **hot)
    # A form that makes answers long, or those of a small model would fit into any cache.
    form = Constraint.regex("[a-z ,.]{300,600}") if rng.random() < 0.6 else None
    return model.prompt(rng.choice(QUESTIONS), shown, system=system), options, form


def together(model: LocalModel, requests: Sequence[Request], rng: random.Random) -> Seen:
    text = model.config.text
    a_block = 2 * text.num_layers * text.num_kv_heads * text.head_dim * 4 * 32
    engine = Engine(model.checkpoint, EngineOptions(running=AT_ONCE, cache_bytes=BLOCKS * a_block))
    doomed = {number: rng.randrange(2, 10) for number in range(len(requests)) if rng.random() < 0.1}
    waiting, running, seen = list(reversed([*enumerate(requests)])), dict[int, Job](), Seen({})
    steps = dict[int, int]()
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            number, request = waiting.pop()
            running[number], steps[number] = engine.submit(*request), 0
        before = {*engine.scheduler.running}
        engine.step()
        seen.gave_way += len(before & {*engine.scheduler.waiting})
        for number, job in list(running.items()):
            steps[number] += 1
            if job.error is not None:
                raise job.error
            if job.over:
                answer = next(chunk.answer for chunk in job.news if chunk.answer)
                seen.answers[number] = answer
                seen.cached += answer.cached_tokens
                del running[number]
            elif doomed.get(number) == steps[number]:
                engine.abort(job)
                seen.aborted += 1
                del running[number]
    assert engine.scheduler.pool.free == engine.scheduler.pool.count, "a block was lost"
    return seen


def alone(model: LocalModel, request: Request) -> Answer:
    """The answer of a new engine, with room for everything and nothing known before."""
    engine = Engine(model.checkpoint, EngineOptions(), FeatureCache(1 << 20))
    return next(chunk.answer for chunk in engine.stream(engine.submit(*request)) if chunk.answer)


def essence(answer: Answer) -> tuple[object, ...]:
    return answer.token_ids, answer.text, answer.finish_reason, answer.logprobs


if __name__ == "__main__":
    main()
