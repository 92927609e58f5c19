"""What a correction makes of a score: one function for every path, so that the bits are the same.

Invariant: a corrected score is a function of the row's canonical float32 score, of what is kept of the row, and of the
query: of nothing else. It rises with the score. "bias": their float32 sum. "proximity", the Gaussian mutual proximity
``P = Phi((s - row mean) / row deviation) * Phi((s - query mean) / query deviation)``: ``-log(1 - P)`` in float64,
rounded to float32; the product itself would be 1 for every good hit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.corrections.kinds import Form

__all__ = ["Adjustment"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_ROOT: Final = math.sqrt(2.0)
_LEAST: Final = 1e-300
"""Below it two rows cannot be told apart: 37 deviations from both means."""
_erfc: Any = np.frompyfunc(math.erfc, 1, 1)


@dataclass(frozen=True, slots=True, eq=False)
class Adjustment:
    """The correction of some queries over some rows.

    Attributes
    ----------
    form : {"bias", "proximity"}
    table : ndarray of float32, shape (n, 1) or (n, 2)
        What is kept of each row: a bias, or mean and deviation.
    switch : ndarray of bool, shape (n,), or None
        Dynamic: a query is corrected where its best row by raw score is one of these. None: every query is.
    moments : ndarray of float64, shape (q, 2), or None
        Mean and deviation of each query's scores (proximity only).
    """

    form: Form
    table: F32
    switch: Bools | None = None
    moments: F64 | None = None

    def take(self, queries: slice) -> Adjustment:
        """Return the correction of some of the queries."""
        return self if self.moments is None else replace(self, moments=self.moments[queries])

    def scores(self, query: int, positions: I64, raw: F32) -> F32:
        """Return the corrected scores of rows whose canonical scores are `raw`, float32, shape (m,)."""
        if self.form == "bias":
            summed: F32 = raw + self.table[positions, 0]
            return summed + np.float32(0.0)
        return self.proximity(query, positions, raw.astype(np.float64)).astype(np.float32) + np.float32(0.0)

    def proximity(self, query: int, places: Any, raw: F64) -> F64:
        """Return ``-log(1 - P)``; P is the product of two Gaussian distribution functions of the score."""
        mean, deviation = self.moments_of(query)
        rows = self.table[places].astype(np.float64)
        own, asked = (raw - rows[:, 0]) / rows[:, 1], (raw - mean) / deviation
        beyond, beyond_asked = _survival(own), _survival(asked)
        near = _survival(-own) * _survival(-asked)
        far = beyond + beyond_asked - beyond * beyond_asked
        good = near >= 0.5
        return np.where(good, -np.log(np.maximum(far, _LEAST)), -np.log1p(-np.where(good, 0.0, near)))

    def moments_of(self, query: int) -> tuple[float, float]:
        """Return mean and deviation of a query's scores."""
        assert self.moments is not None  # there is no proximity without
        return float(self.moments[query, 0]), float(self.moments[query, 1])

    def best(self, query: int, positions: I64, raw: F32, k: int) -> tuple[I64, F32, F32]:
        """Return the best k of rows by corrected score, equal ones by position: positions, corrected, raw.

        They hold the best k by raw score, too, where the correction is dynamic.
        """
        if self.switch is not None and len(raw):
            order = np.lexsort((positions, -raw))[:k]
            if not self.switch[positions[order[0]]]:
                return positions[order], raw[order], raw[order]
        corrected = self.scores(query, positions, raw)
        order = np.lexsort((positions, -corrected))[:k]
        return positions[order], corrected[order], raw[order]


def _survival(z: F64) -> F64:
    """Return the share of a normal distribution above each z."""
    beyond: F64 = 0.5 * _erfc(z / _ROOT).astype(np.float64)
    return beyond
