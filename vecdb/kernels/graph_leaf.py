"""The nearest rows of each row within a leaf, from blocked products of its rows.

Ladder: `leaf_neighbours` (kernel, one pass over the lower triangle of each leaf's products) <- the pass over leaves in
`vecdb.indexes.graph_candidates`. Four rows at a time are multiplied with all before them, and every product is offered
to both of its rows, so that half of the products are never computed. A leaf is moved to its own mean first: tight
clusters far from the origin keep their digits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import types

from vecdb.kernels import reference
from vecdb.kernels._jit import helper, kernel, read, write
from vecdb.kernels._rows import load_row

__all__ = ["leaf_neighbours"]

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

_STRIP = 32
"""Distances compared with the limits of their rows at once."""


@helper
def _load_leaf(form: I64, addresses: I64, factors: F32, members: I32, block: F32, mean: F32) -> None:
    """Write the members' rows, less their mean, to the first rows of the block, and zeros to three rows behind."""
    count, wide = members.shape[0], block.shape[1]
    mean[:wide] = np.float32(0.0)
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
    for place in range(count, (count + 3) // 4 * 4):
        block[place] = np.float32(0.0)


@helper
def _transpose(block: F32, count: int, panel: F32) -> None:
    """Write the first `count` rows of the block as columns, sixteen rows at a time."""
    for first in range(0, count, 16):
        last = min(first + 16, count)
        for axis in range(block.shape[1]):
            column = panel[axis]
            for place in range(first, last):
                column[place] = block[place, axis]


@helper
def _add_products(rows: F32, axis: int, panel: F32, one: F32, two: F32, three: F32, four: F32) -> None:
    """Add the products of four rows with all columns along four axes."""
    first, second, third, fourth = panel[0], panel[1], panel[2], panel[3]
    a0, a1, a2, a3 = rows[0, axis], rows[0, axis + 1], rows[0, axis + 2], rows[0, axis + 3]
    b0, b1, b2, b3 = rows[1, axis], rows[1, axis + 1], rows[1, axis + 2], rows[1, axis + 3]
    c0, c1, c2, c3 = rows[2, axis], rows[2, axis + 1], rows[2, axis + 2], rows[2, axis + 3]
    d0, d1, d2, d3 = rows[3, axis], rows[3, axis + 1], rows[3, axis + 2], rows[3, axis + 3]
    for place in range(one.shape[0]):
        p, q, r, s = first[place], second[place], third[place], fourth[place]
        one[place] += a0 * p + a1 * q + a2 * r + a3 * s
        two[place] += b0 * p + b1 * q + b2 * r + b3 * s
        three[place] += c0 * p + c1 * q + c2 * r + c3 * s
        four[place] += d0 * p + d1 * q + d2 * r + d3 * s


@helper
def _strip_distances(products: F32, norms: F32, limits: F32, norm: np.float32, limit: np.float32, out: F32) -> int:
    """Write a strip's squared distances; return how many are below the limit of either of their rows."""
    close = np.int32(0)
    for place in range(_STRIP):  # a fixed number lets it be vectorised
        value = norm + norms[place] - np.float32(2.0) * products[place]
        out[place] = value
        close += np.int32((value < limit) | (value < limits[place]))
    return int(close)


@helper
def _offer(distances: F32, picks: I32, distance: np.float32, pick: int) -> np.float32:
    """Put a neighbour into a list sorted by distance, full of infinities at first; return the new limit."""
    place = distances.shape[0] - 1
    while place > 0 and distances[place - 1] > distance:
        distances[place] = distances[place - 1]
        picks[place] = picks[place - 1]
        place -= 1
    distances[place] = distance
    picks[place] = pick
    return np.float32(distances[distances.shape[0] - 1])


@helper
def _offer_row(
    row: int, products: F32, members: I32, norms: F32, limits: F32, found: F32, distances: F32, picks: I32
) -> None:
    """Offer a row to all before it, and them to it."""
    norm = norms[row]
    for first in range(0, row, _STRIP):
        stop = first + _STRIP
        if not _strip_distances(products[first:stop], norms[first:stop], limits[first:stop], norm, limits[row], found):
            continue
        for place in range(first, min(stop, row)):
            distance = found[place - first]
            if members[place] == members[row]:
                continue  # a leaf made of several small ones may name a row twice
            if distance < limits[row]:
                limits[row] = _offer(distances[row], picks[row], distance, place)
            if distance < limits[place]:
                limits[place] = _offer(distances[place], picks[place], distance, row)


@helper
def _link_leaf(members: I32, block: F32, panel: F32, tile: F32, distances: F32, picks: I32) -> None:
    """Find the nearest of each row; tile (8, Lmax): four rows of products, norms, limits, a strip."""
    count, wide = members.shape[0], block.shape[1]
    norms, limits, found = tile[4], tile[5], tile[6]
    for place in range(count):
        total = np.float32(0.0)
        row = block[place]
        for axis in range(wide):
            total += row[axis] * row[axis]
        norms[place] = total
        limits[place] = np.float32(np.inf)
        distances[place] = np.float32(np.inf)
        picks[place] = -1
    for first in range(0, count, 4):
        rows, width = block[first : first + 4], first + 4
        one, two, three, four = tile[0][:width], tile[1][:width], tile[2][:width], tile[3][:width]
        one[:] = np.float32(0.0)
        two[:] = np.float32(0.0)
        three[:] = np.float32(0.0)
        four[:] = np.float32(0.0)
        for axis in range(0, wide, 4):
            _add_products(rows, axis, panel[axis : axis + 4, :], one, two, three, four)
        for row in range(first, min(first + 4, count)):
            _offer_row(row, tile[row - first], members, norms, limits, found, distances, picks)


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
        write(types.int32, 2),
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
    distances: F32,
    picks: I32,
    candidates: I32,
) -> None:
    """Write the nearest rows of each member within its leaf, nearest first, -1 behind the last.

    form (2,), addresses (n,), factors (n, 2): see `_rows.load_row`; leaf l holds members (m,) from starts[l] on,
    starts (leaves + 1,); homes (m,): which row of candidates (h, K) takes what a member found.
    Scratch for leaves of up to L rows, L a multiple of 32: block (L, wide), panel (wide, L), tile (8, max(L, wide)),
    distances (L, K), picks (L, K). Equal distances: whichever was met first. The caller has proven all positions.
    """
    most = picks.shape[1]
    for leaf in range(starts.shape[0] - 1):
        inside = members[starts[leaf] : starts[leaf + 1]]
        _load_leaf(form, addresses, factors, inside, block, tile[7])
        _transpose(block, (inside.shape[0] + 3) // 4 * 4, panel)
        _link_leaf(inside, block, panel, tile, distances, picks)
        for place in range(inside.shape[0]):
            chosen = candidates[homes[starts[leaf] + place]]
            for rank in range(most):
                pick = picks[place, rank]
                chosen[rank] = inside[pick] if pick >= 0 else -1
