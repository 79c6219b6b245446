"""The one place of the engine where tensors are made: reads a chunk of a prompt, or a token each of many answers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from lapilli.engine.scheduler import Work
from lapilli.model.decode import QuantizedStep
from lapilli.model.llava import Llava
from lapilli.model.lora import Adaptable, Adapter
from lapilli.model.paged import Chunk, PagedCache, Rows


class Runner:
    """A model and its pages.

    A row's sums must not depend on its company. Where they depend on how many rows there are, as those of floating
    point matrices do, answers always go so many at a time (`padded`), and a prompt is read in whole chunks.
    """

    def __init__(self, model: Llava, *, blocks: int, block: int, rows: int, tile: int, padded: bool) -> None:
        self.model, self.tile, self.padded = model, tile, padded
        # Threads share rows out: among 6, a row's sums would depend on its place, among 8 they do not.
        self.rows = -(-rows // 8) * 8
        # One page more than the scheduler knows: rows that pad a step write there.
        self.nowhere = blocks
        self.cache = PagedCache(model.config.text, blocks + 1, block, dtype=model.dtype, device=model.device)
        self._adaptable: Adaptable | None = None
        self._step = QuantizedStep.of(model.language, self.cache)

    def read(self, work: Work, embeds_TD: Tensor, adapter: Adapter | None = None) -> Tensor | None:
        """A chunk of a prompt; scores (1, V) for what comes next where it ends the prompt and nothing was said yet."""
        request, model = work.request, self.model
        if adapter is not None:
            model = self._adapted().chunk(adapter, work.start, work.stop, self.tile)
        chunk = Chunk(self.cache, request.blocks, work.start, work.stop, self.tile)
        hidden_BTD = model(
            embeds_TD[None],
            torch.arange(work.start, work.stop, device=model.device)[None],
            chunk,
            lengths_B=torch.tensor([request.prompt_length], device=model.device),
        )
        return model.logits(hidden_BTD[0, -1:]) if work.speaks else None

    def say(self, works: Sequence[Work], adapters: Sequence[Adapter | None] = ()) -> list[Tensor]:
        """Answers a token further, or several that are known or guessed; each with its adapter, where they have any.

        For each of them scores (1 + drafts, V) for what follows the last known token and each guess.
        """
        ids: list[int] = []
        positions: list[int] = []
        places: list[int] = []
        tables: list[list[int]] = []
        for work in works:
            pages, tokens = work.request.blocks, work.tokens
            ids += tokens
            positions += range(work.start, work.start + len(tokens))
            places += self.cache.places(pages, work.start, work.start + len(tokens))
            tables += [pages] * len(tokens)
        if self.padded:
            spare = self.rows - len(ids)
            ids, positions = ids + [0] * spare, positions + [0] * spare
            places, tables = places + [self.nowhere * self.cache.size] * spare, tables + [[self.nowhere]] * spare
        chosen = (
            [adapter for work, adapter in zip(works, adapters, strict=True) for _ in work.tokens] if adapters else []
        )
        chosen += [None] * (len(ids) - len(chosen))
        model = self.model
        device, widest = model.device, max(map(len, tables))
        rows = Rows(
            self.cache,
            torch.tensor(places, device=device),
            torch.tensor([t + [0] * (widest - len(t)) for t in tables], dtype=torch.int32, device=device),
            torch.tensor([p + 1 for p in positions], dtype=torch.int32, device=device),
        )
        # Not `embed`: a model that says its own placeholder's id must not be asked for a picture.
        embeds_BD = model.language.embed(torch.tensor(ids, device=device))
        hidden_BD = self._hidden(embeds_BD, torch.tensor(positions, device=device), rows, chosen)
        scores_BV = model.logits(hidden_BD)
        ends = itertools.accumulate(len(work.tokens) for work in works)
        return [scores_BV[end - len(work.drafts) - 1 : end] for work, end in zip(works, ends, strict=True)]

    def _hidden(self, embeds_BD: Tensor, positions_B: Tensor, rows: Rows, adapters: Sequence[Adapter | None]) -> Tensor:
        """Hidden states (B, D) of these rows; one without an adapter takes the same way whoever is beside it."""
        plain = [row for row, adapter in enumerate(adapters) if adapter is None]
        if self._step is not None and plain:
            if len(plain) == len(adapters):
                return self._step(embeds_BD, positions_B, rows)
            hidden_BD = torch.empty_like(embeds_BD)
            hidden_BD[plain] = self._step(embeds_BD[plain], positions_B[plain], rows.of(plain))
            others = [row for row, adapter in enumerate(adapters) if adapter is not None]
            chosen = [adapters[row] for row in others]
            hidden_BD[others] = self._hidden(embeds_BD[others], positions_B[others], rows.of(others), chosen)
            return hidden_BD
        model = self._adapted().rows(adapters, self.rows) if any(adapters) else self.model
        hidden_B1D: Tensor = model.language(embeds_BD[:, None], positions_B[:, None], rows)
        return hidden_B1D[:, 0]

    def _adapted(self) -> Adaptable:
        """The model as adapters can be put on it; made when the first one is asked for."""
        if self._adaptable is None:
            self._adaptable = Adaptable(self.model)
        return self._adaptable
