"""`hadamard`: give every axis the same variance by one rotation and one factor for all (PHI-S).

Ranzinger et al., "PHI-S: Distribution balancing for label-free multi-teacher distillation" (2024), section 3: on the
principal axes, a Hadamard matrix H spreads every eigenvalue over all axes alike, because all its entries are
``+-1/sqrt(d)``. Distances are kept up to the factor, unlike by whitening. Where no Hadamard matrix is constructed here
(Sylvester, Paley I, Kronecker products of those), plane rotations equalise the axes one by one; the fit says which.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.contracts import FitData, Param, State, TransformCapabilities
from vecdb.transforms.affine import AffineMap, Formula, load_affine
from vecdb.transforms.pairs import Rows64, fit_rows
from vecdb.transforms.spectral import spectrum_of

__all__ = ["HadamardType", "equalising_rotation", "hadamard_matrix"]

_LEAST = 3


@dataclass(frozen=True, slots=True)
class HadamardType:
    """``(x - m) V H / s`` with s the root of the mean variance of an axis."""

    name: str = "hadamard"
    version: int = 1
    capabilities: TransformCapabilities = field(
        default=TransformCapabilities(
            requires=frozenset(), min_pairs=0, affine=True, invertible=True, row_wise=True, deterministic=True
        )
    )
    parameters: Mapping[str, Param] = field(
        default_factory=lambda: {
            "center": Param("bool", True, "Take the mean away first."),
            "rescale": Param("bool", True, "Bring the variance of an axis to 1; else it is a rotation."),
        }
    )

    def fit(self, data: FitData, params: Mapping[str, Any]) -> AffineMap:
        rows = fit_rows(data, _LEAST, owner=self.name)
        found = spectrum_of(rows, center=params["center"])
        matrix = hadamard_matrix(rows.shape[1])
        H = equalising_rotation(found.values) if matrix is None else matrix
        size = float(np.sqrt(found.values.mean())) if params["rescale"] else 1.0
        W = found.axes @ H / size
        formula = Formula(W, -found.mean @ W, np.zeros(W.shape[1]))
        rotation = not params["center"] and not params["rescale"]
        return AffineMap.of(
            formula,
            data,
            isometry="exact" if rotation else "none",
            reversible=True,
            direction="both",
            chosen={"by": "plane rotations" if matrix is None else "hadamard", "deviation": size},
        )

    def load(self, state: State) -> AffineMap:
        return load_affine(state)


def hadamard_matrix(size: int) -> Rows64 | None:
    """Return an orthogonal matrix whose entries are all ``+-1/sqrt(size)``; None where none is constructed.

    Sylvester's doubling from 1, from Paley's matrices of order ``q + 1`` (q prime, q = 3 mod 4), and Kronecker
    products of two of those: every order 1, 2 and most multiples of 4 that models have (12, 20, 24, 384, 768, 1536).
    """
    plain = _signs(size)
    if plain is None:
        return None
    plain /= math.sqrt(size)
    return plain


def _signs(size: int) -> Rows64 | None:
    if size == 1:
        return np.ones((1, 1))
    if size % 2:
        return None
    paley = _paley(size)
    if paley is not None:
        return paley
    half = _signs(size // 2)
    if half is not None:
        return np.block([[half, half], [half, -half]])
    for part in range(12, int(np.sqrt(size)) + 1, 4):
        other = _signs(size // part) if size % part == 0 else None
        mine = _paley(part)
        if other is not None and mine is not None:
            return np.kron(mine, other).astype(np.float64)
    return None


def _paley(size: int) -> Rows64 | None:
    """Return Paley's first matrix of an order ``q + 1`` with q prime and q = 3 mod 4."""
    q = size - 1
    if q % 4 != 3 or not _is_prime(q):
        return None
    squares = np.zeros(q, np.int64)
    squares[np.arange(1, q) ** 2 % q] = 1
    character = 2.0 * squares - 1.0
    character[0] = 0.0
    places = np.arange(q)
    core = character[(places[:, None] - places[None, :]) % q]
    skew = np.zeros((size, size))
    skew[0, 1:], skew[1:, 0], skew[1:, 1:] = 1.0, -1.0, core
    return skew + np.eye(size)


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % each for each in range(2, int(np.sqrt(number)) + 1))


def equalising_rotation(variances: npt.NDArray[np.float64]) -> Rows64:
    """Return a rotation after which every axis has the mean variance: Bendel and Mickey (1978), plane by plane.

    Parameters
    ----------
    variances : ndarray of float64, shape (d,)
        Of uncorrelated axes.

    Returns
    -------
    ndarray of float64, shape (d, d)
        H orthogonal, with the diagonal of ``H' diag(variances) H`` constant.
    """
    C = np.diag(variances)
    H = np.eye(len(C))
    wanted = float(variances.mean())
    for _ in range(len(C) - 1):
        spread = C.diagonal() - wanted
        low, high = int(spread.argmin()), int(spread.argmax())
        if spread[high] - spread[low] <= 1e-14 * max(wanted, 1e-300):
            break
        tangent = _tangent(C, low, high, wanted)
        cosine = 1.0 / np.sqrt(1.0 + tangent * tangent)
        turn = np.array([[cosine, tangent * cosine], [-tangent * cosine, cosine]])
        pair = [low, high]
        C[:, pair] = C[:, pair] @ turn
        C[pair] = turn.T @ C[pair]
        H[:, pair] = H[:, pair] @ turn
    return H


def _tangent(C: Rows64, low: int, high: int, wanted: float) -> float:
    """Return the tangent of the turn that gives the axis `low` the wanted variance: the smaller of two roots."""
    a, b, c = C[high, high] - wanted, C[low, high], C[low, low] - wanted
    # After the turn the variance of `low` is (c_ll - 2 t c_lh + t^2 c_hh) / (1 + t^2): a t^2 - 2 b t + c = 0.
    root = np.sqrt(max(b * b - a * c, 0.0))
    return float((b + root) / a if b <= 0 else c / (b + root))
