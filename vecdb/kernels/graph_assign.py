"""The nearest leaders of rows: how rows are divided among the cells of a partition.

Ladder: `nearest_leaders` (kernel, rows against panels of leaders) <- `vecdb.indexes.graph_partition`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import types

from vecdb.kernels import reference
from vecdb.kernels._jit import helper, kernel, read, write
from vecdb.kernels._lookup import offer_nearer
from vecdb.kernels._rows import load_row
from vecdb.kernels._tiles import TILE_COLUMNS, TILE_ROWS, tile_products

__all__ = ["TILE_COLUMNS", "TILE_ROWS", "nearest_leaders"]

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]


@helper
def _values(products: F32, halves: F32, limit: np.float32, out: F32) -> int:
    """Write what orders leaders for a row; return how many are below the limit."""
    close = np.int32(0)
    for place in range(TILE_COLUMNS):  # a fixed number lets it be vectorised
        value = halves[place] - products[place]
        out[place] = value
        close += np.int32(value < limit)
    return int(close)


@helper
def _offer_panel(panel: int, values: F32, limit: np.float32, best: F32, places: I32) -> None:
    """Offer the leaders of a panel to a row."""
    for column in range(TILE_COLUMNS):
        if values[column] < limit:
            limit = offer_nearer(best, places, values[column], panel * TILE_COLUMNS + column)


@helper
def _load(form: I64, addresses: I64, factors: F32, rows: I32, centre: F32, block: F32) -> None:
    """Write rows, moved by the centre, to the first rows of a block."""
    for place in range(rows.shape[0]):
        row = block[place]
        load_row(form, addresses, factors, rows[place], row)
        for axis in range(row.shape[0]):
            row[axis] -= centre[axis]


@kernel(
    (
        read(types.int64),
        read(types.int64),
        read(types.float32, 2),
        read(types.int32),
        read(types.float32, 3),
        read(types.float32),
        read(types.float32, 2),
        write(types.float32, 2),
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
    best: F32,
    found: I32,
) -> None:
    """Write the nearest leaders of each row, nearest first: found (r, f), f at most the number of leaders.

    form (2,), addresses (n,), factors (n, 2): see `_rows.load_row`; rows (r,), positions; leaders (P, wide,
    TILE_COLUMNS), one a column, moved by centre (wide,); halves (P, TILE_COLUMNS), half their squared lengths, infinite
    where there is none. Scratch: block (B, wide), B a multiple of
    TILE_ROWS, tile (TILE_ROWS + 1, TILE_COLUMNS), best (B, f).
    """
    wide, step, values = block.shape[1], block.shape[0], tile[TILE_ROWS]
    for first in range(0, rows.shape[0], step):
        inside = rows[first : first + step]
        _load(form, addresses, factors, inside, centre, block)
        best[:] = np.float32(np.inf)
        for panel in range(leaders.shape[0]):
            columns = leaders.ctypes.data + panel * wide * TILE_COLUMNS * 4
            for upper in range(0, inside.shape[0], TILE_ROWS):
                tile_products(block.ctypes.data + upper * wide * 4, wide * 4, columns, wide, tile.ctypes.data)
                for place in range(upper, min(upper + TILE_ROWS, inside.shape[0])):
                    limit = best[place, best.shape[1] - 1]
                    if _values(tile[place - upper], halves[panel], limit, values):
                        _offer_panel(panel, values, limit, best[place], found[first + place])
