"""`lowrank`: reduced-rank regression, stored and applied as two thin factors.

Izenman, "Reduced-rank regression for the multivariate linear model" (1975): project the ridge fit on the leading right
singular vectors of the *fitted values*. Cutting the decomposition of W itself is another map, and a worse one: it
forgets how much of the source lies in each direction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from vecdb.contracts import Affine, FitData, Param, State, TransformCapabilities, state_array, state_value
from vecdb.errors import CorruptionError
from vecdb.transforms.affine import AffineMap, Formula, load_affine, spectral_norm
from vecdb.transforms.oneway import OneWay
from vecdb.transforms.pairs import Rows32, Rows64, checked_rows
from vecdb.transforms.procrustes import WIDTHS
from vecdb.transforms.restore import MEAN
from vecdb.transforms.ridge import PENALTY, RESTORE, choose_ridge
from vecdb.transforms.ridgepath import RidgePath

__all__ = ["LowRankMap", "LowRankType", "reduced_rank"]


SHARE = 0.99
"""Of the variance of the fitted values."""


@dataclass(frozen=True, slots=True, eq=False)
class LowRankMap(OneWay):
    """``f(x) = inner(x @ left)``: through r columns into the target.

    Attributes
    ----------
    left : ndarray of float32, shape (d, r)
    inner : AffineMap
        From r columns to e.
    lipschitz : float or None
    """

    left: Rows32
    inner: AffineMap
    lipschitz: float | None

    @property
    def source_dim(self) -> int:
        return int(self.left.shape[0])

    def _through(self, vectors: Rows32) -> Rows32:
        thin: Rows32 = checked_rows(vectors, self.source_dim) @ self.left
        return thin

    def apply(self, vectors: Rows32) -> Rows32:
        return self.inner.apply(self._through(vectors))

    def row_scale(self, vectors: Rows32) -> Rows32:
        """Return the factor of each row, float32, shape (n,)."""
        return self.inner.row_scale(self._through(vectors))

    def affine(self) -> Affine:
        form = self.inner.affine()
        scale = None if form.row_scale is None else self.row_scale
        return Affine(self.left.astype(np.float64) @ form.W, form.b, form.shift, scale)

    def state(self) -> State:
        bound = -1.0 if self.lipschitz is None else self.lipschitz
        return {"left": self.left, "lipschitz": bound, "inner": dict(self.inner.state())}


@dataclass(frozen=True, slots=True)
class LowRankType:
    """Ridge regression through fewer columns than either side has."""

    name: str = "lowrank"
    version: int = 1
    capabilities: TransformCapabilities = field(
        default=TransformCapabilities(min_pairs=3, widths=WIDTHS, affine=True, row_wise=True, deterministic=True)
    )
    parameters: Mapping[str, Param] = field(
        default_factory=lambda: {
            "rank": Param(
                "int",
                0,
                "Columns between the factors; 0: as many as carry 99 % of what ridge regression fits.",
                0,
                65_536,
            ),
            "penalty": PENALTY,
            "restore": RESTORE,
            "mean": MEAN,
        }
    )

    def fit(self, data: FitData, params: Mapping[str, Any]) -> LowRankMap:
        bend = partial(reduced_rank, rank=params["rank"])
        found = choose_ridge(data, params, owner=self.name, least=self.capabilities.min_pairs, bend=bend)
        return _factored(found.formula(), data, found.facts())

    def load(self, state: State) -> LowRankMap:
        inner = state.get("inner")
        if not isinstance(inner, dict):
            raise CorruptionError("inner of a stored state is no map", what="state", where="inner")
        made = load_affine(inner)
        left, bound = state_array(state, "left", np.float32, (None, made.source_dim)), _bound(state, made)
        if bound is not None and not 0.0 <= bound <= np.linalg.norm(left) * np.linalg.norm(made.W) * 1.001 + 1e-6:
            raise CorruptionError(f"lipschitz of a stored state is {bound}", what="state", where="lipschitz")
        return LowRankMap(left, made, bound)


def reduced_rank(path: RidgePath, penalty: float, *, rank: int) -> Rows64:
    """Return the ridge map projected on the leading directions of what it fits, float64, shape (d, e).

    Parameters
    ----------
    path : RidgePath
    penalty : float
    rank : int
        How many; 0: as many as carry `SHARE` of the variance of the fitted values.
    """
    W = path.weights(penalty)
    fitted = path.pairs.A @ W
    values, axes = np.linalg.eigh(fitted.T @ fitted)
    if not rank:
        carried = np.cumsum(np.maximum(values[::-1], 0.0))
        rank = int(np.searchsorted(carried, SHARE * carried[-1])) + 1
    leading = axes[:, -rank:]
    through: Rows64 = (W @ leading) @ leading.T
    return through


def _factored(formula: Formula, data: FitData, chosen: Mapping[str, Any]) -> LowRankMap:
    U, values, Vt = np.linalg.svd(formula.W, full_matrices=False)
    rank = max(1, int((values > values[0] * 1e-10).sum()))
    left = np.array(U[:, :rank] * values[:rank], dtype=np.float32, order="C")
    left.flags.writeable = False
    inner = AffineMap.of(Formula(Vt[:rank], *formula[1:]), data, chosen={**chosen, "rank": rank})
    bound = None if formula.length else spectral_norm(left.astype(np.float64) @ inner.W.astype(np.float64))
    return LowRankMap(left, inner, bound)


def _bound(state: State, inner: AffineMap) -> float | None:
    found = state_value(state, "lipschitz", float)
    if (inner.length > 0) != (found == -1.0):
        raise CorruptionError(f"lipschitz of a stored state is {found}", what="state", where="lipschitz")
    return None if found == -1.0 else found
