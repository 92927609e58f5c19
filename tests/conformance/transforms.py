"""Transforms that keep every rule, small enough to be read: what the kit's own tests break, one rule at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vecdb.contracts import Affine, FitData, Param, TransformCapabilities, state_array, state_value
from vecdb.contracts.transform import DIRECTIONS, ISOMETRIES
from vecdb.errors import CancelledError, CorruptionError, DimensionError, FitError, NonFiniteError


@dataclass(frozen=True)
class Linear:
    """``f(x) = (x - before) W + after``, the residual perhaps scaled to one length."""

    W: np.ndarray
    before: np.ndarray
    after: np.ndarray
    length: float = 0.0
    direction: str = "query"
    isometry: str = "none"
    error: float = 0.0

    @property
    def source_dim(self):
        return self.W.shape[0]

    @property
    def target_dim(self):
        return self.W.shape[1]

    @property
    def lipschitz(self):
        return None if self.length else float(np.linalg.svd(self.W, compute_uv=False)[0])

    def apply(self, vectors):
        if vectors.shape[1] != self.source_dim:
            raise DimensionError("wrong width", expected=self.source_dim, got=vectors.shape[1])
        mapped = (vectors - self.before) @ self.W
        if self.length:
            mapped = mapped * self.scale(vectors)[:, None].astype(np.float64)
        return (mapped + self.after).astype(np.float32)

    def scale(self, vectors):
        norms = np.linalg.norm((vectors - self.before) @ self.W, axis=1)
        return (self.length / np.maximum(norms, 1e-12)).astype(np.float32)

    def affine(self):
        return Affine(self.W, -self.before @ self.W, self.after, self.scale if self.length else None)

    def inverse(self):
        if self.isometry != "exact":
            return None
        turned = {"query": "gallery", "gallery": "query", "both": "both"}[self.direction]
        return type(self)(np.ascontiguousarray(self.W.T), self.after, self.before, 0.0, turned, "exact", self.error)

    def companion(self):
        return None

    def uncertainty(self, vectors):
        return np.full(len(vectors), self.error, np.float32)

    def state(self):
        return {
            "W": self.W,
            "before": self.before,
            "after": self.after,
            "numbers": np.array([self.length, self.error]),
            "direction": self.direction,
            "isometry": self.isometry,
        }


def load_linear(state, cls=Linear):
    W = state_array(state, "W", np.float64, (None, None))
    before = state_array(state, "before", np.float64, (W.shape[0],))
    after = state_array(state, "after", np.float64, (W.shape[1],))
    length, error = state_array(state, "numbers", np.float64, (2,)).tolist()
    direction, isometry = state_value(state, "direction", str), state_value(state, "isometry", str)
    if direction not in DIRECTIONS or isometry not in ISOMETRIES:
        raise CorruptionError("unknown words in a stored state", what="state", where="direction")
    return cls(W, before, after, length, direction, isometry, error)


def checked(data: FitData, least: int):
    """Return the pairs as float64, or refuse them."""
    if data.cancel():
        raise CancelledError("the fit was cancelled")
    for name, rows in (("source", data.source), ("target", data.target)):
        if not np.isfinite(rows).all():
            raise NonFiniteError("the pairs are not finite", where=name)
    different = len(np.unique(data.source, axis=0))
    rank = np.linalg.matrix_rank(data.source - data.source[:1]) if different > 1 else 0
    if different < least or (least > 2 and rank < 2):
        raise FitError("too few different pairs", pairs=different, needed=least)
    data.progress(1, 1)
    return data.source.astype(np.float64), data.target.astype(np.float64)


@dataclass(frozen=True)
class Procrustes:
    """The rotation that fits best, between centres if `center`."""

    name: str = "acme.procrustes"
    version: int = 1
    capabilities: TransformCapabilities = field(
        default=TransformCapabilities(
            min_pairs=4,
            widths=frozenset({"equal", "wider", "narrower"}),
            affine=True,
            row_wise=True,
            deterministic=True,
        )
    )
    parameters: Mapping[str, Param] = field(
        default_factory=lambda: {
            "center": Param("bool", True, "Fit between the means."),
            "scale": Param("str", "unit", "What becomes of the length of a residual.", choices=("none", "unit")),
        }
    )

    def fit(self, data: FitData, params: Mapping[str, Any]) -> Linear:
        X, Y = checked(data, self.capabilities.min_pairs)
        center, unit = params.get("center", True), params.get("scale", "none") == "unit"
        before, after = (X.mean(0), Y.mean(0)) if center else (np.zeros(X.shape[1]), np.zeros(Y.shape[1]))
        U, _, Vt = np.linalg.svd((X - before).T @ (Y - after), full_matrices=False)
        length = float(np.linalg.norm(Y - after, axis=1).mean()) if unit else 0.0
        kept = not center and not unit and X.shape[1] <= Y.shape[1]
        isometry = "none" if not kept else "exact" if X.shape[1] == Y.shape[1] else "semi"
        return Linear(U @ Vt, before, after, length, data.role, isometry)

    def load(self, state: Mapping[str, Any]) -> Linear:
        return load_linear(state)


@dataclass(frozen=True)
class Rotation(Procrustes):
    """The uncentred rotation alone, which promises that it is one."""

    name: str = "acme.rotation"
    capabilities: TransformCapabilities = field(
        default=TransformCapabilities(
            min_pairs=2, isometry="exact", affine=True, invertible=True, row_wise=True, deterministic=True
        )
    )
    parameters: Mapping[str, Param] = field(default_factory=dict)

    def fit(self, data: FitData, params: Mapping[str, Any]) -> Linear:
        return super().fit(data, {"center": False, "scale": "none"})


@dataclass(frozen=True)
class Ridge:
    """The centred linear map of least squared error, shrunk."""

    name: str = "acme.ridge"
    version: int = 1
    capabilities: TransformCapabilities = field(
        default=TransformCapabilities(
            min_pairs=3,
            widths=frozenset({"equal", "wider", "narrower"}),
            affine=True,
            row_wise=True,
            deterministic=True,
        )
    )
    parameters: Mapping[str, Param] = field(
        default_factory=lambda: {"penalty": Param("float", 1e-3, "Relative to the mean variance.", low=0.0)}
    )

    def fit(self, data: FitData, params: Mapping[str, Any]) -> Linear:
        X, Y = checked(data, self.capabilities.min_pairs)
        A, B = X - X.mean(0), Y - Y.mean(0)
        gram = A.T @ A
        W = np.linalg.solve(gram + params["penalty"] * np.trace(gram) / len(gram) * np.eye(len(gram)), A.T @ B)
        error = float(((B - A @ W) ** 2).sum(1).mean())
        return Linear(W, X.mean(0), Y.mean(0), 0.0, data.role, "none", error)

    def load(self, state: Mapping[str, Any]) -> Linear:
        return load_linear(state)


@dataclass(frozen=True)
class Shift(Ridge):
    """The mean difference: for fine-tuned continuations of one model."""

    name: str = "acme.shift"
    capabilities: TransformCapabilities = field(default=TransformCapabilities(min_pairs=1, affine=True, row_wise=True))
    parameters: Mapping[str, Param] = field(default_factory=dict)

    def fit(self, data: FitData, params: Mapping[str, Any]) -> Linear:
        X, Y = checked(data, self.capabilities.min_pairs)
        return Linear(np.eye(X.shape[1]), X.mean(0), Y.mean(0), 0.0, data.role)


@dataclass(frozen=True)
class Anchored(Linear):
    """Similarities to anchors: both sides are mapped."""

    def companion(self):
        return self


@dataclass(frozen=True)
class Anchors(Ridge):
    """Relative representation: inner products with as many records as the space has columns, and two more."""

    name: str = "acme.anchors"
    capabilities: TransformCapabilities = field(
        default=TransformCapabilities(
            requires=frozenset({"pairs", "labels"}), min_pairs=14, affine=True, row_wise=True, joint=True
        )
    )
    parameters: Mapping[str, Param] = field(default_factory=dict)

    def fit(self, data: FitData, params: Mapping[str, Any]) -> Anchored:
        X, _ = checked(data, self.capabilities.min_pairs)
        if data.labels is None or not (data.labels >= 0).any():
            raise FitError("no label is known", pairs=0, needed=1)
        rows = X[data.rng.permutation(len(X))[: X.shape[1] + 2]]
        return Anchored(rows.T.copy(), np.zeros(X.shape[1]), np.zeros(len(rows)), 0.0, "both")

    def load(self, state: Mapping[str, Any]) -> Anchored:
        return load_linear(state, Anchored)


SOUND = (Procrustes(), Rotation(), Ridge(), Shift(), Anchors())
