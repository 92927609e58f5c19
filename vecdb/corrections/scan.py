"""Exact search by corrected scores, in one pass over the rows.

A tile of products becomes brackets of raw scores (the bounds of `vecdb.kernels.bounds`), and these become brackets of
corrected scores, because a corrected score rises with the raw one. Every row whose bracket reaches the k-th largest
lower end is kept; kept rows get their canonical scores, then their corrected ones. Invariant: the answer is that of
scoring every row, correcting every score and sorting, bit for bit, by whichever path the tiles were absorbed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from vecdb import exact
from vecdb.blocks import VectorBlocks
from vecdb.corrections.adjust import Adjustment
from vecdb.errors import DimensionError, ParameterError
from vecdb.exact import ScanFacts
from vecdb.kernels import loader
from vecdb.kernels.bounds import ScanPlan, plan_scan
from vecdb.scan_numpy import Tile, tiles

__all__ = ["Corrected", "search"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Stop = Callable[[], bool]

Corrected: TypeAlias = tuple[I64, F32, F32]
"""Positions, corrected and canonical scores of one query, best first."""

_GROUP: Final = 256
_FEW: Final = 2
"""Queries that are scanned one by one, where their best raw scores are not needed beside."""
_STOP_BYTES: Final = 64 << 20
_SETTLE_ABOVE: Final = 1 << 14
_ROUNDING: Final = 4 * 2.0**-24
"""Of the sums of a score and a bias, in a bracket and in the end: two roundings of each, relative to their sizes."""
_NARROW: Final = 1e-6
"""Relative doubt of a proximity: float32 brackets, and error functions of two libraries."""
_NORMAL: Final = NormalDist()


def search(
    blocks: VectorBlocks,
    queries: F32,
    k: int,
    adjustment: Adjustment,
    *,
    allowed: Bools | None = None,
    stop: Stop | None = None,
    path: exact.Path = "auto",
) -> tuple[list[Corrected], ScanFacts]:
    """Return the true top k of every query by corrected score.

    Parameters
    ----------
    blocks, queries, k, allowed, stop, path
        As in `vecdb.exact.search`.
    adjustment : Adjustment
        One line of its table for each row of the blocks, one weight or line of moments for each query.

    Returns
    -------
    found : list of (positions int64 (m,), corrected float32 (m,), canonical float32 (m,)), one per query
        Best corrected score first, equal ones by position.
    facts : ScanFacts
    """
    _check(blocks, queries, k, adjustment)
    compiled = path == "numba" or (path == "auto" and loader.ready())
    found: list[Corrected] = []
    scanned = rescored = 0
    complete = True
    wanted = max(1, min(k, blocks.count))
    for first in range(0, len(queries), _GROUP):
        part = slice(first, first + _GROUP)
        group = _Group(blocks, queries[part], wanted, adjustment.take(part), compiled=compiled)
        if complete:
            rows, complete = group.scan(allowed, stop)
            scanned += rows
        ranked, scored = group.ranked()
        found += ranked
        rescored += scored
    return found, ScanFacts("numba" if compiled else "numpy", scanned, rescored, complete)


def _check(blocks: VectorBlocks, queries: F32, k: int, adjustment: Adjustment) -> None:
    if k < 1:
        raise ParameterError(f"k is {k}, expected at least 1.", name="k", got=k, allowed=">= 1")
    if queries.ndim != 2 or queries.shape[1] != blocks.dim:
        raise DimensionError(
            f"queries have shape {queries.shape}, expected (q, {blocks.dim}).",
            expected=blocks.dim,
            got=queries.shape,
            where="exact search",
        )
    if len(adjustment.table) != blocks.count:
        raise ParameterError(
            f"the correction knows {len(adjustment.table)} rows, there are {blocks.count}",
            name="adjustment",
            got=len(adjustment.table),
            allowed=blocks.count,
        )


class _Pool:
    """The candidates of one query: brackets of corrected scores and positions."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.floor = np.float32(-np.inf)
        self.lower = np.empty(0, np.float32)
        self.upper = np.empty(0, np.float32)
        self.positions = np.empty(0, np.int64)

    def add(self, lower: F32, upper: F32, positions: I64) -> None:
        self.lower = np.concatenate([self.lower, np.where(np.isnan(lower), np.float32(-np.inf), lower)])
        self.upper = np.concatenate([self.upper, upper])
        self.positions = np.concatenate([self.positions, positions])
        self.thin_out()

    def thin_out(self) -> None:
        surplus = len(self.lower) - self.k
        if surplus >= 0:
            self.floor = np.maximum(self.floor, np.partition(self.lower, surplus)[surplus])
            kept = ~(self.upper < self.floor)  # NaN is kept: nothing is known about such a row
            self.lower, self.upper, self.positions = self.lower[kept], self.upper[kept], self.positions[kept]

    @property
    def crowded(self) -> bool:
        return len(self.positions) > max(4 * self.k, _SETTLE_ABOVE)

    def settle(self, found: Corrected) -> None:
        """Decide a crowd of ties by corrected scores, which are their own brackets."""
        self.positions, self.lower, self.upper = found[0], found[1].copy(), found[1].copy()
        self.thin_out()


@dataclass(slots=True)
class _Brackets:
    """Of a tile: brackets of raw scores, (q, rows), and where the rows lie."""

    lower: F32
    upper: F32
    positions: I64
    excluded: Bools | None


class _Group:
    """Some queries that are scanned together; a dynamic correction keeps the best by raw score beside them."""

    def __init__(self, blocks: VectorBlocks, queries: F32, k: int, adjustment: Adjustment, *, compiled: bool) -> None:
        self.blocks = blocks
        self.queries = np.ascontiguousarray(queries, np.float32)
        self.k = k
        self.adjustment = adjustment
        self.plan: ScanPlan = plan_scan(blocks.metric, self.queries)
        self.pools = [_Pool(k) for _ in queries]
        self.raw_pools = [_Pool(k) for _ in queries] if adjustment.switch is not None else []
        self.compiled = compiled
        self.path: exact.Path = "numba" if compiled else "numpy"

    def scan(self, allowed: Bools | None, stop: Stop | None) -> tuple[int, bool]:
        """Take every tile in; return (pairs looked at, completed)."""
        if self.compiled and self.adjustment.form == "bias" and self.blocks.metric != "l2":
            few = len(self.queries) <= _FEW and not self.raw_pools
            if few and (allowed is None or 4 * int(np.count_nonzero(allowed)) >= len(allowed)):
                return self._scan_in_place(allowed, stop)
            return self._scan_compiled(allowed, stop)
        scanned = 0
        for tile in tiles(self.blocks, self.plan.queries, allowed, *self._half()):
            if stop is not None and stop():
                return scanned, False
            scanned += tile.products.size
            with np.errstate(invalid="ignore", over="ignore", under="ignore"):
                self._absorb(self._brackets(tile))
        return scanned, True

    def _scan_in_place(self, allowed: Bools | None, stop: Stop | None) -> tuple[int, bool]:
        """Scan the rows where they lie, query by query, in stretches between questions to `stop`."""
        from vecdb.corrections.compiled import CompiledPools, corrected_errors  # as in `_half`

        blocks, table, count = self.blocks, self.adjustment.table, len(self.queries)
        plan = plan_scan(blocks.metric, self.queries, direct=True)
        bias = np.ascontiguousarray(table[:, 0])
        mask = None if allowed is None else np.ascontiguousarray(allowed)
        pools = CompiledPools(count, self.k, corrected_errors(plan, bias, _ROUNDING), self._best)
        step = max(1, blocks.count if stop is None else _STOP_BYTES // blocks.row_bytes)
        scanned, complete = 0, True
        for query in range(count):
            for start in range(0, blocks.count if complete else 0, step):
                if stop is not None and stop():
                    complete = False
                    break
                end = min(start + step, blocks.count)
                pools.scan(query, blocks, plan, bias, mask, end)
                scanned += end - start
        for pool, positions in zip(self.pools, pools.survivors(), strict=True):
            pool.positions = positions
        return scanned, complete

    def _scan_compiled(self, allowed: Bools | None, stop: Stop | None) -> tuple[int, bool]:
        """Do the same with pools that compiled code fills."""
        from vecdb.corrections.compiled import CompiledPools, corrected_errors  # as in `_half`

        plan, bias, count = self.plan, self.adjustment.table[:, 0], len(self.queries)
        raw = None if self.adjustment.switch is None else CompiledPools(count, self.k, plan.errors.T, self._raw_best)
        corrected = CompiledPools(count, self.k, corrected_errors(plan, bias, _ROUNDING), self._best)
        scanned, complete = 0, True
        for tile in tiles(self.blocks, plan.queries, allowed, *self._half(), by_row=True):
            if stop is not None and stop():
                complete = False
                break
            scanned += tile.products.size
            with np.errstate(invalid="ignore", over="ignore", under="ignore"):
                if plan.form == "cosine":
                    tile.products[:] *= tile.scales[:, None]
                if raw is not None:
                    raw.absorb(tile, tile.products)
                tile.products[:] += bias[tile.positions][:, None]
            corrected.absorb(tile, tile.products)
        for pool, positions in zip(self.pools, corrected.survivors(), strict=True):
            pool.positions = positions
        for pool, positions in zip(self.raw_pools, raw.survivors() if raw is not None else [], strict=True):
            pool.positions = positions
        return scanned, complete

    def _half(self) -> tuple[Callable[..., F32], ...]:
        """Return the compiled conversion of float16 rows, where there is one."""
        if not self.compiled:
            return ()
        from vecdb.kernels.half import as_singles  # numba is loaded by now, never by importing this module

        return (as_singles,)

    def _brackets(self, tile: Tile) -> _Brackets:
        plan, products = self.plan, tile.products
        doubt = np.multiply.outer(plan.slope, tile.scales)
        doubt += plan.offset[:, None]
        if plan.form == "cosine":
            products *= tile.scales
        if plan.form != "l2-expanded":
            return _Brackets(products - doubt, products + doubt, tile.positions, tile.excluded)
        squares = plan.squares[:, None] - (2.0 * products.astype(np.float64) - tile.scales)
        doubt64 = doubt.astype(np.float64) * (1.0 + 2.0**-20)
        ends = (-np.sqrt(np.maximum(squares + doubt64, 0.0)), -np.sqrt(np.maximum(squares - doubt64, 0.0)))
        return _Brackets(*_widened(*ends), tile.positions, tile.excluded)

    def _absorb(self, found: _Brackets) -> None:
        if self.raw_pools:
            self._offer_all(self.raw_pools, found, _below(self.raw_pools, found), self._raw_best)
        if self.adjustment.form == "bias":
            self._add_bias(found)
            rejected = _below(self.pools, found)
        else:
            for query in range(len(self.pools)):
                self._raise_floor(query, found)
            rejected = np.stack([self._out_of_reach(query, found) for query in range(len(self.pools))])
        self._offer_all(self.pools, found, rejected, self._best)

    def _offer_all(
        self, pools: list[_Pool], found: _Brackets, rejected: Bools, best: Callable[[int, I64], Corrected]
    ) -> None:
        if found.excluded is not None:
            rejected |= found.excluded
        for query in np.flatnonzero(~rejected.all(axis=1)).tolist():
            rows = np.flatnonzero(~rejected[query])
            pool, positions = pools[query], found.positions[rows]
            lower, upper = found.lower[query, rows], found.upper[query, rows]
            if self.adjustment.form == "proximity":
                lower, upper = self._proximities(query, positions, lower, upper)
            pool.add(lower, upper, positions)
            if pool.crowded:
                pool.settle(best(query, pool.positions))

    def _add_bias(self, found: _Brackets) -> None:
        """Turn brackets of raw scores into brackets of corrected ones, in place."""
        bias = self.adjustment.table[found.positions, 0]
        slack = np.float32(_ROUNDING) * (np.maximum(np.abs(found.lower), np.abs(found.upper)) + np.abs(bias))
        slack += np.float32(2.0**-120)
        found.lower += bias - slack
        found.upper += bias + slack

    def _raise_floor(self, query: int, found: _Brackets) -> None:
        """Find the floor that some good rows of a tile make, so that few others have their proximity computed.

        Any k rows that may be returned make one: their least proximity. Those with the largest lesser factor are good.
        """
        lower, pool = found.lower[query], self.pools[query]
        if found.excluded is not None:
            lower = np.where(found.excluded, np.float32(-np.inf), lower)
        if len(lower) < 4 * pool.k or float(pool.floor) > 0.0:
            return
        mean, deviation = self.adjustment.moments_of(query)
        table = self.adjustment.table[found.positions]
        factor = np.minimum((lower - table[:, 0]) / table[:, 1], (lower - np.float32(mean)) / np.float32(deviation))
        factor = np.where(np.isnan(factor), np.float32(-np.inf), factor)
        good = np.argpartition(-factor, pool.k - 1)[: pool.k]
        if np.isfinite(factor[good]).all():
            ends, _ = self._proximities(query, found.positions[good], lower[good], lower[good])
            pool.floor = np.maximum(pool.floor, ends.min())

    def _out_of_reach(self, query: int, found: _Brackets) -> Bools:
        """Return which rows cannot be near enough: both factors of a proximity are at least the product."""
        floor = float(self.pools[query].floor)
        if not floor > 0.0:
            return np.zeros(len(found.positions), np.bool_)
        beyond = max(math.exp(-floor), 1e-300)
        least = -_NORMAL.inv_cdf(beyond) if beyond < 1.0 else -math.inf
        least -= 1e-4 * (1.0 + abs(least))
        mean, deviation = self.adjustment.moments_of(query)
        table, upper = self.adjustment.table[found.positions], found.upper[query]
        rejected: Bools = (upper < table[:, 0] + np.float32(least) * table[:, 1]) | (
            upper < np.float32(mean + least * deviation)
        )
        return rejected

    def _proximities(self, query: int, positions: I64, lower: F32, upper: F32) -> tuple[F32, F32]:
        ends = [self.adjustment.proximity(query, positions, end.astype(np.float64)) for end in (lower, upper)]
        return _widened(ends[0] * (1.0 - _NARROW) - 1e-300, ends[1] * (1.0 + _NARROW) + 1e-300)

    def _canonical(self, query: int, positions: I64) -> tuple[I64, F32]:
        return exact.rescore(self.blocks, self.queries[query], positions, max(1, len(positions)), self.path)

    def _best(self, query: int, positions: I64) -> Corrected:
        return replace(self.adjustment, switch=None).best(query, *self._canonical(query, positions), self.k)

    def _raw_best(self, query: int, positions: I64) -> Corrected:
        found, raw = self._canonical(query, positions)
        return found[: self.k], raw[: self.k], raw[: self.k]

    def ranked(self) -> tuple[list[Corrected], int]:
        """Return the best k of what is left for each query, and how many rows were scored for that."""
        positions = [pool.positions for pool in self.pools]
        if self.raw_pools:
            positions = [np.union1d(mine, pool.positions) for mine, pool in zip(positions, self.raw_pools, strict=True)]
        most = max(1, max(map(len, positions), default=1))
        raws = exact.rescore_each(self.blocks, self.queries, positions, most, self.path)
        found = [self.adjustment.best(query, *raw, self.k) for query, raw in enumerate(raws)]
        return found, sum(map(len, positions))


def _below(pools: list[_Pool], found: _Brackets) -> Bools:
    rejected: Bools = found.upper < np.array([pool.floor for pool in pools], np.float32)[:, None]
    return rejected


def _widened(lower: F64, upper: F64) -> tuple[F32, F32]:
    """Return ends as float32, rounded outwards."""
    down, up = np.float32(-np.inf), np.float32(np.inf)
    return np.nextafter(lower.astype(np.float32), down), np.nextafter(upper.astype(np.float32), up)
