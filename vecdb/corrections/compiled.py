"""Pools that compiled code fills, for scores that are corrected by a bias.

A tile of products becomes raw scores and then corrected ones in place; the kernel that takes tiles of inner products in
(`vecdb.kernels.exact_scan.absorb_tile`) takes either, because their doubts have its form. Invariant: the kernel keeps
every row whose bracket reaches the k-th largest lower end, as the pools of `scan` do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.blocks import VectorBlocks
from vecdb.kernels.bounds import FORM_CODES, ScanPlan
from vecdb.kernels.exact_scan import FORMS, STRIP, absorb_tile, first_trigger, scan_biased
from vecdb.scan_numpy import Tile

__all__ = ["CompiledPools", "corrected_errors"]

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Settled = Callable[[int, I64], tuple[I64, F32, F32]]

_EVERY_ROW: Final = np.empty(0, np.bool_)
_DOT: Final = FORM_CODES["dot"]


class CompiledPools:
    """The candidates of a group of queries.

    Parameters
    ----------
    queries, k : int
    errors : ndarray of float32, shape (2, queries)
        Slopes, times the row's scale, and offsets of the doubt in the scores that are taken in.
    settled : callable
        From a query and a crowd of positions to the best k of them: positions, scores, and something more.
    """

    def __init__(self, queries: int, k: int, errors: F32, settled: Settled) -> None:
        capacity = 4 * k + 1024
        self.k = k
        self.settled = settled
        self.errors = np.ascontiguousarray(errors, np.float32)
        self.bounds = np.empty((queries, 3, capacity), np.float32)
        self.positions = np.empty((queries, capacity), np.int64)
        self.states = np.zeros((queries, 3), np.int64)
        self.states[:, 1] = first_trigger(k)
        self.floors = np.full(queries, -np.inf, np.float32)
        self.resume = np.zeros(2, np.int64)

    def absorb(self, tile: Tile, scores: F32) -> None:
        """Take the scores of a tile in, shape (rows, queries)."""
        mask = _EVERY_ROW if tile.excluded is None else ~tile.excluded
        head: Any = (_DOT, scores, tile.scales, np.ascontiguousarray(tile.positions, np.int64), mask)
        tail: Any = (self.errors, self.k, self.bounds, self.positions, self.states, self.floors, self.resume)
        while (query := absorb_tile(*head, *tail)) >= 0:
            self._settle(query)

    def scan(
        self, query: int, blocks: VectorBlocks, plan: ScanPlan, bias: F32, allowed: Bools | None, end: int
    ) -> None:
        """Scan positions up to `end` for one query, from where it stopped; `plan` is direct, `bias` has shape (n,)."""
        form = FORM_CODES[plan.form] + FORMS * blocks.kind
        settled = np.array([form, end, self.k], np.int64)
        rows = _EVERY_ROW if allowed is None else allowed
        head: Any = (
            settled,
            plan.queries[query],
            blocks.any_table,
            rows,
            bias,
            np.ascontiguousarray(self.errors[:, query]),
        )
        pool = (self.bounds[query], self.positions[query], self.states[query], self.floors[query : query + 1])
        tail: Any = (*pool, np.empty(STRIP + 2 * blocks.dim, np.float32))
        while scan_biased(*head, *tail):
            self._settle(query)

    def _settle(self, query: int) -> None:
        crowd = self.positions[query, : self.states[query, 0]].copy()
        positions, scores, _ = self.settled(query, crowd)
        count = len(positions)
        self.bounds[query, :2, :count] = scores
        self.positions[query, :count] = positions
        self.states[query, :2] = count, first_trigger(self.k)
        if count == self.k:
            self.floors[query] = max(self.floors[query], scores.min())

    def survivors(self) -> list[I64]:
        """Return the positions that are left for each query."""
        return [own[:count].copy() for own, count in zip(self.positions, self.states[:, 0].tolist(), strict=True)]


def corrected_errors(plan: ScanPlan, bias: F32, rounding: float) -> F32:
    """Return the doubts of raw scores, shape (2, q), widened by what adding a bias rounds.

    `rounding` is relative to the sizes of score and bias: a cosine is at most 1, an inner product at most the norms.
    """
    largest = float(np.abs(bias).max(initial=0.0))
    errors = plan.errors.astype(np.float64).T
    if plan.form == "dot":
        errors[0] += rounding * np.sqrt(plan.squares)
    errors[1] += rounding * (largest + (plan.form == "cosine")) + 2.0**-120
    widened: F32 = np.nextafter(errors.astype(np.float32), np.float32(np.inf))
    return widened
