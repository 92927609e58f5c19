"""Whether what came later lies elsewhere: windows of vectors in order of age, each against all others.

The energy distance (Szekely and Rizzo, 2013) is 0 for two samples of one distribution and needs no bandwidth; divided
by twice the mean distance between the samples it is the energy coefficient, from 0 to 1. What chance would give is
found by dealing out the vectors to windows at random, many times; the limit is that of the largest coefficient over all
windows, so that looking at many windows raises no alarm by itself. A window that differs from all others says that
something changed; the step from one window to the next says when.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vecdb.evaluation.ranking import scores_between
from vecdb.types import Metric

__all__ = ["Drift", "Window", "drift", "energies", "steps_of", "tables"]

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
    steps : tuple of float
        Energy coefficient of each window but the first against the one before it: where the change came.
    step_limit : float
        What the largest step stays below in 95 % of random dealings.
    """

    windows: tuple[Window, ...]
    limit: float
    chance: tuple[float, float]
    steps: tuple[float, ...]
    step_limit: float

    @property
    def drifted(self) -> tuple[int, ...]:
        """Numbers of the windows above the limit, from 0."""
        return tuple(place for place, each in enumerate(self.windows) if each.coefficient > self.limit)

    @property
    def change(self) -> int | None:
        """Number of the window before which the largest step lies; None if no step is above its limit."""
        largest = max(range(len(self.steps)), key=lambda place: self.steps[place])
        return largest + 1 if self.steps[largest] > self.step_limit else None


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
    measured = tables(away, [numbers], windows)[0]
    dealt = _by_chance(away, numbers, windows, seed)
    sizes = np.bincount(numbers, minlength=windows)
    chance = np.stack([energies(each, sizes) for each in dealt])
    steps = np.stack([steps_of(each, sizes) for each in dealt])
    return Drift(
        tuple(_windows(sizes, total, energies(measured, sizes), chance)),
        float(np.quantile(chance.max(axis=1), 0.95)),
        (float(np.quantile(chance, 0.025)), float(np.quantile(chance, 0.975))),
        tuple(steps_of(measured, sizes).tolist()),
        float(np.quantile(steps.max(axis=1), 0.95)),
    )


def _all_distances(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return Euclidean distances; those of points to themselves are 0, whatever rounding says."""
    away = -scores_between(points, points, "l2")
    np.fill_diagonal(away, 0.0)
    return np.asarray(away)


def tables(away: npt.NDArray[np.float32], dealings: Sequence[Integers], groups: int) -> F64:
    """Return the sums of distances between groups, shape (dealings, groups, groups).

    Parameters
    ----------
    away : ndarray of float32, shape (n, n)
        Distances.
    dealings : sequence of ndarray of int64, shape (n,)
        The group of each row.
    groups : int
    """
    members = [np.asarray(numbers[:, None] == np.arange(groups), np.float32) for numbers in dealings]
    sums = (away @ np.concatenate(members, axis=1)).reshape(len(away), len(members), groups)
    made = [member.T.astype(np.float64) @ sums[:, place] for place, member in enumerate(members)]
    return np.stack(made)


def energies(table: F64, sizes: Integers) -> F64:
    """Return the energy coefficient of each group against all others, shape (g,).

    ``(2 E|X-Y| - E|X-X'| - E|Y-Y'|) / (2 E|X-Y|)`` with unbiased means within groups: a little below 0 where groups are
    alike, 0 where all distances are 0.

    Parameters
    ----------
    table : ndarray of float64, shape (g, g)
        As from `tables`.
    sizes : ndarray of int64, shape (g,)
    """
    inside, reached = np.diagonal(table), table.sum(axis=1)
    rest, left = sizes.sum() - sizes, table.sum() - 2 * reached + inside
    return _coefficients((reached - inside) / (sizes * rest), _within(inside, sizes), _within(left, rest))


def steps_of(table: F64, sizes: Integers) -> F64:
    """Return the energy coefficient of each group against the one before it, shape (g - 1,)."""
    within = _within(np.diagonal(table), sizes)
    between = np.diagonal(table, 1) / (sizes[1:] * sizes[:-1])
    return _coefficients(between, within[:-1], within[1:])


def _within(sums: F64, sizes: Integers) -> F64:
    return np.asarray(sums / np.maximum(sizes * (sizes - 1), 1))


def _coefficients(between: F64, one: F64, other: F64) -> F64:
    return np.divide(2 * between - one - other, 2 * between, out=np.zeros(len(between)), where=between > 0)


def _by_chance(away: npt.NDArray[np.float32], numbers: Integers, windows: int, seed: int) -> F64:
    """Return tables of windows dealt out at random, shape (permutations, windows, windows)."""
    random = np.random.default_rng(seed)
    parts = range(_PERMUTATIONS // _AT_ONCE)
    dealt = ([random.permutation(numbers) for _ in range(_AT_ONCE)] for _ in parts)
    return np.concatenate([tables(away, each, windows) for each in dealt])


def _windows(sizes: Integers, total: int, measured: F64, chance: F64) -> Iterator[Window]:
    cuts = [-(-place * total // len(sizes)) for place in range(len(sizes) + 1)]
    above = (1 + (chance >= measured).sum(axis=0)) / (1 + len(chance))
    for place, size in enumerate(sizes.tolist()):
        yield Window(cuts[place], cuts[place + 1], size, float(measured[place]), float(above[place]))
