"""The compiled path of exact search: pools, resuming, settling and ranking around the kernels.

Same contract and guarantee as `scan_numpy.best`. One or two queries scan the mapped rows in place, a batch multiplies
tile after tile; what is left in the pools is scored canonically in one call for all queries. Nothing copies the
collection. Design: docs/explanation/architecture.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.blocks import VectorBlocks
from vecdb.kernels.bounds import FORM_CODES, ScanPlan, plan_scan, settled_bounds
from vecdb.kernels.canonical import METRIC_CODES, rank_pools, top_k
from vecdb.kernels.exact_scan import FORMS, STRIP, absorb_tile, first_trigger, scan_blocks, scan_listed
from vecdb.kernels.half import as_singles
from vecdb.scan_numpy import Best, Found, tiles

__all__ = ["best"]

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Stop = Callable[[], bool]

_STOP_BYTES = 64 << 20
_POOL_BYTES = 64 << 20
_QUERY_GROUP = 256
_FEW_QUERIES = 2
_EVERY_ROW = np.empty(0, dtype=np.bool_)


class _Pools:
    """The candidates of a group of queries, in the arrays the kernels work on."""

    def __init__(self, blocks: VectorBlocks, queries: F32, plan: ScanPlan, k: int) -> None:
        count, capacity = len(queries), _capacity(k)
        self.blocks = blocks
        self.queries = queries
        self.plan = plan
        self.k = k
        self.bounds = np.empty((count, 3, capacity), dtype=np.float32)
        self.positions = np.empty((count, capacity), dtype=np.int64)
        self.states = np.zeros((count, 3), dtype=np.int64)
        self.states[:, 1] = first_trigger(k)
        self.floors = np.empty(count, dtype=np.float32)
        self.floors.fill(-np.inf)

    def settle(self, query: int) -> None:
        """Decide a crowd of ties by canonical scores: its best k stay, and the scan goes on."""
        crowd = self.positions[query, : self.states[query, 0]]
        positions, scores = top_k(self.blocks.metric, self.queries[query], self.blocks, crowd, self.k)
        count = len(positions)
        self.bounds[query, 0, :count], self.bounds[query, 1, :count] = settled_bounds(self.plan, query, scores)
        self.positions[query, :count] = positions
        self.states[query, :2] = count, first_trigger(self.k)
        if count == self.k:
            self.floors[query] = max(self.floors[query], self.bounds[query, 0, :count].min())

    def ranked(self) -> tuple[list[Found], int]:
        """Return the best k of the rows offered so far for each query, and how many rows were scored for that.

        The kernels thin a pool out where they end, so it holds just the rows that may be among the best k.
        """
        blocks = self.blocks
        scratch = np.empty((3, -(-blocks.dim // 8) * 8), dtype=np.float64)
        tail = (blocks.any_table, self.positions, self.states, scratch, self.bounds)
        rank_pools(METRIC_CODES[blocks.metric], blocks.kind, self.queries, *tail)
        counts: list[int] = self.states[:, 0].tolist()
        kept = [min(count, self.k) for count in counts]
        found = [(self.positions[at, :m].copy(), self.bounds[at, 2, :m].copy()) for at, m in enumerate(kept)]
        return found, sum(counts)


def _capacity(k: int) -> int:
    """Rows a pool holds: four times k leaves room to work in whatever survives thinning out."""
    return 4 * k + 1024


def best(
    blocks: VectorBlocks,
    queries: F32,
    k: int,
    *,
    allowed: Bools | None = None,
    stop: Stop | None = None,
) -> Best:
    """Return the best k rows of every query: see `scan_numpy.best`."""
    wanted = max(1, min(k, blocks.count))
    if len(queries) <= _FEW_QUERIES:
        return _one_by_one(blocks, queries, wanted, allowed, stop)
    return _together(blocks, queries, wanted, allowed, stop)


# --- one query at a time: scan in place -------------------------------------------------------------------


def _one_by_one(blocks: VectorBlocks, queries: F32, k: int, allowed: Bools | None, stop: Stop | None) -> Best:
    pools = _Pools(blocks, queries, plan_scan(blocks.metric, queries, direct=True), k)
    listed = None
    if allowed is not None:
        allowed = np.ascontiguousarray(allowed)
        matches = int(np.count_nonzero(allowed))
        listed = np.flatnonzero(allowed) if matches * 4 < blocks.count else None
    scanned = 0
    complete = True
    for query in range(len(queries)):
        if complete:
            rows, complete = _scan(pools, query, allowed, listed, stop)
            scanned += rows
    found, rescored = pools.ranked()
    return Best(found, scanned, rescored, complete)


def _scan(pools: _Pools, query: int, allowed: Bools | None, listed: I64 | None, stop: Stop | None) -> tuple[int, bool]:
    """Scan for one query in stretches between questions to `stop`; return (rows looked at, completed)."""
    blocks, plan = pools.blocks, pools.plan
    form = FORM_CODES[plan.form] + FORMS * blocks.kind
    pool = (pools.bounds[query], pools.positions[query], pools.states[query], pools.floors[query : query + 1])
    total = blocks.count if listed is None else len(listed)
    step = total if stop is None else max(1, _STOP_BYTES // blocks.row_bytes)
    rows: Any = listed if listed is not None else _EVERY_ROW if allowed is None else allowed
    head = (form, plan.queries[query], blocks.any_table, rows)
    tail = (plan.errors[query], pools.k, *pool, np.empty(STRIP + 2 * blocks.dim, dtype=np.float32))
    kernel: Any = scan_blocks if listed is None else scan_listed
    for start in range(0, total, max(1, step)):
        if stop is not None and stop():
            return start, False
        while kernel(*head, min(start + step, total), *tail):
            pools.settle(query)
    return total, True


# --- a batch: matrix products, tile by tile ---------------------------------------------------------------


def _together(blocks: VectorBlocks, queries: F32, k: int, allowed: Bools | None, stop: Stop | None) -> Best:
    step = max(1, min(_QUERY_GROUP, _POOL_BYTES // (20 * _capacity(k))))
    found: list[Found] = []
    scanned = rescored = 0
    complete = True
    for first in range(0, len(queries), step):
        group = queries[first : first + step]
        pools = _Pools(blocks, group, plan_scan(blocks.metric, group), k)
        if complete:
            rows, complete = _absorb_tiles(pools, allowed, stop)
            scanned += rows
        ranked, scored = pools.ranked()
        found += ranked
        rescored += scored
    return Best(found, scanned, rescored, complete)


def _absorb_tiles(pools: _Pools, allowed: Bools | None, stop: Stop | None) -> tuple[int, bool]:
    """Take every tile into the pools; return (pairs looked at, completed)."""
    plan, scanned = pools.plan, 0
    resume = np.zeros(2, dtype=np.int64)
    errors = np.ascontiguousarray(plan.errors.T)
    tail: Any = (errors, pools.k, pools.bounds, pools.positions, pools.states, pools.floors, resume)
    for tile in tiles(pools.blocks, plan.queries, allowed, as_singles, by_row=True):
        if stop is not None and stop():
            return scanned, False
        scanned += tile.products.size
        mask = _EVERY_ROW if tile.excluded is None else ~tile.excluded
        head = (FORM_CODES[plan.form], tile.products, tile.scales, tile.positions, mask)
        while (query := absorb_tile(*head, *tail)) >= 0:
            pools.settle(query)
    return scanned, True
