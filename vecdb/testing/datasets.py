"""Small vector sets with the shapes that break indexes, and plain float64 answers for them.

Each set is made from a seed by a few lines of numpy and is the same everywhere. Scores are higher-is-better: cosine,
inner product, minus the Euclidean distance. The oracle is slow, obvious, and shares no code with vecdb.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from vecdb.types import Metric

__all__ = [
    "SETS",
    "best",
    "clustered",
    "duplicated",
    "gaussian",
    "hubs",
    "low_dimensional",
    "oracle_scores",
    "sorted_in",
]

Matrix: TypeAlias = npt.NDArray[np.float32]
Maker: TypeAlias = Callable[[int, int, int], Matrix]


def gaussian(n: int, dim: int, seed: int) -> Matrix:
    """Return independent normal components: the neighbours of a point are hardly nearer than the rest."""
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)


def clustered(n: int, dim: int, seed: int) -> Matrix:
    """Return narrow clusters of very different sizes: what partitions and graphs may fail to connect."""
    rng = np.random.default_rng(seed)
    count = max(1, min(20, n // 10))
    weights = 1.0 / np.arange(1, count + 1)
    members = rng.choice(count, n, p=weights / weights.sum())
    centres = rng.standard_normal((count, dim)) * 4.0
    return (centres[members] + 0.3 * rng.standard_normal((n, dim))).astype(np.float32)


def hubs(n: int, dim: int, seed: int) -> Matrix:
    """Return points of which a few near the centre are neighbours of very many others (hubs)."""
    rng = np.random.default_rng(seed)
    length = rng.uniform(0.2, 3.0, (n, 1)) ** 2
    return (length * rng.standard_normal((n, dim)) + 0.5).astype(np.float32)


def low_dimensional(n: int, dim: int, seed: int) -> Matrix:
    """Return points near a curved surface of three dimensions, as embeddings of real data are."""
    rng = np.random.default_rng(seed)
    inside = rng.standard_normal((n, 3))
    lifted = np.tanh(inside @ rng.standard_normal((3, dim))) + 0.01 * rng.standard_normal((n, dim))
    return lifted.astype(np.float32)


def duplicated(n: int, dim: int, seed: int) -> Matrix:
    """Return points of which half are copies of a few others, as near-empty documents are."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, dim)).astype(np.float32)
    copies = rng.permutation(n)[: n // 2]
    originals = rng.permutation(n)[: max(1, n // 40)]
    rows[copies] = rows[rng.choice(originals, len(copies))]
    return rows


def sorted_in(n: int, dim: int, seed: int) -> Matrix:
    """Return clustered points in the order of their first component: data that arrived sorted."""
    rows = clustered(n, dim, seed)
    return np.ascontiguousarray(rows[np.argsort(rows[:, 0], kind="stable")])


SETS: dict[str, Maker] = {
    "gaussian": gaussian,
    "clustered": clustered,
    "hubs": hubs,
    "low-dimensional": low_dimensional,
    "duplicated": duplicated,
    "sorted": sorted_in,
}
"""Name -> function of (n, dim, seed)."""


def oracle_scores(metric: Metric, queries: npt.NDArray[Any], rows: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the score of every row for every query, shape (q, n), in float64."""
    left, right = queries.astype(np.float64), rows.astype(np.float64)
    if metric == "l2":
        return np.stack([-np.sqrt(np.square(right - query).sum(axis=1)) for query in left])
    if metric == "cosine":
        left = left / np.linalg.norm(left, axis=1, keepdims=True)
        right = right / np.linalg.norm(right, axis=1, keepdims=True)
    return np.stack([(right * query).sum(axis=1) for query in left])


def best(scores: npt.NDArray[np.float64], k: int) -> npt.NDArray[np.int64]:
    """Return the positions of the `k` best scores of one query, equal ones by position."""
    return np.argsort(-scores, kind="stable")[:k].astype(np.int64)
