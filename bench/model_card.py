"""Measure `mini` and fill the figures of its model card: facts, accuracy, scorings of the unseen style, names, recipe.

python bench/model_card.py --data DATA            # print what would stand there
python bench/model_card.py --data DATA --write    # put it there

The unseen style is not scored here: `lapilli eval mini --unseen` does, and what it logged is copied.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import lapilli
from lapilli.apps.evals.mini import KNOWN_STYLES, ExamOptions, examine
from lapilli.engine.local import LocalModel
from lapilli.training import mini as recipe
from lapilli.training.art import Art

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "src" / "lapilli" / "models" / "mini"
LOG = ROOT / "docs" / "unseen-style.jsonl"
MEANING = {
    "colour": "What colour is the square?",
    "shape": "What shape is red?",
    "count": "How many dogs are there? One to five",
    "relation": "Where is the dog relative to the square?",
    "naming": "What is in this picture? One to four things in known styles, and none of them missing",
    "word": "What does it say? A word of up to eight letters, capitals and all, in a typeface never seen",
}


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in [header, ["---"] * len(header), *rows])


def facts(model: LocalModel) -> str:
    """Parts, parameters and size."""
    config = model.config
    vision, text = config.vision, config.text
    assert vision is not None
    counts = {
        part: sum(p.numel() for name, p in model.model.named_parameters() if name.startswith(f"{part}."))
        for part in ("vision", "projector", "language")
    }
    tokens = config.image_tokens(vision.image_size, vision.image_size)
    size = f"{vision.image_size} × {vision.image_size}"
    what = {
        "vision": f"{vision.family} tower: {vision.num_layers} blocks, {vision.hidden_size} wide, {size} pixels in "
        f"patches of {vision.patch_size}, {tokens} tokens a picture",
        "projector": "two layers with a GELU between them",
        "language": f"{text.family} decoder: {text.num_layers} blocks, {text.hidden_size} wide, {text.num_heads} "
        f"heads, {text.vocab_size} tokens, context {text.max_positions}",
    }
    rows = [[part, what[part], f"{count / 1e6:.2f} M"] for part, count in counts.items()]
    megabytes = sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) / 1e6
    return f"{table(['part', 'what', 'parameters'], rows)}\n\n{megabytes:.1f} MB in all, weights in bfloat16."


def figures(model: LocalModel, data: Path, each: int, seed: int) -> str:
    """Accuracy of each skill with its 95 % interval."""
    results = examine(model, data, ExamOptions(each=each, seed=seed))
    rows = []
    for score in results.scores:
        low, high = interval(score.right, score.asked)
        share = f"{100 * score.share:.1f} % ({100 * low:.0f} to {100 * high:.0f})"
        rows.append([score.skill, MEANING[score.skill], f"{score.right} of {score.asked}", share])
    faces = Art.load(data, KNOWN_STYLES).faces("test")
    return "\n\n".join(
        [
            f"Exact match on drawings it has not seen: new compositions, words, and {len(faces)} typefaces of "
            f"{len({face.family for face in faces})} families kept out of training. In brackets the 95 % interval.",
            table(["skill", "question", "right", "share"], rows),
            f"Measured by `lapilli eval mini --data data --each {each} --seed {seed}`.",
        ]
    )


def interval(right: int, asked: int, z: float = 1.96) -> tuple[float, float]:
    """Where the true share lies, at 95 % (Wilson)."""
    share, spread = right / asked, z * z / asked
    middle = (share + spread / 2) / (1 + spread)
    reach = z * math.sqrt(share * (1 - share) / asked + spread / (4 * asked)) / (1 + spread)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def unseen(log: Path) -> str:
    """How often the unseen style was scored, and each result."""
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    said = f"The unseen style was scored {len(lines)} time{'s' * (len(lines) != 1)}."
    rows = [
        [line["time"], line["what"], f"{right} of {asked}", f"{100 * right / asked:.1f} %"]
        for line in lines
        for right, asked in [line["scores"]["naming"]]
    ]
    return f"{said}\n\n{table(['when', 'what', 'right', 'share'], rows)}" if rows else said


def names() -> str:
    known = recipe.mini_names()
    return f"{len(known)} things: {', '.join(known)}."


def stages() -> str:
    """What was trained, on what, and for how long."""
    rows = [
        ("tower", "pictures and their captions, named boxes", "the tower", recipe.TOWER_LOOP, recipe.TOWER.batch),
        ("language", "English, and dialogues about pictures as text", "the decoder", recipe.LANGUAGE_LOOP,
         recipe.LANGUAGE.batch),
        ("align", "pictures and their captions", "the projector alone", recipe.ALIGN_LOOP, recipe.ALIGN_BATCH),
        ("tune", "conversations about pictures", "tower, projector and decoder", recipe.TUNE_LOOP, recipe.TUNE_BATCH),
    ]  # fmt: skip
    return table(
        ["stage", "from", "what learns", "steps", "batch", "peak rate"],
        [(stage, source, what, loop.steps, batch, f"{loop.rate:g}") for stage, source, what, loop, batch in rows],
    )


def filled(card: str, part: str, text: str) -> str:
    """The card with what stands between the marks of that part replaced."""
    pattern = re.compile(rf"(<!-- {part} -->).*?(<!-- /{part} -->)", re.DOTALL)
    if len(pattern.findall(card)) != 1:
        raise SystemExit(f"the card has not one pair of marks <!-- {part} --> and <!-- /{part} -->")
    return pattern.sub(lambda match: f"{match[1]}\n\n{text}\n\n{match[2]}", card)


def main() -> None:
    parser = argparse.ArgumentParser(description="Fill the figures of mini's model card.")
    parser.add_argument("--data", type=Path, help="folder that holds emoji/ and text/; without it, no accuracy")
    parser.add_argument("--each", type=int, default=200, help="questions of each skill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log", type=Path, default=LOG)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    parts = {"unseen": unseen(options.log), "names": names(), "recipe": stages()}
    if (FOLDER / "model.safetensors").is_file():
        model = lapilli.load(FOLDER, device="cpu")
        parts["facts"] = facts(model)
        if options.data is not None:
            parts["figures"] = figures(model, options.data, options.each, options.seed)
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for part, text in parts.items():
        print(f"{part}\n\n{text}\n")
        card = filled(card, part, text)
    if options.write:
        (FOLDER / "README.md").write_text(card, encoding="utf-8")


if __name__ == "__main__":
    main()
