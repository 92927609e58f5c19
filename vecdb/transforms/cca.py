"""`cca`: whiten both sides, rotate, weigh the directions by how well they agree, and undo the target's whitening.

Artetxe, Labaka and Agirre, "Generalizing and improving bilingual word embedding mappings" (AAAI 2018), steps 1 to 4:
VecMap's supervised map. With power 1 it is the regression of canonical correlation analysis, with 0 a bare rotation
between the whitened spaces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vecdb.contracts import FitData, Param, State, TransformCapabilities
from vecdb.transforms.affine import AffineMap, load_affine
from vecdb.transforms.pairs import Centred, Rows64, centred, fit_pairs, go_on
from vecdb.transforms.procrustes import WIDTHS
from vecdb.transforms.restore import MEAN, Restore, choose_finish, finished, finishes

__all__ = ["CcaType", "cca_weights"]

_RESTORES: tuple[Restore, ...] = ("unit", "clip", "none", "global")


@dataclass(frozen=True, slots=True)
class CcaType:
    """``W = Wx U S^p V' Wy^-1`` between spaces whitened by Wx and Wy."""

    name: str = "cca"
    version: int = 1
    capabilities: TransformCapabilities = field(
        default=TransformCapabilities(min_pairs=3, widths=WIDTHS, affine=True, row_wise=True, deterministic=True)
    )
    parameters: Mapping[str, Param] = field(
        default_factory=lambda: {
            "power": Param("float", 1.0, "Weight of a direction: its correlation to this power.", 0.0, 4.0),
            "shrink": Param(
                "float", 1e-3, "Added to both covariances, relative to their largest eigenvalue.", 1e-9, 1.0
            ),
            "restore": Param(
                "str",
                "auto",
                "What restores lengths: one factor (global), one for each row (unit), the singular values cut at their"
                " median first (clip), none; auto: chosen by retrieval on the kept-back pairs, unit where there are"
                " none.",
                choices=("auto", *_RESTORES),
            ),
            "mean": MEAN,
        }
    )

    def fit(self, data: FitData, params: Mapping[str, Any]) -> AffineMap:
        pairs = centred(*fit_pairs(data, self.capabilities.min_pairs, owner=self.name))
        W = cca_weights(pairs, params["power"], params["shrink"])
        go_on(data, 1, 2)
        how, score = choose_finish(data, pairs, W, finishes(data, params["restore"], params["mean"], "unit", _RESTORES))
        chosen = {"restore": how.restore, "mean": how.mean, "judged": score}
        return AffineMap.of(finished(W, pairs, how), data, chosen=chosen)

    def load(self, state: State) -> AffineMap:
        return load_affine(state)


def cca_weights(pairs: Centred, power: float, shrink: float) -> Rows64:
    """Return the linear part, float64, shape (d, e)."""
    whiten, _ = _roots(pairs.A, shrink)
    color_in, color_out = _roots(pairs.B, shrink)
    U, agreement, Vt = np.linalg.svd(whiten @ (pairs.A.T @ pairs.B) @ color_in / pairs.pairs, full_matrices=False)
    W: Rows64 = whiten @ (U * np.minimum(agreement, 1.0) ** power) @ Vt @ color_out
    return W


def _roots(rows: Rows64, shrink: float) -> tuple[Rows64, Rows64]:
    """Return the symmetric inverse root of the covariance, and the root."""
    values, axes = np.linalg.eigh(rows.T @ rows / len(rows))
    values = np.maximum(values, 0.0) + shrink * max(float(values[-1]), 1e-300)
    root = np.sqrt(values)
    return (axes / root) @ axes.T, (axes * root) @ axes.T
