"""The fitted map of most kinds: ``f(x) = r(x) (x W + b) + shift``, where r is 1 or brings residuals to one length.

Invariant: arrays are float32 and read-only, claims were checked against them, when the map was made and when it was
loaded. Fits are float64 and rounded once, here. Formulas: docs/reference/transforms.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vecdb.contracts import Affine, FitData, State, state_array, state_value
from vecdb.contracts.transform import DIRECTIONS, ISOMETRIES, Direction, Isometry
from vecdb.errors import CorruptionError
from vecdb.transforms.errorhead import ErrorHead, load_head
from vecdb.transforms.pairs import Rows32, Rows64, checked_rows
from vecdb.transforms.provenance import Facts, facts_of, load_facts

__all__ = ["AffineMap", "Formula", "load_affine", "load_direction", "load_isometry", "spectral_norm", "turned"]

TINY = 1e-12
"""Of a residual's norm: what is shorter has no direction to keep."""
_CONDITION = 1e3
"""A worse conditioned matrix has no inverse that float32 could undo a map with."""


class Formula(NamedTuple):
    """``x -> r(x) (x W + b) + shift`` in float64; ``r(x) = length / |x W + b|``, or 1 where `length` is 0."""

    W: Rows64
    b: Rows64
    shift: Rows64
    length: float = 0.0

    def apply(self, vectors: npt.NDArray[np.floating]) -> Rows64:
        """Return the mapped rows, float64."""
        mapped: Rows64 = vectors @ self.W + self.b
        if self.length:
            norms = np.linalg.norm(mapped, axis=1, keepdims=True)
            mapped *= self.length / np.maximum(norms, TINY)
        mapped += self.shift
        return mapped


@dataclass(frozen=True, slots=True, eq=False)
class AffineMap:
    """A fitted map of the form above.

    Attributes
    ----------
    W : ndarray of float32, shape (d, e)
    b, shift : ndarray of float32, shape (e,)
        `shift` is zero where `length` is: it is part of `b` then.
    length : float
        Norm that every residual is brought to; 0: none.
    direction, isometry, lipschitz
        As in `vecdb.contracts.Transform`.
    fit : mapping
        What the fit says of itself.
    reversible : bool
        Whether the map has an exact inverse that means something; an exact isometry always has.
    head : ErrorHead or None
    """

    W: Rows32
    b: Rows32
    shift: Rows32
    length: float
    direction: Direction
    isometry: Isometry
    lipschitz: float | None
    fit: Facts
    reversible: bool = False
    head: ErrorHead | None = None

    @classmethod
    def of(
        cls,
        formula: Formula,
        data: FitData,
        *,
        isometry: Isometry = "none",
        reversible: bool = False,
        direction: Direction | None = None,
        head: ErrorHead | None = None,
        chosen: Facts | None = None,
    ) -> AffineMap:
        """Return a formula as a map fitted on `data`; its arrays are rounded to float32."""
        W, b, shift, length = formula
        if not length:
            b, shift = b + shift, np.zeros_like(shift)
        bound = None if length else (1.0 if isometry != "none" else spectral_norm(W))
        arrays = _frozen(W), _frozen(b), _frozen(shift)
        facts = facts_of(data, **(chosen or {}))
        return cls(*arrays, float(length), direction or data.role, isometry, bound, facts, reversible, head)

    @property
    def source_dim(self) -> int:
        return int(self.W.shape[0])

    @property
    def target_dim(self) -> int:
        return int(self.W.shape[1])

    def apply(self, vectors: Rows32) -> Rows32:
        mapped = checked_rows(vectors, self.source_dim) @ self.W
        mapped += self.b
        if self.length:
            mapped *= self._factors(mapped)[:, None]
            mapped += self.shift
        return mapped

    def _factors(self, residuals: Rows32) -> Rows32:
        norms: Rows32 = np.linalg.norm(residuals, axis=1)
        return (self.length / np.maximum(norms, TINY)).astype(np.float32)

    def row_scale(self, vectors: Rows32) -> Rows32:
        """Return ``r(x)`` of each row, float32, shape (n,)."""
        if not self.length:
            return np.ones(len(vectors), np.float32)
        return self._factors(checked_rows(vectors, self.source_dim) @ self.W + self.b)

    def affine(self) -> Affine:
        W, b = self.W.astype(np.float64), self.b.astype(np.float64)
        if not self.length:
            return Affine(W, b)
        return Affine(W, b, self.shift.astype(np.float64), self.row_scale)

    def inverse(self) -> AffineMap | None:
        if self.isometry == "exact":
            back = np.ascontiguousarray(self.W.T)
            back.flags.writeable = False
            nothing = np.zeros_like(self.b)
            return AffineMap(back, nothing, nothing, 0.0, turned(self.direction), "exact", 1.0, self.fit, True)
        if not self.reversible or self.length or self.source_dim != self.target_dim:
            return None
        return self._undone()

    def _undone(self) -> AffineMap | None:
        """Return the inverse of a map that is no isometry: it leads back, for the same role, and folds nothing."""
        W = self.W.astype(np.float64)
        values = np.linalg.svd(W, compute_uv=False)
        if values[-1] * _CONDITION < values[0]:
            return None
        back = np.linalg.inv(W).astype(np.float64)
        arrays = _frozen(back), _frozen(-self.b.astype(np.float64) @ back), np.zeros_like(self.b)
        return AffineMap(*arrays, 0.0, self.direction, "none", spectral_norm(back), self.fit, True)

    def companion(self) -> None:
        return None

    def uncertainty(self, vectors: Rows32) -> Rows32 | None:
        if self.head is None:
            return None
        return self.head.errors(checked_rows(vectors, self.source_dim), self.apply(vectors))

    def state(self) -> State:
        return {
            "W": self.W,
            "b": self.b,
            "shift": self.shift,
            "length": self.length,
            "direction": self.direction,
            "isometry": self.isometry,
            "lipschitz": -1.0 if self.lipschitz is None else self.lipschitz,
            "reversible": self.reversible,
            "head": None if self.head is None else self.head.state(),
            "fit": dict(self.fit),
        }


def load_affine(state: State) -> AffineMap:
    """Return the map of a stored state.

    Raises
    ------
    CorruptionError
        Names, types, shapes or numbers are not those of one, or its claims do not fit its arrays.
    """
    W = state_array(state, "W", np.float32, (None, None))
    b, shift = (state_array(state, name, np.float32, (W.shape[1],)) for name in ("b", "shift"))
    length, bound = state_value(state, "length", float), state_value(state, "lipschitz", float)
    made = AffineMap(
        W,
        b,
        shift,
        length,
        load_direction(state),
        load_isometry(state),
        None if length else bound,
        load_facts(state),
        state_value(state, "reversible", bool),
        load_head(state, "head", W.shape[0]),
    )
    _refuse_false_claims(made, bound)
    return made


def _refuse_false_claims(made: AffineMap, bound: float) -> None:
    if made.length < 0 or (made.length and bound != -1.0) or (not made.length and made.shift.any()):
        raise _damaged("length", f"is {made.length}, which does not fit the rest")
    columns = np.linalg.norm(made.W.astype(np.float64), axis=0)
    # A spectral norm lies between the longest column and the Frobenius norm: cheap, where a decomposition is not.
    if not made.length and not columns.max() * 0.999 - 1e-6 <= bound <= np.linalg.norm(columns) * 1.001 + 1e-6:
        raise _damaged("lipschitz", f"is {bound}, which is no norm of W")
    if made.isometry != "none" and (made.length or made.b.any() or _distance_to_isometry(made) > 1e-4):
        raise _damaged("isometry", f"is {made.isometry!r}, but W is none")


def _distance_to_isometry(made: AffineMap) -> float:
    d, e = made.W.shape
    if d > e or (made.isometry == "exact" and d != e):
        return np.inf
    W = made.W.astype(np.float64)
    return float(np.abs(W @ W.T - np.eye(d)).max())


def load_direction(state: State) -> Direction:
    """Return the direction of a stored state, or raise `CorruptionError`."""
    found = state_value(state, "direction", str)
    for known in DIRECTIONS:
        if found == known:
            return known
    raise _damaged("direction", f"is {found!r}, expected one of {DIRECTIONS}")


def load_isometry(state: State) -> Isometry:
    """Return the isometry of a stored state, or raise `CorruptionError`."""
    found = state_value(state, "isometry", str)
    for known in ISOMETRIES:
        if found == known:
            return known
    raise _damaged("isometry", f"is {found!r}, expected one of {ISOMETRIES}")


def turned(direction: Direction) -> Direction:
    """Return what the inverse of an exact isometry maps: stored vectors where that maps queries, and the reverse."""
    pairs: dict[Direction, Direction] = {"query": "gallery", "gallery": "query", "both": "both"}
    return pairs[direction]


def spectral_norm(W: Rows64) -> float:
    """Return the largest singular value."""
    return float(np.linalg.svd(W, compute_uv=False)[0])


def _frozen(array: Rows64) -> Rows32:
    rounded = np.array(array, dtype=np.float32, order="C")
    rounded.flags.writeable = False
    return rounded


def _damaged(name: str, problem: str) -> CorruptionError:
    return CorruptionError(f"{name} of a stored state {problem}", what="state", where=name)
