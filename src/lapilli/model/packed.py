"""Several texts in one row, none seeing another: how short samples are trained on without padding."""

from __future__ import annotations

import torch
from torch import Tensor

from lapilli.model.cache import look


class Packed:
    """Remembers nothing but the pass itself; `texts_BT` numbers the text that each place of a row belongs to, -1 none.

    A CPU looks at each text by itself, a GPU at whole rows through a mask.
    """

    def __init__(self, texts_BT: Tensor) -> None:
        self._texts_BT = texts_BT
        self._runs = [_runs(texts_T) for texts_T in texts_BT.tolist()] if texts_BT.device.type == "cpu" else []
        self._masks: dict[int | None, Tensor] = {}

    def begin(self, new: int, valid_BT: Tensor | None) -> None:
        assert new == self._texts_BT.shape[1], "a packed row is read whole"

    def attend(self, layer: int, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor, window: int | None) -> Tensor:
        if not self._runs:
            return look(q_BHTD, k_BKTD, v_BKTD, self._mask(window), False)
        rows = []
        for row, runs in enumerate(self._runs):
            q_1HTD, k_1KTD, v_1KTD = (x_BHTD[row : row + 1] for x_BHTD in (q_BHTD, k_BKTD, v_BKTD))
            pieces = [
                _alone(q_1HTD[:, :, start:end], k_1KTD[:, :, start:end], v_1KTD[:, :, start:end], window)
                if is_text
                else torch.zeros_like(q_1HTD[:, :, start:end])
                for start, end, is_text in runs
            ]
            rows.append(torch.cat(pieces, dim=2))
        return torch.cat(rows)

    def _mask(self, window: int | None) -> Tensor:
        if window not in self._masks:
            near_TT = _near(torch.arange(self._texts_BT.shape[1], device=self._texts_BT.device), window)
            same_BTT = self._texts_BT[:, :, None] == self._texts_BT[:, None, :]
            self._masks[window] = (same_BTT & near_TT)[:, None]
        return self._masks[window]


def _alone(q_1HTD: Tensor, k_1KTD: Tensor, v_1KTD: Tensor, window: int | None) -> Tensor:
    """One text's attention to itself."""
    length = q_1HTD.shape[2]
    if window is None or window >= length:
        return look(q_1HTD, k_1KTD, v_1KTD, None, True)
    return look(q_1HTD, k_1KTD, v_1KTD, _near(torch.arange(length, device=q_1HTD.device), window), False)


def _near(place_T: Tensor, window: int | None) -> Tensor:
    """Which places each place sees: those before it, as far as the window goes."""
    back_TT = place_T[:, None] - place_T[None, :]
    return back_TT >= 0 if window is None else (back_TT >= 0) & (back_TT < window)


def _runs(texts: list[int]) -> list[tuple[int, int, bool]]:
    """Where each text of a row begins and ends, and each stretch of nothing."""
    edges = [place for place in range(1, len(texts)) if texts[place] != texts[place - 1]]
    return [(start, end, texts[start] >= 0) for start, end in zip([0, *edges], [*edges, len(texts)], strict=True)]
