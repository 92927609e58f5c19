"""The compiled path of exact search: pools, resuming and settling around the kernels of `exact_scan`.

Same contract and guarantee as `scan_numpy.nominate`. One or two queries scan the mapped rows in place, a batch
multiplies tile after tile; nothing copies the collection. Design: docs/explanation/architecture.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.blocks import VectorBlocks
from vecdb.kernels.bounds import FORM_CODES, ScanPlan, plan_scan, settled_bounds
from vecdb.kernels.canonical import top_k
from vecdb.kernels.exact_scan import HALF, STRIP, absorb_tile, first_trigger, scan_blocks, scan_listed
from vecdb.kernels.half import as_singles
from vecdb.scan_numpy import Nomination, tiles

__all__ = ["nominate"]

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
        self.floors = np.full(count, -np.inf, dtype=np.float32)

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

    def survivors(self, query: int) -> I64:
        """Return the rows that may be among the best k of all rows offered so far, ascending."""
        count = int(self.states[query, 0])
        lower, upper, _ = self.bounds[query, :, :count]
        floor = np.float32(-np.inf) if count < self.k else np.partition(lower, count - self.k)[count - self.k]
        return np.sort(self.positions[query, :count][~(upper < floor)])


def _capacity(k: int) -> int:
    """Rows a pool holds: four times k leaves room to work in whatever survives thinning out."""
    return 4 * k + 1024


def nominate(
    blocks: VectorBlocks,
    queries: F32,
    k: int,
    *,
    allowed: Bools | None = None,
    stop: Stop | None = None,
) -> Nomination:
    """Return, per query, every row that could be among the best k: see `scan_numpy.nominate`."""
    wanted = max(1, min(k, blocks.count))
    if len(queries) <= _FEW_QUERIES:
        return _one_by_one(blocks, queries, wanted, allowed, stop)
    return _together(blocks, queries, wanted, allowed, stop)


# --- one query at a time: scan in place -------------------------------------------------------------------


def _one_by_one(blocks: VectorBlocks, queries: F32, k: int, allowed: Bools | None, stop: Stop | None) -> Nomination:
    plan = plan_scan(blocks.metric, queries, direct=True)
    pools = _Pools(blocks, queries, plan, k)
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
    return Nomination([pools.survivors(query) for query in range(len(queries))], scanned, complete)


def _scan(pools: _Pools, query: int, allowed: Bools | None, listed: I64 | None, stop: Stop | None) -> tuple[int, bool]:
    """Scan for one query in stretches between questions to `stop`; return (rows looked at, completed)."""
    blocks, plan = pools.blocks, pools.plan
    form = FORM_CODES[plan.form] + (HALF if blocks.dtype == np.float16 else 0)
    error = np.array([plan.slope[query], plan.offset[query]], dtype=np.float32)
    pool = (pools.bounds[query], pools.positions[query], pools.states[query], pools.floors[query : query + 1])
    strip = np.empty(STRIP, dtype=np.float32)
    total = blocks.count if listed is None else len(listed)
    step = total if stop is None else max(1, _STOP_BYTES // blocks.row_bytes)
    mask = _EVERY_ROW if allowed is None else allowed
    for start in range(0, total, max(1, step)):
        if stop is not None and stop():
            return start, False
        head = (form, plan.queries[query], blocks.scan_table)
        tail = (min(start + step, total), error, pools.k, *pool, strip)
        kernel: Any = scan_blocks if listed is None else scan_listed
        while kernel(*head, mask if listed is None else listed, *tail):
            pools.settle(query)
    return total, True


# --- a batch: matrix products, tile by tile ---------------------------------------------------------------


def _together(blocks: VectorBlocks, queries: F32, k: int, allowed: Bools | None, stop: Stop | None) -> Nomination:
    positions = [np.empty(0, dtype=np.int64) for _ in queries]
    scanned = 0
    step = max(1, min(_QUERY_GROUP, _POOL_BYTES // (20 * _capacity(k))))
    for first in range(0, len(queries), step):
        group = queries[first : first + step]
        plan = plan_scan(blocks.metric, group)
        pools = _Pools(blocks, group, plan, k)
        errors = np.stack([plan.slope, plan.offset])
        complete = True
        for tile in tiles(blocks, plan.queries, allowed, as_singles):
            if stop is not None and stop():
                complete = False
                break
            scanned += tile.products.size
            mask = _EVERY_ROW if tile.excluded is None else ~tile.excluded
            resume = np.zeros(2, dtype=np.int64)
            head = (FORM_CODES[plan.form], tile.products, tile.scales, tile.positions, mask, errors, k)
            while (query := absorb_tile(*head, pools.bounds, pools.positions, pools.states, pools.floors, resume)) >= 0:
                pools.settle(query)
        positions[first : first + len(group)] = [pools.survivors(query) for query in range(len(group))]
        if not complete:
            return Nomination(positions, scanned, complete=False)
    return Nomination(positions, scanned, complete=True)
