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
    "HOSTILE",
    "SETS",
    "best",
    "clustered",
    "denormal",
    "duplicated",
    "extreme",
    "gaussian",
    "hubs",
    "low_dimensional",
    "near_ties",
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
    """Return points on a shell around a common mean, and a few near its centre, which are neighbours of very many."""
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((n, dim))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    length = rng.uniform(0.95, 1.05, (n, 1))
    length[rng.permutation(n)[: max(1, n // 50)]] *= 0.3
    mean = np.full(dim, dim**-0.5)
    return (mean + length * directions).astype(np.float32)


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


def near_ties(n: int, dim: int, seed: int) -> Matrix:
    """Return points that differ from one point in the last bits: every order by score is a matter of rounding."""
    rng = np.random.default_rng(seed)
    middle = rng.standard_normal(dim)
    return (middle * (1.0 + 1e-7 * rng.integers(-3, 4, (n, dim)))).astype(np.float32)


def extreme(n: int, dim: int, seed: int) -> Matrix:
    """Return points of lengths from 1e-30 to 1e15: squares of them leave the range of float32."""
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((n, dim))
    directions /= np.abs(directions).max(axis=1, keepdims=True)
    return (directions * 10.0 ** rng.integers(-30, 16, (n, 1))).astype(np.float32)


def denormal(n: int, dim: int, seed: int) -> Matrix:
    """Return points whose components are so small that float32 keeps few of their digits, none of them zero."""
    units = np.random.default_rng(seed).integers(1, 1_000, (n, dim))
    return (units * 2.0**-149).astype(np.float32)


HOSTILE: dict[str, Maker] = {"near ties": near_ties, "extreme": extreme, "denormal": denormal}
"""Sets on which an index need not find much, but must keep every other rule."""


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
