"""How much an index finds by how much it looks at: a curve that was measured, and what it allows to be promised.

Values only. Invariant of a curve that came through the engine's border: efforts ascend, recalls lie between 0 and 1,
and there is one of each. Design: docs/explanation/architecture.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["EffortCurve"]

Efforts = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float64]

MAX_POINTS: Final = 256
"""Points of a curve at most."""
_ONE_SIDED: Final = 1.6449
"""The normal quantile that 95 % lie below."""


@dataclass(frozen=True, slots=True)
class EffortCurve:
    """Recall by effort, as it was measured.

    Attributes
    ----------
    efforts : ndarray of int64, shape (m,)
        Ascending, each at least 1; m from 1 to 256.
    recalls : ndarray of float64, shape (m,)
        Mean recall@k over the queries, each from 0 to 1.
    queries : int
        How many queries that were, at least 1.
    k : int, default 10
        How many neighbours were asked for.
    deviations : ndarray of float64, shape (m,), optional
        Standard deviation of the recall over the queries, from 0 to 1. Known, it makes the lower bound tighter;
        unknown, the largest that the mean allows is assumed.
    """

    efforts: Efforts
    recalls: Shares
    queries: int
    k: int = 10
    deviations: Shares | None = None

    def lower_bounds(self) -> Shares:
        """Return what the expected recall reaches at each effort, with 95 % confidence; see `lower_bounds`."""
        return lower_bounds(self.recalls, self.queries, self.deviations)

    def effort_for(self, recall: float) -> int | None:
        """Return the smallest effort of the curve from which on every lower bound reaches `recall`, None if none does.

        Between two points the bound is interpolated over the logarithm of the effort.
        """
        bounds = self.lower_bounds()
        reached = bounds >= recall
        if not reached[-1]:
            return None
        first = len(reached) - int(np.argmin(reached[::-1])) if not reached.all() else 0
        if first == 0:
            return int(self.efforts[0])
        low, high = float(bounds[first - 1]), float(bounds[first])
        share = (recall - low) / (high - low)
        ends = np.log(self.efforts[first - 1 : first + 1].astype(np.float64))
        return int(np.ceil(np.exp(ends[0] + share * (ends[1] - ends[0])) - 1e-9))

    def recall_at(self, effort: int) -> float:
        """Return the mean recall to be expected at an effort, interpolated as in `effort_for`."""
        return float(np.interp(np.log(max(1, effort)), np.log(self.efforts.astype(np.float64)), self.recalls))


def lower_bounds(recalls: Shares, queries: int, deviations: Shares | None = None) -> Shares:
    """Return lower 95 % confidence bounds of mean recalls.

    Parameters
    ----------
    recalls : ndarray of float64
        Means over `queries` queries.
    queries : int
    deviations : ndarray of float64, optional
        Of the same shape. With them the bound is the normal one less one query in which nothing is found, for the
        misses that are too rare to have been seen; or Wilson's, if that is higher.

    Returns
    -------
    ndarray of float64
        Wilson's bound (1927) of a share otherwise: no recall between 0 and 1 spreads more than one that is 0 or 1.
    """
    square = _ONE_SIDED**2
    middle = recalls + square / (2 * queries)
    spread = _ONE_SIDED * np.sqrt(recalls * (1 - recalls) / queries + square / (4 * queries**2))
    bounds: Shares = np.clip((middle - spread) / (1 + square / queries), 0.0, 1.0)
    if deviations is not None:
        bounds = np.maximum(bounds, recalls - _ONE_SIDED * deviations / np.sqrt(queries) - 1 / queries)
    return bounds


def curve_problems(curve: Any) -> Iterator[str]:
    """Yield what is wrong with what is said to be a curve; cheap, and without trust."""
    if not isinstance(curve, EffortCurve):
        yield f"it is {type(curve).__name__}, expected EffortCurve"
        return
    for name, least in (("queries", 1), ("k", 1)):
        value: Any = getattr(curve, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            yield f"{name} is {value!r}, expected an int of at least {least}"
    yield from _array_problems("efforts", curve.efforts, np.int64)
    yield from _array_problems("recalls", curve.recalls, np.float64)
    if curve.deviations is not None:
        yield from _array_problems("deviations", curve.deviations, np.float64)
    sizes = {np.size(array) for array in (curve.efforts, curve.recalls, curve.deviations) if array is not None}
    if len(sizes) > 1:
        yield f"its arrays have {sorted(sizes)} points, expected as many in each"


def _array_problems(name: str, array: Any, dtype: type[np.generic]) -> Iterator[str]:
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != 1:
        found = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        yield f"{name} is {found}, expected one axis of {np.dtype(dtype)}"
    elif not 1 <= len(array) <= MAX_POINTS:
        yield f"{name} has {len(array)} points, expected 1 to {MAX_POINTS}"
    elif name == "efforts":
        if int(array[0]) < 1 or bool((array[1:] <= array[:-1]).any()):
            yield "efforts do not ascend from at least 1"
    elif not bool(((array >= 0.0) & (array <= 1.0)).all()):
        yield f"{name} holds a value outside 0 to 1"
