"""`outlier`: is the query one of those that this collection is asked? If it is not, perhaps nothing is relevant.

A query is compared with calibration queries, with records, or with both: by Mahalanobis' distance with a shrunk
covariance (Ledoit and Wolf's target), by the mean distance to its nearest neighbours (Sun et al., ICML 2022), or by how
far out it is on random lines (Stahel, 1981; Donoho, 1982). How far out is too far is said by further calibration
queries: the answer is a conformal p-value, so that the chosen share of ordinary queries is accepted, whatever the
distribution of distances is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.contracts.params import Param
from vecdb.contracts.relevance import RelevanceCapabilities, RelevanceData
from vecdb.contracts.state import state_array, state_value
from vecdb.errors import CorruptionError, FitError
from vecdb.relevance.pool import checked, in_order
from vecdb.relevance.scored import stored_threshold, where_there

__all__ = ["METHODS", "Centre", "Lines", "Neighbours", "OutlierFilter", "OutlierType"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

METHODS: Final = ("knn", "mahalanobis", "projection")
_SHARES: Final = (0.7, 0.3)
"""Of the queries: to compare with, and to say how far is too far."""
_LEAST: Final = 10
_WIDEST: Final = 4_096
_MOST: Final = 4_000
_MAD: Final = 1.4826


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """The mean Euclidean distance to the nearest of some rows."""

    rows: F32
    count: int

    def __call__(self, queries: F64) -> F64:
        """Return how far out each query is, shape (q,)."""
        rows = self.rows.astype(np.float64)
        squares = (queries * queries).sum(1)[:, None] + (rows * rows).sum(1) - 2.0 * (queries @ rows.T)
        near = np.sort(np.maximum(squares, 0.0), axis=1)[:, : self.count]
        return np.asarray(np.sqrt(near).mean(1), np.float64)

    def arrays(self) -> dict[str, Any]:
        return {"rows": self.rows, "count": self.count}


@dataclass(frozen=True, slots=True, eq=False)
class Centre:
    """Mahalanobis' distance: the length after centring and whitening."""

    mean: F64
    whiten: F64

    def __call__(self, queries: F64) -> F64:
        """Return how far out each query is, shape (q,)."""
        return np.asarray(np.linalg.norm((queries - self.mean) @ self.whiten, axis=1), np.float64)

    def arrays(self) -> dict[str, Any]:
        return {"mean": self.mean, "whiten": self.whiten}

    @classmethod
    def of(cls, rows: F64) -> Centre:
        """Return the centre of some rows, its covariance drawn towards a multiple of the unit matrix.

        The share of the target is that of Ledoit and Wolf (2004), lemma 3.3, estimated from the rows.
        """
        mean = rows.mean(0)
        away = rows - mean
        covariance = away.T @ away / len(rows)
        width = len(mean)
        target = float(np.trace(covariance)) / width
        off = ((covariance - target * np.eye(width)) ** 2).sum() / width
        lengths = (away * away).sum(1)
        spread = float((lengths * lengths).sum() / len(rows) - (covariance * covariance).sum()) / (width * len(rows))
        share = min(max(spread / max(off, 1e-300), 1e-6), 1.0)
        values, axes = np.linalg.eigh((1.0 - share) * covariance + share * target * np.eye(width))
        return cls(mean, axes / np.sqrt(np.maximum(values, 1e-12 * max(target, 1e-12))))


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """The largest distance from the median on any of some lines, in units of the median deviation there."""

    lines: F64
    medians: F64
    deviations: F64

    def __call__(self, queries: F64) -> F64:
        """Return how far out each query is, shape (q,)."""
        return np.asarray((np.abs(queries @ self.lines - self.medians) / self.deviations).max(1), np.float64)

    def arrays(self) -> dict[str, Any]:
        return {"lines": self.lines, "medians": self.medians, "deviations": self.deviations}

    @classmethod
    def of(cls, rows: F64, count: int, rng: np.random.Generator) -> Lines:
        """Return some random lines with where the rows lie on them."""
        lines = rng.standard_normal((rows.shape[1], count))
        lines /= np.linalg.norm(lines, axis=0)
        places = rows @ lines
        medians = np.median(places, axis=0)
        deviations = _MAD * np.median(np.abs(places - medians), axis=0)
        return cls(lines, medians, np.maximum(deviations, 1e-9))


Distance = Neighbours | Centre | Lines


@dataclass(frozen=True, slots=True, eq=False)
class OutlierFilter:
    """A distance, and how far out ordinary queries are; all candidates of a query are judged alike."""

    method: str
    distance: Distance
    ordinary: F64
    threshold: float

    def p_values(self, queries: F32) -> F64:
        """Return how likely an ordinary query is as far out as each of these, shape (q,)."""
        far = self.distance(queries.astype(np.float64))
        farther = len(self.ordinary) - np.searchsorted(self.ordinary, far, side="left")
        return np.asarray((1.0 + farther) / (len(self.ordinary) + 1.0), np.float64)

    def relevance(self, scores: F32, queries: F32 | None, vectors: F32 | None, *, count: int) -> F32:
        """Return one number for all candidates of a query; see the contract."""
        if queries is None:
            raise TypeError("an outlier is found by the query")
        if not scores.size:
            return np.zeros(scores.shape, np.float32)
        return where_there(scores, np.broadcast_to(self.p_values(queries)[:, None], scores.shape))

    def state(self) -> dict[str, Any]:
        arrays = self.distance.arrays()
        return {"method": self.method, "ordinary": self.ordinary, "threshold": self.threshold, **arrays}


@dataclass(frozen=True, slots=True)
class OutlierType:
    """Whether the query is like those that the filter was calibrated on."""

    name: str = "outlier"
    version: int = 1
    capabilities: RelevanceCapabilities = field(
        default_factory=lambda: RelevanceCapabilities(
            scope="query", monotone=True, transfer="refit", requires=frozenset({"sample"}), deterministic=True
        )
    )
    parameters: Mapping[str, Param] = field(
        default_factory=lambda: {
            "method": Param("str", "knn", "How it is measured how far out a query is.", choices=METHODS),
            "of": Param("str", "queries", "What a query is compared with.", choices=("queries", "records", "both")),
            "accept": Param("float", 0.95, "Share of ordinary queries that is accepted.", 0.5, 0.9999),
            "neighbours": Param("int", 5, "Of knn: how many.", 1, 1_000),
            "lines": Param("int", 500, "Of projection: how many.", 1, 10_000),
        }
    )

    def fit(self, data: RelevanceData, params: Mapping[str, Any]) -> OutlierFilter:
        known, further = in_order(checked(data), *_SHARES)
        kept = int(np.count_nonzero(further))
        if kept < _LEAST or data.queries.shape[1] > _WIDEST:
            raise FitError(
                f"to know outliers takes {math.ceil(_LEAST / _SHARES[1])} queries of at most {_WIDEST} columns, "
                f"got {len(data.queries)} of {data.queries.shape[1]}",
                hint="Give more queries; they need no labels.",
                pairs=len(data.queries),
                needed=math.ceil(_LEAST / _SHARES[1]),
            )
        distance = _distance(data, known, params)
        ordinary = np.sort(distance(data.queries[further].astype(np.float64)))
        refused = math.floor((1.0 - params["accept"]) * (kept + 1) + 1e-9)  # p-values up to this many steps
        threshold = float(np.float32((refused + 1) / (kept + 1.0)))
        return OutlierFilter(params["method"], distance, ordinary, min(threshold, 1.0))

    def load(self, state: Mapping[str, Any]) -> OutlierFilter:
        method = state_value(state, "method", str)
        ordinary = state_array(state, "ordinary", np.float64, (None,))
        if method not in METHODS or (np.diff(ordinary) < 0).any():
            raise CorruptionError(f"an outlier filter {method!r} is stored", what="state", where="method")
        return OutlierFilter(method, _stored_distance(method, state), ordinary, stored_threshold(state))


def _distance(data: RelevanceData, known: npt.NDArray[np.bool_], params: Mapping[str, Any]) -> Distance:
    parts = [data.queries[known]] if params["of"] != "records" else []
    if params["of"] != "queries" and data.sample is not None:
        parts.append(data.sample)
    rows: F32 = np.concatenate(parts)
    if len(rows) > _MOST:
        rows = rows[np.sort(data.rng.permutation(len(rows))[:_MOST])]
    if params["method"] == "knn":
        return Neighbours(np.array(rows), min(params["neighbours"], len(rows)))
    wide = rows.astype(np.float64)
    return Centre.of(wide) if params["method"] == "mahalanobis" else Lines.of(wide, params["lines"], data.rng)


def _stored_distance(method: str, state: Mapping[str, Any]) -> Distance:
    if method == "knn":
        rows, count = state_array(state, "rows", np.float32, (None, None)), state_value(state, "count", int)
        if not 0 < count <= len(rows):
            raise CorruptionError(f"{count} neighbours of {len(rows)} are stored", what="state", where="count")
        return Neighbours(rows, count)
    if method == "mahalanobis":
        mean = state_array(state, "mean", np.float64, (None,))
        return Centre(mean, state_array(state, "whiten", np.float64, (len(mean), len(mean))))
    lines = state_array(state, "lines", np.float64, (None, None))
    medians, deviations = (
        state_array(state, name, np.float64, (lines.shape[1],)) for name in ("medians", "deviations")
    )
    if not (deviations > 0).all():
        raise CorruptionError("deviations that are not positive are stored", what="state", where="deviations")
    return Lines(lines, medians, deviations)
