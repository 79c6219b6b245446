"""`mini` here and in transformers, in one run: sizes, loading, the first token, tokens a second.

Answers are the same token for token, so seconds compare. Both take turns, each figure is a median.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from numbers_page import Section, publish

import lapilli
from lapilli.checkpoints.save import save_gguf
from lapilli.engine.answer import Answer
from lapilli.engine.local import LocalModel
from lapilli.store.reference import resolve

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))
import runtimes
from runtimes import Asked, Transformers

START_OURS = """
import sys
from lapilli.faces.cli import main
raise SystemExit(main(["run", *sys.argv[1:4], "--max-tokens", "64"]))
"""
START_THEIRS = """
import sys
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration
processor = AutoProcessor.from_pretrained(sys.argv[1])
model = LlavaForConditionalGeneration.from_pretrained(sys.argv[1], dtype="float32")
prompt = f"USER: <image>\\n{sys.argv[2]} ASSISTANT:"
inputs = processor(text=prompt, images=Image.open(sys.argv[3]), return_tensors="pt")
print(processor.decode(model.generate(**inputs, max_new_tokens=64)[0], skip_special_tokens=True))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description="Time mini here and in transformers.")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="torch's own choice unless given")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    folder = resolve(options.model).path
    section = Section("mini: size and speed")
    section.table(["file", "MB"], sizes(folder))
    rows = times(folder, options.repeats)
    section.add(f"Against transformers on the same machine, float32, {torch.get_num_threads()} threads, side by side:")
    section.table(["what", "lapilli", "transformers", "ratio"], rows)
    publish(section)


def sizes(folder: Path) -> list[list[str]]:
    """The folder, and the GGUF files that it exports to."""
    rows = [["folder, bfloat16", f"{sum(x.stat().st_size for x in folder.iterdir() if x.is_file()) / 1e6:.1f}"]]
    checkpoint = lapilli.load(folder, device="cpu").checkpoint
    with tempfile.TemporaryDirectory() as work:
        for kind in ("F32", "F16", "Q8_0", "Q4_0"):
            model, tower = Path(work, f"{kind}.gguf"), Path(work, f"{kind}-mmproj.gguf")
            save_gguf(checkpoint, model, tower, type=kind)
            both = [path.stat().st_size / 1e6 for path in (model, tower)]
            rows.append([f"GGUF {kind} + mmproj", f"{both[0]:.1f} + {both[1]:.1f}"])
    return rows


def times(folder: Path, repeats: int) -> list[list[str]]:
    asked = runtimes.drawn(32)
    ours, theirs = lapilli.load(folder, device="cpu"), Transformers(folder)
    tokens = sum(len(answer.token_ids) for answer in answers(ours, asked))
    rows = [
        compared("load, files in the page cache", "ms", repeats, lambda: lapilli.load(folder, device="cpu"),
                 lambda: Transformers(folder)),
        compared("first token, a picture and a question", "ms", repeats, lambda: first_ours(ours, asked[0]),
                 lambda: first_theirs(theirs, asked[0])),
        compared("answers one at a time", "tokens/s", repeats, lambda: [answers(ours, [x]) for x in asked],
                 lambda: [generate(theirs, [x]) for x in asked], tokens),
        compared(f"answers, {len(asked)} together", "tokens/s", repeats, lambda: answers(ours, asked),
                 lambda: generate(theirs, asked), tokens),
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as work:
        picture = Path(work, "picture.png")
        asked[0].picture.save(picture)
        command = [str(folder), asked[0].question, str(picture)]
        rows.append(
            compared("a command from start to end", "s", min(repeats, 3), lambda: start(START_OURS, command),
                     lambda: start(START_THEIRS, command))
        )  # fmt: skip
    return rows


def compared(
    what: str, unit: str, repeats: int, ours: Callable[[], object], theirs: Callable[[], object], tokens: int = 0
) -> list[str]:
    """A row: both do it in turn, once to warm up; how many times faster we are."""
    spent: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats + 1):
        for seconds, act in zip(spent, (ours, theirs), strict=True):
            started = time.perf_counter()
            act()
            if turn:
                seconds.append(time.perf_counter() - started)
    mine, other = (statistics.median(seconds) for seconds in spent)
    shown = {
        "ms": lambda seconds: f"{seconds * 1000:.0f} ms",
        "s": lambda seconds: f"{seconds:.2f} s",
        "tokens/s": lambda seconds: f"{tokens / seconds:.0f} tokens/s",
    }[unit]
    return [what, shown(mine), shown(other), f"{other / mine:.2f} × as fast"]


def answers(model: LocalModel, asked: Sequence[Asked]) -> list[Answer]:
    return model.generate([x.prompt for x in asked], [x.picture for x in asked], max_tokens=runtimes.LONGEST)


def first_ours(model: LocalModel, item: Asked) -> None:
    next(iter(model.stream(item.question, [item.picture], max_tokens=1)))


def first_theirs(theirs: Transformers, item: Asked) -> None:
    generate(theirs, [item], longest=1)


@torch.inference_mode()
def generate(theirs: Transformers, asked: Sequence[Asked], longest: int = runtimes.LONGEST) -> list[str]:
    prompts, pictures = [x.prompt for x in asked], [x.picture for x in asked]
    inputs = theirs.processor(text=prompts, images=pictures, padding=True, return_tensors="pt")
    output = theirs.model.generate(**inputs, max_new_tokens=longest)
    return list(theirs.processor.batch_decode(output, skip_special_tokens=True))


def start(script: str, arguments: Sequence[str]) -> None:
    subprocess.run(
        [sys.executable, "-c", script, *arguments], check=True, capture_output=True, stdin=subprocess.DEVNULL
    )


if __name__ == "__main__":
    main()
