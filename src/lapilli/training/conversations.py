"""`lapilli train align` and `train tune`: learning to say what the assistant says, given pictures and all before.

The two stages of LLaVA (arXiv 2304.08485). Loss is the mean over all tokens that are to be said in a step, whatever
rows they stand in, however the step is cut into pieces, and over all processes together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lapilli.errors import LapilliError, TrainingError
from lapilli.model.llava import Llava
from lapilli.model.packed import Packed
from lapilli.training.distributed import Ranks, join
from lapilli.training.glance import Glance
from lapilli.training.lowrank import adapters_of
from lapilli.training.recipe import Recipe
from lapilli.training.samples import EMPTY, Batch, Order, Sample, SampleMaker, batches_of, rows_of
from lapilli.training.sharding import LARGE_TOWER, shard
from lapilli.training.talks import Talks


class Course:
    """The records of a run in the order they are learnt: step n's samples depend on the recipe and n alone."""

    def __init__(
        self, talks: Talks, maker: SampleMaker, recipe: Recipe, *, skip: bool = False, ranks: Ranks | None = None
    ) -> None:
        self.talks, self.maker, self.recipe, self.ranks = talks, maker, recipe, ranks or join()
        lengths, self.records, self.left_out = [], [], []
        for number in range(len(talks)):
            try:
                lengths.append(talks[number].length)
                self.records.append(number)
            except TrainingError as error:
                if not skip:
                    raise TrainingError(f"{error}; --skip leaves such records out") from None
                self.left_out.append(str(error))
        if not self.records:
            raise TrainingError(f"not one record can be used; the first: {self.left_out[0]}")
        self.order = Order(lengths, recipe.batch, recipe.seed)
        if recipe.batch % self.ranks.world:
            raise TrainingError(f"batch = {recipe.batch} cannot be shared by {self.ranks.world} processes: change it")
        self._skip = skip

    def steps(self, first: int) -> Iterator[list[Batch]]:
        """What this process computes in each step, from a step on; the next step is made while one is computed."""
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(self.step, first)
            while True:
                first += 1
                now, coming = coming.result(), ahead.submit(self.step, first)
                yield now

    def step(self, number: int) -> list[Batch]:
        mine = self.order.step(number)[self.ranks.rank :: self.ranks.world]
        samples = [sample for sample in (self._sample(self.records[record]) for record in mine) if sample is not None]
        if not samples:
            raise TrainingError(f"no record of step {number} can be used; the last: {self.left_out[-1]}")
        return list(batches_of(rows_of(samples, self.recipe.pack), self.recipe.at_once, pad_id=0))

    def names(self, number: int) -> list[str]:
        """What a person calls the records of a step."""
        return [self.talks.where(self.records[record]) for record in self.order.step(number)]

    def _sample(self, record: int) -> Sample | None:
        try:
            return self.maker.make(self.talks[record])
        except (LapilliError, OSError) as error:
            where = f"{self.talks.where(record)}: "
            told = f"{where}{str(error).removeprefix(where)}"
            if not self._skip:
                raise TrainingError(f"{told}; --skip leaves such records out") from error
            self.left_out.append(told)
            return None


class ConversationObjective:
    """Learns a course: what of the model learns, the recipe says; the tower stays as it is."""

    def __init__(self, model: Llava, course: Course, recipe: Recipe, glance: Glance) -> None:
        self.model, self.course, self.recipe, self.glance = model, course, recipe, glance
        self.reading, self.sharded = Reading(model, glance), False
        _choose(model, recipe)
        if recipe.checkpointing:
            for block in model.language.blocks:
                block.forward = partial(checkpoint, block.forward, use_reentrant=False)

    def modules(self) -> Llava:
        return self.model

    def names(self, step: int) -> list[str]:
        return self.course.names(step)

    def batches(self, first_step: int) -> Iterator[tuple[Batch, ...]]:
        ranks = self.course.ranks
        for batches in self.course.steps(first_step):
            # Gradients are averaged over processes, so each counts its tokens against a mean process's.
            share = ranks.total(sum(batch.spoken for batch in batches)) / ranks.world
            if self.sharded:  # all processes gather weights as often as the one with the most batches
                batches = [*batches, *[EMPTY] * (ranks.most(len(batches)) - len(batches))]
            yield tuple(replace(batch, share=share) for batch in batches)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """This piece's part of the step's mean loss, and of the tokens that would be said right."""
        found: dict[str, Tensor] = self.reading(batch)
        return found

    def shard(self, device: torch.device) -> None:
        """Share the weights out among the processes."""
        tower = self.model.vision is not None and _size(self.model.vision) >= LARGE_TOWER
        shard(self.reading, self.model, device, self.course.ranks, tower=tower)
        self.sharded, self.reading.alike = True, True
        self.glance.together = self.course.ranks if tower else None


class Reading(nn.Module):
    """From a batch to its loss in one forward pass; `alike` makes every batch use all that learns."""

    def __init__(self, model: Llava, glance: Glance) -> None:
        super().__init__()
        self.model, self.glance, self.alike = model, glance, False

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        model, device = self.model, self.model.device
        ids_BT, said_BT = (torch.from_numpy(x).to(device) for x in (batch.ids_BT, batch.said_BT))
        positions_BT = torch.from_numpy(batch.positions_BT).to(device)
        features = self._features(batch.samples)
        embeds_BTD = model.embed(ids_BT, features)
        if self.alike and not features and model.projector is not None:
            embeds_BTD = embeds_BTD + 0 * self._nothing()
        cache = Packed(torch.from_numpy(batch.texts_BT).to(device)) if batch.packed else None
        hidden_BTD = model(embeds_BTD, positions_BT, cache)
        ahead_BT = said_BT[:, 1:]
        scores_SV = model.logits(hidden_BTD[:, :-1][ahead_BT]).float()
        said_S = ids_BT[:, 1:][ahead_BT]
        right = (scores_SV.detach().argmax(-1) == said_S).sum() / batch.share
        return {"loss": F.cross_entropy(scores_SV, said_S, reduction="sum") / batch.share, "right": right}

    def _features(self, samples: Sequence[Sample]) -> list[Tensor]:
        """Features of all pictures, in the order of their placeholders."""
        images = [image for sample in samples for image in sample.images]
        tiles = self.glance.tiles(images, [file for sample in samples for file in sample.files])
        if not images:
            return []
        projected = torch.split(self.model.project(torch.cat(tiles)), [len(part) for part in tiles])
        return [
            self.model.arrange(part_TND, image.height, image.width)
            for part_TND, image in zip(projected, images, strict=True)
        ]

    def _nothing(self) -> Tensor:
        """What a picture's way through the projector takes part in, seen nowhere."""
        sum_ = self.model.project(torch.zeros(1, 1, self.model.config.feature_size, device=self.model.device)).sum()
        return sum_ if self.model.newline is None else sum_ + self.model.newline.sum()


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _choose(model: Llava, recipe: Recipe) -> None:
    """Let learn what the recipe says, and nothing else; adapters have been put in before."""
    model.requires_grad_(False)
    if "projector" in recipe.train:
        if model.projector is None:
            raise TrainingError(f"recipe {recipe.name} trains a projector, this model has none: it reads text only")
        model.projector.requires_grad_(True)
        if model.newline is not None:
            model.newline.requires_grad_(True)
    if "language" in recipe.train:
        if recipe.lora is None:
            model.language.requires_grad_(True)
        else:
            for _, down_RK, up_NR in adapters_of(model):
                down_RK.requires_grad_(True)
                up_NR.requires_grad_(True)
