"""Scores of different classes of vectors brought on the scale of one of them, each by a strictly increasing map.

`reference` and `tail` go by a few hundred records that are known in both spaces: for every query their scores as the
class would give them, and their scores in the native space. Matching mean and deviation keeps a weak class in the
list; a regression would shrink it until it vanished (docs/explanation/bridging.md). Ranks need nothing. Pure functions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
F32 = npt.NDArray[np.float32]

Calibration: TypeAlias = Literal["reference", "lists", "tail", "affine", "isotonic", "rrf", "ranks", "none"]
CALIBRATIONS: Final[tuple[str, ...]] = get_args(Calibration)
RANKED: Final = ("rrf", "ranks")
"""Those that go by ranks: their scores are comparable among themselves only."""

USUAL: Final[Calibration] = "lists"
"""Where nothing was chosen for a transform: on validation queries of four text models no other was above it, at any
share and with records embedded anew at random or the unusual first (docs/explanation/bridging.md)."""

_SMOOTH: Final = 60.0
"""Of reciprocal ranks (Cormack, Clarke and Buettcher, SIGIR 2009)."""
_TAIL: Final = 8
"""One row in so many is the tail."""
LISTED: Final = 20
"""How long the common list is of which `lists` gives each class its share."""
_ENOUGH: Final = 2.5
"""Places from which the head of a class is believed."""
_FLAT: Final = 1e-9
_SLOPE: Final = 1e-3
"""Of the deviation of the native scores, for a deviation of the class's own: keeps an isotonic map strictly rising."""


@dataclass(frozen=True, slots=True)
class Line:
    """``s -> factor * s + offset``, factor > 0."""

    factor: float = 1.0
    offset: float = 0.0

    def after(self, inner: Line) -> Line:
        """Return this map applied to the result of another."""
        return Line(self.factor * inner.factor, self.factor * inner.offset + self.offset)

    def __call__(self, scores: F32) -> F64:
        return scores.astype(np.float64) * self.factor + self.offset


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A rising curve through knots, continued with the slope that keeps it rising."""

    knots: F64
    values: F64
    slope: float

    def __call__(self, scores: F32) -> F64:
        wide = scores.astype(np.float64)
        inside: F64 = np.interp(wide, self.knots, self.values) + self.slope * wide
        return inside


def matched(cross: F64, native: F64) -> Line:
    """Return the line that gives `cross` the mean and the deviation of `native`.

    Parameters
    ----------
    cross, native : ndarray of float64, shape (r,)
        Scores of the same rows; of rows of one score the deviation is left as it is.
    """
    means = np.add.reduce(cross) / len(cross), np.add.reduce(native) / len(native)
    spreads = [math.sqrt(float(np.dot(left, left)) / len(left)) for left in (cross - means[0], native - means[1])]
    return _line(float(means[0]), spreads[0], float(means[1]), spreads[1])


def tail_matched(cross: F64, native: F64) -> Line:
    """Return the line that maps the median to the median, and the mean of the best eighth to that of the best eighth.

    Unlike mean and deviation it does not assume that both sides have equally heavy tails: what competes for the first
    places is the tail.
    """
    count = max(1, len(cross) // _TAIL)
    middles = float(np.median(cross)), float(np.median(native))
    tops = float(np.sort(cross)[-count:].mean()), float(np.sort(native)[-count:].mean())
    return _line(middles[0], tops[0] - middles[0], middles[1], tops[1] - middles[1])


def expected(size: int, total: int) -> int:
    """Return how many of the first `LISTED` places of all classes one would have if the best were spread evenly."""
    return max(1, round(LISTED * size / max(1, total)))


def evidence(one: int, other: int, total: int) -> float:
    """Return how far the heads of two classes of these sizes may be believed, 0 to 1.

    The best of a class that is due a tenth of a place says nothing of where the others belong.
    """
    places = min(min(size, LISTED * size / max(1, total)) for size in (one, other))
    return min(1.0, places / _ENOUGH)


def _line(mean: float, spread: float, native_mean: float, native_spread: float) -> Line:
    factor = float(native_spread / spread) if spread > _FLAT and native_spread > _FLAT else 1.0
    return Line(factor, float(native_mean - factor * mean))


def isotonic(cross: F64, native: F64) -> Curve:
    """Return the rising curve nearest to the pairs (pool adjacent violators), with a slope so that nothing ties.

    Ayer et al., "An empirical distribution function for sampling with incomplete information" (1955).
    """
    order = np.argsort(cross, kind="stable")
    levels, weights, places = [], [], []
    for score, value in zip(cross[order].tolist(), native[order].tolist(), strict=True):
        levels.append(value)
        weights.append(1)
        places.append(score)
        while len(levels) > 1 and levels[-2] >= levels[-1]:
            weight = weights[-2] + weights[-1]
            level = (levels[-2] * weights[-2] + levels[-1] * weights[-1]) / weight
            place = (places[-2] * weights[-2] + places[-1] * weights[-1]) / weight
            levels[-2:], weights[-2:], places[-2:] = [level], [weight], [place]
    spread = float(cross.std())
    slope = _SLOPE * float(native.std()) / spread if spread > _FLAT else 1.0
    return Curve(np.array(places), np.array(levels), max(slope, _FLAT))


def by_rank(count: int, *, size: int, total: int, method: str, first: bool) -> F64:
    """Return calibrated scores of `count` hits, best first, by nothing but their places.

    Parameters
    ----------
    count : int
    size, total : int
        Vectors of the class that may be answers, and of all classes together.
    method : {"rrf", "ranks"}
        "rrf": 1 / (60 + rank). "ranks": the same of the rank that would be expected among all classes, if the best were
        spread evenly: a class of a tenth of the vectors has a tenth of the first places.
    first : bool
        Whether the class begins the list.
    """
    ranks = np.arange(1, count + 1, dtype=np.float64)
    if method == "ranks":
        ranks = (ranks - (1.0 if first else 0.5)) * (total / max(1, size)) + 1.0
    scores: F64 = 1.0 / (_SMOOTH + ranks)
    return scores
