"""One picture and a question, and eight users at once, on a LLaVA of true size: here, in transformers and in llama.cpp.

The model is made by the bench (CLIP ViT-L/14-336, a Llama decoder of 1.1 B, random weights) and quantized by
`lapilli quantize` to Q4_K_M; llama.cpp reads the same two files, transformers the folder they came from, in bfloat16.
All take turns in one run, each figure is a median. Needs `pip install llama-cpp-python transformers`.
"""

from __future__ import annotations

import argparse
import base64
import gc
import io
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from engine_models import llava_1b
from numbers_page import Section, publish
from PIL import Image

import lapilli
from lapilli.checkpoints.quantize import quantize_checkpoint
from lapilli.engine.engine import EngineOptions
from lapilli.engine.local import LocalModel
from lapilli.engine.sampler import SamplingOptions

SAID = 48
QUESTIONS = ("What is in this picture?", "And what is behind it?")
SYSTEM = "You answer in short sentences, and only what can be seen."


@dataclass
class Times:
    """Seconds to the first token of two questions about a new picture, and tokens a second after it."""

    first: list[float] = field(default_factory=list)
    second: list[float] = field(default_factory=list)
    encode: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)

    def median(self, name: str) -> float:
        values = getattr(self, name)
        return statistics.median(values) if values else float("nan")


Runtime = Callable[[Image.Image, Times], None]


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a LLaVA of true size here and in its peers.")
    parser.add_argument("--work", type=Path, required=True, help="folder for the checkpoints that the bench makes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--without", default="", help="peers to leave out: transformers, llama.cpp")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    folder = llava_1b(options.work / "llava-1b")
    model, tower = options.work / "llava-1b-Q4_K_M.gguf", options.work / "mmproj-llava-1b-Q4_K_M.gguf"
    if not model.exists():
        quantize_checkpoint(folder, model, "Q4_K_M")
    ours = lapilli.load(model, engine=EngineOptions(speculate=False))
    runtimes: dict[str, Runtime] = {"lapilli, Q4_K_M": lambda picture, times: ask_lapilli(ours, picture, times)}
    peers = [name for name in ("llama.cpp", "transformers") if name not in options.without]
    if "llama.cpp" in peers:
        theirs = LlamaCpp(model, tower)
        runtimes["llama.cpp, Q4_K_M"] = theirs.ask
    if "transformers" in peers:
        runtimes["transformers, bfloat16"] = Transformers(folder).ask
    times = {name: Times() for name in runtimes}
    for turn in range(options.repeats + 1):
        for name, ask in runtimes.items():
            ask(picture(turn), times[name] if turn else Times())  # the first turn is for warming up
    section = Section("A LLaVA of 1.4 B, one user")
    section.add(
        f"CLIP ViT-L/14-336 and a Llama decoder of 1.1 B, random weights, one picture of 336 pixels (576 tokens) and a "
        f"short question, then another question about it with a system prompt before it; {SAID} tokens of answer. "
        f"Medians of {options.repeats}, taking turns; reading memory gives {bandwidth():.1f} GB/s here."
    )
    rows = [
        [name, told(t, "encode"), told(t, "first"), told(t, "second"), told(t, "decode", 1)]
        for name, t in times.items()
    ]
    header = ["", "picture encoded, s", "first token, s", "second question, s", "decode, tokens/s"]
    section.table(header, rows)
    mine = times["lapilli, Q4_K_M"]
    section.table(
        ["lapilli is so many times as fast as", "encoding", "first token", "second question", "decode"],
        [
            [name, *(ratio(t, mine, what) for what in ("encode", "first", "second")), ratio(mine, t, "decode")]
            for name, t in times.items() if t is not mine
        ],
    )  # fmt: skip
    publish(section)
    gc.collect()
    publish(company(ours))


def told(times: Times, what: str, digits: int = 2) -> str:
    value = times.median(what)
    return "not told" if value != value else f"{value:.{digits}f}"


def ratio(slow: Times, fast: Times, what: str) -> str:
    value = slow.median(what) / fast.median(what)
    return "not told" if value != value else f"{value:.2f}"


def company(model: LocalModel) -> Section:
    """Decoding for 1, 2, 4 and 8 users at once."""
    section, rows, alone = Section("A LLaVA of 1.4 B, several users"), [], 0.0
    prompts = [model.prompts.raw(f"USER: What is the {word} like? ASSISTANT:") for word in "abcdefgh"]
    for users in (1, 2, 4, 8):
        rates = []
        for _ in range(3):
            jobs = [model.engine.submit(prompt, options()) for prompt in prompts[:users]]
            while any(job.request.reading for job in jobs):
                model.engine.step()
            said, started = sum(job.request.said for job in jobs), time.perf_counter()
            for _ in range(24):
                model.engine.step()
            rates.append((sum(job.request.said for job in jobs) - said) / (time.perf_counter() - started))
            for job in jobs:
                model.engine.abort(job)
        rate = statistics.median(rates)
        alone = alone or rate
        rows.append([users, f"{rate:.1f}", f"{rate / alone:.2f}"])
    section.add("Q4_K_M, answers to short questions without a picture, all users together.")
    section.table(["users", "tokens/s in all", "times one user's"], rows)
    return section


def options() -> SamplingOptions:
    return SamplingOptions(max_tokens=64)


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (336, 336, 3), dtype=np.uint8))


def bandwidth() -> float:
    """GB/s of reading a gigabyte with all threads; the best of several."""
    buffer = torch.ones(1 << 28)
    best = 0.0
    for _ in range(6):
        started = time.perf_counter()
        buffer.sum()
        best = max(best, buffer.nbytes / (time.perf_counter() - started) / 1e9)
    return best


def ask_lapilli(model: LocalModel, shown: Image.Image, times: Times) -> None:
    for question, system, seconds in ((QUESTIONS[0], None, times.first), (QUESTIONS[1], SYSTEM, times.second)):
        answer = model.chat(question, images=[shown], system=system, max_tokens=SAID)
        seconds.append(answer.image_seconds + answer.prefill_seconds)
        if system is None:
            times.encode.append(answer.image_seconds)
        if answer.completion_tokens > 8:
            times.decode.append((answer.completion_tokens - 1) / answer.decode_seconds)


class LlamaCpp:
    """The same files, through llama-cpp-python's handler for LLaVA 1.5."""

    def __init__(self, model: Path, tower: Path) -> None:
        import llama_cpp
        from llama_cpp import mtmd_cpp
        from llama_cpp.llama_chat_format import Llava15ChatHandler

        self._quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)  # kept: C holds its address
        mtmd_cpp.mtmd_log_set(self._quiet, None)
        mtmd_cpp.mtmd_helper_log_set(self._quiet, None)
        threads = torch.get_num_threads()
        self.model = llama_cpp.Llama(
            str(model), chat_handler=Llava15ChatHandler(str(tower), verbose=False), n_ctx=2048, n_threads=threads,
            n_threads_batch=threads, n_gpu_layers=0, verbose=False,
        )  # fmt: skip

    def ask(self, shown: Image.Image, times: Times) -> None:
        buffer = io.BytesIO()
        shown.save(buffer, "PNG")
        url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
        for question, system, seconds in ((QUESTIONS[0], None, times.first), (QUESTIONS[1], SYSTEM, times.second)):
            content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": question}]
            messages = [{"role": "system", "content": system}] if system else []
            started = time.perf_counter()
            stream = self.model.create_chat_completion(
                [*messages, {"role": "user", "content": content}], temperature=0.0, max_tokens=SAID, stream=True
            )
            heard = list(stamps(stream))
            seconds.append(heard[0] - started)
            if len(heard) > 8:
                times.decode.append((len(heard) - 1) / (heard[-1] - heard[0]))


def stamps(stream: Any) -> Iterator[float]:
    """When each piece of text came."""
    for piece in stream:
        if piece["choices"][0]["delta"].get("content"):
            yield time.perf_counter()


class Transformers:
    """LlavaForConditionalGeneration of the folder, in bfloat16."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoProcessor, LlavaForConditionalGeneration

        self.processor = AutoProcessor.from_pretrained(folder)
        self.model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.bfloat16)

    @torch.inference_mode()
    def ask(self, shown: Image.Image, times: Times) -> None:
        for question, system, seconds in ((QUESTIONS[0], "", times.first), (QUESTIONS[1], SYSTEM, times.second)):
            prompt = f"{system} USER: <image>\n{question} ASSISTANT:".strip()
            started = time.perf_counter()
            inputs = self.processor(text=prompt, images=shown, return_tensors="pt").to(torch.bfloat16)
            self.model.generate(**inputs, max_new_tokens=1, do_sample=False)
            first = time.perf_counter() - started
            seconds.append(first)
            if not system:
                started = time.perf_counter()
                self.model.get_image_features(pixel_values=inputs["pixel_values"])
                times.encode.append(time.perf_counter() - started)
                started = time.perf_counter()
                self.model.generate(**inputs, max_new_tokens=1 + 12, min_new_tokens=1 + 12, do_sample=False)
                times.decode.append(12 / (time.perf_counter() - started - first))


if __name__ == "__main__":
    main()
