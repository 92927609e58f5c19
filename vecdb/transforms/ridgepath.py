"""Ridge regression between centred pairs for every penalty from one decomposition, with exact left-out residuals.

Hoerl and Kennard, "Ridge regression" (1970); Allen, "The relationship between variable selection and data augmentation"
(1974) for PRESS. Penalties are relative to the mean squared singular value of the source, so that they mean the same
whatever the number of pairs and the scale of the vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vecdb.transforms.pairs import Centred, Rows64

__all__ = ["GRID", "RidgePath", "ridge_path", "seeded_grid"]

Vector64 = npt.NDArray[np.float64]

GRID: Vector64 = np.geomspace(1e-4, 30.0, 23)
"""Penalties among which PRESS looks for the seed."""
_STEPS = 15
_SPAN = 30.0
"""The grid around the seed reaches from a thirtieth of it to thirty times it."""


@dataclass(frozen=True, slots=True, eq=False)
class RidgePath:
    """``A = U diag(s) V'`` with what every penalty needs of it.

    Attributes
    ----------
    left : ndarray of float64, shape (n, r)
        U.
    values : ndarray of float64, shape (r,)
        s, without what is zero up to rounding.
    right : ndarray of float64, shape (r, d)
        V'.
    seen : ndarray of float64, shape (r, e)
        ``U' B``.
    pairs : Centred
    """

    left: Rows64
    values: Vector64
    right: Rows64
    seen: Rows64
    pairs: Centred

    def shrink(self, penalty: float) -> Vector64:
        """Return what remains of each direction, 0 to 1."""
        squares = self.values * self.values
        kept: Vector64 = squares / (squares + penalty * squares.mean())
        return kept

    def weights(self, penalty: float) -> Rows64:
        """Return the map for a penalty, float64, shape (d, e)."""
        W: Rows64 = (self.right.T * (self.shrink(penalty) / self.values)) @ self.seen
        return W

    def left_out(self, penalty: float) -> Rows64:
        """Return each pair's residual under the fit on all other pairs, exactly, float64, shape (n, e).

        Centring counts as a direction of its own (the ``1 / n`` of the leverage).
        """
        kept = self.shrink(penalty)
        leverage = (self.left * self.left) @ kept + 1.0 / len(self.left)
        fitted: Rows64 = (self.left * kept) @ self.seen
        residuals: Rows64 = (self.pairs.B - fitted) / np.maximum(1.0 - leverage, 1e-6)[:, None]
        return residuals

    def press(self, penalty: float) -> float:
        """Return the mean squared left-out residual."""
        residuals = self.left_out(penalty)
        return float((residuals * residuals).sum() / len(residuals))


def ridge_path(pairs: Centred) -> RidgePath:
    """Decompose the source side of centred pairs."""
    U, values, Vt = np.linalg.svd(pairs.A, full_matrices=False)
    alive = values > max(values[0], 1e-300) * 1e-10
    left = np.ascontiguousarray(U[:, alive])
    return RidgePath(left, values[alive], Vt[alive], left.T @ pairs.B, pairs)


def seeded_grid(path: RidgePath) -> Vector64:
    """Return 15 penalties around the one of least PRESS, that one in the middle."""
    best = float(min(GRID, key=path.press))
    grid: Vector64 = best * np.geomspace(1.0 / _SPAN, _SPAN, _STEPS)
    return grid
