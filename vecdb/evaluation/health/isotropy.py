"""How evenly vectors use their dimensions: IsoScore, and the cosines between vectors drawn at random.

IsoScore is that of Rudman, Gillman, Rayne and Eickhoff ("IsoScore: Measuring the Uniformity of Embedding Space
Utilization", Findings of ACL 2022, section 3, steps 2 to 7). Its eight steps come down to the participation ratio
``P = tr(C)^2 / |C|^2`` of the covariance C: with the defect of step 6, the share of dimensions of step 7 is P / d, so
that the score is ``(P - 1) / (d - 1)``; no eigenvalue is needed. The tests go the long way.
Invariant: beside one copy of the rows in float64, memory is bounded by `BLOCK` rows times all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vecdb.evaluation.health.sure import nothing
from vecdb.evaluation.intervals import Estimate

__all__ = ["Cosines", "Isotropy", "cosines", "isotropy"]

Rows = npt.NDArray[np.floating]
F64 = npt.NDArray[np.float64]

BLOCK: Final = 1_024
_GROUPS: Final = 10
_NORMAL: Final = 1.959964


@dataclass(frozen=True, slots=True)
class Isotropy:
    """How many dimensions are used.

    Attributes
    ----------
    score : Estimate
        IsoScore: 1 where all directions vary alike, 0 where all vectors lie on a line. Interval: the jackknife over
        ten groups of rows.
    dimensions : float
        The participation ratio: how many equally used dimensions would vary as these do.
    """

    score: Estimate
    dimensions: float


@dataclass(frozen=True, slots=True)
class Cosines:
    """Cosines between two vectors drawn at random.

    Attributes
    ----------
    mean : Estimate
        Near 0 where vectors point everywhere, near 1 where they fill a narrow cone.
    spread : float
        Standard deviation; what is left for neighbours to stand out from.
    """

    mean: Estimate
    spread: float


def isotropy(rows: Rows, *, seed: int = 0) -> Isotropy | None:
    """Return IsoScore and the participation ratio of vectors.

    Parameters
    ----------
    rows : ndarray, shape (n, d)
        The score of fewer rows than columns is that of at most n - 1 dimensions: compare samples of one size.
    seed : int, default 0
        Of the groups of the jackknife.

    Returns
    -------
    Isotropy or None
        None: fewer than 3 rows or 2 columns, or all of them equal.
    """
    count, width = rows.shape
    if count < 3 or width < 2:
        return None
    order = np.random.default_rng(seed).permutation(count)
    away = rows[order].astype(np.float64)
    away -= away.mean(axis=0)
    traces, squares = _by_group(away)
    if not traces.sum() > 0:
        return None
    ratio = float(traces.sum() ** 2 / squares.sum())
    without = [_without(traces, squares, group) for group in range(len(traces))]
    return Isotropy(_jackknifed(_score(ratio, width), [_score(each, width) for each in without], count), ratio)


def _score(ratio: float, width: int) -> float:
    return min(1.0, max(0.0, (ratio - 1.0) / (width - 1.0)))


def _by_group(away: F64) -> tuple[F64, F64]:
    """Return the sum of squared norms in each stretch of rows, and of squared inner products between stretches.

    ``|C|^2`` is the sum of all squared inner products between rows, so the covariance without a group is known from
    sums over groups.
    """
    parts = np.array_split(away, min(_GROUPS, len(away)))
    traces = np.array([float(np.einsum("ij,ij->", part, part)) for part in parts])
    squares = np.zeros((len(parts), len(parts)))
    for one in range(len(parts)):
        for other in range(one, len(parts)):
            squares[one, other] = squares[other, one] = _square_of(parts[one], parts[other])
    return traces, squares


def _square_of(one: F64, other: F64) -> float:
    """Return the sum of squared inner products between rows of two parts."""
    return sum(float(np.square(one[start : start + BLOCK] @ other.T).sum()) for start in range(0, len(one), BLOCK))


def _without(traces: F64, squares: F64, group: int) -> float:
    trace = traces.sum() - traces[group]
    left = squares.sum() - 2 * squares[group].sum() + squares[group, group]
    return float(trace**2 / left) if left > 0 else math.nan


def _jackknifed(value: float, without: list[float], count: int) -> Estimate:
    known = [each for each in without if math.isfinite(each)]
    if len(known) < 2:
        return Estimate(value, math.nan, math.nan, count)
    away = np.array(known) - np.mean(known)
    reach = _NORMAL * math.sqrt((len(known) - 1) / len(known) * float((away**2).sum()))
    return Estimate(value, max(0.0, value - reach), min(1.0, value + reach), count)


def cosines(rows: Rows) -> Cosines:
    """Return mean and spread of the cosines of all pairs of different rows, zero rows left out.

    The mean comes from the sum of the unit vectors; its interval is that of a U-statistic (Hoeffding, 1948): four times
    the variance of what each row has in common with all others, by the number of rows.
    """
    unit = rows.astype(np.float64)
    norms = np.linalg.norm(unit, axis=1)
    unit, norms = (unit, norms) if norms.all() else (unit[norms > 0], norms[norms > 0])
    unit /= norms[:, None]
    count = len(unit)
    if count < 2:
        return Cosines(nothing(), math.nan)
    with_all = (unit @ unit.sum(axis=0) - 1.0) / (count - 1)
    mean = float(with_all.mean())
    squares = (_square_of(unit, unit) - count) / (count * (count - 1))
    reach = _NORMAL * 2.0 * float(with_all.std(ddof=1)) / math.sqrt(count)
    estimate = Estimate(mean, max(-1.0, mean - reach), min(1.0, mean + reach), count)
    return Cosines(estimate, math.sqrt(max(0.0, squares - mean * mean)))
