"""Rows that are among the nearest of very many others, and rows that are among those of none.

Hubness is the skewness of the k-occurrence (Radovanovic, Nanopoulos and Ivanovic, JMLR 2010, section 2). Even where
neighbours are drawn by chance it is not 0: then the k-occurrence is binomial, and its skewness is the floor that a
measured one is held against. Anti-hubs are rows that no query finds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vecdb.evaluation.health.sure import bootstrap, share_of
from vecdb.evaluation.hubness import occurrences, skewness
from vecdb.evaluation.intervals import Estimate

__all__ = ["Hubness", "floor_of", "hubness"]


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


def hubness(found: npt.NDArray[np.int64], rows: int, *, itself: bool = False, seed: int = 0) -> Hubness | None:
    """Return the k-occurrence of rows and its skewness.

    Parameters
    ----------
    found : ndarray of int64, shape (q, k)
        Rows nearest to each query; negative: none.
    rows : int
        How many could be found.
    itself : bool, default False
        Whether the queries are the rows, so that each is asked for all others.
    seed : int, default 0
        Of the interval.

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
        bootstrap(often, skewness, seed=seed),
        floor,
        share_of(int(np.count_nonzero(often == 0)), rows),
        alone,
        int(often.max()),
        tuple(np.bincount(often).tolist()),
        queries,
        rows,
    )


def floor_of(queries: int, k: int, rows: int) -> tuple[float, float]:
    """Return skewness and share of zeros of a binomial of `queries` draws with probability ``k / rows``."""
    chance = k / rows
    spread = math.sqrt(queries * chance * (1.0 - chance))
    return ((1.0 - 2.0 * chance) / spread if spread > 0 else math.nan), (1.0 - chance) ** queries
