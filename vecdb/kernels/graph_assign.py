"""The nearest leaders of rows: how rows are divided among the cells of a partition.

Ladder: `nearest_leaders` (kernel, four rows at a time against all leaders) <- `vecdb.indexes.graph_partition`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import types

from vecdb.kernels import reference
from vecdb.kernels._jit import helper, kernel, read, write
from vecdb.kernels._rows import load_row

__all__ = ["nearest_leaders"]

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]


@helper
def _products(rows: F32, leaders: F32, one: F32, two: F32, three: F32, four: F32) -> None:
    """Take the products of four rows with all leaders off what is there."""
    for axis in range(0, rows.shape[1], 2):
        first, second = leaders[axis], leaders[axis + 1]
        a0, a1, b0, b1 = rows[0, axis], rows[0, axis + 1], rows[1, axis], rows[1, axis + 1]
        c0, c1, d0, d1 = rows[2, axis], rows[2, axis + 1], rows[3, axis], rows[3, axis + 1]
        for place in range(one.shape[0]):
            p, q = first[place], second[place]
            one[place] -= a0 * p + a1 * q
            two[place] -= b0 * p + b1 * q
            three[place] -= c0 * p + c1 * q
            four[place] -= d0 * p + d1 * q


@helper
def _least(values: F32, out: I32) -> None:
    """Write the places of the smallest values, the smallest first, equal ones by place."""
    wanted = out.shape[0]
    held = 0
    for place in range(values.shape[0]):
        if held == wanted and values[place] >= values[out[held - 1]]:
            continue
        spot = held if held < wanted else wanted - 1
        while spot > 0 and values[out[spot - 1]] > values[place]:
            out[spot] = out[spot - 1]
            spot -= 1
        out[spot] = place
        held = min(held + 1, wanted)


@kernel(
    (
        read(types.int64),
        read(types.int64),
        read(types.float32, 2),
        read(types.int32),
        read(types.float32, 2),
        read(types.float32),
        read(types.float32),
        write(types.float32, 2),
        write(types.float32, 2),
        write(types.int32, 2),
    ),
    twin=reference.nearest_leaders,
)
def nearest_leaders(
    form: I64,
    addresses: I64,
    factors: F32,
    rows: I32,
    leaders: F32,
    centre: F32,
    halves: F32,
    block: F32,
    tile: F32,
    found: I32,
) -> None:
    """Write the nearest leaders of each row, nearest first: found (r, f), f at most m.

    form (2,), addresses (n,), factors (n, 2): see `_rows.load_row`; rows (r,), positions; leaders (wide, m), one a
    column, moved by centre (wide,); halves (m,), half their squared lengths. Scratch: block (4, wide), tile (4, m).
    """
    count, wide = rows.shape[0], block.shape[1]
    for first in range(0, count, 4):
        last = min(first + 4, count)
        for place in range(first, last):
            row = block[place - first]
            load_row(form, addresses, factors, rows[place], row)
            for axis in range(wide):
                row[axis] -= centre[axis]
        for place in range(4):
            tile[place, :] = halves
        _products(block, leaders, tile[0], tile[1], tile[2], tile[3])
        for place in range(first, last):
            _least(tile[place - first], found[place])
