"""Predicted squared error of a mapped row, from what is known before the new model is asked: FastFill's sigma head.

A ridge regression of the logarithm of each fit pair's squared error (left out, where that is cheap) on the vector, its
Mahalanobis distance, its distance to the pairs of the fit, and the norm of what it is mapped to (FastFill, ICLR 2023,
section 4, in closed form). Invariant: predictions are finite and positive whatever the rows are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vecdb.contracts import State, state_array
from vecdb.errors import CorruptionError

__all__ = ["ErrorHead", "fit_head", "load_head"]

Rows64 = npt.NDArray[np.float64]
Rows32 = npt.NDArray[np.float32]

NEIGHBOURS = 5
ANCHORS = 256
"""Fit rows that are kept to measure the distance to."""
AXES = 64
"""Principal axes of the Mahalanobis distance; what lies outside counts with its mean variance."""
_EXTRA = 3
_PENALTY = 0.1
_SMALL = 1e-8
_PARTS = ("center", "axes", "rates", "anchors", "weights", "spread")


@dataclass(frozen=True, slots=True, eq=False)
class ErrorHead:
    """A log-linear model of the squared error.

    Attributes
    ----------
    center : ndarray of float32, shape (d,)
    axes : ndarray of float32, shape (d, k)
        Principal axes of the fit rows.
    rates : ndarray of float32, shape (k + 1,)
        One over their variances, the last for what lies outside them.
    anchors : ndarray of float32, shape (a, d)
        Unit vectors.
    weights : ndarray of float32, shape (d + 5,)
        Of the centred row, of the three other features, of a constant, and the logarithm of the smearing factor.
    spread : ndarray of float32, shape (3, 2)
        Mean and deviation of the three other features.
    """

    center: Rows32
    axes: Rows32
    rates: Rows32
    anchors: Rows32
    weights: Rows32
    spread: Rows32

    def errors(self, vectors: Rows32, mapped: Rows32) -> Rows32:
        """Return the predicted squared error of each row, float32, shape (n,)."""
        logs = _features(self, vectors, mapped) @ self.weights[:-1] + self.weights[-1]
        predicted: Rows32 = np.exp(np.clip(logs, -60.0, 60.0)).astype(np.float32)
        return predicted

    def state(self) -> State:
        """Return the arrays by name."""
        return {name: getattr(self, name) for name in _PARTS}


def fit_head(vectors: Rows64, mapped: Rows64, squared: npt.NDArray[np.float64]) -> ErrorHead:
    """Fit the head on pairs whose error is known.

    Parameters
    ----------
    vectors : ndarray of float64, shape (n, d)
    mapped : ndarray of float64, shape (n, e)
        What they are mapped to.
    squared : ndarray of float64, shape (n,)
        Squared errors; those of left-out fits where there are any.
    """
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    center, axes, rates = _principal(vectors)
    kept = rows[:: -(-len(rows) // ANCHORS)]
    anchors = kept / np.maximum(np.linalg.norm(kept, axis=1, keepdims=True), _SMALL)
    empty = np.zeros(rows.shape[1] + _EXTRA + 2, np.float32)
    spread = np.tile(np.array([0.0, 1.0], np.float32), (_EXTRA, 1))
    head = ErrorHead(center, axes, rates, anchors.astype(np.float32), empty, spread)
    extra = _extra(head, rows, mapped.astype(np.float32))
    spread = np.stack([extra.mean(0), np.maximum(extra.std(0), 1e-6)], axis=1).astype(np.float32)
    head = ErrorHead(center, axes, rates, head.anchors, empty, spread)
    features = _features(head, rows, mapped.astype(np.float32)).astype(np.float64)
    weights = _log_ridge(features, np.log(np.maximum(squared, _SMALL)), squared)
    return ErrorHead(center, axes, rates, head.anchors, weights.astype(np.float32), spread)


def _log_ridge(features: Rows64, logs: npt.NDArray[np.float64], squared: npt.NDArray[np.float64]) -> Rows64:
    """Return the weights, and behind them the logarithm of what makes the mean prediction the mean error."""
    inner = features[:, :-1] - features[:, :-1].mean(0)
    gram = inner.T @ inner
    gram += np.eye(len(gram)) * max(_PENALTY * np.trace(gram) / len(gram), _SMALL)
    slope = np.linalg.solve(gram, inner.T @ (logs - logs.mean()))
    fitted = inner @ slope + logs.mean()
    smear = np.log(max(squared.mean(), _SMALL) / np.exp(fitted).mean())
    constant = logs.mean() - features[:, :-1].mean(0) @ slope
    return np.concatenate([slope, [constant, smear]])


def _principal(vectors: Rows64) -> tuple[Rows32, Rows32, Rows32]:
    center = vectors.mean(0)
    values, axes = np.linalg.eigh(np.cov(vectors - center, rowvar=False, bias=True).reshape(len(center), -1))
    k = min(AXES, len(values))
    floor = max(float(values.mean()) * 1e-3, _SMALL)
    rest = values[:-k].mean() if k < len(values) else values.mean()
    rates = 1.0 / np.maximum(np.append(values[::-1][:k], rest), floor)
    return center.astype(np.float32), np.ascontiguousarray(axes[:, ::-1][:, :k], np.float32), rates.astype(np.float32)


def _features(head: ErrorHead, vectors: Rows32, mapped: Rows32) -> Rows32:
    """Return the centred rows, the scaled other features and a one, side by side."""
    extra = (_extra(head, vectors, mapped) - head.spread[:, 0]) / head.spread[:, 1]
    return np.concatenate([vectors - head.center, extra, np.ones((len(vectors), 1), np.float32)], axis=1)


def _extra(head: ErrorHead, vectors: Rows32, mapped: Rows32) -> Rows32:
    """Return log Mahalanobis distance, distance to the nearest fit rows, and log norm of the mapped row."""
    away = vectors - head.center
    inside = away @ head.axes
    outside = np.maximum((away * away).sum(1) - (inside * inside).sum(1), 0.0)
    distance = (inside * inside) @ head.rates[:-1] + outside * head.rates[-1]
    similar = vectors @ head.anchors.T / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _SMALL)
    if similar.shape[1] > NEIGHBOURS + 1:  # the nearest may be the row itself: an anchor of its own fit
        similar = np.sort(similar, axis=1)[:, -NEIGHBOURS - 1 : -1]
    near = 1.0 - similar.mean(1)
    norms = np.linalg.norm(mapped, axis=1)
    return np.stack([np.log(distance + _SMALL), near, np.log(norms + _SMALL)], axis=1).astype(np.float32)


def load_head(state: State, name: str, width: int) -> ErrorHead | None:
    """Return the head of a stored state, None where it has none.

    Raises
    ------
    CorruptionError
        It is something else.
    """
    found = state.get(name, False)
    if found is None:
        return None
    if not isinstance(found, dict):
        raise CorruptionError(f"{name} of a stored state is {type(found).__name__}", what="state", where=name)
    axes = state_array(found, "axes", np.float32, (width, None))
    return ErrorHead(
        state_array(found, "center", np.float32, (width,)),
        axes,
        state_array(found, "rates", np.float32, (axes.shape[1] + 1,)),
        state_array(found, "anchors", np.float32, (None, width)),
        state_array(found, "weights", np.float32, (width + _EXTRA + 2,)),
        _positive_spread(found),
    )


def _positive_spread(state: State) -> Rows32:
    spread = state_array(state, "spread", np.float32, (_EXTRA, 2))
    if not (spread[:, 1] > 0).all():
        raise CorruptionError("spread of a stored state is not positive", what="state", where="spread")
    return spread
