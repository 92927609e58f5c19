"""`simplex`: map every version of a model onto one space that never changes, the vertices of a regular simplex.

Biondi et al., "CoReS: Compatible representations via stationarity" (TPAMI 2023), section 4; "Stationary
representations" (CVPR 2024). Class k has vertex k of the ``e + 1`` vertices in e dimensions,
however many classes there are yet: vectors of two models are comparable because both were mapped there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.contracts import FitData, Param, State, TransformCapabilities
from vecdb.contracts.transform import Isometry
from vecdb.errors import FitError
from vecdb.transforms.affine import AffineMap, load_affine
from vecdb.transforms.pairs import Rows64, centred, fit_rows, go_on
from vecdb.transforms.procrustes import WIDTHS, polar_factor
from vecdb.transforms.restore import Finish, finished
from vecdb.transforms.ridgepath import GRID, ridge_path

__all__ = ["SimplexType", "simplex_vertices"]

_LEAST = 3


@dataclass(frozen=True, slots=True)
class SimplexType:
    """The regression, or the rotation, that brings each record to the vertex of its class."""

    name: str = "simplex"
    version: int = 1
    capabilities: TransformCapabilities = field(
        default=TransformCapabilities(
            requires=frozenset({"labels"}),
            min_pairs=0,
            widths=WIDTHS,
            affine=True,
            row_wise=True,
            deterministic=True,
        )
    )
    parameters: Mapping[str, Param] = field(
        default_factory=lambda: {
            "base": Param("str", "ridge", "What maps onto the vertices.", choices=("ridge", "procrustes")),
            "penalty": Param(
                "float",
                0.0,
                "Of the ridge, relative to the mean squared singular value; 0: the one of least left-out error.",
                0.0,
                1e6,
            ),
        }
    )

    def fit(self, data: FitData, params: Mapping[str, Any]) -> AffineMap:
        rows = fit_rows(data, _LEAST, owner=self.name)
        known, target = _targets(data)
        go_on(data, 1, 2)
        if params["base"] == "procrustes":
            pairs = centred(rows[known], target, center=False)
            W, isometry = polar_factor(pairs), _isometry(rows.shape[1], target.shape[1])
            made = finished(W, pairs, Finish("none", True))
            return AffineMap.of(made, data, isometry=isometry, direction="both", chosen={"base": "procrustes"})
        path = ridge_path(centred(rows[known], target))
        penalty = params["penalty"] or float(min(GRID, key=path.press))
        made = finished(path.weights(penalty), path.pairs, Finish("none", True))
        return AffineMap.of(made, data, direction="both", chosen={"base": "ridge", "penalty": penalty})

    def load(self, state: State) -> AffineMap:
        return load_affine(state)


def simplex_vertices(width: int) -> Rows64:
    """Return the ``width + 1`` vertices of the regular simplex about the origin, unit vectors as rows.

    Any two of them have the inner product ``-1 / width``.
    """
    size = width + 1
    corner = np.full((1, width), (1.0 - np.sqrt(size)) / width)
    vertices = np.concatenate([np.eye(width), corner])
    vertices -= vertices.mean(0)
    unit: Rows64 = vertices / np.linalg.norm(vertices, axis=1, keepdims=True)
    return unit


def _targets(data: FitData) -> tuple[npt.NDArray[np.bool_], Rows64]:
    """Return which rows have a class, and the vertices of those classes."""
    labels = np.full(len(data.source), -1, np.int64) if data.labels is None else data.labels
    known = labels >= 0
    width = data.target.shape[1]
    classes = len(np.unique(labels[known]))
    if classes < 2:
        raise FitError(f"simplex was given {classes} known classes, expected at least 2", pairs=classes, needed=2)
    highest = int(labels.max())
    if highest > width:
        raise FitError(
            f"simplex was given class {highest} in a target of {width} columns, which has {width + 1} vertices",
            hint="Number the classes from 0, or make the target wider.",
            pairs=highest + 1,
            needed=width + 1,
        )
    return known, simplex_vertices(width)[labels[known]]


def _isometry(source: int, target: int) -> Isometry:
    return "exact" if source == target else "semi" if source < target else "none"
