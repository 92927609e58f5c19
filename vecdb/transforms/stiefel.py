"""Descent among matrices with orthonormal columns: Adam on rotations' generators, applied by Cayley's transform.

Wen and Yin, "A feasible method for optimization with orthogonality constraints" (2013), section 2; Li, Fuxin and
Todorovic, "Efficient Riemannian optimization on the Stiefel manifold via the Cayley transform" (ICLR 2020). Invariant:
the columns are orthonormal after every step up to the rounding of one linear solve in float64.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from vecdb.transforms.pairs import Rows64

__all__ = ["Turning", "cayley", "completed", "generator"]

_FIRST, _SECOND = 0.9, 0.999
_FLAT = 1e-6
"""Of the largest moment: what is smaller is rounding, and turns nothing."""


def generator(Q: Rows64, gradient: Rows64) -> Rows64:
    """Return the skew-symmetric matrix along which a function of Q falls fastest when Q is turned against it.

    Parameters
    ----------
    Q, gradient : ndarray of float64, shape (n, r)

    Returns
    -------
    ndarray of float64, shape (n, n)
    """
    product = gradient @ Q.T
    return product - product.T


def cayley(Q: Rows64, skew: Rows64) -> Rows64:
    """Return ``(I + A / 2)^-1 (I - A / 2) Q``: Q turned by the rotation that a skew-symmetric A stands for.

    Parameters
    ----------
    Q : ndarray of float64, shape (n, r)
    skew : ndarray of float64, shape (n, n)
    """
    half = 0.5 * skew
    return np.linalg.solve(np.eye(len(half)) + half, Q - half @ Q).astype(np.float64)


class Turning:
    """Moments of the generators of one matrix, which `step` turns.

    Parameters
    ----------
    n : int
        Rows of the matrix.
    """

    def __init__(self, n: int) -> None:
        self._first: Rows64 = np.zeros((n, n))
        self._second: Rows64 = np.zeros((n, n))
        self._steps = 0

    def step(self, Q: Rows64, gradient: Rows64, angle: float) -> Rows64:
        """Return Q turned against its gradient, by about `angle` radians at most.

        Parameters
        ----------
        Q, gradient : ndarray of float64, shape (n, r)
        angle : float
        """
        self._steps += 1
        skew = generator(Q, gradient)
        self._first += (1.0 - _FIRST) * (skew - self._first)
        self._second += (1.0 - _SECOND) * (skew * skew - self._second)
        bias_one, bias_two = 1.0 - _FIRST**self._steps, 1.0 - _SECOND**self._steps
        # The second moments are symmetric, so that the quotient is skew-symmetric, too. One with entries of about 1 and
        # random signs has singular values of at most about twice the root of n.
        sizes = np.sqrt(self._second / bias_two)
        even = (self._first / bias_one) / (sizes + max(_FLAT * float(sizes.max()), 1e-300))
        return cayley(Q, (angle / (2.0 * math.sqrt(len(Q)))) * even)


def completed(rows: Rows64, n: int) -> Rows64:
    """Return an orthogonal matrix of which the first rows are the given ones, with zeros behind.

    Parameters
    ----------
    rows : ndarray of float64, shape (m, c)
        Orthonormal, m at most n and c at most n.
    n : int

    Returns
    -------
    ndarray of float64, shape (n, n)
    """
    wide = np.zeros((len(rows), n))
    wide[:, : rows.shape[1]] = rows
    rest: npt.NDArray[np.float64] = np.linalg.svd(wide, full_matrices=True)[2][len(rows) :]
    return np.concatenate([wide, rest])
