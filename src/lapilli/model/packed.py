"""Several texts in one row, none seeing another: how short samples are trained on without padding."""

from __future__ import annotations

import torch
from torch import Tensor

from lapilli.model.cache import look


class Packed:
    """Remembers nothing but the pass itself; `texts_BT` numbers the text that each place of a row belongs to."""

    def __init__(self, texts_BT: Tensor) -> None:
        self._same_BTT = texts_BT[:, :, None] == texts_BT[:, None, :]
        self._masks: dict[int | None, Tensor] = {}

    def begin(self, new: int, valid_BT: Tensor | None) -> None:
        assert new == self._same_BTT.shape[1], "a packed row is read whole"

    def attend(self, layer: int, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, window: int | None) -> Tensor:
        return look(q_BHTD, k_BKTD, v_BKTD, self._mask(window), False)

    def _mask(self, window: int | None) -> Tensor:
        if window not in self._masks:
            place = torch.arange(self._same_BTT.shape[1], device=self._same_BTT.device)
            back_TT = place[:, None] - place[None, :]
            near_TT = (back_TT >= 0) if window is None else (back_TT >= 0) & (back_TT < window)
            self._masks[window] = (self._same_BTT & near_TT)[:, None]
        return self._masks[window]
