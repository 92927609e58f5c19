"""Scores of stored vectors that were never mapped, as if they had been: a map of stored vectors folded into the query.

``f(x) = r(x) (x W + b) + shift`` gives ``<q, f(x)> = r(x) (<q W', x> + <q, b>) + <q, shift>``: one product for the
query, and for each row its factor, its length after mapping and its bias, which are kept in tables. Invariant: final
scores come from the canonical routine's inner product (float64, fixed order), whichever path found the row.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.contracts.transform import Affine
from vecdb.engine.pairing import directed
from vecdb.engine.view import CollectionView
from vecdb.engine.views import as_float32
from vecdb.scan_numpy import canonical_scores
from vecdb.storage.spaces import SpaceView
from vecdb.types import Metric

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Positions = npt.NDArray[np.int64]
RowFunction = Callable[[F32], F32]

_CHUNK: Final = 4_096
_TINY: Final = 1e-30
_LINEAR: Final = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """How a stored row is scored.

    Attributes
    ----------
    form : Affine or None
        What maps stored rows; None: nothing, there is a bias only.
    bias : callable or None
        From stored rows to what is added to their scores.
    metric : {"cosine", "dot", "l2"}
        Of the space where query and row meet.
    stored : {"cosine", "dot", "l2"}
        Of the space of the rows: in a cosine space they are mapped as unit vectors.
    key : str
        Which transforms it is made of.
    pull : ndarray of float64, shape (d,), or None
        Where the bias of a stored row x is known to be ``<pull, x>`` (see `pull_of`).
    """

    form: Affine | None
    bias: RowFunction | None
    metric: Metric
    stored: Metric
    key: str
    pull: F64 | None = None

    def rows(self, vectors: F32) -> RowTable:
        """Return what is needed of stored rows, shape (n, d), beside their inner products."""
        rows = directed(vectors, self.stored)
        bias = None if self.bias is None else self.bias(rows).astype(np.float64)
        if self.form is None:
            return RowTable(None, np.linalg.norm(rows.astype(np.float64), axis=1), bias)
        scale = None if self.form.row_scale is None else self.form.row_scale(rows).astype(np.float64)
        if self.metric == "dot":
            return RowTable(scale, None, bias)
        mapped = rows.astype(np.float64) @ self.form.W + self.form.b
        if scale is not None:
            mapped *= scale[:, None]
        if self.form.shift is not None:
            mapped += self.form.shift
        return RowTable(scale, np.linalg.norm(mapped, axis=1), bias)

    def ask(self, query: F32) -> FoldedQuery:
        """Return a query of the space where it meets the rows, shape (e,), as rows are asked."""
        wide = query.astype(np.float64)
        size = float(np.linalg.norm(wide))
        if self.form is None:
            return FoldedQuery(np.ascontiguousarray(query, np.float32), 0.0, 0.0, size)
        pulled = (self.form.W @ wide).astype(np.float32)
        shift = 0.0 if self.form.shift is None else float(wide @ self.form.shift)
        return FoldedQuery(pulled, float(wide @ self.form.b), shift, size)

    def ordering(self, query: F32) -> F32:
        """Return what an index of the stored rows is asked: one vector whose order is nearly that of the scores.

        A linear bias goes into it; rows that are scaled, or of different lengths after mapping, are not quite in order.
        """
        asked = self.ask(query)
        if self.pull is None or (self.form is not None and self.form.row_scale is not None):
            return asked.vector
        size = asked.size if self.metric == "cosine" else 1.0
        return (asked.vector / max(size, _TINY) + self.pull).astype(np.float32)

    def scores(self, asked: FoldedQuery, inner: F64, table: RowTable) -> F64:
        """Return the scores of rows whose inner products with ``asked.vector`` are known, float64, shape (n,)."""
        products = inner + asked.constant
        if table.scale is not None:
            products = products * table.scale
        products = products + asked.shift
        if self.metric == "cosine" and table.norm is not None:
            products = products / np.maximum(asked.size * table.norm, _TINY)
        elif self.metric == "l2" and table.norm is not None:
            products = -np.sqrt(np.maximum(0.0, asked.size**2 - 2.0 * products + table.norm**2))
        return products if table.bias is None else products + table.bias

    def of_rows(self, query: F32, vectors: F32, table: RowTable | None = None) -> F64:
        """Return the canonical scores of stored rows, shape (n, d), to a query, float64, shape (n,)."""
        asked = self.ask(query)
        inner = canonical_scores("dot", asked.vector, directed(vectors, self.stored))
        return self.scores(asked, inner, self.rows(vectors) if table is None else table)


def pull_of(bias: RowFunction | None, dim: int) -> F64 | None:
    """Return the vector whose inner products with rows a bias consists of; None if there is none, or not such a one."""
    if bias is None:
        return None
    pull = bias(np.eye(dim, dtype=np.float32)).astype(np.float64)
    some = directed(np.random.default_rng(0).standard_normal((16, dim)).astype(np.float32), "cosine")
    apart = np.abs(bias(some) - some @ pull).max()
    return pull if apart <= _LINEAR * max(1.0, float(np.abs(pull).max())) else None


@dataclass(frozen=True, slots=True)
class FoldedQuery:
    """``<q, f(x)> = r(x) (<vector, x> + constant) + shift``; `size` is the length of q."""

    vector: F32
    constant: float
    shift: float
    size: float


@dataclass(frozen=True, slots=True)
class RowTable:
    """Of each stored row its factor, its length after mapping and its bias; None: 1, not needed, 0."""

    scale: F64 | None
    norm: F64 | None
    bias: F64 | None

    def take(self, places: Any) -> RowTable:
        """Return the lines of some rows."""
        parts = (None if part is None else part[places] for part in (self.scale, self.norm, self.bias))
        return RowTable(*parts)


def _behind(one: RowTable, other: RowTable) -> RowTable:
    pairs = zip((one.scale, one.norm, one.bias), (other.scale, other.norm, other.bias), strict=True)
    return RowTable(*(None if a is None or b is None else np.concatenate([a, b]) for a, b in pairs))


# --- tables of a whole space ------------------------------------------------------------------------------


@dataclass(slots=True)
class Tables:
    """Row tables of the spaces of one opening of a file, by space and fold; grown as vectors are added."""

    known: dict[tuple[int, str], tuple[int, RowTable, int]] = field(default_factory=dict)

    def keep(self, sets: Container[int]) -> None:
        """Stay: a fold is known by what it is made of."""

    def unmap(self) -> None:
        """Stay: nothing lies in the map."""

    def of(self, view: CollectionView, space_view: SpaceView, fold: Fold) -> RowTable:
        """Return the table of every position of a space."""
        key = space_view.space.id, fold.key
        epoch, count = space_view.counts.epoch, len(space_view)
        before = self.known.get(key)
        if before is None or before[0] != epoch or before[2] > count:
            before = None
        if before is not None and before[2] == count:
            return before[1]
        first = 0 if before is None else before[2]
        grown = _table(view, space_view, fold, first, count)
        table = grown if before is None else _behind(before[1], grown)
        if len(self.known) > 64:
            self.known.clear()
        self.known[key] = (epoch, table, count)
        return table


def _table(view: CollectionView, space_view: SpaceView, fold: Fold, first: int, stop: int) -> RowTable:
    table = fold.rows(np.empty((0, space_view.space.dim), np.float32))
    for start in range(first, stop, _CHUNK):
        positions = np.arange(start, min(stop, start + _CHUNK), dtype=np.int64)
        table = _behind(table, fold.rows(rows_at(view, space_view, positions)))
    return table


def rows_at(view: CollectionView, space_view: SpaceView, positions: Positions) -> F32:
    """Return vectors by position, verified, float32."""
    space_view.verify_positions(view.tx, positions)
    return as_float32(space_view.gather(view.tx, positions))


# --- searching --------------------------------------------------------------------------------------------


def best_of(
    view: CollectionView, space_view: SpaceView, fold: Fold, table: RowTable, query: F32, places: Positions, k: int
) -> tuple[Positions, F32]:
    """Return the best k of the rows at `places` by canonical score; ties by position."""
    scores = fold.of_rows(query, rows_at(view, space_view, places), table.take(places)).astype(np.float32)
    order = np.lexsort((places, -scores))[:k]
    return places[order], scores[order]


def scan(
    view: CollectionView,
    space_view: SpaceView,
    fold: Fold,
    table: RowTable,
    queries: F32,
    places: Positions,
    k: int,
    *,
    stop: Callable[[], bool] | None = None,
) -> tuple[list[tuple[Positions, F32]], bool]:
    """Return the best k of all rows at `places` for each query, and whether all of them were looked at."""
    asked = [fold.ask(query) for query in queries]
    vectors = np.stack([each.vector for each in asked]).astype(np.float64)
    kept = k + 8  # what differs in the last bits of float64 is settled by the canonical routine
    pools: list[tuple[Positions, F64]] = [(places[:0], np.empty(0))] * len(asked)
    complete = True
    for start in range(0, len(places), _CHUNK):
        if stop is not None and stop():
            complete = False
            break
        chunk = places[start : start + _CHUNK]
        rows = directed(rows_at(view, space_view, chunk), fold.stored).astype(np.float64)
        lines, products = table.take(chunk), rows @ vectors.T
        for number, each in enumerate(asked):
            scores = np.concatenate([pools[number][1], fold.scores(each, products[:, number], lines)])
            both = np.concatenate([pools[number][0], chunk])
            best = np.arange(len(both)) if len(both) <= kept else np.argpartition(-scores, kept - 1)[:kept]
            pools[number] = both[best], scores[best]
    found = [
        best_of(view, space_view, fold, table, query, np.sort(pool[0]), k)
        for query, pool in zip(queries, pools, strict=True)
    ]
    return found, complete
