"""Whether what came later lies elsewhere: windows of vectors in order of age, each against all others.

The energy distance (Szekely and Rizzo, 2013) is 0 for two samples of one distribution and needs no bandwidth; divided
by twice the mean distance between the samples it is the energy coefficient, from 0 to 1. What chance would give is
found by dealing out the vectors to windows at random, many times; the limit is that of the largest coefficient over all
windows, so that looking at many windows raises no alarm by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vecdb.evaluation.ranking import scores_between
from vecdb.types import Metric

__all__ = ["Drift", "Window", "drift", "energies"]

Rows = npt.NDArray[np.floating]
Integers = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

ROWS: Final = 2_000
"""Vectors whose distances are kept in memory."""
WINDOWS: Final = 10
_LEAST: Final = 20
_PERMUTATIONS: Final = 200
_AT_ONCE: Final = 20


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of vectors in order of age.

    Attributes
    ----------
    first, stop : int
        Places among all living vectors, 0 for the oldest.
    sampled : int
    coefficient : float
        Energy coefficient against all other windows.
    p : float
        Share of random dealings in which this window's is at least as large; never below ``1 / 201``.
    seq : tuple of (int, int) or None
        Commits that wrote its first and last vector, as far as the log goes back.
    """

    first: int
    stop: int
    sampled: int
    coefficient: float
    p: float
    seq: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Drift:
    """How far windows lie apart.

    Attributes
    ----------
    windows : tuple of Window
    limit : float
        What the largest coefficient stays below in 95 % of random dealings.
    chance : tuple of (float, float)
        Between which 95 % of the coefficients of single windows lie by chance.
    shift : tuple of float
        For each window the distance of its mean from that of the first, by the mean distance of vectors to their mean.
    """

    windows: tuple[Window, ...]
    limit: float
    chance: tuple[float, float]
    shift: tuple[float, ...]

    @property
    def drifted(self) -> tuple[int, ...]:
        """Numbers of the windows above the limit, from 0."""
        return tuple(place for place, each in enumerate(self.windows) if each.coefficient > self.limit)


def drift(
    rows: Rows, ages: Integers, total: int, metric: Metric, *, windows: int = WINDOWS, seed: int = 0
) -> Drift | None:
    """Compare windows of vectors in order of age.

    Parameters
    ----------
    rows : ndarray, shape (n, d)
        A random sample in order of age; of more than 2,000 an even part is used.
    ages : ndarray of int64, shape (n,)
        Place of each among all `total` vectors in order of age.
    total : int
    metric : {"cosine", "dot", "l2"}
        Vectors of spaces of directions are compared at unit length.
    windows : int, default 10
        Of equally many vectors; fewer where one would hold less than 20 of the sample.
    seed : int, default 0

    Returns
    -------
    Drift or None
        None: there are not enough for two windows.
    """
    if len(rows) > ROWS:
        some = np.linspace(0, len(rows) - 1, ROWS).astype(np.int64)
        rows, ages = rows[some], ages[some]
    windows = min(windows, len(rows) // _LEAST)
    if windows < 2:
        return None
    points = rows.astype(np.float32)
    if metric == "cosine":
        points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    numbers = np.minimum(ages * windows // max(1, total), windows - 1)
    if len(np.unique(numbers)) < windows:
        return None
    away = _all_distances(points)
    measured = energies(away, _member(numbers, windows))
    chance = _by_chance(away, numbers, windows, seed)
    return Drift(
        tuple(_windows(numbers, windows, total, measured, chance)),
        float(np.quantile(chance.max(axis=1), 0.95)),
        (float(np.quantile(chance, 0.025)), float(np.quantile(chance, 0.975))),
        _shifts(points, numbers, windows),
    )


def _all_distances(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return Euclidean distances; those of points to themselves are 0, whatever rounding says."""
    away = -scores_between(points, points, "l2")
    np.fill_diagonal(away, 0.0)
    return np.asarray(away)


def _member(numbers: Integers, windows: int) -> npt.NDArray[np.float32]:
    return np.asarray(numbers[:, None] == np.arange(windows), np.float32)


def energies(away: npt.NDArray[np.float32], member: npt.NDArray[np.float32]) -> F64:
    """Return the energy coefficient of each group against the rest.

    Parameters
    ----------
    away : ndarray of float32, shape (n, n)
        Distances.
    member : ndarray of float32, shape (n, g)
        1 where a row belongs to the group.

    Returns
    -------
    ndarray of float64, shape (g,)
        ``(2 E|X-Y| - E|X-X'| - E|Y-Y'|) / (2 E|X-Y|)`` with unbiased means within groups; a little below 0 where
        groups are alike, 0 where all distances are.
    """
    sums = away @ member
    inside = np.einsum("ij,ij->j", sums.astype(np.float64), member)
    reached = sums.sum(axis=0, dtype=np.float64)
    everything = float(away.sum(dtype=np.float64))
    size = member.sum(axis=0, dtype=np.float64)
    rest = len(away) - size
    between = (reached - inside) / (size * rest)
    within = inside / np.maximum(size * (size - 1), 1)
    without = (everything - 2 * reached + inside) / np.maximum(rest * (rest - 1), 1)
    return np.asarray(
        np.divide(2 * between - within - without, 2 * between, out=np.zeros(len(size)), where=between > 0)
    )


def _by_chance(away: npt.NDArray[np.float32], numbers: Integers, windows: int, seed: int) -> F64:
    """Return coefficients of windows dealt out at random, shape (permutations, windows)."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(_PERMUTATIONS // _AT_ONCE):
        dealt = [_member(random.permutation(numbers), windows) for _ in range(_AT_ONCE)]
        found.append(energies(away, np.concatenate(dealt, axis=1)).reshape(_AT_ONCE, windows))
    return np.concatenate(found)


def _windows(numbers: Integers, windows: int, total: int, measured: F64, chance: F64) -> list[Window]:
    cuts = [-(-place * total // windows) for place in range(windows + 1)]
    sizes = np.bincount(numbers, minlength=windows).tolist()
    above = 1 + (chance >= measured).sum(axis=0)
    return [
        Window(
            cuts[place], cuts[place + 1], sizes[place], float(measured[place]), float(above[place] / (1 + len(chance)))
        )
        for place in range(windows)
    ]


def _shifts(points: npt.NDArray[np.float32], numbers: Integers, windows: int) -> tuple[float, ...]:
    means = np.stack([points[numbers == place].mean(axis=0, dtype=np.float64) for place in range(windows)])
    scale = float(np.linalg.norm(points - points.mean(axis=0), axis=1).mean())
    moved = np.linalg.norm(means - means[0], axis=1)
    return tuple((moved / scale if scale > 0 else np.zeros(windows)).tolist())
