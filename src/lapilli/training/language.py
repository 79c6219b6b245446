"""`lapilli train mini language`: a decoder that reads and writes, from the next token alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from lapilli.model.language import Decoder
from lapilli.training.corpus import Blocks
from lapilli.training.tower import steps_ahead


@dataclass(frozen=True, kw_only=True)
class LanguageOptions:
    """Rows in a batch, and processes that make them ahead."""

    batch: int = 32
    workers: int = 0


class LanguageObjective:
    """Predict every token of a packed block from those before it."""

    def __init__(self, decoder: Decoder, blocks: Blocks, options: LanguageOptions) -> None:
        self.decoder, self.blocks, self.options = decoder, blocks, options
        self.prose_rows = round(options.batch * blocks.prose_share)

    def modules(self) -> Decoder:
        return self.decoder

    def batches(self, first_step: int) -> Iterator[Tensor]:
        make = partial(self.blocks, size=self.options.batch)
        return map(torch.from_numpy, steps_ahead(make, first_step, self.options.workers))

    def loss(self, ids_BT: Tensor) -> dict[str, Tensor]:
        """Cross-entropy a token, and its two parts: English, and dialogues."""
        ids_BT = ids_BT.to(self.decoder.embed.weight.device)
        seen_BT, next_BT = ids_BT[:, :-1], ids_BT[:, 1:]
        positions_BT = torch.arange(seen_BT.shape[1], device=ids_BT.device).expand_as(seen_BT)
        scores_BTV = self.decoder.logits(self.decoder(self.decoder.embed(seen_BT), positions_BT)).float()
        losses_BT = F.cross_entropy(scores_BTV.flatten(0, 1), next_BT.flatten(), reduction="none").view_as(next_BT)
        parts = {"prose": losses_BT[: self.prose_rows], "dialogue": losses_BT[self.prose_rows :]}
        return {"loss": losses_BT.mean(), **{name: part.mean() for name, part in parts.items() if part.numel()}}
