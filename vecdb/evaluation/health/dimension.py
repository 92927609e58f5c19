"""How many dimensions vectors fill locally, from distances to their nearest neighbours.

Two estimates that look at different scales: maximum likelihood over many neighbours (Levina and Bickel, NIPS 2004,
equation 8, averaged over its inverse as MacKay and Ghahramani, 2005, show), and the ratio of the first two distances
(Facco, d'Errico, Rodriguez and Laio, Scientific Reports 2017: TwoNN). Neighbours at distance 0 are copies and say
nothing of dimension; they are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vecdb.evaluation.health.sure import bootstrap
from vecdb.evaluation.intervals import Estimate

__all__ = ["LEAST_ROWS", "Dimension", "dimension", "inverse_dimensions", "ratios", "two_nn"]

F64 = npt.NDArray[np.float64]

LEAST_ROWS: Final = 20
"""Rows with usable neighbours below which nothing is said."""
_LEAST_NEIGHBOURS: Final = 3
_KEPT: Final = 0.9
"""Share of the smallest ratios that TwoNN fits; the largest depart from the law (section "Methods" of its paper)."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """Local intrinsic dimension.

    Attributes
    ----------
    mle : Estimate
        By maximum likelihood over `neighbours`.
    two_nn : Estimate
        By the ratio of the first two distances.
    neighbours : int
    local : tuple of float
        Quantiles of the estimates around single vectors, at 5, 25, 50, 75 and 95 %.
    """

    mle: Estimate
    two_nn: Estimate
    neighbours: int
    local: tuple[float, ...] = ()


def dimension(distances: npt.NDArray[np.floating], *, seed: int = 0) -> Dimension | None:
    """Return both estimates.

    Parameters
    ----------
    distances : ndarray, shape (q, k)
        Distances of each vector to its k nearest neighbours, ascending; NaN or infinity where there are fewer.
    seed : int, default 0
        Of the intervals.

    Returns
    -------
    Dimension or None
        None: fewer than 20 vectors have 3 neighbours at different, positive distances.
    """
    inverse, ratio = inverse_dimensions(distances), ratios(distances)
    if min(len(inverse), len(ratio)) < LEAST_ROWS:
        return None
    mle = bootstrap(inverse, lambda each: 1.0 / float(each.mean()) if each.mean() > 0 else math.nan, seed=seed)
    local = 1.0 / np.quantile(inverse[inverse > 0], [0.95, 0.75, 0.5, 0.25, 0.05])
    return Dimension(mle, bootstrap(ratio, two_nn, seed=seed), distances.shape[1], tuple(local.tolist()))


def inverse_dimensions(distances: npt.NDArray[np.floating]) -> F64:
    """Return the inverse of the estimate around each vector that has neighbours enough, shape (u,).

    ``1 / (k - 1) * sum over j < k of log(T_k / T_j)``: the mean of logarithms up to the last neighbour.
    """
    table = _positive(distances)
    known = np.isfinite(table).sum(axis=1)
    table = table[known >= _LEAST_NEIGHBOURS]
    last = np.nanmax(table, axis=1) if len(table) else np.empty(0)
    logs = np.log(last[:, None] / table)
    inner = np.isfinite(table).sum(axis=1) - 1
    made = np.nansum(logs, axis=1) / np.maximum(inner, 1)
    return np.asarray(made[made > 0], np.float64)


def ratios(distances: npt.NDArray[np.floating]) -> F64:
    """Return the second distance by the first of each vector that has both, shape (u,)."""
    table = np.sort(_positive(distances), axis=1)[:, :2]
    if table.shape[1] < 2:
        return np.empty(0)
    there = np.isfinite(table).all(axis=1)
    return np.asarray(table[there, 1] / table[there, 0], np.float64)


def two_nn(ratio: F64) -> float:
    """Return the slope through the origin of ``-log(1 - F)`` over ``log(ratio)``, the largest tenth left out."""
    ordered = np.sort(ratio)
    kept = int(len(ordered) * _KEPT)
    across = np.log(ordered[:kept])
    up = -np.log1p(-np.arange(1, kept + 1) / len(ordered))
    below = float(across @ across)
    return float(across @ up) / below if below > 0 else math.nan


def _positive(distances: npt.NDArray[np.floating]) -> F64:
    wide = distances.astype(np.float64)
    return np.where(np.isfinite(wide) & (wide > 0), wide, np.nan)
