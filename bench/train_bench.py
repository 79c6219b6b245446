"""Training beside the plain loop of transformers: the same model, records, order, optimizer and losses, in one run.

Stage one when features are kept, stage two with packing. The plain loop computes padded batches; its pictures are
prepared and its tokens counted before the clock starts, ours are read and packed while it runs. Float32, medians of the
steps of the last epoch; both take turns. Every step's loss must be the same to a thousandth.
"""

from __future__ import annotations

import argparse
import importlib.resources
import json
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numbers_page import Section, publish
from PIL import Image, ImageDraw
from transformers import LlavaForConditionalGeneration, get_cosine_schedule_with_warmup

from lapilli.training.loop import METRICS_FILE
from lapilli.training.recipe import Recipe
from lapilli.training.samples import Sample, SampleMaker
from lapilli.training.talks import open_talks
from lapilli.training.teach import Lesson, prepare, teach

MINI = Path(str(importlib.resources.files("lapilli") / "models" / "mini"))
COLOURS = ("red", "green", "blue", "grey", "yellow", "purple")
# Seconds of each step of the last epoch, and the loss of every step.
Measured = tuple[list[float], list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a training step of ours and of a plain transformers loop.")
    parser.add_argument("--base", type=Path, default=MINI, help="a llava-hf folder")
    parser.add_argument("--records", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2, help="how often both take their turn")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    load = os.getloadavg()[0]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        data = draw(Path(folder), asked.records)
        for name, train, pack in (("one: projector", "projector", 1024), ("two: projector and decoder", None, 1024)):
            recipe = Recipe(
                name="bench", train=train or "projector+language", epochs=2, batch=asked.batch, rate=1e-4,
                warmup_share=0, pack=pack, bf16=False, log_every=1, save_minutes=1e9,
            )  # fmt: skip
            turns = [turn(recipe, asked.base, data, Path(folder, f"{name[:3]}{n}")) for n in range(asked.rounds)]
            ours, theirs = ([seconds for each in turns for seconds in each[side][0]] for side in (0, 1))
            apart = max(
                abs(one - other) / other for mine, plain in turns for one, other in zip(mine[1], plain[1], strict=True)
            )
            assert apart <= 1e-3, f"the losses differ by {apart:.1e}: these are not the same steps"
            rates = [asked.batch / statistics.median(side) for side in (ours, theirs)]
            rows.append([name, f"{rates[0]:.1f}", f"{rates[1]:.1f}", f"{rates[0] / rates[1]:.2f}", f"{apart:.0e}"])
    section = Section("Training beside a plain loop")
    section.add(
        f"Samples a second of `{asked.base.name}`, {asked.records} records of 1 to 8 turns about drawn pictures, "
        f"{asked.batch} a step, {asked.threads} threads; load of the machine at the start: {load:.1f}."
        + (" **The machine was busy: the ratios say more than the rates.**" if load > asked.threads / 2 else "")
    )
    section.table(["stage", "lapilli", "transformers", "ratio", "losses apart, at most"], rows)
    publish(section)


def turn(recipe: Recipe, base: Path, data: Path, work: Path) -> tuple[Measured, Measured]:
    lesson = prepare(recipe, base, open_talks(data), work)
    plain = plain_loop(lesson, base)
    return our_loop(lesson), plain


def our_loop(lesson: Lesson) -> Measured:
    teach(lesson, lesson.work.with_name(f"{lesson.work.name}.out"))
    lines = [json.loads(line) for line in (lesson.work / METRICS_FILE).read_text().splitlines()]
    return [1 / line["steps_per_second"] for line in lines[len(lines) // 2 :]], [line["loss"] for line in lines]


def plain_loop(lesson: Lesson, base: Path) -> Measured:
    """The steps that the lesson will take, padded, as transformers' documentation has them."""
    recipe, course = lesson.recipe, lesson.course
    model = LlavaForConditionalGeneration.from_pretrained(base, dtype=torch.float32).train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(
            "multi_modal_projector" in name or ("language" in recipe.train and "vision_tower" not in name)
        )
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    steps = lesson.loop.steps
    optimizer = torch.optim.AdamW(learning, lr=recipe.rate, betas=recipe.betas, weight_decay=0.0, fused=True)
    schedule = get_cosine_schedule_with_warmup(optimizer, 0, steps)
    maker = SampleMaker(lesson.checkpoint.prompts, recipe.max_tokens)
    samples = [maker.make(course.talks[record]) for record in course.records]
    batches = [padded([samples[record] for record in course.order.step(step)]) for step in range(steps)]
    seconds, losses = [], []
    for step, batch in enumerate(batches):
        began = time.perf_counter()
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, recipe.clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if step >= steps // 2:
            seconds.append(time.perf_counter() - began)
    return seconds, losses


def padded(samples: list[Sample]) -> dict[str, torch.Tensor]:
    longest = max(map(len, samples))
    ids, mask, labels = (np.full((len(samples), longest), value) for value in (0, 0, -100))
    for row, sample in enumerate(samples):
        ids[row, : len(sample)], mask[row, : len(sample)] = sample.ids_T, 1
        labels[row, : len(sample)] = np.where(sample.said_T, sample.ids_T, -100)
    pixels = [image.pixels_TCHW for sample in samples for image in sample.images]
    named = {"input_ids": ids, "attention_mask": mask, "labels": labels, "pixel_values": np.concatenate(pixels)}
    return {name: torch.from_numpy(value) for name, value in named.items()}


def draw(folder: Path, count: int) -> Path:
    """Pictures of a square, and talks of one to eight turns about each."""
    drawn, records = random.Random(0), []
    for number in range(count):
        colour, place = drawn.choice(COLOURS), (drawn.randrange(4, 30), drawn.randrange(4, 30))
        picture = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(picture).rectangle((*place, place[0] + 24, place[1] + 24), fill=colour)
        picture.save(folder / f"{number}.png")
        turns = [
            {"from": "human", "value": "<image>\nWhat do you see?"},
            {"from": "gpt", "value": f"A {colour} square."},
        ]
        for _ in range(drawn.randrange(8)):
            other = drawn.choice(COLOURS)
            said = "Yes." if other == colour else f"No, it is {colour}, and it stands by itself on white."
            turns += [{"from": "human", "value": f"Is it {other}?"}, {"from": "gpt", "value": said}]
        records.append({"image": f"{number}.png", "conversations": turns})
    (folder / "talks.json").write_text(json.dumps(records))
    return folder / "talks.json"


if __name__ == "__main__":
    main()
