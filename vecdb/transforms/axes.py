"""Principal axes of both sides of the pairs: the columns in which `distill` takes its steps.

Adam gives each entry of a map a step of its own, so that what it finds depends on the columns that vectors happen to
be written in. Along principal axes it does not: turn either space, and the map is the turned map. Wide and narrow
directions are also told apart there, and fewer steps are needed. Invariant: a turn changes no inner product and no
distance, so teachers judge as before. Design: docs/explanation/compatibility-math.md ("Fitting the ranking").
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from vecdb.contracts import FitData
from vecdb.transforms.listwise import Score
from vecdb.transforms.pairs import Rows32, Rows64

__all__ = ["Axes", "axes_of"]


@dataclass(frozen=True, slots=True, eq=False)
class Axes:
    """Orthogonal matrices whose columns are the axes.

    Attributes
    ----------
    before : ndarray of float64, shape (d, d)
        Of the source side.
    after : ndarray of float64, shape (e, e)
        Of the target side.
    """

    before: Rows64
    after: Rows64

    def turn(self, data: FitData) -> FitData:
        """Return the data of a map of queries in these axes, what is kept back left out."""
        before, after = self.before.astype(np.float32), self.after.astype(np.float32)
        return replace(
            data,
            source=data.source @ before,
            target=data.target @ after,
            queries=_turned(data.queries, before),
            queries_across=_turned(data.queries_across, after),
            stored=_turned(data.stored, after),
            validation=None,
        )

    def back(self, score: Score) -> Score:
        """Return a score that was learnt in these axes in the columns of the spaces, float32."""
        W, b = self.before @ score.W @ self.after.T, score.b @ self.after.T
        return Score(W.astype(np.float32), b.astype(np.float32))


def axes_of(data: FitData) -> Axes:
    """Return the principal axes of the pairs' two sides, each about its mean."""
    return Axes(_principal(data.source), _principal(data.target))


def _principal(rows: Rows32) -> Rows64:
    centred = rows - rows.mean(0, dtype=np.float64)
    axes: Rows64 = np.linalg.eigh(centred.T @ centred)[1]
    return axes


def _turned(rows: Rows32 | None, axes: Rows32) -> Rows32 | None:
    return None if rows is None else rows @ axes
