"""How norms and scores are spread: histograms, quantiles, and what is nearly the same.

Scores of random pairs against those of nearest neighbours say how far neighbours stand out, which is what a threshold
needs. Near-duplicates are judged by the cosine of what is left of two vectors without the mean of their space: where
all vectors point one way, plain cosines call everything the same (`evaluation.groups` has the same rule).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vecdb.evaluation.groups import NEAR
from vecdb.evaluation.health.sure import mean_of, share_of
from vecdb.evaluation.intervals import Estimate
from vecdb.evaluation.ranking import scores_between
from vecdb.types import Metric

__all__ = ["Duplicates", "Histogram", "Norms", "Scores", "duplicates", "histogram", "norms", "scores"]

Rows = npt.NDArray[np.floating]
F64 = npt.NDArray[np.float64]

BINS: Final = 40
QUANTILES: Final = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_ASKED: Final = 200


@dataclass(frozen=True, slots=True)
class Histogram:
    """Shares of values between edges.

    Attributes
    ----------
    edges : tuple of float
        One more than shares; ascending.
    shares : tuple of float
        They sum to 1.
    """

    edges: tuple[float, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Norms:
    """Lengths of the stored vectors.

    Attributes
    ----------
    mean : Estimate
    deviation : float
    quantiles : tuple of float
        At 0, 5, 25, 50, 75, 95 and 100 %.
    zero : int
        Vectors without a direction.
    spread : Histogram
    """

    mean: Estimate
    deviation: float
    quantiles: tuple[float, ...]
    zero: int
    spread: Histogram


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores by the metric of the space.

    Attributes
    ----------
    random, nearest, last : Histogram
        Of random pairs, of the nearest neighbour, and of the k-th; all with the same edges.
    k : int
    above : Estimate
        Share of random pairs that score less than a k-th neighbour does at the median: near 1 where neighbours stand
        out.
    """

    random: Histogram
    nearest: Histogram
    last: Histogram
    k: int
    above: Estimate


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Vectors that are there more than once.

    Attributes
    ----------
    near : Estimate
        Share whose nearest other vector has a cosine above `threshold`, both without the mean of the space.
    same : Estimate
        Share that has an identical other vector.
    threshold : float
    """

    near: Estimate
    same: Estimate
    threshold: float


def histogram(values: npt.NDArray[np.floating], low: float, high: float, bins: int = BINS) -> Histogram:
    """Return the shares of `values` in equal bins from `low` to `high`; what lies outside counts for the end."""
    high = high if high > low else low + max(abs(low) * 1e-6, 1e-9)
    edges = np.linspace(low, high, bins + 1)
    counts, _ = np.histogram(np.clip(values.astype(np.float64), low, high), edges)
    return Histogram(tuple(edges.tolist()), tuple((counts / max(1, counts.sum())).tolist()))


def norms(rows: Rows) -> Norms | None:
    """Return how long vectors are, shape (n, d); None where there are none."""
    if not len(rows):
        return None
    wide = rows.astype(np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    return Norms(
        mean_of(lengths),
        float(lengths.std()),
        tuple(np.quantile(lengths, QUANTILES).tolist()),
        int(np.count_nonzero(lengths == 0)),
        histogram(lengths, float(lengths.min()), float(lengths.max())),
    )


def scores(rows: Rows, neighbours: Rows, metric: Metric, *, k: int = 10, seed: int = 0) -> Scores | None:
    """Return how scores of neighbours stand out from those of random pairs.

    Parameters
    ----------
    rows : ndarray, shape (n, d)
    neighbours : ndarray, shape (q, m)
        Scores of the true neighbours of some vectors, best first; minus infinity where there are fewer.
    metric : {"cosine", "dot", "l2"}
    k : int, default 10
        Which neighbour is shown beside the first.
    seed : int, default 0
        Of the rows, at most 200, that are paired with all others.

    Returns
    -------
    Scores or None
        None: fewer than 2 rows, or none with a neighbour.
    """
    if len(rows) < 2 or not neighbours.size:
        return None
    k = min(k, neighbours.shape[1])
    first, last = (column[np.isfinite(column)] for column in (neighbours[:, 0], neighbours[:, k - 1]))
    if not len(first) or not len(last):
        return None
    apart = _pair_scores(rows, metric, seed)
    low = float(min(apart.min(), first.min(), last.min()))
    high = float(max(apart.max(), first.max(), last.max()))
    made = [histogram(values.ravel(), low, high) for values in (apart, first, last)]
    below = (apart < np.median(last)).mean(axis=1)  # pairs of one row are not independent, rows are
    return Scores(made[0], made[1], made[2], k, mean_of(below))


def _pair_scores(rows: Rows, metric: Metric, seed: int) -> npt.NDArray[np.float32]:
    """Return scores of some rows drawn at random with every other row, shape (some, n - 1)."""
    some = np.random.default_rng(seed).choice(len(rows), min(_ASKED, len(rows)), replace=False)
    table = scores_between(rows[some], rows, metric)
    others = np.arange(len(rows)) != some[:, None]
    return np.asarray(table[others].reshape(len(some), len(rows) - 1))


def _cosines(one: Rows, other: Rows) -> F64:
    left, right = one.astype(np.float64), other.astype(np.float64)
    products = np.einsum("ij,ij->i", left, right)
    return np.asarray(products / np.maximum(np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1), 1e-300))


def duplicates(rows: Rows, nearest: Rows, mean: Rows, *, threshold: float = NEAR) -> Duplicates | None:
    """Return the share of vectors that have a near-duplicate.

    Parameters
    ----------
    rows, nearest : ndarray, shape (q, d)
        Vectors, and the nearest other vector of each.
    mean : ndarray, shape (d,)
        Of the space.
    threshold : float, default 0.9
    """
    if not len(rows):
        return None
    same = (rows == nearest).all(axis=1)
    close = (_cosines(rows - mean, nearest - mean) > threshold) | same
    total = len(rows)
    return Duplicates(share_of(int(close.sum()), total), share_of(int(same.sum()), total), threshold)
