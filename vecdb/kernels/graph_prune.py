"""Robust pruning: which of a row's candidates become its neighbours.

Ladder: `prune_rows` (kernel) <- `vecdb.indexes.graph_build` and `graph_link`. A candidate is dropped if a neighbour
chosen before it, hence nearer, is closer to it by the factor alpha than the row itself is (Subramanya et al.,
"DiskANN", NeurIPS 2019, algorithm 2): what is left leads in many directions. Free places are then given to the nearest
that were dropped, as row r or, marked, as -2 - r.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import types

from vecdb.kernels import reference
from vecdb.kernels._jit import helper, kernel, read, write
from vecdb.kernels._lookup import insert_key
from vecdb.kernels._rows import AHEAD, fetch_row, load_row, square_distance

__all__ = ["prune_rows"]

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

_LOW = np.uint64(0xFFFFFFFF)


@helper
def _sort(keys: U64) -> None:
    """Sort keys, the smallest first (Shell's sort with Ciura's gaps: candidates are few)."""
    count = keys.shape[0]
    for gap in (4193, 1861, 829, 373, 163, 57, 23, 10, 4, 1):
        for start in range(gap, count):
            entry, place = keys[start], start
            while place >= gap and keys[place - gap] > entry:
                keys[place] = keys[place - gap]
                place -= gap
            keys[place] = entry


@helper
def _place_of(row: np.int32, table: I32) -> int:
    """Return where a row is in a table with room, or where it would be (Fibonacci hashing, the next that is free)."""
    most = table.shape[0] - 1
    place = ((np.int64(row) * np.int64(0x9E3779B1)) >> np.int64(16)) & most
    while table[place] >= 0 and table[place] != row:
        place = (place + 1) & most
    return int(place)


@helper
def _distinct(listed: I32, target: int | np.int64, addresses: I64, keys: U64, seen: I32) -> int:
    """Write the listed rows to keys, each once, in their order, without the target and those that are gone."""
    size = 16
    while size < 2 * listed.shape[0]:
        size *= 2
    table = seen[:size]
    table[:] = np.int32(-1)
    held = 0
    for place in range(listed.shape[0]):
        row = listed[place] if listed[place] >= -1 else -2 - listed[place]
        if row >= 0 and row != target and addresses[row]:
            spot = _place_of(row, table)
            if table[spot] < 0:
                table[spot] = row
                keys[held] = np.uint64(row)
                held += 1
    return held


@helper
def _measured(distance: np.float32, low: int | np.int64) -> np.uint64:
    """Return a number that orders by distance, and by `low` where distances are equal."""
    return np.uint64((np.uint64(np.float32(distance).view(np.uint32)) << np.uint64(32)) | np.uint64(low))


@helper
def _keep_nearest(form: I64, addresses: I64, factors: F32, keys: U64, target: F32, row: F32, most: int) -> int:
    """Cut rows down to the `most` nearest, in their order: more than there is room for in a block."""
    for place in range(keys.shape[0]):
        load_row(form, addresses, factors, np.int64(keys[place]), row)
        keys[place] = _measured(square_distance(target, row), np.int64(keys[place]))
    _sort(keys)
    for place in range(most):
        keys[place] &= _LOW
    return most


@helper
def _rank(form: I64, addresses: I64, factors: F32, keys: U64, rows: I32, block: F32) -> None:
    """Load candidates into a block and sort them by their distance from its first row.

    Before: keys hold rows. After: the squared distance and the place p of a candidate, which is row ``rows[p]`` and
    lies in ``block[p + 1]``.
    """
    for place in range(min(AHEAD, keys.shape[0])):
        fetch_row(form, addresses, np.int64(keys[place]))
    for place in range(keys.shape[0]):
        rows[place] = np.int32(keys[place])
        if place + AHEAD < keys.shape[0]:
            fetch_row(form, addresses, np.int64(keys[place + AHEAD]))
        load_row(form, addresses, factors, rows[place], block[place + 1])
        insert_key(keys[: place + 1], _measured(square_distance(block[0], block[place + 1]), place))


@helper
def _choose(keys: U64, block: F32, alpha: np.float32, most: int, chosen: I32) -> int:
    """Write the ranks of the candidates that no nearer chosen one makes needless; return how many."""
    held = 0
    for rank in range(keys.shape[0]):
        distance = np.float32(np.uint32(keys[rank] >> np.uint64(32)).view(np.float32))
        row = block[np.int64(keys[rank] & _LOW) + 1]
        needed = True
        for other in range(held):
            rival = block[np.int64(keys[chosen[other]] & _LOW) + 1]
            if alpha * square_distance(rival, row) <= distance:
                needed = False
                break
        if needed:
            chosen[held] = rank
            held += 1
            if held == most:
                break
    return held


@helper
def _write_down(keys: U64, rows: I32, chosen: I32, mark: bool, out: I32) -> None:
    """Write the chosen candidates and the nearest others, nearest first, the others marked if wanted; then -1."""
    held = chosen.shape[0]
    spare = out.shape[0] - held
    met = written = 0
    for rank in range(keys.shape[0]):
        row = rows[np.int64(keys[rank] & _LOW)]
        if met < held and chosen[met] == rank:
            met += 1
        elif spare > 0:
            spare -= 1
            if mark:
                row = -2 - row
        else:
            continue
        out[written] = row
        written += 1
    out[written:] = -1


@kernel(
    (
        read(types.int64),
        read(types.int64),
        read(types.float32, 2),
        read(types.int32),
        read(types.int64),
        read(types.int32),
        types.float32,
        types.boolean,
        write(types.float32, 2),
        write(types.uint64),
        write(types.int32),
        write(types.int32, 2),
    ),
    twin=reference.prune_rows,
)
def prune_rows(
    form: I64,
    addresses: I64,
    factors: F32,
    targets: I32,
    starts: I64,
    candidates: I32,
    alpha: np.float32,
    mark: bool,
    block: F32,
    keys: U64,
    numbers: I32,
    out: I32,
) -> None:
    """Write the neighbours of each target, nearest first, -1 behind the last: out (t, R).

    form (2,), addresses (n,), factors (n, 2): see `_rows.load_row`; targets (t,); those of target i are
    candidates (c,) from starts[i] on, starts (t + 1,), in any order, repeated, marked or not, -1 for none; alpha, the
    square of the factor. Scratch: block (B + 1, wide), of whose B nearest candidates the neighbours are chosen;
    keys (k,), k at least the longest list; numbers (B + R + s,), s at least 16 and four times the longest list.
    Equal distances: the row that is listed first.
    """
    room, most = block.shape[0] - 1, out.shape[1]
    rows, chosen, seen = numbers[:room], numbers[room : room + most], numbers[room + most :]
    for place in range(targets.shape[0]):
        target = np.int64(targets[place])
        load_row(form, addresses, factors, target, block[0])
        held = _distinct(candidates[starts[place] : starts[place + 1]], target, addresses, keys, seen)
        if held > room:
            held = _keep_nearest(form, addresses, factors, keys[:held], block[0], block[1], room)
        near = keys[:held]
        _rank(form, addresses, factors, near, rows, block)
        taken = _choose(near, block, alpha, most, chosen)
        _write_down(near, rows, chosen[:taken], mark, out[place])
