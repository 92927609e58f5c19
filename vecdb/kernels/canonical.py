"""Canonical scores, compiled: the float64 routine whose bits every search path reports.

Ladder: `canonical_rows` (kernel) <- `top_k` (entry). Equal bit for bit to `scan_numpy.canonical_scores`: eight lanes
in order, one fixed tree, no fast-math, and products of two float32 are exact in float64, so a fused multiply-add
changes nothing; differences of l2 are squared and added in separate roundings.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import types

from vecdb.blocks import VectorBlocks
from vecdb.kernels import reference
from vecdb.kernels._intrinsics import floats_at, half_to_single, halves_at, prefetch
from vecdb.kernels._jit import kernel, read, strict_helper, write
from vecdb.scan_numpy import best_first
from vecdb.types import Metric

__all__ = ["METRIC_CODES", "canonical_rows", "top_k"]

METRIC_CODES: dict[Metric, int] = {"cosine": 0, "dot": 1, "l2": 2}
_L2 = METRIC_CODES["l2"]
_COSINE = METRIC_CODES["cosine"]
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
def _widen(half: int, address: int, row: npt.NDArray[np.float64], d: int) -> None:
    """Copy the row at `address` as float64."""
    if half:
        bits = halves_at(address, d)
        for j in range(d):
            row[j] = np.float64(half_to_single(bits[j]))
    else:
        components = floats_at(address, d)
        for j in range(d):
            row[j] = np.float64(components[j])


@strict_helper
def _lane_sum(left: npt.NDArray[np.float64], right: npt.NDArray[np.float64], lanes: npt.NDArray[np.float64]) -> float:
    """Sum of products in the canonical order; widths are multiples of eight; lanes (8,) is scratch."""
    lanes[:] = 0.0
    for start in range(0, left.shape[0], 8):
        for lane in range(8):  # one vector addition
            lanes[lane] += left[start + lane] * right[start + lane]
    total: float = ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]))
    return total


@strict_helper
def _prefetch_row(address: int, size: int) -> None:
    for offset in range(0, size, 64):
        prefetch(address + offset)


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
    half: int,
    query: npt.NDArray[np.float64],
    table: npt.NDArray[np.int64],
    positions: npt.NDArray[np.int64],
    scratch: npt.NDArray[np.float64],
    out: npt.NDArray[np.float64],
) -> None:
    """Write the canonical score of each row at `positions`.

    metric: `METRIC_CODES`; half: 1 if rows are float16; query (w,) float64, the width padded with zeros to a multiple
    of eight in scratch's second axis; query (d,); table (B + 1, 3) as `VectorBlocks.scan_table`; positions (c,), each
    proven by the caller to lie in the table; scratch (3, w); out (c,).
    """
    d = query.shape[0]
    wide, row, lanes = scratch[0], scratch[1], scratch[2, :8]
    wide[:] = 0.0
    row[:] = 0.0
    wide[:d] = query
    size = 2 if half else 4
    query_norm = math.sqrt(_lane_sum(wide, wide, lanes))
    for place in range(positions.shape[0]):
        coming = positions[min(place + _ROWS_AHEAD, positions.shape[0] - 1)]
        block = block_of(table, coming)
        _prefetch_row(table[block, 0] + (coming - table[block, 2]) * d * size, d * size)
        position = positions[place]
        block = block_of(table, position)
        _widen(half, table[block, 0] + (position - table[block, 2]) * d * size, row, d)
        if metric == _L2:
            for j in range(d):
                row[j] = wide[j] - row[j]
            score = 0.0 - math.sqrt(_lane_sum(row, row, lanes))
        else:
            score = _lane_sum(wide, row, lanes)
            if metric == _COSINE:
                norms = query_norm * math.sqrt(_lane_sum(row, row, lanes))
                score = min(max(score / norms, -1.0), 1.0) if norms > 0.0 else 0.0
        out[place] = score + 0.0


def canonical_at(
    metric: Metric, query: npt.NDArray[np.float32], blocks: VectorBlocks, positions: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return the canonical scores of the rows at checked `positions`, float64 (c,)."""
    width = -(-blocks.dim // 8) * 8
    out = np.empty(len(positions), dtype=np.float64)
    half = int(blocks.dtype == np.float16)
    canonical_rows(
        METRIC_CODES[metric],
        half,
        query.astype(np.float64),
        blocks.scan_table,
        positions,
        np.empty((3, width), dtype=np.float64),
        out,
    )
    return out


def top_k(
    metric: Metric, query: npt.NDArray[np.float32], blocks: VectorBlocks, positions: npt.ArrayLike, k: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the best k of the rows at `positions`: `scan_numpy.top_k`, compiled, with the same bits."""
    checked = blocks.checked_positions(positions)
    return best_first(checked, canonical_at(metric, query, blocks, checked).astype(np.float32), k)
