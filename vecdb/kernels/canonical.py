"""Canonical scores, compiled: the float64 routine whose bits every search path reports.

Ladder: `canonical_rows` (kernel) <- `top_k` (entry), for candidates from anywhere; `rank_pools` (kernel), for the pools
that a scan leaves behind, all queries of a batch in one call. Equal bit for bit to `scan_numpy.canonical_scores`:
eight lanes in order, one fixed tree, no fast-math, and products of two float32 are exact in float64, so a fused
multiply-add changes nothing; differences of l2 are squared and added in separate roundings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from numba import types

from vecdb.blocks import KINDS, VectorBlocks
from vecdb.kernels import reference
from vecdb.kernels._faults import length_or_fault
from vecdb.kernels._intrinsics import codes_at, floats_at, half_to_single, halves_at, prefetch
from vecdb.kernels._jit import kernel, read, strict_helper, write
from vecdb.kernels._sums import lane_sums
from vecdb.types import Metric

__all__ = [
    "METRIC_CODES",
    "Ranker",
    "canonical_rows",
    "rank_nominated",
    "rank_pools",
    "ranker",
    "ranking_plan",
    "top_k",
    "top_k_each",
]

METRIC_CODES: dict[Metric, int] = {"cosine": 0, "dot": 1, "l2": 2}
_L2 = METRIC_CODES["l2"]
_COSINE = METRIC_CODES["cosine"]
_HALF = KINDS.index(np.dtype(np.float16))
_INT8 = KINDS.index(np.dtype(np.int8))
_NOWHERE = np.empty(0, np.int64)
_ALL = np.empty(0, np.bool_)
_ROWS_AHEAD = 4  # candidates lie at random places; asking for them early halves their cost


@strict_helper
def block_of(table: npt.NDArray[np.int64], position: int) -> int:
    """Return the block that holds `position`, by bisection of the table's third column."""
    low = 0
    high = table.shape[0] - 1
    while high - low > 1:
        middle = (low + high) // 2
        if table[middle, 2] <= position:
            low = middle
        else:
            high = middle
    return low


@strict_helper
def _size(kind: int, d: int) -> int:
    """Return the bytes of a stored row."""
    if kind == _INT8:
        return (d + 3) // 4 * 4 + 4
    return d * (2 if kind == _HALF else 4)


@strict_helper
def _widen(kind: int, address: int, row: npt.NDArray[np.float64], d: int) -> None:
    """Copy the row at `address` as float64."""
    if kind == _INT8:
        codes, step = codes_at(address, d), floats_at(address + _size(kind, d) - 4, 1)[0]
        for j in range(d):
            row[j] = np.float64(np.float32(codes[j]) * step)
    elif kind == _HALF:
        bits = halves_at(address, d)
        for j in range(d):
            row[j] = np.float64(half_to_single(bits[j]))
    else:
        components = floats_at(address, d)
        for j in range(d):
            row[j] = np.float64(components[j])


@strict_helper
def _sums(left: npt.NDArray[np.float64], right: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Sum of products, and of squares of the right, in the canonical order; widths are multiples of eight."""
    found: tuple[float, float] = lane_sums(
        int(np.int64(left.ctypes.data)), int(np.int64(right.ctypes.data)), left.shape[0]
    )
    return found


@strict_helper
def _prefetch_row(address: int, size: int) -> None:
    for offset in range(0, size, 64):
        prefetch(address + offset)


@strict_helper
def _load_query(query: npt.NDArray[np.float64] | npt.NDArray[np.float32], scratch: npt.NDArray[np.float64]) -> None:
    """Widen the query into the first row of the scratch; the padding of it and of the rows becomes zero."""
    scratch[:2] = 0.0
    for j in range(query.shape[0]):
        scratch[0, j] = np.float64(query[j])


@strict_helper
def _ask_for(kind: int, table: npt.NDArray[np.int64], position: int, d: int) -> None:
    """Prefetch the row at `position`."""
    size = _size(kind, d)
    block = block_of(table, position)
    _prefetch_row(table[block, 0] + (position - table[block, 2]) * size, size)


@strict_helper
def _score(
    metric: int,
    kind: int,
    d: int,
    query_norm: float,
    table: npt.NDArray[np.int64],
    position: int,
    scratch: npt.NDArray[np.float64],
) -> float:
    """Return the canonical score of one row for the query in the scratch."""
    wide, row = scratch[0], scratch[1]
    block = block_of(table, position)
    _widen(kind, table[block, 0] + (position - table[block, 2]) * _size(kind, d), row, d)
    if metric == _L2:
        for j in range(d):
            row[j] = wide[j] - row[j]
        return (0.0 - math.sqrt(_sums(row, row)[1])) + 0.0
    score, square = _sums(wide, row)
    if metric == _COSINE:
        norms = query_norm * math.sqrt(square)
        score = min(max(score / norms, -1.0), 1.0) if norms > 0.0 else 0.0
    return score + 0.0


@kernel(
    (
        types.int64,
        types.int64,
        read(types.float64),
        read(types.int64, 2),
        read(types.int64),
        write(types.float64, 2),
        write(types.float64),
    ),
    twin=reference.canonical_rows,
    strict=True,
)
def canonical_rows(
    metric: int,
    kind: int,
    query: npt.NDArray[np.float64],
    table: npt.NDArray[np.int64],
    positions: npt.NDArray[np.int64],
    scratch: npt.NDArray[np.float64],
    out: npt.NDArray[np.float64],
) -> None:
    """Write the canonical score of each row at `positions`.

    metric: `METRIC_CODES`; kind: how rows are stored, a place in `blocks.KINDS`; query (w,) float64, the width padded
    with zeros to a multiple of eight in scratch's second axis; query (d,); table (B + 1, 3): `VectorBlocks.any_table`;
    positions (c,), each proven by the caller to lie in the table; scratch (2, w); out (c,).
    """
    _load_query(query, scratch)
    query_norm = math.sqrt(_sums(scratch[0], scratch[0])[1])
    for place in range(positions.shape[0]):
        _ask_for(kind, table, positions[min(place + _ROWS_AHEAD, positions.shape[0] - 1)], query.shape[0])
        out[place] = _score(metric, kind, query.shape[0], query_norm, table, positions[place], scratch)


@strict_helper
def _is_worse(scores: npt.NDArray[np.float32], positions: npt.NDArray[np.int64], left: int, right: int) -> bool:
    """Whether the row at `left` ranks behind the one at `right`: a smaller score, or the same at a later position."""
    worse: bool = scores[left] < scores[right] or (scores[left] == scores[right] and positions[left] > positions[right])
    return worse


@strict_helper
def _sink(scores: npt.NDArray[np.float32], positions: npt.NDArray[np.int64], parent: int, count: int) -> None:
    """Restore the heap below `parent`; its root is the worst of its rows."""
    while 2 * parent + 1 < count:
        child = 2 * parent + 1
        if child + 1 < count and _is_worse(scores, positions, child + 1, child):
            child += 1
        if not _is_worse(scores, positions, child, parent):
            return
        scores[parent], scores[child] = scores[child], scores[parent]
        positions[parent], positions[child] = positions[child], positions[parent]
        parent = child


@strict_helper
def _sort_best_first(scores: npt.NDArray[np.float32], positions: npt.NDArray[np.int64], count: int) -> None:
    """Heapsort (Williams, CACM 1964) of the first `count` rows by (score descending, position ascending)."""
    for parent in range(count // 2 - 1, -1, -1):
        _sink(scores, positions, parent, count)
    for last in range(count - 1, 0, -1):
        scores[0], scores[last] = scores[last], scores[0]
        positions[0], positions[last] = positions[last], positions[0]
        _sink(scores, positions, 0, last)


@kernel(
    (
        types.int64,
        types.int64,
        read(types.float32, 2),
        read(types.int64, 2),
        write(types.int64, 2),
        write(types.int64, 2),
        write(types.float64, 2),
        write(types.float32, 3),
    ),
    twin=reference.rank_pools,
    strict=True,
)
def rank_pools(
    metric: int,
    kind: int,
    queries: npt.NDArray[np.float32],
    table: npt.NDArray[np.int64],
    positions: npt.NDArray[np.int64],
    states: npt.NDArray[np.int64],
    scratch: npt.NDArray[np.float64],
    bounds: npt.NDArray[np.float32],
) -> None:
    """Score the rows in each query's pool canonically and put them in order, best first.

    metric, kind and table as in `canonical_rows`; queries (q, d) as the caller gave them; positions (q, capacity), the
    first ``states[i, 0]`` of row i, distinct and proven to lie in the table; states (q, 3) as in `exact_scan`; scratch
    (2, w); bounds (q, 3, capacity), whose third rows take the scores.
    """
    d = queries.shape[1]
    for query in range(queries.shape[0]):
        pool, found, count = positions[query], bounds[query, 2], states[query, 0]
        _load_query(queries[query], scratch)
        query_norm = math.sqrt(_sums(scratch[0], scratch[0])[1])
        for place in range(min(_ROWS_AHEAD, count)):
            _ask_for(kind, table, pool[place], d)
        for place in range(count):
            _ask_for(kind, table, pool[min(place + _ROWS_AHEAD, count - 1)], d)
            score = np.float32(_score(metric, kind, d, query_norm, table, pool[place], scratch))
            found[place] = score + np.float32(0.0)  # a tiny negative score rounds to -0
        _sort_best_first(found, pool, count)


@kernel(
    (
        read(types.int64),
        read(types.float32, 2),
        read(types.int64, 2),
        read(types.int64, 2),
        read(types.float32, 2),
        read(types.int64),
        read(types.boolean),
        write(types.float64, 2),
        write(types.int64),
        write(types.float32),
    ),
    twin=reference.rank_nominated,
    strict=True,
)
def rank_nominated(
    plan: npt.NDArray[np.int64],
    queries: npt.NDArray[np.float32],
    table: npt.NDArray[np.int64],
    nominated: npt.NDArray[np.int64],
    said: npt.NDArray[np.float32],
    places: npt.NDArray[np.int64],
    allowed: npt.NDArray[np.bool_],
    scratch: npt.NDArray[np.float64],
    positions: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float32],
) -> int:
    """Check what an index nominated for one query and rank it by canonical score; return how many, -1 for a fault.

    plan (5,): metric and kind as in `canonical_rows`, count, first, least; table as there; queries (1, d); nominated
    (1, m) and said (1, m), what the index returned, numbers in ``[0, count)`` of which number i is the row
    ``places[i]``, or ``first + i`` where places is (0,); allowed (count,), or (0,) for all; fewer than least are a
    fault; scratch (2, w); positions (m,) and scores (m,) take the answer. Every number is compared with count, and
    every row with the table, before it is followed.
    """
    metric, kind, count, first, least = plan[0], plan[1], plan[2], plan[3], plan[4]
    positions[:] = nominated[0]  # whoever nominated may still write there
    length = length_or_fault(positions, said[0], count, allowed, least)
    rows = table[table.shape[0] - 1, 2]
    for place in range(length):
        number = positions[place]
        row = places[number] if places.shape[0] else first + number
        if row < 0 or row >= rows:
            return -1
        positions[place] = row
    if length <= 0:
        return max(length, -1)
    d = queries.shape[1]
    _load_query(queries[0], scratch)
    query_norm = math.sqrt(_sums(scratch[0], scratch[0])[1])
    for place in range(length):
        _ask_for(kind, table, positions[place], d)
    for place in range(length):
        score = np.float32(_score(metric, kind, d, query_norm, table, positions[place], scratch))
        scores[place] = score + np.float32(0.0)  # a tiny negative score rounds to -0
    _sort_best_first(scores, positions, length)
    return length


def canonical_at(
    metric: Metric, query: npt.NDArray[np.float32], blocks: VectorBlocks, positions: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return the canonical scores of the rows at checked `positions`, float64 (c,)."""
    width = -(-blocks.dim // 8) * 8
    out = np.empty(len(positions), dtype=np.float64)
    canonical_rows(
        METRIC_CODES[metric],
        blocks.kind,
        query.astype(np.float64),
        blocks.any_table,
        positions,
        np.empty((2, width), dtype=np.float64),
        out,
    )
    return out


def top_k(
    metric: Metric, query: npt.NDArray[np.float32], blocks: VectorBlocks, positions: npt.ArrayLike, k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the best k of the rows at `positions`: `scan_numpy.top_k`, compiled, with the same bits."""
    pool = blocks.checked_positions(positions).reshape(1, -1).copy()
    count = pool.shape[1]
    states, bounds = np.array([[count, 0, 0]], dtype=np.int64), np.empty((1, 3, count), dtype=np.float32)
    scratch = np.empty((2, -(-blocks.dim // 8) * 8), dtype=np.float64)
    shown = query.reshape(1, -1)
    rank_pools(METRIC_CODES[metric], blocks.kind, shown, blocks.any_table, pool, states, scratch, bounds)
    return pool[0, :k], bounds[0, 2, :k]


def top_k_each(
    metric: Metric,
    queries: npt.NDArray[np.float32],
    blocks: VectorBlocks,
    checked: Sequence[npt.NDArray[np.int64]],
    k: int,
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Return `top_k` of each query among the rows at its own positions, which were checked, in one compiled call."""
    counts = [len(positions) for positions in checked]
    width = max(counts, default=0)
    pools = np.empty((len(counts), width), dtype=np.int64)
    states, bounds = np.zeros((len(counts), 3), dtype=np.int64), np.empty((len(counts), 3, width), dtype=np.float32)
    states[:, 0] = counts
    for pool, positions, count in zip(pools, checked, counts, strict=True):
        pool[:count] = positions
    scratch = np.empty((2, -(-blocks.dim // 8) * 8), dtype=np.float64)
    rank_pools(METRIC_CODES[metric], blocks.kind, queries, blocks.any_table, pools, states, scratch, bounds)
    kept = [min(count, k) for count in counts]
    return [(pools[row, :count].copy(), bounds[row, 2, :count].copy()) for row, count in enumerate(kept)]


def ranking_plan(blocks: VectorBlocks, count: int, first: int, least: int) -> npt.NDArray[np.int64]:
    """Return the plan of `rank_nominated`."""
    return np.array([METRIC_CODES[blocks.metric], blocks.kind, count, first, least], np.int64)


Ranker = Callable[
    [npt.NDArray[np.float32], npt.NDArray[np.int64], npt.NDArray[np.float32]],
    "tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]] | None",
]


def ranker(
    blocks: VectorBlocks,
    plan: npt.NDArray[np.int64],
    places: npt.NDArray[np.int64] | None,
    allowed: npt.NDArray[np.bool_] | None,
) -> Ranker:
    """Return ``rank(queries, nominated, said)``: the rows that an index nominated for one query, by canonical score.

    It returns (positions, scores) in memory of its own, None if what the index returned is wrong. Arrays as in
    `rank_nominated`, their shapes and dtypes proven by the caller; several threads may rank at once.
    """
    table, wide = blocks.any_table, -(-blocks.dim // 8) * 8
    there, mask = _NOWHERE if places is None else places, _ALL if allowed is None else allowed

    def rank(
        queries: npt.NDArray[np.float32], nominated: npt.NDArray[np.int64], said: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]] | None:
        width = nominated.shape[1]
        positions, scores, scratch = np.empty(width, np.int64), np.empty(width, np.float32), np.empty((2, wide))
        found = rank_nominated(plan, queries, table, nominated, said, there, mask, scratch, positions, scores)
        if found == width:
            return positions, scores
        return None if found < 0 else (positions[:found], scores[:found])

    return rank
