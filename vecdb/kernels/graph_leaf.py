"""The nearest rows of each row within a leaf, from blocked products of its rows.

Ladder: `leaf_neighbours` (kernel, one pass over the lower triangle of each leaf's products) <- the pass over leaves in
`vecdb.indexes.graph_lists`. A tile of rows is multiplied with a panel of rows before them, and every product is offered
to both of its rows, so that half of the products are never computed. A leaf is moved to its own mean first: tight
clusters far from the origin keep their digits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import types

from vecdb.kernels import reference
from vecdb.kernels._intrinsics import first_bit
from vecdb.kernels._jit import helper, kernel, read, write
from vecdb.kernels._lookup import insert_key
from vecdb.kernels._rows import AHEAD, fetch_row, load_row
from vecdb.kernels._tiles import TILE_COLUMNS, TILE_ROWS, close_ones, tile_products

__all__ = ["TILE_COLUMNS", "TILE_ROWS", "leaf_neighbours"]

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

_NOBODY = np.uint64(0x7F800000FFFFFFFF)
"""The key of an infinite distance."""
_LOW = np.uint64(0xFFFFFFFF)


@helper
def _load_leaf(form: I64, addresses: I64, factors: F32, members: I32, block: F32, mean: F32) -> None:
    """Write the members' rows, less their mean, and fill up to a whole panel with zeros."""
    count, wide = members.shape[0], block.shape[1]
    mean[:] = np.float32(0.0)
    for place in range(count):
        row = block[place]
        if place + AHEAD < count:
            fetch_row(form, addresses, members[place + AHEAD])
        load_row(form, addresses, factors, members[place], row)
        for axis in range(wide):
            mean[axis] += row[axis]
    share = np.float32(1.0) / np.float32(count)
    for place in range(count):
        row = block[place]
        for axis in range(wide):
            row[axis] -= mean[axis] * share
    whole = (count + TILE_COLUMNS - 1) // TILE_COLUMNS * TILE_COLUMNS
    for place in range(count, whole):
        block[place] = np.float32(0.0)


@helper
def _fill_panel(block: F32, panel: F32) -> None:
    """Write TILE_COLUMNS rows of a block as the columns of a panel."""
    for axis in range(panel.shape[0]):
        column = panel[axis]
        for place in range(TILE_COLUMNS):
            column[place] = block[place, axis]


@helper
def _offer(keys: U64, distance: np.float32, row: np.int32) -> np.float32:
    """Put a row into a full list of keys for the last, which is larger; return the new largest distance."""
    bits = np.uint64(np.float32(max(distance, np.float32(0.0))).view(np.uint32))
    insert_key(keys, np.uint64((bits << np.uint64(32)) | np.uint64(row)))
    return np.float32(np.uint32(keys[keys.shape[0] - 1] >> np.uint64(32)).view(np.float32))


@helper
def _offer_row(row: int, first: int, close: np.uint64, found: F32, members: I32, limits: F32, keys: U64) -> None:
    """Offer a row to those before it in the panel that begins at `first` and are close, and them to it."""
    if row - first < TILE_COLUMNS:
        close &= (np.uint64(1) << np.uint64(row - first)) - np.uint64(1)
    while close:
        place = first + first_bit(close)
        close &= close - np.uint64(1)
        distance = found[place - first]
        if members[place] == members[row]:
            continue  # a leaf made of several small ones may name a row twice
        if distance < limits[row]:
            limits[row] = _offer(keys[row], distance, members[place])
        if distance < limits[place]:
            limits[place] = _offer(keys[place], distance, members[row])


@helper
def _write_down(homes: I32, keys: U64, candidates: I32) -> None:
    """Write what each row of a leaf found, nearest first, -1 behind the last."""
    for place in range(homes.shape[0]):
        found, out = keys[place], candidates[homes[place]]
        for rank in range(found.shape[0]):
            out[rank] = np.int32(found[rank] & _LOW) if found[rank] < _NOBODY else np.int32(-1)


@helper
def _measure(block: F32, count: int, norms: F32) -> None:
    """Write the squared lengths of the first rows of a block."""
    for place in range(count):
        row, total = block[place], np.float32(0.0)
        for axis in range(row.shape[0]):
            total += row[axis] * row[axis]
        norms[place] = total


@helper
def _link_leaf(members: I32, block: F32, panel: F32, tile: F32, measures: F32, keys: U64) -> None:
    """Find the nearest of each row of a leaf; arrays as in `leaf_neighbours`."""
    count, wide = members.shape[0], block.shape[1]
    norms, limits, found = measures[0], measures[1], tile[TILE_ROWS]
    _measure(block, count, norms)
    limits[:] = np.float32(np.inf)
    keys[:count] = _NOBODY
    for first in range(0, count, TILE_COLUMNS):
        _fill_panel(block[first : first + TILE_COLUMNS], panel)
        near, close = norms.ctypes.data + 4 * first, limits.ctypes.data + 4 * first
        for upper in range(first, count, TILE_ROWS):
            start = block.ctypes.data + upper * wide * 4
            tile_products(start, wide * 4, panel.ctypes.data, wide, tile.ctypes.data)
            for row in range(upper, min(upper + TILE_ROWS, count)):
                products = tile.ctypes.data + 4 * TILE_COLUMNS * (row - upper)
                mask = close_ones(products, near, close, norms[row], limits[row], found.ctypes.data)
                if mask:
                    _offer_row(row, first, mask, found, members, limits, keys)


@kernel(
    (
        read(types.int64),
        read(types.int64),
        read(types.float32, 2),
        read(types.int32),
        read(types.int32),
        read(types.int64),
        write(types.float32, 2),
        write(types.float32, 2),
        write(types.float32, 2),
        write(types.float32, 2),
        write(types.uint64, 2),
        write(types.int32, 2),
    ),
    twin=reference.leaf_neighbours,
)
def leaf_neighbours(
    form: I64,
    addresses: I64,
    factors: F32,
    members: I32,
    homes: I32,
    starts: I64,
    block: F32,
    panel: F32,
    tile: F32,
    measures: F32,
    keys: U64,
    candidates: I32,
) -> None:
    """Write the nearest rows of each member within its leaf, nearest first, -1 behind the last.

    form (2,), addresses (n,), factors (n, 2): see `_rows.load_row`; leaf l holds members (m,) from starts[l] on,
    starts (leaves + 1,); homes (m,): which row of candidates (h, K) takes what a member found.
    Scratch for leaves of up to L rows, L a multiple of TILE_COLUMNS: block (L, wide), panel (wide, TILE_COLUMNS),
    tile (TILE_ROWS + 1, TILE_COLUMNS), measures (3, max(L, wide)), keys (L, K). Equal distances: the lower row first.
    The caller has proven all positions.
    """
    for leaf in range(starts.shape[0] - 1):
        inside = members[starts[leaf] : starts[leaf + 1]]
        places = homes[starts[leaf] : starts[leaf + 1]]
        _load_leaf(form, addresses, factors, inside, block, measures[2])
        _link_leaf(inside, block, panel, tile, measures, keys)
        _write_down(places, keys, candidates)
