"""One checkpoint, three runtimes: does `mini` say the same in lapilli, transformers and llama.cpp?

python bench/three_runtimes_bench.py                # shapes, and words in Pillow's own font
python bench/three_runtimes_bench.py --data DATA    # things too, and words in this machine's typefaces

Greedy, float32 everywhere; llama.cpp reads the F32 GGUF and mmproj that are exported here.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from numbers_page import Section, publish

import lapilli
from lapilli.engine.local import LocalModel
from lapilli.store.reference import resolve
from lapilli.training.art import Art

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))
import runtimes
from runtimes import Asked, LlamaCpp, Reply, Transformers

CALLS = (
    "The calls of transformers are the article's, but for these: `processor(text=prompts, …)`, which newer processors "
    'want by name; no `.to("cuda")` and no 4-bit, since all is float32 on a CPU; drawn pictures instead of addresses '
    "on the web; the pipeline's task is now named `image-text-to-text`, and takes the prompt as `text=`."
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare mini's answers in three runtimes.")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--data", type=Path, help="folder that holds emoji/ and text/: ask about things too")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.manual_seed(0)
    folder = resolve(options.model).path
    art = Art.load(options.data, fonts=None if options.data else ())
    native = runtimes.drawn(options.count, seed=options.seed, art=art)
    with tempfile.TemporaryDirectory() as work, runtimes.llama_cpp_of(folder, Path(work)) as cpp:
        parts = [lapilli.load(folder, device="cpu"), Transformers(folder), cpp]
        section = report(parts[0], parts[1], parts[2], native)
    publish(section)


def report(model: LocalModel, theirs: Transformers, cpp: LlamaCpp, native: Sequence[Asked]) -> Section:
    kinds = {
        "the tower's own size": native,
        "other squares": runtimes.resized(native, runtimes.SQUARES),
        "not square": runtimes.resized(native, runtimes.OBLONGS),
    }
    versions = {name: importlib.metadata.version(name) for name in ("transformers", "llama-cpp-python")}
    section = Section("Agreement of three runtimes")
    rows, ties = [], []
    for kind, asked in kinds.items():
        ours = runtimes.ask_lapilli(model, asked)
        for name, other in (("transformers", theirs.ask(asked)), ("llama-cpp-python", cpp.ask(asked))):
            apart = runtimes.differences(ours, other)
            far = f"{runtimes.farthest(ours, other):.1e}"
            rows.append([f"{name} {versions[name]}", kind, f"{len(asked) - len(apart)} of {len(asked)}", far])
            ties += [[name, kind, *described(model, asked, ours, difference)] for difference in apart]
        if asked is native:
            lead = runtimes.nearest_tie(ours)
            tokens = sum(len(reply.token_ids) for reply in ours)
    section.add(
        f"Greedy answers of `mini` that are the same as lapilli's, token for token, in float32: {len(native)} drawn "
        "pictures and questions. Prompts are the same ids in all three."
    )
    section.table(["runtime", "pictures", "same answers", "logits differ by at most"], rows)
    section.add(
        f"In the {tokens} tokens said about pictures of the tower's own size, the chosen one leads the next by at "
        f"least {lead:.3f}."
    )
    if ties:
        section.add("Where answers part, how far apart the two choices are in each:")
        section.table(["runtime", "pictures", "question", "lapilli says", "it says", "gap here", "gap there"], ties)
    section.add(
        "Of pictures that are not square, llama.cpp fills the margins with a colour of its own, whatever the "
        "processor's mean is: there the pixels differ, not the model."
    )
    section.add(CALLS)
    return section


def described(
    model: LocalModel, asked: Sequence[Asked], ours: Sequence[Reply], difference: runtimes.Difference
) -> list[str]:
    before = model.tokenizer.decode(ours[difference.number].token_ids[: difference.place]).strip()
    words = [model.tokenizer.decode([token], skip_special=False) for token in (difference.ours, difference.theirs)]
    said = [f"{before} **{word.strip()}**".strip() for word in words]
    gaps = [f"{gap:.4f}" for gap in (difference.our_gap, difference.their_gap)]
    return [asked[difference.number].question, *said, *gaps]


if __name__ == "__main__":
    main()
