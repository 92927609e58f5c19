"""How sure a mean, a difference or a ratio is: resampling queries by cluster, and predictions for queries to come.

An interval for queries that were asked says nothing about those to come, whose mean varies as well: its variance is
that of the sample times ``1 + n1 / n2`` for n2 new ones. What a refit on other pairs would change is added. Clusters
are resampled whole (Efron and Tibshirani, 1993, section 8.5), and both sides of a comparison together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

__all__ = ["RESAMPLES", "Estimate", "paired", "predict_mean", "predict_ratio"]

Values = npt.NDArray[np.float64]
Clusters = npt.NDArray[np.int64]

RESAMPLES = 1_000
_LEAST = 1e-9
_UNKNOWN = 4.0
_STEP = 0.5
"""What one query more may change: the answer first, or second."""
_KEPT, _PIECE = 4_000, 50
"""Clusters up to which all resamples are drawn at once and kept (32 MB); resamples that are drawn at once for more."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and the interval in which it is expected.

    Attributes
    ----------
    value, low, high : float
        NaN where nothing was measured.
    queries : int
        On how many it was measured.
    """

    value: float
    low: float
    high: float
    queries: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def as_dict(self) -> dict[str, float]:
        """Return value, low, high and queries."""
        return {"value": self.value, "low": self.low, "high": self.high, "queries": self.queries}


def paired(one: Values, other: Values, clusters: Clusters, *, seed: int = 0, level: float = 0.95) -> Estimate:
    """Return the mean difference ``one - other`` over the same queries, with a percentile interval.

    Parameters
    ----------
    one, other : ndarray of float64, shape (q,)
        NaN in either: the query is left out.
    clusters : ndarray of int64, shape (q,)
        Queries of one cluster are resampled together.
    seed : int, default 0
    level : float, default 0.95
    """
    known = ~(np.isnan(one) | np.isnan(other))
    difference = (one - other)[known]
    if not len(difference):
        return _nothing()
    drawn = _resampled(np.column_stack([difference, np.ones(len(difference))]), clusters[known], seed)
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [tail, 1.0 - tail])
    return Estimate(float(difference.mean()), float(low), float(high), len(difference))


def predict_ratio(
    upper: Values, lower: Values, clusters: Clusters, *, new: int | None = None, seed: int = 0, level: float = 0.95
) -> Estimate:
    """Return the ratio of two means, with the interval in which that of new queries will lie.

    Parameters
    ----------
    upper, lower : ndarray of float64, shape (q,) or (splits, q)
        What the compared rankings are worth for each query; with several splits of the pairs, of each refit. NaN: the
        query was not judged in that split.
    clusters : ndarray of int64, shape (q,)
    new : int, optional
        How many queries the prediction is for; default: as many as there are.
    seed, level
        As in `paired`.

    Returns
    -------
    Estimate
        The interval is symmetric in the logarithm; NaN where the lower mean is 0.
    """
    above, below, known = _shaped(upper, lower)
    if not above.shape[1] or np.nanmean(below) <= _LEAST:
        return _nothing()
    means = np.column_stack([np.nanmean(above, 0), np.nanmean(below, 0)])
    drawn = _resampled(means, clusters[known], seed)
    logs = np.log(np.maximum(drawn[:, 0], _LEAST)) - np.log(np.maximum(drawn[:, 1], _LEAST))
    refits = np.log(np.maximum(_by_split(above), _LEAST)) - np.log(np.maximum(_by_split(below), _LEAST))
    value = float(means[:, 0].mean() / means[:, 1].mean())
    step = _STEP / (above.shape[1] * float(means[:, 1].mean()))
    reach = math.exp(_reach(logs, refits, above.shape[1], new, level, step=step))
    return Estimate(value, value / reach, value * reach, above.shape[1])


def predict_mean(
    values: Values, clusters: Clusters, *, new: int | None = None, seed: int = 0, level: float = 0.95
) -> Estimate:
    """Return a mean, with the interval in which that of new queries will lie; parameters as in `predict_ratio`."""
    each, _, known = _shaped(values, values)
    if not each.shape[1]:
        return _nothing()
    mean = np.nanmean(each, 0)
    drawn = _resampled(np.column_stack([mean, np.ones(len(mean))]), clusters[known], seed)
    found = drawn[:, 0] / drawn[:, 1]
    reach = _reach(found, _by_split(each), each.shape[1], new, level, step=_STEP / each.shape[1])
    value = float(mean.mean())
    return Estimate(value, max(value - reach, 0.0), min(value + reach, 1.0), each.shape[1])


def _shaped(upper: Values, lower: Values) -> tuple[Values, Values, npt.NDArray[np.bool_]]:
    """Return both as (splits, known queries), NaN where one of them is; known: in at least one split."""
    above, below = np.atleast_2d(upper), np.atleast_2d(lower)
    shape = max(len(above), len(below)), above.shape[1]
    above, below = np.broadcast_to(above, shape).copy(), np.broadcast_to(below, shape).copy()
    missing = np.isnan(above) | np.isnan(below)
    above[missing] = below[missing] = np.nan
    known = np.asarray(~missing.all(axis=0), np.bool_)
    return above[:, known], below[:, known], known


def _resampled(values: Values, clusters: Clusters, seed: int) -> Values:
    """Return sums over resampled clusters, shape (RESAMPLES, columns)."""
    _, numbers = np.unique(clusters, return_inverse=True)
    numbers = numbers.reshape(-1)
    count = int(numbers.max()) + 1
    sums = np.column_stack([np.bincount(numbers, weights=column, minlength=count) for column in values.T])
    if count <= _KEPT:
        return np.asarray(_weights(count, seed) @ sums, np.float64)
    random = np.random.default_rng(seed)
    return np.concatenate([_drawn(random, count, _PIECE) @ sums for _ in range(RESAMPLES // _PIECE)])


@lru_cache(maxsize=2)
def _weights(count: int, seed: int) -> Values:
    """Return how often each cluster is in each resample; drawing them takes longer than all the rest."""
    weights = _drawn(np.random.default_rng(seed), count, RESAMPLES)
    weights.flags.writeable = False
    return weights


def _drawn(random: np.random.Generator, count: int, resamples: int) -> Values:
    return random.multinomial(count, np.full(count, 1.0 / count), size=resamples).astype(np.float64)


def _by_split(values: Values) -> Values:
    """Return the mean of each split over the queries that it knows, without splits that know none."""
    there: Values = values[~np.isnan(values).all(axis=1)]
    return np.asarray(np.nanmean(there, axis=1), np.float64)


def _reach(drawn: Values, refits: Values, queries: int, new: int | None, level: float, *, step: float) -> float:
    """Return half the width of the interval: sampling of queries, now and then, and one refit against their mean.

    `step` is what one more query that the two sides answer differently would change: where they hardly ever do,
    resamples of those that were asked do not know of it.
    """
    sampling = (float(drawn.var()) + step * step) * (1.0 + queries / (new or queries))
    refitting = _refitting(refits)
    return NormalDist().inv_cdf(0.5 + level / 2.0) * math.sqrt(sampling + refitting)


def _refitting(refits: Values) -> float:
    """Return the variance of one more refit around the mean of these, as wide as few of them leave it unknown.

    The variance of Student's distribution with as many degrees of freedom; up to two it is not finite, and limited.
    """
    freedom = len(refits) - 1
    if freedom < 1:
        return 0.0
    unknown = min(freedom / (freedom - 2), _UNKNOWN) if freedom > 2 else _UNKNOWN
    return float(refits.var(ddof=1)) * (1.0 + 1.0 / len(refits)) * unknown


def _nothing() -> Estimate:
    return Estimate(math.nan, math.nan, math.nan, 0)
