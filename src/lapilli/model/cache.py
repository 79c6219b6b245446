"""What attention remembers: keys and values of the tokens already read."""

from __future__ import annotations

import torch
from torch import Tensor

from lapilli.config import TextConfig


class KVCache:
    """Keys and values of B rows; rows of different lengths are padded on the left.

    Usage: `cache = KVCache(config, rows=2)`, then pass it to each forward; it grows as it is fed.
    """

    def __init__(
        self,
        config: TextConfig,
        rows: int,
        capacity: int = 256,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (config.num_layers, rows, config.num_kv_heads, capacity, config.head_dim)
        self.k_LBKSD = torch.empty(shape, dtype=dtype, device=device)
        self.v_LBKSD = torch.empty(shape, dtype=dtype, device=device)
        self.valid_BS = torch.zeros(rows, capacity, dtype=torch.bool, device=device)
        self.length = 0
        self.padded = False

    @property
    def capacity(self) -> int:
        return self.valid_BS.shape[1]

    def extend(self, new: int, valid_BT: Tensor | None = None) -> None:
        """Make room for `new` tokens a row; `valid_BT` is False where a row has padding."""
        if self.length + new > self.capacity:
            self._grow(max(self.length + new, 2 * self.capacity))
        window = slice(self.length, self.length + new)
        if valid_BT is None:
            self.valid_BS[:, window] = True
        else:
            self.valid_BS[:, window] = valid_BT
            self.padded = self.padded or not bool(valid_BT.all())
        self.length += new

    def update(self, layer: int, k_BKTD: Tensor, v_BKTD: Tensor) -> tuple[Tensor, Tensor]:
        """Store the newest keys and values of one layer; returns all of that layer's."""
        window = slice(self.length - k_BKTD.shape[2], self.length)
        self.k_LBKSD[layer, :, :, window] = k_BKTD
        self.v_LBKSD[layer, :, :, window] = v_BKTD
        return self.k_LBKSD[layer, :, :, : self.length], self.v_LBKSD[layer, :, :, : self.length]

    def keep(self, rows: Tensor) -> None:
        """Keep only these rows (indices), in this order: finished rows leave the batch."""
        self.k_LBKSD = self.k_LBKSD[:, rows]
        self.v_LBKSD = self.v_LBKSD[:, rows]
        self.valid_BS = self.valid_BS[rows]

    def _grow(self, capacity: int) -> None:
        for name in ("k_LBKSD", "v_LBKSD"):
            old = getattr(self, name)
            wider = old.new_empty((*old.shape[:3], capacity, old.shape[4]))
            wider[:, :, :, : self.length] = old[:, :, :, : self.length]
            setattr(self, name, wider)
        valid = self.valid_BS.new_zeros(self.valid_BS.shape[0], capacity)
        valid[:, : self.length] = self.valid_BS[:, : self.length]
        self.valid_BS = valid
