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
    # Rows side by side: sums over K are then additions of whole vectors.
    x_KR = np.ascontiguousarray(weights_RK.T)
    low = np.minimum(x_KR.min(axis=0), 0)
    span = x_KR.max(axis=0) - low
    care_KR = np.sqrt(np.mean(x_KR * x_KR, axis=0)) + np.abs(x_KR)
    care_x_KR = care_KR * x_KR
    care, care_x = care_KR.sum(axis=0), care_x_KR.sum(axis=0)
    unit_KR = (x_KR - low) * inverse_or_zero(span)
    best_gain = np.full(len(span), -np.inf, dtype=np.float32)
    best_scale, best_low = span / np.float32(top), low
    q_KR, product_KR = np.empty_like(x_KR), np.empty_like(x_KR)
    for spread in np.linspace(top - 1.2, top + 0.9, 13, dtype=np.float32):
        _levels(unit_KR, spread, (0, top), q_KR)
        sum_qx = np.multiply(care_x_KR, q_KR, out=product_KR).sum(axis=0)
        sum_q = np.multiply(care_KR, q_KR, out=product_KR).sum(axis=0)
        sum_qq = np.multiply(product_KR, q_KR, out=product_KR).sum(axis=0)
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
    x_KR = np.ascontiguousarray(weights_RK.T)
    unit_KR = x_KR * -inverse_or_zero(furthest(weights_RK))[:, 0]
    care_KR = x_KR * x_KR
    care_x_KR = care_KR * x_KR
    best_gain = np.zeros(len(weights_RK), dtype=np.float32)
    best_scale = np.zeros(len(weights_RK), dtype=np.float32)
    q_KR, product_KR = np.empty_like(x_KR), np.empty_like(x_KR)
    for spread in np.linspace(middle - 0.9, middle + 0.9, 13, dtype=np.float32):
        _levels(unit_KR, spread, (-middle, middle - 1), q_KR)
        sum_qx = np.multiply(care_x_KR, q_KR, out=product_KR).sum(axis=0)
        np.multiply(care_KR, q_KR, out=product_KR)
        scale = sum_qx * inverse_or_zero(np.multiply(product_KR, q_KR, out=product_KR).sum(axis=0))
        gain = scale * sum_qx
        better = gain > best_gain
        best_gain, best_scale = np.where(better, gain, best_gain), np.where(better, scale, best_scale)
    return best_scale


def _levels(unit: Floats, spread: np.float32, ends: tuple[int, int], out: Floats) -> None:
    np.rint(np.multiply(unit, spread, out=out), out=out)
    np.clip(out, np.float32(ends[0]), np.float32(ends[1]), out=out)


def furthest(values: Floats) -> Floats:
    """The value furthest from zero in each row, sign kept, the first where several are."""
    return np.take_along_axis(values, np.abs(values).argmax(axis=-1)[:, None], axis=-1)


def inverse_or_zero(values: Floats) -> Floats:
    """1 / value, and 0 where that is no finite number."""
    inverse = np.zeros_like(values)
    return np.divide(1, values, out=inverse, where=np.abs(values) > 3e-39)
