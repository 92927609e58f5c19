"""`relative`: describe a vector by its similarities to records that both models know; both sides are mapped.

Moschella et al., "Relative representations enable zero-shot latent space communication" (ICLR 2023), section 3. Nothing
but the anchors is fitted, so as many pairs as anchors are enough, and no model need be rotated into the other. Whitened
by the anchors' own Gram matrix (its inverse root), each side stands on the orthonormal axes nearest to its anchors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.contracts import Affine, FitData, Param, State, TransformCapabilities, state_array
from vecdb.contracts.transform import Direction, Isometry
from vecdb.errors import CorruptionError
from vecdb.transforms.affine import load_direction, turned
from vecdb.transforms.pairs import Rows32, Rows64, checked_rows, fit_pairs, go_on
from vecdb.transforms.procrustes import WIDTHS
from vecdb.transforms.provenance import Facts, facts_of, load_facts

__all__ = ["RelativeMap", "RelativeType", "Side", "farthest_first"]

_TINY = 1e-12
_ALIVE = 1e-6
"""Eigenvalues of a Gram matrix below this part of the largest say nothing that float32 vectors could."""


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One model's anchors: ``x -> ((x - center) / |x - center|) W``."""

    center: Rows32
    W: Rows32


@dataclass(frozen=True, slots=True, eq=False)
class RelativeMap:
    """Similarities to anchors, for one side; `companion` is the same for the other."""

    mine: Side
    other: Side
    direction: Direction
    fit: Facts

    @property
    def source_dim(self) -> int:
        return int(self.mine.W.shape[0])

    @property
    def target_dim(self) -> int:
        return int(self.mine.W.shape[1])

    @property
    def isometry(self) -> Isometry:
        return "none"

    @property
    def lipschitz(self) -> None:
        return None

    def apply(self, vectors: Rows32) -> Rows32:
        mapped = ((checked_rows(vectors, self.source_dim) - self.mine.center) @ self.mine.W).astype(np.float32)
        mapped *= self.row_scale(vectors)[:, None]
        return mapped

    def row_scale(self, vectors: Rows32) -> Rows32:
        """Return one over the distance of each row from the anchors' centre, float32, shape (n,)."""
        norms = np.linalg.norm(checked_rows(vectors, self.source_dim) - self.mine.center, axis=1)
        scale: Rows32 = (1.0 / np.maximum(norms, _TINY)).astype(np.float32)
        return scale

    def affine(self) -> Affine:
        W = self.mine.W.astype(np.float64)
        return Affine(W, -self.mine.center.astype(np.float64) @ W, None, self.row_scale)

    def inverse(self) -> None:
        return None

    def companion(self) -> RelativeMap:
        return RelativeMap(self.other, self.mine, turned(self.direction), self.fit)

    def uncertainty(self, vectors: Rows32) -> None:
        return None

    def state(self) -> State:
        return {
            "center": self.mine.center,
            "W": self.mine.W,
            "other_center": self.other.center,
            "other_W": self.other.W,
            "direction": self.direction,
            "fit": dict(self.fit),
        }


@dataclass(frozen=True, slots=True)
class RelativeType:
    """Cosines with anchors chosen among the pairs."""

    name: str = "relative"
    version: int = 1
    capabilities: TransformCapabilities = field(
        default=TransformCapabilities(
            min_pairs=3, widths=WIDTHS, affine=True, row_wise=True, deterministic=True, joint=True
        )
    )
    parameters: Mapping[str, Param] = field(
        default_factory=lambda: {
            "anchors": Param(
                "int", 0, "Pairs to compare with, all there are at most; 0: as many as the wider space has columns.", 0
            ),
            "pick": Param("str", "farthest", "Which pairs become anchors.", choices=("farthest", "random")),
            "center": Param("bool", True, "Compare directions from the anchors' mean, not from the origin."),
            "whiten": Param("bool", True, "Divide by the root of the anchors' Gram matrix, each side by its own."),
        }
    )

    def fit(self, data: FitData, params: Mapping[str, Any]) -> RelativeMap:
        X, Y = fit_pairs(data, self.capabilities.min_pairs, owner=self.name)
        wanted = params["anchors"] or max(X.shape[1], Y.shape[1])
        count = min(wanted, len(X))
        chosen = farthest_first(X, count) if params["pick"] == "farthest" else data.rng.permutation(len(X))[:count]
        go_on(data, 1, 2)
        side = partial(_side, center=params["center"], whiten=params["whiten"])
        return RelativeMap(side(X[chosen]), side(Y[chosen]), data.role, facts_of(data, anchors=int(count)))

    def load(self, state: State) -> RelativeMap:
        mine, other = _load_side(state, ""), _load_side(state, "other_")
        if mine.W.shape[1] != other.W.shape[1]:
            raise CorruptionError("other_W of a stored state has other anchors", what="state", where="other_W")
        return RelativeMap(mine, other, load_direction(state), load_facts(state))


def farthest_first(rows: Rows64, count: int) -> npt.NDArray[np.int64]:
    """Return rows that lie far from each other: each the farthest from those before it (Gonzalez, 1985).

    Parameters
    ----------
    rows : ndarray of float64, shape (n, d)
    count : int
        At most n; the first is the row farthest from the mean. Equal distances: smaller row first.
    """
    distance = ((rows - rows.mean(0)) ** 2).sum(1)
    chosen = [int(distance.argmax())]
    distance = np.full(len(rows), np.inf)
    for _ in range(count - 1):
        distance = np.minimum(distance, ((rows - rows[chosen[-1]]) ** 2).sum(1))
        distance[chosen[-1]] = -1.0
        chosen.append(int(distance.argmax()))
    return np.array(chosen, np.int64)


def _side(anchors: Rows64, *, center: bool, whiten: bool) -> Side:
    middle = anchors.mean(0) if center else np.zeros(anchors.shape[1])
    away = anchors - middle
    away /= np.maximum(np.linalg.norm(away, axis=1, keepdims=True), _TINY)
    W = away.T
    if whiten:
        values, axes = np.linalg.eigh(away @ away.T)
        alive = values > _ALIVE * values[-1]
        W = W @ ((axes[:, alive] / np.sqrt(values[alive])) @ axes[:, alive].T)
    return Side(_frozen(middle), _frozen(W))


def _frozen(array: Rows64) -> Rows32:
    rounded = np.array(array, dtype=np.float32, order="C")
    rounded.flags.writeable = False
    return rounded


def _load_side(state: State, prefix: str) -> Side:
    W = state_array(state, f"{prefix}W", np.float32, (None, None))
    return Side(state_array(state, f"{prefix}center", np.float32, (W.shape[0],)), W)
