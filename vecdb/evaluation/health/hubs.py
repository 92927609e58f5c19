"""Rows that are among the nearest of very many others, and rows that are among those of none.

Hubness is the skewness of the k-occurrence (Radovanovic, Nanopoulos and Ivanovic, JMLR 2010, section 2). Even where
neighbours are drawn by chance it is not 0: then the k-occurrence is binomial, and its skewness is the floor that a
measured one is held against. Anti-hubs are rows that no query finds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

from vecdb.evaluation.health.sure import share_of
from vecdb.evaluation.hubness import occurrences, skewness
from vecdb.evaluation.intervals import Estimate

__all__ = ["Hubness", "floor_of", "hubness"]

_Z: Final = NormalDist().inv_cdf(0.975)
_WIDER: Final = 2.0
"""Where hubs make the skewness, samples of one space differ by more than rows of one sample tell."""


@dataclass(frozen=True, slots=True)
class Hubness:
    """How unevenly rows are found.

    Attributes
    ----------
    k : int
        Neighbours of each query.
    skewness : Estimate
        Third standardised moment of how often a row is found.
    floor : float
        What it would be if neighbours were drawn by chance.
    antihubs : Estimate
        Share of the rows that nobody finds.
    antihub_floor : float
        What it would be by chance.
    largest : int
        How often the most frequent row is found.
    counts : tuple of int
        How many rows are found 0, 1, 2, ... times.
    queries, rows : int
    """

    k: int
    skewness: Estimate
    floor: float
    antihubs: Estimate
    antihub_floor: float
    largest: int
    counts: tuple[int, ...]
    queries: int
    rows: int

    @property
    def excess(self) -> float:
        """The skewness above its floor."""
        return self.skewness.value - self.floor


def hubness(found: npt.NDArray[np.int64], rows: int, *, itself: bool = False) -> Hubness | None:
    """Return the k-occurrence of rows and its skewness.

    Parameters
    ----------
    found : ndarray of int64, shape (q, k)
        Rows nearest to each query; negative: none.
    rows : int
        How many could be found.
    itself : bool, default False
        Whether the queries are the rows, so that each is asked for all others.

    Returns
    -------
    Hubness or None
        None: nothing was asked, or k is half of the rows or more, so that the count says little.
    """
    queries, k = found.shape
    others = rows - 1 if itself else rows
    if not queries or not k or 2 * k > others:
        return None
    often = occurrences(found, rows)
    floor, alone = floor_of(queries - 1 if itself else queries, k, others)
    return Hubness(
        k,
        _sure(often),
        floor,
        share_of(int(np.count_nonzero(often == 0)), rows),
        alone,
        int(often.max()),
        tuple(np.bincount(often).tolist()),
        queries,
        rows,
    )


def _sure(often: npt.NDArray[np.int64]) -> Estimate:
    """Return the skewness of counts with its interval, which is found on the scale of its inverse hyperbolic sine.

    The spread of a skewness grows with it, so that its logarithm is what has the same spread everywhere, and near 0 it
    is itself: asinh is both. Error: jackknife over rows, doubled (docs/explanation/health.md says what that holds).
    """
    value, count = skewness(often), len(often)
    without = _left_out(often)
    error = math.sqrt((count - 1) / count * float(((without - without.mean()) ** 2).sum()))
    middle, reach = math.asinh(value), _WIDER * _Z * error / math.hypot(1.0, value)
    return Estimate(value, min(value, math.sinh(middle - reach)), max(value, math.sinh(middle + reach)), count)


def _left_out(often: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the skewness without each of the counts, shape (n,); 0 where all others are the same."""
    away = often.astype(np.float64) - float(often.mean())
    first, second, third = (((away**power).sum() - away**power) / (len(away) - 1) for power in (1, 2, 3))
    variance = np.maximum(second - first**2, 0.0)
    moment = third - 3.0 * first * second + 2.0 * first**3
    varies = variance > 1e-12 * max(1.0, float((away**2).mean()))
    return np.where(varies, moment / np.where(varies, variance, 1.0) ** 1.5, 0.0)


def floor_of(queries: int, k: int, rows: int) -> tuple[float, float]:
    """Return skewness and share of zeros of a binomial of `queries` draws with probability ``k / rows``."""
    chance = k / rows
    spread = math.sqrt(queries * chance * (1.0 - chance))
    return ((1.0 - 2.0 * chance) / spread if spread > 0 else math.nan), (1.0 - chance) ** queries
