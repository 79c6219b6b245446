"""The scale, and the lowest value, that lose least when weights are rounded to a few levels.

Names of shapes: R rows that are fitted one by one, K weights in a row.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def fit_affine(weights_RK: Floats, top: int) -> tuple[Floats, Floats]:
    """For each row the scale and the lowest value (at most 0) with the least weighted squared error.

    Levels are guessed from a spread a little wider or narrower than the row's, then scale and lowest value follow
    from the normal equations; large weights count more. The best guess wins.
    """
    low = np.minimum(weights_RK.min(axis=-1), 0)
    span = weights_RK.max(axis=-1) - low
    care_RK = np.sqrt(np.mean(weights_RK * weights_RK, axis=-1, keepdims=True)) + np.abs(weights_RK)
    care = care_RK.sum(axis=-1)
    care_x_RK = care_RK * weights_RK
    care_x = care_x_RK.sum(axis=-1)
    shifted_RK = (weights_RK - low[:, None]) * inverse_or_zero(span)[:, None]
    best_gain = np.full(len(weights_RK), -np.inf, dtype=np.float32)
    best_scale, best_low = span / np.float32(top), low
    for spread in np.linspace(top - 1.2, top + 0.9, 13, dtype=np.float32):
        q_RK = np.rint(shifted_RK * spread).clip(0, top)
        care_q_RK = care_RK * q_RK
        sum_q = care_q_RK.sum(axis=-1)
        sum_qq = np.einsum("rk,rk->r", care_q_RK, q_RK)
        sum_qx = np.einsum("rk,rk->r", care_x_RK, q_RK)
        inverse = inverse_or_zero(care * sum_qq - sum_q * sum_q)
        scale = (care * sum_qx - sum_q * care_x) * inverse
        lowest = (sum_qq * care_x - sum_q * sum_qx) * inverse
        above = lowest > 0
        scale = np.where(above, sum_qx * inverse_or_zero(sum_qq), scale)
        lowest = np.where(above, 0, lowest).astype(np.float32)
        gain = scale * sum_qx + lowest * care_x  # what the fit takes off the weighted sum of squares
        better = (gain > best_gain) & (scale > 0)
        best_gain = np.where(better, gain, best_gain)
        best_scale, best_low = np.where(better, scale, best_scale), np.where(better, lowest, best_low)
    return best_scale, best_low


def fit_centred(weights_RK: Floats, middle: int) -> Floats:
    """For each row the scale, of either sign, with the least squared error, large weights counting more."""
    unit_RK = weights_RK * -inverse_or_zero(furthest(weights_RK))
    care_RK = weights_RK * weights_RK
    best_gain = np.zeros(len(weights_RK), dtype=np.float32)
    best_scale = np.zeros(len(weights_RK), dtype=np.float32)
    for spread in np.linspace(middle - 0.9, middle + 0.9, 13, dtype=np.float32):
        q_RK = np.rint(unit_RK * spread).clip(-middle, middle - 1)
        care_q_RK = care_RK * q_RK
        sum_qx = np.einsum("rk,rk->r", care_q_RK, weights_RK)
        scale = sum_qx * inverse_or_zero(np.einsum("rk,rk->r", care_q_RK, q_RK))
        gain = scale * sum_qx
        better = gain > best_gain
        best_gain, best_scale = np.where(better, gain, best_gain), np.where(better, scale, best_scale)
    return best_scale


def furthest(values: Floats) -> Floats:
    """The value furthest from zero in each row, sign kept, the first where several are."""
    return np.take_along_axis(values, np.abs(values).argmax(axis=-1)[:, None], axis=-1)


def inverse_or_zero(values: Floats) -> Floats:
    """1 / value, and 0 where that is no finite number."""
    inverse = np.zeros_like(values)
    return np.divide(1, values, out=inverse, where=np.abs(values) > 3e-39)
