"""Robust pruning: which of a row's candidates become its neighbours.

Ladder: `prune_rows` (kernel) <- `vecdb.indexes.graph_build` and `graph_link`. A candidate is dropped if a neighbour
chosen before it, hence nearer, is closer to it by the factor alpha than the row itself is (Subramanya et al.,
"DiskANN", NeurIPS 2019, algorithm 2): what is left leads in many directions. Free places are then given to the nearest
that were dropped.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import types

from vecdb.kernels import reference
from vecdb.kernels._jit import helper, kernel, read, write
from vecdb.kernels._rows import load_row, square_distance

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
def _distinct(listed: I32, target: int | np.int64, addresses: I64, keys: U64) -> int:
    """Write the listed rows to keys, each once and ascending, without the target and those that are gone."""
    held = 0
    for place in range(listed.shape[0]):
        row = listed[place]
        if row >= 0 and row != target and addresses[row]:
            keys[held] = np.uint64(row)
            held += 1
    _sort(keys[:held])
    kept = 0
    for place in range(held):
        if place == 0 or keys[place] != keys[place - 1]:
            keys[kept] = keys[place]
            kept += 1
    return kept


@helper
def _rank(form: I64, addresses: I64, factors: F32, target: int | np.int64, keys: U64, block: F32) -> int:
    """Sort candidates by their distance from the target, and load the nearest; return how many.

    Before: keys hold rows ascending. After: (bits of the squared distance << 32 | row), row r of the sorted keys
    lies in ``block[r + 1]``, and the target in ``block[0]``.
    """
    load_row(form, addresses, factors, target, block[0])
    for place in range(keys.shape[0]):
        row = np.int64(keys[place])
        load_row(form, addresses, factors, row, block[1])
        distance = square_distance(block[0], block[1])
        keys[place] = (np.uint64(np.float32(distance).view(np.uint32)) << np.uint64(32)) | np.uint64(row)
    _sort(keys)
    count = min(keys.shape[0], block.shape[0] - 1)
    for place in range(count):
        load_row(form, addresses, factors, np.int64(keys[place] & _LOW), block[place + 1])
    return int(count)


@helper
def _distance_of(key: np.uint64) -> np.float32:
    return np.float32(np.uint32(key >> np.uint64(32)).view(np.float32))


@helper
def _choose(keys: U64, block: F32, alpha: np.float32, most: int, chosen: I32) -> int:
    """Write the places of the candidates that no nearer chosen one makes needless; return how many."""
    held = 0
    for place in range(keys.shape[0]):
        distance, row = _distance_of(keys[place]), block[place + 1]
        needed = True
        for other in range(held):
            if alpha * square_distance(block[chosen[other] + 1], row) <= distance:
                needed = False
                break
        if needed:
            chosen[held] = place
            held += 1
            if held == most:
                break
    return held


@helper
def _write_down(keys: U64, chosen: I32, held: int, fill: bool, out: I32) -> None:
    """Write the chosen candidates, and the nearest others if places are to be filled, nearest first; then -1."""
    spare = out.shape[0] - held if fill else 0
    rank = written = 0
    for place in range(keys.shape[0]):
        if rank < held and chosen[rank] == place:
            rank += 1
        elif spare > 0:
            spare -= 1
        else:
            continue
        out[written] = np.int32(keys[place] & _LOW)
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
    fill: bool,
    block: F32,
    keys: U64,
    chosen: I32,
    out: I32,
) -> None:
    """Write the neighbours of each target, nearest first, -1 behind the last: out (t, R).

    form (2,), addresses (n,), factors (n, 2): see `_rows.load_row`; targets (t,); those of target i are
    candidates (c,) from starts[i] on, starts (t + 1,), in any order, repeated or not, -1 for none; alpha, the square
    of the factor. Scratch: block (B + 1, wide), of whose B nearest candidates the neighbours are chosen; keys (k,), k
    at least the longest list; chosen (R,). Equal distances: the lower row first.
    """
    for place in range(targets.shape[0]):
        target = np.int64(targets[place])
        listed = candidates[starts[place] : starts[place + 1]]
        held = _distinct(listed, target, addresses, keys)
        count = _rank(form, addresses, factors, target, keys[:held], block)
        near = keys[:count]
        taken = _choose(near, block, alpha, out.shape[1], chosen)
        _write_down(near, chosen, taken, fill, out[place])
