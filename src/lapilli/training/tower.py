"""`lapilli train mini tower`: a vision tower from pictures and their words.

Two contrastive losses share the tower. A picture is told from other captions by a sigmoid loss (SigLIP,
arXiv 2303.15343). A region of it is told from other names by a softmax over names (as in RegionCLIP,
arXiv 2112.09106): a drawn picture knows where everything stands, which teaches patches, not just pictures.
A name is the sum of its words there, so that "red circle" learns from every red and from every circle.
"""

from __future__ import annotations

import itertools
import math
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from lapilli.config import VisionConfig
from lapilli.inputs.tokenizer import Tokenizer
from lapilli.model.vision import VisionBlock, VisionTower
from lapilli.training.distributed import Ranks, join
from lapilli.training.initialise import initialise
from lapilli.training.recipe import TowerOptions


@dataclass(frozen=True)
class Region:
    """A named box (x0, y0, x1, y1 in pixels) of one picture of the batch."""

    picture: int
    label: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class TowerBatch:
    """What one step sees: pictures, a caption each, and named boxes."""

    pixels_BCHW: Tensor
    captions: tuple[str, ...]
    regions: tuple[Region, ...]


class TextEncoder(nn.Module):
    """A small bidirectional reader that gives one unit vector for each text."""

    def __init__(self, vocab_size: int, config: VisionConfig, layers: int, longest: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab_size, config.hidden_size)
        self.position = nn.Parameter(torch.empty(longest, config.hidden_size))
        self.blocks = nn.ModuleList(VisionBlock(config) for _ in range(layers))
        self.norm = nn.LayerNorm(config.hidden_size)
        self.out = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, ids_UT: Tensor, mask_UT: Tensor) -> Tensor:
        hidden_UTD = self.embed(ids_UT) + self.position[: ids_UT.shape[1]]
        for block in self.blocks:
            hidden_UTD = block(hidden_UTD)
        pooled_UD = (hidden_UTD * mask_UT[..., None]).sum(1) / mask_UT.sum(1, keepdim=True)
        return F.normalize(self.out(self.norm(pooled_UD)).float(), dim=-1)


class TowerTrainer(nn.Module):
    """The tower and the heads that teach it; only the tower is kept."""

    def __init__(self, config: VisionConfig, vocab_size: int, options: TowerOptions) -> None:
        super().__init__()
        size = config.hidden_size
        self.vision = VisionTower(config)
        self.text = TextEncoder(vocab_size, config, options.text_layers)
        self.picture_head = nn.Linear(size, size)
        self.region_head = nn.Sequential(
            nn.Linear(size + 8, 2 * size), nn.GELU(), nn.Linear(2 * size, size), nn.LayerNorm(size)
        )
        self.words = nn.Embedding(vocab_size, size)
        initialise(self, options.seed, layers=config.num_layers)
        nn.init.normal_(self.words.weight, std=size**-0.5)
        self.picture_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.picture_bias = nn.Parameter(torch.tensor(-6.0))


class TowerObjective:
    """Tell a picture by its caption, and each region of it by its name."""

    def __init__(
        self,
        config: VisionConfig,
        tokenizer: Tokenizer,
        labels: Sequence[str],
        options: TowerOptions,
        batches: Callable[[int, int], Iterator[TowerBatch]],
    ) -> None:
        self.trainer = TowerTrainer(config, tokenizer.vocab_size, options)
        self.config, self.tokenizer, self.options, self._batches = config, tokenizer, options, batches
        self.labels = {label: number for number, label in enumerate(labels)}
        self.label_ids, self.label_mask = self._tokenize(labels)

    def modules(self) -> nn.Module:
        return self.trainer

    def batches(self, first_step: int) -> Iterator[TowerBatch]:
        return self._batches(first_step, self.options.batch)

    def loss(self, batch: TowerBatch) -> dict[str, Tensor]:
        trainer = self.trainer
        features_BND = trainer.vision.norm_post(trainer.vision(batch.pixels_BCHW))
        picture_loss = self._picture_loss(features_BND, batch.captions)
        region_loss, accuracy = self._region_loss(features_BND, batch.regions)
        return {
            "loss": self.options.caption_weight * picture_loss + self.options.region_weight * region_loss,
            "picture": picture_loss,
            "region": region_loss,
            "region_accuracy": accuracy,
        }

    def _picture_loss(self, features_BND: Tensor, captions: Sequence[str]) -> Tensor:
        pictures_BD = F.normalize(self.trainer.picture_head(features_BND.mean(1)).float(), dim=-1)
        ids, mask = self._tokenize(captions)
        texts_BD = self.trainer.text(ids.to(features_BND.device), mask.to(features_BND.device))
        scores_BB = _products(pictures_BD, texts_BD) * self.trainer.picture_scale.exp() + self.trainer.picture_bias
        # Two pictures may share a caption: that pair is right too.
        same = torch.tensor([[a == b for b in captions] for a in captions], device=scores_BB.device)
        return -F.logsigmoid(torch.where(same, scores_BB, -scores_BB)).sum() / len(captions)

    def _region_loss(self, features_BND: Tensor, regions: Sequence[Region]) -> tuple[Tensor, Tensor]:
        device = features_BND.device
        boxes_R4 = torch.tensor([region.box for region in regions], device=device) / self.config.image_size
        weights_RN = _overlap(boxes_R4, self.config.grid)
        owner_R = torch.tensor([region.picture for region in regions], device=device)
        pooled_RD = torch.einsum("rn,rnd->rd", weights_RN.to(features_BND.dtype), features_BND[owner_R])
        places_R8 = torch.cat((boxes_R4, (boxes_R4 * self.config.grid) % 1.0), dim=1).to(pooled_RD.dtype)
        regions_RD = self.trainer.region_head(torch.cat((pooled_RD, places_R8), dim=1))
        words_UTD = self.trainer.words(self.label_ids.to(device)) * self.label_mask.to(device)[..., None]
        scores_RU = _products(regions_RD, words_UTD.sum(1))
        target_R = torch.tensor([self.labels[region.label] for region in regions], device=device)
        loss = F.cross_entropy(scores_RU, target_R, label_smoothing=0.05)
        return loss, (scores_RU.argmax(-1) == target_R).float().mean()

    def _tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids (U, T) padded on the right, and 1.0 where they are real."""
        longest = self.trainer.text.position.shape[0]
        rows = [self.tokenizer.encode(" " + text, special=False)[:longest] for text in texts]
        width = max(len(row) for row in rows)
        ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width)
        for number, row in enumerate(rows):
            ids[number, : len(row)] = torch.tensor(row)
            mask[number, : len(row)] = 1.0
        return ids, mask


class Drawer(Protocol):
    """Draws the batch of one step: pictures (B, H, W, C) as bytes, a caption each, and named boxes."""

    def __call__(self, step: int, size: int) -> tuple[np.ndarray, tuple[str, ...], tuple[Region, ...]]: ...


@dataclass(frozen=True)
class DrawnBatches:
    """Batches drawn ahead by worker processes; step n's depends on n alone."""

    draw: Drawer
    workers: int

    def __call__(self, first_step: int, size: int) -> Iterator[TowerBatch]:
        for pixels_BHWC, captions, regions in steps_ahead(partial(self.draw, size=size), first_step, self.workers):
            yield TowerBatch(normalise_pixels(torch.from_numpy(pixels_BHWC)), captions, regions)


class _Steps(IterableDataset[Any]):
    """Every worker makes each `count`-th step, so that together they give all of them in order."""

    def __init__(self, make: Callable[[int], Any], first: int, ranks: Ranks) -> None:
        self.make, self.first, self.ranks = make, first, ranks

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker else (0, 1)
        for step in itertools.count(self.first + number, count):
            yield self.make(self.ranks.share(step))


def _leave_signals_to_the_parent(_: int) -> None:
    """Ctrl-C reaches every process of a terminal: a worker that died of it would keep its parent from saving."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _unchanged(batch: Any) -> Any:
    return batch


def steps_ahead(make: Callable[[int], Any], first: int, workers: int) -> Iterator[Any]:
    """`make(first)`, `make(first + 1)`, …, computed ahead in this many processes (0: in this one).

    Where torchrun started several processes, each makes its own share of every step.
    """
    loader = DataLoader(
        _Steps(make, first, join()),
        batch_size=None,
        collate_fn=_unchanged,
        num_workers=workers,
        prefetch_factor=6 if workers else None,
        worker_init_fn=_leave_signals_to_the_parent,
    )
    return iter(loader)


def _products(one_RD: Tensor, other_UD: Tensor) -> Tensor:
    """Every vector with every other one (R, U), in float32: scores are told apart by small differences."""
    with torch.autocast(one_RD.device.type, enabled=False):
        return one_RD.float() @ other_UD.float().T


def normalise_pixels(pixels_BHWC: Tensor) -> Tensor:
    """Bytes (B, H, W, C) to floats (B, C, H, W) in [-1, 1], as SigLIP's processor does."""
    return pixels_BHWC.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def _overlap(boxes_R4: Tensor, grid: int) -> Tensor:
    """How much of each box (0 to 1) lies in each patch (R, N), rows summing to one."""
    edges = torch.arange(grid + 1, device=boxes_R4.device) / grid

    def share(low_R: Tensor, high_R: Tensor) -> Tensor:
        return (torch.minimum(high_R[:, None], edges[1:]) - torch.maximum(low_R[:, None], edges[:-1])).clamp(min=0)

    x0, y0, x1, y1 = boxes_R4.unbind(-1)
    weights_RN = (share(y0, y1)[:, :, None] * share(x0, x1)[:, None, :]).flatten(1)
    return weights_RN / weights_RN.sum(-1, keepdim=True).clamp(min=1e-9)
