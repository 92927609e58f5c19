"""Fits of vecdb's own transforms in tests: data with a planted map of any widths, and parameters by name."""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.contracts import FitData, Pairs, settle_params
from vecdb.testing.planted import read_only, unit
from vecdb.types import Space


def fitted(kind: Any, data: FitData, **params: Any) -> Any:
    """Fit `kind` on `data` with the given parameters and the defaults of the others."""
    return kind.fit(data, settle_params(kind.name, kind.parameters, params))


def orthonormal(d: int, e: int, rng: np.random.Generator, *, proper: bool | None = None) -> np.ndarray:
    """Return a random map with orthonormal rows (d <= e) or columns."""
    Q, R = np.linalg.qr(rng.standard_normal((max(d, e),) * 2))
    Q *= np.sign(np.diag(R))
    if proper is not None and (np.linalg.det(Q) > 0) != proper:
        Q[:, 0] *= -1
    return Q[:d, :e]


def rows_of(count: int, width: int, rng: np.random.Generator, *, clusters: int = 6) -> np.ndarray:
    """Return unit vectors in clusters, float64."""
    centres = rng.standard_normal((clusters, width))
    drawn = centres[rng.integers(0, clusters, count)] + 0.9 * rng.standard_normal((count, width))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def data_of(
    source: np.ndarray,
    target: np.ndarray,
    *,
    role: str = "gallery",
    kept: tuple[np.ndarray, np.ndarray] | None = None,
    queries: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    across: np.ndarray | None = None,
    stored: np.ndarray | None = None,
    metric: str = "cosine",
    seed: int = 0,
    **changes: Any,
) -> FitData:
    """Return pairs as the engine hands them over: float32, read-only."""

    def lent(rows: np.ndarray) -> np.ndarray:
        return read_only(np.ascontiguousarray(rows, np.float32))

    return FitData(
        Space("old", source.shape[1], metric=metric, id=1),
        Space("new", target.shape[1], metric=metric, id=2),
        source=lent(source),
        target=lent(target),
        role=role,
        rng=np.random.default_rng(seed),
        queries=None if queries is None else lent(queries),
        labels=None if labels is None else read_only(labels.astype(np.int64)),
        groups=None if groups is None else read_only(groups.astype(np.int64)),
        validation=None if kept is None else Pairs(lent(kept[0]), lent(kept[1])),
        queries_across=None if across is None else lent(across),
        stored=None if stored is None else lent(stored),
        **changes,
    )


def planted_data(
    W: np.ndarray, count: int, rng: np.random.Generator, *, noise: float = 0.0, kept: int = 0, **options: Any
) -> FitData:
    """Return pairs of which the target is the source times `W`, with noise, normalised where there is some."""
    source = rows_of(count + kept, W.shape[0], rng)
    target = source @ W + noise * rng.standard_normal((count + kept, W.shape[1])) / np.sqrt(W.shape[1])
    target = unit(target) if noise else target
    held = (source[count:], target[count:]) if kept else None
    return data_of(source[:count], target[:count], kept=held, **options)
