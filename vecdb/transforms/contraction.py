"""Contractions from new columns to old ones: of any map of queries, or learnt with a bound on what they may lose.

A contraction is `M` with singular values of at most 1; each one below 1 costs a joint space (`dilation`) one extra
column. `contraction_of` takes the one of another kind of map; `learnt` turns its singular vectors and moves its free
singular values down the gradient of the ranking loss (`listwise`), the others staying 1. Design:
docs/reference/transforms.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vecdb.contracts import FitData
from vecdb.transforms.adam import Adam, cosine_rate
from vecdb.transforms.affine import Formula, spectral_norm
from vecdb.transforms.distill import DISTILL, distilled
from vecdb.transforms.listwise import Course, Lesson, Score, slopes, spread_of
from vecdb.transforms.pairs import Rows64, centred, fit_pairs, go_on
from vecdb.transforms.procrustes import polar_factor
from vecdb.transforms.restore import Finish, finished
from vecdb.transforms.ridge import choose_ridge
from vecdb.transforms.stiefel import Turning
from vecdb.types import Metric

__all__ = ["Contraction", "Factors", "bounded", "contraction_of", "learnt"]

_LEAST = 3


class Contraction(NamedTuple):
    """``s(q, x) = <q M, x> + <pull, x>`` up to a factor: M of norm 1, float64, shape (d_new, d_old)."""

    M: Rows64
    pull: npt.NDArray[np.float64]


class Factors(NamedTuple):
    """``M = U diag(values) V'``; U and V have orthonormal columns, values lie in [0, 1]."""

    U: Rows64
    values: npt.NDArray[np.float64]
    V: Rows64

    def product(self) -> Rows64:
        """Return M."""
        M: Rows64 = (self.U * self.values) @ self.V.T
        return M


def contraction_of(upgrade: FitData, kind: str, *, owner: str) -> Contraction:
    """Return the contraction of another kind of map of queries.

    Parameters
    ----------
    upgrade : FitData
        Of the role "query", from new columns to old ones.
    kind : {"clip", "polar", "ridge", "procrustes", "distill"}
    owner : str
        Name of the kind, for messages.

    Raises
    ------
    FitError, NonFiniteError, CancelledError
    """
    if kind == "distill":
        return _contracted(distilled(upgrade, DISTILL, owner=owner).formula)
    if kind == "procrustes":
        pairs = centred(*fit_pairs(upgrade, _LEAST, owner=owner))
        return _contracted(finished(polar_factor(pairs), pairs, Finish("none", mean=False)))
    restore = "none" if kind == "ridge" else kind
    found = choose_ridge(upgrade, {"penalty": 0.0, "restore": restore, "mean": "drop"}, owner=owner, least=_LEAST)
    return _contracted(found.formula())


def _contracted(formula: Formula) -> Contraction:
    """Divide a map of queries by its norm: the factor is one of all scores, which calibration takes up."""
    size = spectral_norm(formula.W) or 1.0
    return Contraction(formula.W / size, (formula.b + formula.shift) / size)


def bounded(M: Rows64, free: int) -> Factors:
    """Return the factors of a contraction of which at most `free` singular values are below 1.

    The smallest ones stay free, divided by their median and cut at 1; all others become 1.

    Parameters
    ----------
    M : ndarray of float64, shape (d_new, d_old)
    free : int
    """
    U, values, Vt = np.linalg.svd(M, full_matrices=False)
    fixed = max(len(values) - free, 0)
    alive = values[values > 1e-10 * max(values[0], 1e-300)]
    even = np.minimum(values / (np.median(alive) if len(alive) else 1.0), 1.0)
    even[:fixed] = 1.0
    return Factors(U, even, np.ascontiguousarray(Vt.T))


def learnt(
    start: Contraction,
    free: int,
    lessons: Sequence[Lesson],
    course: Course,
    metrics: tuple[Metric, Metric],
    data: FitData,
) -> Contraction:
    """Return the contraction that the lessons lead to.

    Singular vectors are turned on their Stiefel manifolds, the free singular values are moved and cut to [0, 1]; one
    factor of all scores and one row bias for each population of asked vectors go beside them.

    Parameters
    ----------
    start : Contraction
    free : int
        Singular values that may be below 1.
    lessons : sequence of Lesson
        The last one is of the population whose bias counts.
    course : Course
        Its `rate` is an angle, in radians, and the step of singular values and of the bias, relative to their sizes.
    metrics : tuple of str
    data : FitData
        For its generator, its progress and its wish to stop.

    Raises
    ------
    CancelledError
    """
    U, values, V = bounded(start.M, free)
    fixed = max(len(values) - free, 0)
    turns, angles = (Turning(len(U)), Turning(len(V))), course.rate
    b = np.zeros((2, len(V)))
    log_size = np.zeros(1)
    first = Score((U * values @ V.T).astype(np.float32), b.astype(np.float32))
    scale, unit = spread_of(first, lessons[0]), float(np.abs(first.W).mean())
    moved, pulled = Adam([values, log_size]), Adam([b])
    for step in range(course.steps):
        go_on(data, step, course.steps)
        size, M = float(np.exp(log_size[0])), (U * values) @ V.T
        found = slopes(
            Score((size * M).astype(np.float32), b.astype(np.float32)), lessons, course, scale, metrics, data.rng
        )
        by_M = size * found.W.astype(np.float64)
        by_values = np.einsum("ir,ir->r", U, by_M @ V)
        by_values[:fixed] = 0.0
        share = cosine_rate(step, course.steps)
        U, V = (
            turns[0].step(U, by_M @ (V * values), share * angles),
            turns[1].step(V, by_M.T @ (U * values), share * angles),
        )
        moved.step([by_values, np.array([float((by_M * M).sum())])], share * course.rate)
        pulled.step([found.b.astype(np.float64)], share * course.rate * unit)
        np.clip(values, 0.0, 1.0, out=values)
    asked = lessons[-1].asked
    M = (U * values) @ V.T
    return Contraction(M, b[asked.place] / float(np.exp(log_size[0])) - asked.centre.astype(np.float64) @ M)
