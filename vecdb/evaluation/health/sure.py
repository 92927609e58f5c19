"""How sure a measure of a sample is: resampled intervals, and intervals of shares.

Invariant: the same values and seed give the same interval, and an interval holds its value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.evaluation.intervals import Estimate

__all__ = ["bootstrap", "mean_of", "nothing", "share_of", "whole"]

RESAMPLES: Final = 200
_LEVEL: Final = 0.95


def bootstrap(
    values: npt.NDArray[Any],
    statistic: Callable[[npt.NDArray[Any]], float],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Return a statistic of independent rows with its basic percentile interval (Efron and Tibshirani, 1993, ch. 13).

    Parameters
    ----------
    values : ndarray, shape (n, ...)
        Rows are resampled whole.
    statistic : callable
        From rows to a number; what it returns of some resample may be NaN, which is left out.
    seed : int, default 0
    resamples : int, default 200
    """
    if not len(values):
        return nothing()
    random = np.random.default_rng(seed)
    drawn = [statistic(values[random.integers(0, len(values), len(values))]) for _ in range(resamples)]
    known = [value for value in drawn if math.isfinite(value)]
    value = statistic(values)
    if not known or not math.isfinite(value):
        return Estimate(value, math.nan, math.nan, len(values))
    low, high = np.quantile(known, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2]).tolist()
    return Estimate(value, min(low, value), max(high, value), len(values))


def mean_of(values: npt.NDArray[Any]) -> Estimate:
    """Return the mean of independent values with its normal interval; NaN where there are none."""
    if not len(values):
        return nothing()
    wide = values.astype(np.float64)
    value = float(wide.mean())
    reach = (
        NormalDist().inv_cdf((1 + _LEVEL) / 2) * float(wide.std(ddof=1)) / math.sqrt(len(wide))
        if len(wide) > 1
        else math.nan
    )
    return Estimate(value, value - reach, value + reach, len(wide))


def share_of(count: int, total: int) -> Estimate:
    """Return ``count / total`` with the interval of Wilson (JASA 1927); NaN where `total` is 0."""
    if not total:
        return nothing()
    z = NormalDist().inv_cdf((1 + _LEVEL) / 2)
    share = count / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    reach = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return Estimate(share, min(share, max(0.0, middle - reach)), max(share, min(1.0, middle + reach)), total)


def nothing() -> Estimate:
    """Return the estimate of what was not measured."""
    return Estimate(math.nan, math.nan, math.nan, 0)


def whole(value: float, count: int) -> Estimate:
    """Return a number that was counted over everything there is, so that nothing about it is unsure."""
    return Estimate(value, value, value, count)
