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
from vecdb.kernels._jit import helper, kernel, read, write
from vecdb.kernels._lookup import offer_nearer
from vecdb.kernels._rows import load_row
from vecdb.kernels._tiles import TILE_COLUMNS, TILE_ROWS, tile_products

__all__ = ["TILE_COLUMNS", "TILE_ROWS", "leaf_neighbours"]

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]


@helper
def _load_leaf(form: I64, addresses: I64, factors: F32, members: I32, block: F32, mean: F32) -> None:
    """Write the members' rows, less their mean, and fill up to a whole panel with zeros."""
    count, wide = members.shape[0], block.shape[1]
    mean[:] = np.float32(0.0)
    for place in range(count):
        row = block[place]
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
def _distances(products: F32, norms: F32, limits: F32, norm: np.float32, limit: np.float32, out: F32) -> int:
    """Write a row of a tile as squared distances; return how many are below the limit of either of their rows."""
    close = np.int32(0)
    for place in range(TILE_COLUMNS):  # a fixed number lets it be vectorised
        value = norm + norms[place] - np.float32(2.0) * products[place]
        out[place] = value
        close += np.int32((value < limit) | (value < limits[place]))
    return int(close)


@helper
def _offer_row(
    row: int, first: int, found: F32, members: I32, homes: I32, limits: F32, distances: F32, candidates: I32
) -> None:
    """Offer a row to those before it in the panel that begins at `first`, and them to it."""
    for place in range(first, min(first + TILE_COLUMNS, row)):
        distance = found[place - first]
        if members[place] == members[row]:
            continue  # a leaf made of several small ones may name a row twice
        if distance < limits[row]:
            limits[row] = offer_nearer(distances[row], candidates[homes[row]], distance, members[place])
        if distance < limits[place]:
            limits[place] = offer_nearer(distances[place], candidates[homes[place]], distance, members[row])


@helper
def _measure(block: F32, count: int, norms: F32) -> None:
    """Write the squared lengths of the first rows of a block."""
    for place in range(count):
        row, total = block[place], np.float32(0.0)
        for axis in range(row.shape[0]):
            total += row[axis] * row[axis]
        norms[place] = total


@helper
def _link_leaf(
    members: I32, homes: I32, block: F32, panel: F32, tile: F32, measures: F32, distances: F32, candidates: I32
) -> None:
    """Find the nearest of each row of a leaf; arrays as in `leaf_neighbours`."""
    count, wide = members.shape[0], block.shape[1]
    norms, limits, found = measures[0], measures[1], tile[TILE_ROWS]
    _measure(block, count, norms)
    limits[:] = np.float32(np.inf)
    distances[:count] = np.float32(np.inf)
    for place in range(count):
        candidates[homes[place]] = -1
    for first in range(0, count, TILE_COLUMNS):
        stop = first + TILE_COLUMNS
        _fill_panel(block[first:stop], panel)
        for upper in range(first, count, TILE_ROWS):
            start = block.ctypes.data + upper * wide * 4
            tile_products(start, wide * 4, panel.ctypes.data, wide, tile.ctypes.data)
            for row in range(upper, min(upper + TILE_ROWS, count)):
                near, limit = limits[first:stop], limits[row]
                if _distances(tile[row - upper], norms[first:stop], near, norms[row], limit, found):
                    _offer_row(row, first, found, members, homes, limits, distances, candidates)


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
        write(types.float32, 2),
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
    distances: F32,
    candidates: I32,
) -> None:
    """Write the nearest rows of each member within its leaf, nearest first, -1 behind the last.

    form (2,), addresses (n,), factors (n, 2): see `_rows.load_row`; leaf l holds members (m,) from starts[l] on,
    starts (leaves + 1,); homes (m,): which row of candidates (h, K) takes what a member found.
    Scratch for leaves of up to L rows, L a multiple of TILE_COLUMNS: block (L, wide), panel (wide, TILE_COLUMNS),
    tile (TILE_ROWS + 1, TILE_COLUMNS), measures (3, max(L, wide)), distances (L, K). Equal distances: whichever was
    met first. The caller has proven all positions.
    """
    for leaf in range(starts.shape[0] - 1):
        inside = members[starts[leaf] : starts[leaf + 1]]
        places = homes[starts[leaf] : starts[leaf + 1]]
        _load_leaf(form, addresses, factors, inside, block, measures[2])
        _link_leaf(inside, places, block, panel, tile, measures, distances, candidates)
