"""One stage of LLaVA from a recipe: a base model, data, and a folder for what comes out.

lesson = prepare(Recipe.read("small-tune"), base, talks, work)
print(lesson.estimate)
teach(lesson, out)
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lapilli.checkpoints.load import Checkpoint, load_checkpoint, open_source
from lapilli.checkpoints.save import save_folder
from lapilli.errors import TrainingError
from lapilli.ground.files import publish
from lapilli.model.projector import Projector
from lapilli.store.features import FeatureCache
from lapilli.training.conversations import ConversationObjective, Course
from lapilli.training.distributed import join
from lapilli.training.glance import Glance
from lapilli.training.loop import run
from lapilli.training.lowrank import add_adapters, save_adapter
from lapilli.training.recipe import LoopOptions, Recipe
from lapilli.training.samples import SampleMaker
from lapilli.training.sharding import gather
from lapilli.training.talks import Talks

RECIPE_FILE = "recipe.json"
_KEPT_IN_MEMORY, _KEPT_ON_DISK = 1 << 30, 64 << 30


@dataclass(frozen=True)
class Estimate:
    """What a run will take: parameters, samples, steps, and memory in bytes, activations being a rough guess."""

    learning: int
    frozen: int
    samples: int
    steps: int
    weights: int
    gradients_and_optimizer: int
    activations: int

    def __str__(self) -> str:
        total = self.weights + self.gradients_and_optimizer + self.activations
        rows = (
            ("learning", f"{self.learning:,} parameters"),
            ("frozen", f"{self.frozen:,} parameters"),
            ("samples", f"{self.samples:,}"),
            ("steps", f"{self.steps:,}"),
            ("memory", f"about {_gib(total)}: weights {_gib(self.weights)}, "
             f"gradients and optimizer {_gib(self.gradients_and_optimizer)}, activations {_gib(self.activations)}"),
        )  # fmt: skip
        return "\n".join(f"{name:<10}{value}" for name, value in rows)


@dataclass(frozen=True)
class Lesson:
    """A run that is ready to begin: everything read and checked, nothing learnt yet."""

    recipe: Recipe
    base: str
    checkpoint: Checkpoint
    course: Course
    objective: ConversationObjective
    work: Path
    device: torch.device

    @property
    def loop(self) -> LoopOptions:
        return self.recipe.loop(len(self.course.records))

    @property
    def estimate(self) -> Estimate:
        model, recipe = self.checkpoint.model, self.recipe
        learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
        every = sum(p.numel() for p in model.parameters())
        held = [*model.parameters(), *model.buffers()]
        text = model.config.text
        # A block keeps about fourteen rows of its width for the way back; with checkpointing, its input alone.
        kept = 1 if recipe.checkpointing else 14
        tokens = min(recipe.at_once, recipe.batch * recipe.max_tokens)
        return Estimate(
            learning=learning,
            frozen=every - learning,
            samples=len(self.course.records),
            steps=self.loop.steps,
            weights=sum(value.numel() * value.element_size() for value in held),
            gradients_and_optimizer=3 * 4 * learning,
            activations=tokens * text.hidden_size * text.num_layers * kept * (2 if recipe.bf16 else 4),
        )

    def shown(self, count: int) -> Iterator[str]:
        """The first samples as text: what is to be learnt stands in «angles», a picture as its number of tokens."""
        tokenizer, image = self.checkpoint.prompts.tokenizer, self.checkpoint.config.image_token_id
        samples = [sample for batch in self.course.step(0) for sample in batch.samples]
        for sample in samples[:count]:
            text, said, pictures = "", False, 0
            run_ids: list[int] = []
            for token, learnt in [*zip(sample.ids_T.tolist(), sample.said_T.tolist(), strict=True), (None, False)]:
                if (learnt != said or token == image or token is None) and run_ids:
                    words = tokenizer.decode(run_ids, skip_special=False)
                    text, run_ids = text + (f"«{words}»" if said else words), []
                if pictures and token != image:
                    text, pictures = f"{text}[picture: {pictures} tokens]", 0
                said = learnt
                if token == image:
                    pictures += 1
                elif token is not None:
                    run_ids.append(token)
            yield text


def prepare(
    recipe: Recipe,
    base: Path,
    talks: Talks,
    work: Path,
    *,
    name: str | None = None,
    device: torch.device | str = "cpu",
    skip: bool = False,
    projector: Path | None = None,
) -> Lesson:
    """Open the base model and the data for a recipe; `work` is the folder that keeps the state of the run.

    Raises TrainingError for a record that cannot be used, with its file, its place and the reason; with `skip` such
    records are left out and counted. CheckpointError and others as `load_checkpoint`.
    """
    ranks = join()
    checkpoint = load_checkpoint(base, dtype=torch.float32, projector=projector, quantize=recipe.quantize, expand=None)
    model = checkpoint.model
    if recipe.quantize and "projector" in recipe.train and model.projector is not None:
        model.projector = _in_floats(base, checkpoint, projector)
    if recipe.lora is not None:
        add_adapters(model, recipe.lora, recipe.seed)
    # What is shared out goes to its device a block at a time: no single one need hold it all.
    if not (recipe.shard and ranks.world > 1):
        model.to(device)
    cache = FeatureCache(_KEPT_IN_MEMORY, work / "features", _KEPT_ON_DISK) if model.vision is not None else None
    glance = Glance(model, checkpoint.prompts, cache, torch.bfloat16 if recipe.bf16 else torch.float32)
    maker = SampleMaker(
        glance.reader,
        recipe.max_tokens,
        plain=recipe.plain,
        open_picture=glance.kept.open if glance.kept is not None else None,
    )
    course = Course(talks, maker, recipe, skip=skip)
    return Lesson(
        recipe=recipe,
        base=name or str(base),
        checkpoint=checkpoint,
        course=course,
        objective=ConversationObjective(model, course, recipe, glance),
        work=work,
        device=torch.device(device),
    )


def teach(lesson: Lesson, out: Path, *, minutes: float | None = None, dtype: torch.dtype = torch.bfloat16) -> int:
    """Train until the recipe's end and write what came out to `out`; returns the step reached.

    That is a checkpoint folder, or with `lora` an adapter in PEFT's layout. Where `minutes` ended it earlier, or
    Ctrl-C, the same call goes on from there. Raises TrainingError where `work` is of another recipe.
    """
    recipe, model, loop = lesson.recipe, lesson.checkpoint.model, lesson.loop
    ranks = join()
    if ranks.leads:
        _same_recipe(lesson)
    sharded = recipe.shard and ranks.world > 1
    if sharded and not lesson.objective.sharded:
        lesson.objective.shard(lesson.device)
    step = run(lesson.objective, loop, lesson.work, minutes=minutes, device=lesson.device, whole=False)
    if step < loop.steps:
        return step
    if sharded:
        gather(model, ranks, learnt_only=recipe.lora is not None)
    if ranks.leads and recipe.lora is not None:
        save_adapter(model, recipe.lora, out, base=lesson.base, projector="projector" in recipe.train)
    elif ranks.leads:
        if not sharded:
            model.cpu()
        save_folder(lesson.checkpoint, out, dtype=dtype, replace=True)
    ranks.wait()
    return step


def _in_floats(base: Path, checkpoint: Checkpoint, projector: Path | None) -> Projector:
    """The projector as it was before it was quantized."""
    weights = open_source(base, projector=projector).weights
    fresh = Projector(checkpoint.config)
    fresh.load_state_dict({name: weights[f"projector.{name}"].read().float() for name in fresh.state_dict()})
    return fresh


def _same_recipe(lesson: Lesson) -> None:
    """A run goes on with the recipe and the data it was begun with, or not at all."""
    told: dict[str, Any] = {
        **dataclasses.asdict(lesson.recipe), "base": lesson.base, "samples": len(lesson.course.records)
    }  # fmt: skip
    told = json.loads(json.dumps(told))
    path = lesson.work / RECIPE_FILE
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        free = {"save_minutes", "log_every", "at_once", "checkpointing", "shard"}
        other = sorted(
            key for key in before.keys() | told.keys() if before.get(key) != told.get(key) and key not in free
        )
        if other:
            changes = ", ".join(f"{key} was {before.get(key)!r}, is {told.get(key)!r}" for key in other[:4])
            raise TrainingError(f"{lesson.work} keeps another run: {changes}; use a new --out, or remove that folder")
        return
    lesson.work.mkdir(parents=True, exist_ok=True)
    with publish(path) as fresh:
        fresh.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.2f} GiB" if size >= 1 << 28 else f"{size / (1 << 20):.1f} MiB"
