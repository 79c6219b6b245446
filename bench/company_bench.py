"""Several at once beside llama.cpp: eight users, a short question beside a long one, and records under one instruction.

The decoder of the bench's LLaVA (1.1 B, random weights, Q4_K_M): here in the engine, in llama.cpp with eight sequences
in a context, and for the records asked one after another with its prompt cache on. All take turns in one run.
Needs `pip install llama-cpp-python`.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from engine_models import llava_1b
from numbers_page import Section, publish

import lapilli
from lapilli.checkpoints.quantize import quantize_checkpoint
from lapilli.engine.engine import EngineOptions
from lapilli.engine.grammar import Constraint
from lapilli.engine.local import LocalModel
from lapilli.engine.sampler import SamplingOptions
from lapilli.inputs.prompt import Prompt

USERS, SAID = 8, 32
INSTRUCTION, RECORD = 600, 200
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 40}, "new": {"type": "boolean"}},
    "required": ["name", "new"],
    "additionalProperties": False,
}
LONGEST = 48


def main() -> None:
    parser = argparse.ArgumentParser(description="Time several at once, here and in llama.cpp.")
    parser.add_argument("--work", type=Path, required=True, help="folder for the checkpoints that the bench makes")
    parser.add_argument("--records", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    folder, model = llava_1b(options.work / "llava-1b"), options.work / "llava-1b-Q4_K_M.gguf"
    if not model.exists():
        quantize_checkpoint(folder, model, "Q4_K_M")
    ours = lapilli.load(model, engine=EngineOptions(speculate=False))
    theirs = LlamaCpp(model)
    draw = np.random.default_rng(7)
    publish(users(ours, theirs, draw, options.repeats))
    publish(patience(ours, draw, options.repeats))
    publish(records(ours, theirs, draw, options.records))
    theirs.close()


def users(ours: LocalModel, theirs: LlamaCpp, draw: np.random.Generator, repeats: int) -> Section:
    """Tokens a second of eight users' answers to short questions."""
    here, there = [], []
    for _ in range(repeats + 1):
        prompts = [tokens(draw, 24) for _ in range(USERS)]
        here.append(rate_here(ours, prompts))
        there.append(theirs.rate(prompts))
    mine, peer = statistics.median(here[1:]), statistics.median(there[1:])
    section = Section("A LLaVA of 1.4 B, eight users beside llama.cpp")
    section.add(f"Q4_K_M, {SAID} tokens for each of {USERS} users after 24 tokens of prompt; medians of {repeats}.")
    section.table(
        ["", "tokens/s in all"],
        [["lapilli", f"{mine:.1f}"], ["llama.cpp, 8 sequences", f"{peer:.1f}"], ["ratio", f"{mine / peer:.2f}"]],
    )
    return section


def rate_here(model: LocalModel, prompts: Sequence[Sequence[int]]) -> float:
    engine = model.engine
    jobs = [engine.submit(Prompt(list(prompt)), SamplingOptions(max_tokens=2 * SAID)) for prompt in prompts]
    while any(job.request.reading for job in jobs):
        engine.step()
    said, started = sum(job.request.said for job in jobs), time.perf_counter()
    for _ in range(SAID):
        engine.step()
    rate = (sum(job.request.said for job in jobs) - said) / (time.perf_counter() - started)
    for job in jobs:
        engine.abort(job)
    return rate


def patience(model: LocalModel, draw: np.random.Generator, repeats: int) -> Section:
    """How long a short question waits that comes while a long prompt is read, in chunks of that reading."""
    engine, chunk, waits = model.engine, model.engine.options.chunk, []
    for _ in range(8 * repeats):
        long = engine.submit(Prompt(tokens(draw, 12 * chunk)), SamplingOptions(max_tokens=1))
        engine.step()
        started = time.perf_counter()
        engine.step()
        a_chunk = time.perf_counter() - started
        came = time.perf_counter()
        short = engine.submit(Prompt(tokens(draw, 16)), SamplingOptions(max_tokens=1))
        while not short.over:
            engine.step()
        waits.append((time.perf_counter() - came) / a_chunk)
        for job in (long, short):
            engine.abort(job)
    section = Section("A short question beside a long prompt")
    section.add(
        f"A prompt of {12 * chunk} tokens is read {chunk} at a time; a question of 16 tokens comes in its midst. Its "
        f"first token is there after {statistics.median(waits):.2f} times what a chunk takes (median of {len(waits)}), "
        f"p95 {statistics.quantiles(waits, n=20)[-1]:.2f}."
    )
    return section


def records(ours: LocalModel, theirs: LlamaCpp, draw: np.random.Generator, count: int) -> Section:
    """Records a minute under one long instruction, each answered as JSON that keeps a schema."""
    instruction = tokens(draw, INSTRUCTION)
    prompts = [[*instruction, *tokens(draw, RECORD)] for _ in range(count)]
    form = Constraint.json_schema(SCHEMA)
    started = time.perf_counter()
    answers = ours.complete([Prompt(list(prompt)) for prompt in prompts], SamplingOptions(max_tokens=LONGEST), form)
    here = time.perf_counter() - started
    started = time.perf_counter()
    told = [theirs.answer(prompt) for prompt in prompts]
    there = time.perf_counter() - started
    section = Section("Records under one instruction, beside llama.cpp")
    section.add(
        f"Q4_K_M; an instruction of {INSTRUCTION} tokens, then {count} different records of {RECORD}, each answered "
        f"with at most {LONGEST} tokens of JSON under a schema: here all together, in llama.cpp one after another with "
        "its prompt cache on."
    )
    mine = sum(answer.completion_tokens for answer in answers)
    section.table(
        ["", "records a minute", "tokens said", "tokens of the prompts found again"],
        [
            ["lapilli", f"{60 * count / here:.1f}", mine, sum(answer.cached_tokens for answer in answers)],
            ["llama.cpp", f"{60 * count / there:.1f}", sum(told), "not told"],
            ["ratio", f"{there / here:.2f}", "", ""],
        ],
    )
    return section


def tokens(draw: np.random.Generator, length: int) -> list[int]:
    """Ids of words, none that mean something special."""
    return [int(token) for token in draw.integers(300, 4000, length)]


class LlamaCpp:
    """The same file in llama.cpp, by its C functions and by its Python class."""

    def __init__(self, model: Path) -> None:
        import llama_cpp

        self._c: Any = llama_cpp
        self._quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)  # kept: C holds its address
        llama_cpp.llama_log_set(self._quiet, ctypes.c_void_p(0))
        threads = torch.get_num_threads()
        self.model = llama_cpp.Llama(
            str(model), n_ctx=4096, n_threads=threads, n_threads_batch=threads, n_gpu_layers=0, verbose=False
        )
        self._grammar = llama_cpp.LlamaGrammar.from_json_schema(json.dumps(SCHEMA), verbose=False)
        wish = llama_cpp.llama_context_default_params()
        wish.n_ctx, wish.n_seq_max, wish.n_batch = 4096, USERS, 512
        wish.n_threads = wish.n_threads_batch = threads
        self._slots = llama_cpp.llama_init_from_model(self.model._model.model, wish)

    def close(self) -> None:
        """Free its memory while its log's function is still there to be called."""
        self._c.llama_free(self._slots)
        self.model.close()

    def rate(self, prompts: Sequence[Sequence[int]]) -> float:
        """Tokens a second of sequences that are decoded together, a token of each in a batch."""
        c = self._c
        c.llama_memory_clear(c.llama_get_memory(self._slots), True)
        batch = c.llama_batch_init(512, 0, 1)
        try:
            self._put(batch, [(t, n, s, n == len(p) - 1) for s, p in enumerate(prompts) for n, t in enumerate(p)])
            ends, at = [], -1
            for prompt in prompts:
                at += len(prompt)
                ends.append(at)
            following = [self._best(place) for place in ends]
            started = time.perf_counter()
            for step in range(SAID):
                pairs = enumerate(zip(following, prompts, strict=True))
                rows = [(token, len(prompt) + step, sequence, True) for sequence, (token, prompt) in pairs]
                self._put(batch, rows)
                following = [self._best(row) for row in range(len(prompts))]
            return SAID * len(prompts) / (time.perf_counter() - started)
        finally:
            c.llama_batch_free(batch)

    def _put(self, batch: Any, rows: Sequence[tuple[int, int, int, bool]]) -> None:
        batch.n_tokens = len(rows)
        for row, (token, position, sequence, told) in enumerate(rows):
            batch.token[row], batch.pos[row], batch.logits[row] = token, position, told
            batch.n_seq_id[row] = 1
            batch.seq_id[row][0] = sequence
        if self._c.llama_decode(self._slots, batch):
            raise RuntimeError("llama.cpp could not decode the batch")

    def _best(self, row: int) -> int:
        size = self.model.n_vocab()
        return int(np.ctypeslib.as_array(self._c.llama_get_logits_ith(self._slots, row), (size,)).argmax())

    def answer(self, prompt: Sequence[int]) -> int:
        """How many tokens it says; what it read for the last one and this one begins with, it does not read again."""
        said = self.model.create_completion(list(prompt), max_tokens=LONGEST, temperature=0.0, grammar=self._grammar)
        return int(said["usage"]["completion_tokens"])


if __name__ == "__main__":
    main()
