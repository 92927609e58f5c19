"""Exact search without numba: the path of small collections, first queries and machines where numba does not load.

Two steps: `nominate` finds by matrix products, with a proven error bound, every row that could belong to the top k;
`top_k` scores those rows canonically and orders them. Invariant: the result is the true top k under (float32 of the
canonical score descending, position ascending) and has the same bits as the compiled path's.
Design: docs/explanation/architecture.md; the bounds are derived in vecdb/kernels/bounds.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from vecdb.blocks import Matrix, VectorBlocks, as_floats
from vecdb.kernels.bounds import ScanPlan, plan_scan, settled_bounds
from vecdb.types import Metric

__all__ = [
    "Best",
    "Found",
    "Nomination",
    "Tile",
    "best",
    "best_first",
    "canonical_scores",
    "nominate",
    "tiles",
    "top_k",
]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Found: TypeAlias = tuple[I64, F32]
"""Positions and canonical scores of one query, best first."""

LANES = 8
_CANONICAL_ELEMENTS = 1 << 17  # float64 temporaries of 1 MB
_TILE_SCORES = 1 << 20
_MAX_TILE_ROWS = 8192
_QUERY_GROUP = 256
_SETTLE_ABOVE = 1 << 14


@dataclass(frozen=True, slots=True)
class Nomination:
    """Rows that could be among the best k, per query.

    Attributes
    ----------
    positions : list of ndarray of int64, one per query
        Ascending; a superset of the true top k of the rows scanned.
    rows_scanned : int
        Row and query pairs that were scored.
    complete : bool
        False if `stop` ended the scan early.
    """

    positions: list[I64]
    rows_scanned: int
    complete: bool


@dataclass(frozen=True, slots=True)
class Best:
    """The answer to all queries.

    Attributes
    ----------
    found : list of (positions int64 (m,), scores float32 (m,)), one per query
        Best first, equal scores by position; m = min(k, rows scanned).
    rows_scanned : int
        Row and query pairs that were looked at.
    rescored : int
        Rows whose canonical score was computed in the end, over all queries.
    complete : bool
        False if `stop` ended the scan early.
    """

    found: list[Found]
    rows_scanned: int
    rescored: int
    complete: bool


# --- canonical scores -------------------------------------------------------------------------------------


def canonical_scores(metric: Metric, query: F32, rows: Matrix) -> F64:
    """Score `rows` by the one routine whose bits every path reports.

    Products are summed in float64 in eight lanes, lane j taking components j, j + 8, j + 16, ... in order; the lanes
    are added as ``((l0+l4)+(l2+l6)) + ((l1+l5)+(l3+l7))``. No row's score depends on the other rows.

    Parameters
    ----------
    metric : {"cosine", "dot", "l2"}
    query : ndarray of float32, shape (d,)
    rows : ndarray of float32 or float16, shape (c, d)

    Returns
    -------
    ndarray of float64, shape (c,)
        Higher is better: cosine in [-1, 1] (0 where a norm is zero), inner product, or minus the distance.
        A zero is always +0.
    """
    wide_query = _padded(query.reshape(1, -1))
    scores = np.empty(len(rows), dtype=np.float64)
    step = max(1, _CANONICAL_ELEMENTS // wide_query.shape[1])
    for start in range(0, len(rows), step):
        chunk = _padded(rows[start : start + step])
        scores[start : start + step] = _canonical_chunk(metric, wide_query, chunk)
    return scores


def _padded(rows: npt.NDArray[Any]) -> F64:
    """Widen to float64 and to a multiple of eight columns; zeros added at the end change no sum."""
    count, width = rows.shape
    padded = np.zeros((count, -(-width // LANES) * LANES), dtype=np.float64)
    padded[:, :width] = rows
    return padded


def _canonical_chunk(metric: Metric, query: F64, rows: F64) -> F64:
    if metric == "l2":
        rows = query - rows
        return 0.0 - np.sqrt(_lane_sums(rows * rows))
    dots = _lane_sums(rows * query)
    if metric == "dot":
        return dots + 0.0
    norms = np.sqrt(_lane_sums(query * query)) * np.sqrt(_lane_sums(rows * rows))
    cosines = np.divide(dots, norms, out=np.zeros_like(dots), where=norms > 0.0)
    return np.asarray(np.clip(cosines, -1.0, 1.0) + 0.0)


def _lane_sums(products: F64) -> F64:
    """Sum each row of (c, 8 m) in the canonical order; axis 1 is not the fast axis, so numpy adds it in order."""
    lanes = np.add.reduce(products.reshape(len(products), -1, LANES), axis=1)
    pairs = lanes[:, :4] + lanes[:, 4:]
    sums: F64 = (pairs[:, 0] + pairs[:, 2]) + (pairs[:, 1] + pairs[:, 3])
    return sums


def top_k(metric: Metric, query: F32, blocks: VectorBlocks, positions: npt.ArrayLike, k: int) -> tuple[I64, F32]:
    """Return the best k of the rows at `positions` by their canonical scores.

    Parameters
    ----------
    metric : {"cosine", "dot", "l2"}
    query : ndarray of float32, shape (d,)
        As the caller gave it, not normalised.
    blocks : VectorBlocks
    positions : array_like of int64, shape (c,)
        Distinct, in any order.
    k : int
        At least 1.

    Returns
    -------
    positions : ndarray of int64, shape (m,), m = min(k, c)
    scores : ndarray of float32, shape (m,)
        Descending; equal scores by ascending position.

    Raises
    ------
    CorruptionError
        If a position is outside the blocks.
    """
    checked = blocks.checked_positions(positions)
    scores = np.empty(len(checked), dtype=np.float32)
    step = max(1, _CANONICAL_ELEMENTS // max(1, blocks.dim))
    for start in range(0, len(checked), step):
        rows = blocks.gather(checked[start : start + step])
        scores[start : start + step] = canonical_scores(metric, query, rows)
    return best_first(checked, scores, k)


def best_first(positions: I64, scores: F32, k: int) -> tuple[I64, F32]:
    """Order by (score descending, position ascending) and keep k; a score of -0 becomes +0."""
    scores = scores + np.float32(0.0)
    if len(scores) > 4 * k:
        kept = scores >= np.partition(scores, len(scores) - k)[len(scores) - k]
        positions, scores = positions[kept], scores[kept]
    order = np.lexsort((positions, -scores))[:k]
    return positions[order], scores[order]


def best(
    blocks: VectorBlocks,
    queries: F32,
    k: int,
    *,
    allowed: Bools | None = None,
    stop: Callable[[], bool] | None = None,
) -> Best:
    """Return the best k rows of every query; parameters as in `nominate`."""
    nominated = nominate(blocks, queries, k, allowed=allowed, stop=stop)
    found = [
        top_k(blocks.metric, query, blocks, positions, k)
        for query, positions in zip(queries, nominated.positions, strict=True)
    ]
    return Best(found, nominated.rows_scanned, sum(map(len, nominated.positions)), nominated.complete)


# --- nomination -------------------------------------------------------------------------------------------


def nominate(
    blocks: VectorBlocks,
    queries: F32,
    k: int,
    *,
    allowed: Bools | None = None,
    stop: Callable[[], bool] | None = None,
) -> Nomination:
    """Return, per query, every row that could be among the best k.

    Parameters
    ----------
    blocks : VectorBlocks
    queries : ndarray of float32, shape (q, d)
        From `arrays.as_query`.
    k : int
        At least 1; may exceed the number of rows.
    allowed : ndarray of bool, shape (n,), optional
        Rows that may be returned; the others are not looked at where whole stretches are excluded.
    stop : callable, optional
        Asked before every tile (at most 64 MB of vectors); a true answer ends the scan.
    """
    wanted = max(1, min(k, blocks.count))
    positions = [np.empty(0, dtype=np.int64) for _ in queries]
    scanned = 0
    for first in range(0, len(queries), _QUERY_GROUP):
        group = queries[first : first + _QUERY_GROUP]
        pools = [_Pool(blocks, query, wanted) for query in group]
        plan = plan_scan(blocks.metric, group)
        complete = True
        for tile in tiles(blocks, plan.queries, allowed):
            if stop is not None and stop():
                complete = False
                break
            scanned += tile.products.size
            _absorb(plan, tile, pools)
        positions[first : first + len(group)] = [pool.survivors() for pool in pools]
        if not complete:
            return Nomination(positions, scanned, complete=False)
    return Nomination(positions, scanned, complete=True)


class _Pool:
    """The candidates of one query: bounds and positions, thinned out whenever they grow."""

    def __init__(self, blocks: VectorBlocks, query: F32, k: int) -> None:
        self.blocks = blocks
        self.query = query
        self.k = k
        self.floor = np.float32(-np.inf)
        self.lower = np.empty(0, dtype=np.float32)
        self.upper = np.empty(0, dtype=np.float32)
        self.positions = np.empty(0, dtype=np.int64)

    def add(self, plan: ScanPlan, index: int, lower: F32, upper: F32, positions: I64) -> None:
        """Take rows in and raise the floor to the k-th best lower bound."""
        self.lower = np.concatenate([self.lower, np.where(np.isnan(lower), np.float32(-np.inf), lower)])
        self.upper = np.concatenate([self.upper, upper])
        self.positions = np.concatenate([self.positions, positions])
        self._thin_out()
        if len(self.positions) > max(4 * self.k, _SETTLE_ABOVE):
            self._settle(plan, index)

    def _thin_out(self) -> None:
        surplus = len(self.lower) - self.k
        if surplus >= 0:
            self.floor = np.maximum(self.floor, np.partition(self.lower, surplus)[surplus])
            kept = ~(self.upper < self.floor)  # NaN is kept: nothing is known about such a row
            self.lower, self.upper, self.positions = self.lower[kept], self.upper[kept], self.positions[kept]

    def _settle(self, plan: ScanPlan, index: int) -> None:
        """Decide a crowd of ties by canonical scores, so that duplicates cannot fill the memory."""
        self.positions, scores = top_k(self.blocks.metric, self.query, self.blocks, self.positions, self.k)
        self.lower, self.upper = settled_bounds(plan, index, scores)
        self._thin_out()

    def survivors(self) -> I64:
        return np.sort(self.positions)


@dataclass(frozen=True, slots=True)
class Tile:
    """Products of all queries with a stretch of rows.

    `products` is float32 (q, rows), or (rows, q) if asked for by row, scratch that may be overwritten; `positions`
    int64 (rows,); `excluded` bool (rows,) or None.
    """

    products: F32
    scales: F32
    positions: I64
    excluded: Bools | None


def _as_singles(rows: Matrix) -> F32:
    return rows.astype(np.float32, copy=False)


def tiles(
    blocks: VectorBlocks,
    queries: F32,
    allowed: Bools | None,
    as_singles: Callable[[Matrix], F32] = _as_singles,
    *,
    by_row: bool = False,
) -> Iterator[Tile]:
    """Cut the rows into stretches whose scores fit the cache; gather rows where few are allowed.

    The arrays of a tile are valid until the next one is asked for. `as_singles` turns rows into float32. Products by
    row are the quicker ones (blocks are short and wide, and BLAS packs the short side), if the taker can read them so.
    """
    multiply = _Multiplier(queries, as_singles, by_row=by_row)
    count = len(queries)
    height = max(256, min(_MAX_TILE_ROWS, _TILE_SCORES // count, (1 << 24) // blocks.row_bytes))
    if allowed is None:
        yield from _mapped_tiles(blocks, multiply, height, None)
        return
    matches = int(np.count_nonzero(allowed))
    if matches * 4 < blocks.count * (1 if count < 8 else 3):
        yield from _gathered_tiles(blocks, multiply, height, np.flatnonzero(allowed))
    else:
        yield from _mapped_tiles(blocks, multiply, height, ~allowed)


def _mapped_tiles(blocks: VectorBlocks, multiply: _Multiplier, height: int, excluded: Bools | None) -> Iterator[Tile]:
    buffer = np.empty(multiply.count * height, dtype=np.float32)
    start = 0
    while start < blocks.count:
        end = _tile_end(blocks, start, height)
        if excluded is None or not excluded[start:end].all():
            products = buffer[: multiply.count * (end - start)].reshape(multiply.shape(end - start))
            scales = np.empty(end - start, dtype=np.float32)
            for block, row, stop_row, place in _pieces(blocks, start, end):
                span = slice(place, place + stop_row - row)
                multiply(blocks.matrices[block][row:stop_row], products[span] if multiply.by_row else products[:, span])
                scales[span] = blocks.scales[block][row:stop_row]
            yield Tile(products, scales, np.arange(start, end), None if excluded is None else excluded[start:end])
        start = end


def _tile_end(blocks: VectorBlocks, start: int, height: int) -> int:
    """Return where a tile ends: with a block, if one ends within reach, because short products are slow ones."""
    reach = min(start + height, blocks.count)
    whole = int(blocks.starts[np.searchsorted(blocks.starts, reach, side="right") - 1])
    return whole if whole > start else reach


def _pieces(blocks: VectorBlocks, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (block, first row, end row, place in the stretch) covering positions start to end."""
    block = int(np.searchsorted(blocks.starts, start, side="right")) - 1
    position = start
    while position < end:
        first, after = int(blocks.starts[block]), int(blocks.starts[block + 1])
        stop_row = min(after, end) - first
        if stop_row > position - first:
            yield block, position - first, stop_row, position - start
            position = first + stop_row
        block += 1


def _gathered_tiles(blocks: VectorBlocks, multiply: _Multiplier, height: int, matches: I64) -> Iterator[Tile]:
    for start in range(0, len(matches), height):
        positions = matches[start : start + height]
        products = np.empty(multiply.shape(len(positions)), dtype=np.float32)
        multiply(blocks.gather(positions), products)
        yield Tile(products, blocks.gather_scales(positions), positions, None)


class _Multiplier:
    """Products of a fixed set of queries with any rows, as float32 (q, rows), or (rows, q) by row."""

    def __init__(self, queries: F32, as_singles: Callable[[Matrix], F32], *, by_row: bool) -> None:
        self.queries = queries
        self.count = len(queries)
        self.as_singles = as_singles
        self.by_row = by_row

    def shape(self, rows: int) -> tuple[int, int]:
        """Return the shape of the products with so many rows."""
        return (rows, self.count) if self.by_row else (self.count, rows)

    def __call__(self, rows: Matrix, out: F32) -> None:
        wide = self.as_singles(as_floats(rows, self.queries.shape[1]))
        if self.count == 1:  # matrix times vector; the general product packs rows first
            np.matmul(wide, self.queries[0], out=out.reshape(-1))
        elif self.by_row:
            np.matmul(wide, self.queries.T, out=out)
        else:
            np.matmul(self.queries, wide.T, out=out)


def _absorb(plan: ScanPlan, tile: Tile, pools: list[_Pool]) -> None:
    """Turn products into approximate keys and hand every row that reaches its query's floor to the pool."""
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        approximate = _approximate(plan, tile)
        upper = np.multiply.outer(plan.slope, tile.scales)
        upper += plan.offset[:, None]
        upper += approximate
        floors = np.array([pool.floor for pool in pools], dtype=np.float32)
        rejected = upper < floors[:, None]
        if tile.excluded is not None:
            rejected |= tile.excluded
        for index in np.flatnonzero(~rejected.all(axis=1)):
            rows = np.flatnonzero(~rejected[index])
            error = plan.slope[index] * tile.scales[rows] + plan.offset[index]
            lower = approximate[index, rows] - error
            pools[index].add(plan, int(index), lower, upper[index, rows], tile.positions[rows])


def _approximate(plan: ScanPlan, tile: Tile) -> F32:
    products = tile.products
    if plan.form == "cosine":
        products *= tile.scales
    elif plan.form == "l2-expanded":
        products *= np.float32(2.0)
        products -= tile.scales
    return products
