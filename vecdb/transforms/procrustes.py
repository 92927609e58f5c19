"""`procrustes`: the rotation that fits best, between spaces of any widths.

Schonemann, "A generalized solution of the orthogonal Procrustes problem" (1966): the polar factor of ``A' B``. For
rectangular maps the thin decomposition is the solution; padding and cutting would rotate what the pairs do not
determine at random. Invariant: "exact" and "semi" are claimed of the bare polar factor only, uncentred and unscaled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vecdb.contracts import FitData, Param, State, TransformCapabilities
from vecdb.contracts.transform import Isometry, Width
from vecdb.transforms.affine import AffineMap, load_affine
from vecdb.transforms.pairs import Centred, Rows64, centred, fit_pairs
from vecdb.transforms.restore import MEAN, Finish, Restore, choose_finish, finished, finishes

__all__ = ["ProcrustesType", "polar_factor"]

WIDTHS: frozenset[Width] = frozenset({"equal", "wider", "narrower"})
_SCALES: dict[str, Restore] = {"none": "none", "ls": "ls", "variance": "global", "unit": "unit"}
_TIE = 1e-10
"""Weight of the plain copy of columns, relative to the largest singular value: it decides what no pair does."""


@dataclass(frozen=True, slots=True)
class ProcrustesType:
    """``y = c (x - m_x) W + m_y`` with W the polar factor of ``A' B``."""

    name: str = "procrustes"
    version: int = 1
    capabilities: TransformCapabilities = field(
        default=TransformCapabilities(min_pairs=3, widths=WIDTHS, affine=True, row_wise=True, deterministic=True)
    )
    parameters: Mapping[str, Param] = field(
        default_factory=lambda: {
            "center": Param("bool", True, "Rotate between the means of both spaces, not about the origin."),
            "scale": Param(
                "str",
                "auto",
                "What restores the length of a residual: one factor (ls, variance), one for each row (unit), none;"
                " auto: chosen by retrieval on the kept-back pairs, unit where there are none.",
                choices=("auto", *_SCALES),
            ),
            "mean": MEAN,
            "reflect": Param("bool", True, "Allow an improper rotation (determinant -1) between equal widths."),
        }
    )

    def fit(self, data: FitData, params: Mapping[str, Any]) -> AffineMap:
        X, Y = fit_pairs(data, self.capabilities.min_pairs, owner=self.name)
        pairs = centred(X, Y, center=params["center"])
        W = polar_factor(pairs, proper=not params["reflect"])
        how, score = _finish(data, pairs, W, params)
        plain = how.restore == "none" and not params["center"]
        chosen = {"restore": how.restore, "mean": how.mean, "judged": score}
        formula = finished(W, pairs, how)
        return AffineMap.of(formula, data, isometry=_isometry(W) if plain else "none", reversible=True, chosen=chosen)

    def load(self, state: State) -> AffineMap:
        return load_affine(state)


def polar_factor(pairs: Centred, *, proper: bool = False) -> Rows64:
    """Return the matrix with orthonormal rows or columns nearest to mapping A to B.

    Parameters
    ----------
    pairs : Centred
    proper : bool, default False
        Between equal widths only rotations with determinant 1: the direction that matters least is turned round.

    Returns
    -------
    ndarray of float64, shape (d, e)
        Where the pairs span fewer directions than the spaces have, the others are mapped as a copy of the columns
        would: the same on every machine, and no random rotation.
    """
    product = pairs.A.T @ pairs.B
    strength = np.linalg.norm(product, 2) or 1.0
    U, _, Vt = np.linalg.svd(product + _TIE * strength * np.eye(*product.shape), full_matrices=False)
    if proper and product.shape[0] == product.shape[1] and np.linalg.det(U) * np.linalg.det(Vt) < 0:
        U[:, -1] *= -1.0
    W: Rows64 = U @ Vt
    return W


def _finish(data: FitData, pairs: Centred, W: Rows64, params: Mapping[str, Any]) -> tuple[Finish, float]:
    """Return how the map is finished, and by which score that was chosen (-1: by none)."""
    if not params["center"]:
        return _uncentred(params["scale"]), -1.0
    restore = "auto" if params["scale"] == "auto" else _SCALES[params["scale"]]
    return choose_finish(data, pairs, W, finishes(data, restore, params["mean"], "unit", tuple(_SCALES.values())))


def _uncentred(scale: str) -> Finish:
    """Without centres there is no mean to balance: lengths of rows change no ranking, so "auto" scales nothing."""
    return Finish("none" if scale == "auto" else _SCALES[scale], True)


def _isometry(W: Rows64) -> Isometry:
    d, e = W.shape
    return "exact" if d == e else "semi" if d < e else "none"
