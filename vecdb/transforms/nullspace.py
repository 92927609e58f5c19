"""`nullspace`: remove what says which class a record is of, direction by direction (INLP).

Ravfogel et al., "Null it out" (ACL 2020), algorithm 1: fit linear classifiers of the attribute, project on what they do
not look at, and again. The result is a symmetric projection P, so mapping the queries alone is enough:
``<q P, x> = <q P, x P>``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.contracts import FitData, Param, State, TransformCapabilities
from vecdb.errors import FitError
from vecdb.transforms.affine import AffineMap, Formula, load_affine
from vecdb.transforms.pairs import Rows64, fit_rows, go_on

__all__ = ["NullspaceType", "classifier", "nullspace_basis"]

_LEAST = 3
_RIDGE = 1e-3
"""Penalty of the classifiers, relative to the mean variance."""


@dataclass(frozen=True, slots=True)
class NullspaceType:
    """``x P``, P the projection on what no classifier of the label looked at."""

    name: str = "nullspace"
    version: int = 1
    capabilities: TransformCapabilities = field(
        default=TransformCapabilities(
            requires=frozenset({"labels"}), min_pairs=0, affine=True, row_wise=True, deterministic=True
        )
    )
    parameters: Mapping[str, Param] = field(
        default_factory=lambda: {
            "rounds": Param("int", 10, "Classifiers fitted at most, one after the other.", 1, 1_000),
            "keep": Param("float", 0.5, "Least share of the directions that stay.", 0.0, 1.0),
        }
    )

    def fit(self, data: FitData, params: Mapping[str, Any]) -> AffineMap:
        rows = fit_rows(data, _LEAST, owner=self.name)
        known, classes = _known(data)
        width = rows.shape[1]
        most = min(int(width * (1.0 - params["keep"])), width - 1)
        basis = nullspace_basis(rows[known], classes, params["rounds"], most, data)
        P = np.eye(width) - basis @ basis.T
        formula = Formula(P, np.zeros(width), np.zeros(width))
        return AffineMap.of(formula, data, direction="both", chosen={"removed": int(basis.shape[1])})

    def load(self, state: State) -> AffineMap:
        return load_affine(state)


def nullspace_basis(rows: Rows64, classes: npt.NDArray[np.int64], rounds: int, most: int, data: FitData) -> Rows64:
    """Return an orthonormal basis, float64, shape (d, r), r <= most, of what the classifiers looked at.

    A round ends the search if its classifier guesses no better than always saying the largest class.
    """
    basis = np.zeros((rows.shape[1], 0))
    guess = float(np.bincount(classes).max()) / len(classes)
    for step in range(rounds):
        go_on(data, step, rounds)
        left = rows - (rows @ basis) @ basis.T
        W, accuracy = classifier(left, classes)
        if accuracy <= guess + 1.0 / len(rows) or basis.shape[1] >= most:
            break
        U, values, _ = np.linalg.svd(W - basis @ (basis.T @ W), full_matrices=False)
        new = U[:, values > values[0] * 1e-6][:, : most - basis.shape[1]]
        basis, _ = np.linalg.qr(np.concatenate([basis, new], axis=1))
    return basis


def classifier(rows: Rows64, classes: npt.NDArray[np.int64]) -> tuple[Rows64, float]:
    """Return the directions of a linear classifier (least squares, one against the rest) and its share of hits.

    Parameters
    ----------
    rows : ndarray of float64, shape (n, d)
    classes : ndarray of int64, shape (n,)
        0 to c - 1.

    Returns
    -------
    W : ndarray of float64, shape (d, c)
    accuracy : float
        On the same rows.
    """
    wanted = np.eye(int(classes.max()) + 1)[classes]
    away, target = rows - rows.mean(0), wanted - wanted.mean(0)
    gram = away.T @ away
    size = max(float(np.trace(gram)) / len(gram), 1e-300)
    W: Rows64 = np.linalg.solve(gram + _RIDGE * size * np.eye(len(gram)), away.T @ target)
    said = (away @ W + wanted.mean(0)).argmax(1)
    return W, float((said == classes).mean())


def _known(data: FitData) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Return which rows have a known label, and their classes as 0 to c - 1."""
    labels = np.full(len(data.source), -1, np.int64) if data.labels is None else data.labels
    known = labels >= 0
    names, classes = np.unique(labels[known], return_inverse=True)
    if len(names) < 2:
        raise FitError(
            f"nullspace was given {len(names)} known classes, expected at least 2",
            hint="Label the records with what is to be removed.",
            pairs=len(names),
            needed=2,
        )
    return known, classes.astype(np.int64)
