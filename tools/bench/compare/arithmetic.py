"""Recall, curves and ratios: what turns seconds and ids into claims. No I/O.

A curve is the settings of one index with their recall and the seconds a query took in each round. A rate at a recall is
interpolated between the two settings around it, log-linearly, as rates fall by factors while recall rises by steps.
Ratios are taken within rounds and then their median, so that a machine that slows down slows both sides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import numpy.typing as npt

NOISE = 1.25
"""Two figures whose ratio is between 1/NOISE and NOISE are called the same."""
_EQUAL = 1e-6


def recall(
    found: npt.NDArray[np.int64],
    rows: npt.NDArray[np.float32],
    queries: npt.NDArray[np.float32],
    floors: npt.NDArray[np.float64],
    k: int,
) -> float:
    """Return the share of the true best `k` that was found; rows that tie with the k-th count as true.

    Parameters
    ----------
    found : ndarray of int64, shape (q, any)
        Row numbers, -1 where there is none. Duplicates count once.
    rows, queries : ndarray of float32, shapes (n, dim) and (q, dim)
        Unit rows: the score is the inner product.
    floors : ndarray of float64, shape (q,)
        The k-th best score of each query; -inf where fewer than k rows match, all of which are then true.
    """
    hits = 0
    for query, ids, floor in zip(queries, found, floors, strict=True):
        known = np.unique(ids[ids >= 0])
        scores = rows[known].astype(np.float64) @ query.astype(np.float64)
        hits += min(k, int((scores >= floor - _EQUAL).sum()))
    return hits / (k * len(queries))


@dataclass(frozen=True, slots=True)
class Point:
    """One setting of one index: its recall, and the seconds of a query in each round, on the wall and of processor."""

    setting: str
    recall: float
    wall: tuple[float, ...]
    cpu: tuple[float, ...]

    def seconds(self, clock: str) -> tuple[float, ...]:
        """Return the rounds of one clock, "wall" or "cpu"."""
        return self.wall if clock == "wall" else self.cpu

    def rate(self, clock: str = "cpu") -> float:
        """Return the median number of queries a second."""
        return 1 / median(self.seconds(clock))


def frontier(points: Sequence[Point], clock: str = "cpu") -> list[Point]:
    """Return the points that no other beats in both recall and rate, by rising recall."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda each: (-each.recall, -each.rate(clock))):
        if not kept or point.rate(clock) > kept[-1].rate(clock):
            kept.append(point)
    return kept[::-1]


@dataclass(frozen=True, slots=True)
class Bracket:
    """Where a recall lies on a curve: between two points, `share` of the way from `low` to `high`."""

    low: Point
    high: Point
    share: float

    def seconds(self, clock: str) -> tuple[float, ...]:
        """Return the interpolated seconds of a query, round by round."""
        pairs = zip(self.low.seconds(clock), self.high.seconds(clock), strict=True)
        return tuple(math.exp((1 - self.share) * math.log(low) + self.share * math.log(high)) for low, high in pairs)

    def rate(self, clock: str = "cpu") -> float:
        """Return the median number of queries a second."""
        return 1 / median(self.seconds(clock))


def bracket(points: Sequence[Point], target: float, clock: str = "cpu") -> Bracket | None:
    """Return where `target` lies on the best part of a curve, None if the curve never gets there.

    A curve that starts above the target is not extended downwards: its first point stands for it.
    """
    best = frontier(points, clock)
    above = [point for point in best if point.recall >= target]
    below = [point for point in best if point.recall < target]
    if not above:
        return None
    if not below:
        return Bracket(above[0], above[0], 0.0)
    low, high = below[-1], above[0]
    return Bracket(low, high, (target - low.recall) / (high.recall - low.recall))


def rounds_ratio(own: Sequence[float], theirs: Sequence[float]) -> float:
    """Return how many times as fast `own` is, from seconds of the same rounds: the median of the rounds' ratios."""
    return median(other / mine for mine, other in zip(own, theirs, strict=True))


def same(ratio: float) -> bool:
    """Whether a ratio is so near to 1 that it says nothing."""
    return 1 / NOISE < ratio < NOISE


@dataclass(frozen=True, slots=True)
class Verdict:
    """A ratio beside its bar."""

    ratio: float | None
    bar: float
    at_least: bool = True

    @property
    def text(self) -> str:
        """Held, missed or open; "within noise" where the ratio is within `NOISE` of its bar."""
        if self.ratio is None:
            return "not measured"
        held = self.ratio >= self.bar if self.at_least else self.ratio <= self.bar
        return ("held" if held else "missed") + (", within noise" if same(self.ratio / self.bar) else "")


Curves = Mapping[str, Sequence[Point]]
"""Run -> points."""


def ratio_at(own: Curves, theirs: Curves, target: float, clock: str = "cpu") -> float | None:
    """Return how many times as fast `own` is at a recall, from the last run that both were part of; None without one.

    Runs are ordered by name, which starts with their time.
    """
    for run in sorted(set(own) & set(theirs), reverse=True):
        mine, other = bracket(own[run], target, clock), bracket(theirs[run], target, clock)
        if mine is not None and other is not None:
            pairs = list(zip(mine.seconds(clock), other.seconds(clock), strict=False))
            return rounds_ratio([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    return None


def ratio_through(own: Curves, theirs: Curves, anchor: Curves, target: float, clock: str = "cpu") -> float | None:
    """Return `ratio_at`, or where the two never ran together, the ratio of their ratios to an anchor of both runs."""
    direct = ratio_at(own, theirs, target, clock)
    if direct is not None:
        return direct
    first, second = ratio_at(own, anchor, target, clock), ratio_at(theirs, anchor, target, clock)
    return None if first is None or second is None else first / second
