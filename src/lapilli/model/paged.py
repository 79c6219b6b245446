"""The cache that many sequences share: pages of keys and values, and the two ways of reading them.

Usage: `pages = PagedCache(config, pages=64, size=32)`, then pass `Chunk(pages, …)` (a part of one prompt) or
`Rows(pages, …)` (one token each of many sequences) as a forward's cache. Names of shapes: P pages of S places.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from lapilli.config import TextConfig
from lapilli.kernels.attention import paged_attention
from lapilli.model.cache import Masks, look


class PagedCache:
    """Keys and values of all layers in P pages of S places; memory is touched as pages are first used."""

    def __init__(
        self,
        config: TextConfig,
        pages: int,
        size: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.size = size
        shape = (config.num_layers, pages, size, config.num_kv_heads, config.head_dim)
        self.k_LPSKD = torch.empty(shape, dtype=dtype, device=device)
        self.v_LPSKD = torch.empty(shape, dtype=dtype, device=device)

    @property
    def device(self) -> torch.device:
        return self.k_LPSKD.device

    def places(self, pages: list[int], start: int, stop: int) -> list[int]:
        """Where positions [start, stop) of a sequence with these pages lie, counted over all pages."""
        return [pages[at // self.size] * self.size + at % self.size for at in range(start, stop)]

    def write(self, layer: int, places_T: Tensor, k_TKD: Tensor, v_TKD: Tensor) -> None:
        """Keep keys and values at these places."""
        self.k_LPSKD[layer].flatten(0, 1).index_copy_(0, places_T, k_TKD.to(self.k_LPSKD.dtype))
        self.v_LPSKD[layer].flatten(0, 1).index_copy_(0, places_T, v_TKD.to(self.v_LPSKD.dtype))


class Chunk:
    """Positions [start, stop) of one sequence, which may look at all before them.

    Queries are taken in tiles of `tile` at absolute positions: what a position finds has the same shapes wherever
    the chunk begins.
    """

    def __init__(self, cache: PagedCache, pages: list[int], start: int, stop: int, tile: int) -> None:
        self.cache, self.start, self.stop = cache, start, stop
        self.places_T = torch.tensor(cache.places(pages, start, stop), device=cache.device)
        self.pages_P = torch.tensor(pages[: -(-stop // cache.size)], device=cache.device)
        edges = [start, *range((start // tile + 1) * tile, stop, tile), stop]
        self.tiles = [(a, b, Masks(b - a, b, None, cache.device)) for a, b in itertools.pairwise(edges)]

    def begin(self, new: int, valid_BT: Tensor | None) -> None:
        assert new == self.stop - self.start, f"{new} tokens are read, {self.stop - self.start} were planned"
        assert valid_BT is None, "a chunk has no padding"

    def attend(self, layer: int, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, window: int | None) -> Tensor:
        self.cache.write(layer, self.places_T, k_BKTD[0].transpose(0, 1), v_BKTD[0].transpose(0, 1))
        k_BKSD = self._all(self.cache.k_LPSKD[layer], q_BHTD.dtype)
        v_BKSD = self._all(self.cache.v_LPSKD[layer], q_BHTD.dtype)
        found = [
            look(q_BHTD[:, :, a - self.start : b - self.start], k_BKSD[:, :, :b], v_BKSD[:, :, :b], *masks.of(window))
            for a, b, masks in self.tiles
        ]
        return found[0] if len(found) == 1 else torch.cat(found, dim=2)

    def _all(self, pages_PSKD: Tensor, dtype: torch.dtype) -> Tensor:
        """All keys or values up to the chunk's end, (1, K, positions, D)."""
        return pages_PSKD[self.pages_P].flatten(0, 1)[: self.stop].transpose(0, 1)[None].to(dtype)


class Rows:
    """One token each of B rows: row b is position `contexts_B[b] - 1` of the sequence with pages `tables_BP[b]`.

    Several rows may belong to one sequence, at positions that follow one another.
    """

    def __init__(self, cache: PagedCache, places_B: Tensor, tables_BP: Tensor, contexts_B: Tensor) -> None:
        self.cache, self.places_B, self.tables_BP, self.contexts_B = cache, places_B, tables_BP, contexts_B

    def of(self, rows: list[int]) -> Rows:
        """Some of the rows alone."""
        return Rows(self.cache, self.places_B[rows], self.tables_BP[rows], self.contexts_B[rows])

    def begin(self, new: int, valid_BT: Tensor | None) -> None:
        assert new == 1, f"a row reads one token at a time, not {new}"
        assert valid_BT is None, "rows have no padding"

    def attend(self, layer: int, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, window: int | None) -> Tensor:
        self.cache.write(layer, self.places_B, k_BKTD[:, :, 0], v_BKTD[:, :, 0])
        k_PSKD, v_PSKD = self.cache.k_LPSKD[layer], self.cache.v_LPSKD[layer]
        q_BHD = q_BHTD[:, :, 0]
        scale = q_BHD.shape[-1] ** -0.5
        found_BHD = paged_attention(q_BHD, k_PSKD, v_PSKD, self.tables_BP, self.contexts_B, scale, window)
        return found_BHD[:, :, None]
