"""Whether every row can be reached: breadth-first spreading, reverse lists, and room for a new edge.

Ladder: `spread`, `reverse_lists`, `walk` and `insert_edge` (kernels) <- `vecdb.indexes.graph_reach` and `graph_build`.
The parents of a breadth-first tree are kept, so that an edge can be given up knowingly: one that is not of the tree
cuts nothing off.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import types

from vecdb.kernels import reference
from vecdb.kernels._jit import helper, kernel, read, write
from vecdb.kernels._rows import load_row, square_distance

__all__ = ["insert_edge", "reverse_lists", "spread", "walk"]

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]

_UNREACHED = -2
_LOW = np.uint64(0x7FFFFFFF)
_ONE = np.uint64(1)


@kernel((read(types.int32, 2), write(types.int32), write(types.int32), types.int64), twin=reference.spread)
def spread(neighbours: I32, parents: I32, queue: I32, held: int) -> int:
    """Reach whatever the first `held` rows of the queue lead to; return how many rows the queue then holds.

    neighbours (n, R), -1 behind the last; parents (n,), -2 where a row is not reached yet, and that is set to where it
    is reached from; queue (n,), of which the rows held are reached already.
    """
    head = 0
    while head < held:
        row = queue[head]
        head += 1
        listed = neighbours[row]
        for place in range(listed.shape[0]):
            other = listed[place]
            if other < 0:
                break
            if parents[other] == _UNREACHED:
                parents[other] = row
                queue[held] = other
                held += 1
    return held


@kernel((read(types.int32, 2), read(types.int32), write(types.int64), write(types.int32)), twin=reference.reverse_lists)
def reverse_lists(neighbours: I32, rows: I32, cursors: I64, sources: I32) -> None:
    """Write who names each row: neighbours (t, R) of rows (t,), negative for none; sources (edges,).

    cursors (n,) say where the list of each row begins, and afterwards where it ends.
    """
    for place in range(rows.shape[0]):
        listed = neighbours[place]
        for rank in range(listed.shape[0]):
            other = listed[rank]
            if other < 0:
                continue
            sources[cursors[other]] = rows[place]
            cursors[other] += 1


@helper
def _offer(pool: U64, held: int, key: np.uint64) -> int:
    """Put a key into a sorted pool, dropping the largest from a full one; return how many it holds."""
    if held == pool.shape[0]:
        if key >= pool[held - 1]:
            return held
        held -= 1
    place = held
    while place > 0 and pool[place - 1] > key:
        pool[place] = pool[place - 1]
        place -= 1
    pool[place] = key
    return held + 1


@helper
def _key(distance: np.float32, row: int | np.int64) -> np.uint64:
    bits = np.uint64(np.float32(distance).view(np.uint32))
    return np.uint64((bits << np.uint64(32)) | (np.uint64(row) << _ONE))


@kernel(
    (
        read(types.int64),
        read(types.int64),
        read(types.float32, 2),
        read(types.int32, 2),
        read(types.int32),
        read(types.int32),
        write(types.uint32),
        write(types.uint64),
        write(types.float32, 2),
        write(types.int32, 2),
    ),
    twin=reference.walk,
)
def walk(
    form: I64,
    addresses: I64,
    factors: F32,
    neighbours: I32,
    entries: I32,
    targets: I32,
    stamps: U32,
    pool: U64,
    block: F32,
    found: I32,
) -> None:
    """Write the rows near each target that a best-first search by exact distances meets, nearest first, then -1.

    form (2,), addresses (n,), factors (n, 2): see `_rows.load_row`; neighbours (n, R); entries (e,); targets (t,).
    Scratch: stamps (n,), all zero at first, pool (effort,), block (2, wide). Out: found (t, effort). Rows that are gone
    are led through last.
    """
    for number in range(targets.shape[0]):
        load_row(form, addresses, factors, np.int64(targets[number]), block[0])
        stamp = np.uint32(number + 1)
        held = 0
        listed = entries
        looking = True
        while looking:
            for place in range(listed.shape[0]):
                row = np.int64(listed[place])
                if row < 0:
                    break
                if stamps[row] == stamp:
                    continue
                stamps[row] = stamp
                distance = np.float32(np.inf)
                if addresses[row]:
                    load_row(form, addresses, factors, row, block[1])
                    distance = square_distance(block[0], block[1])
                held = _offer(pool, held, _key(distance, row))
            looking = False
            for place in range(held):
                if not pool[place] & _ONE:
                    pool[place] |= _ONE
                    listed = neighbours[np.int64((pool[place] >> _ONE) & _LOW)]
                    looking = True
                    break
        for place in range(found.shape[1]):
            found[number, place] = np.int32((pool[place] >> _ONE) & _LOW) if place < held else -1


@helper
def _apart(
    form: I64, addresses: I64, factors: F32, left: int | np.int64, right: int | np.int64, block: F32
) -> np.float32:
    """The squared distance of two rows; infinite if one is gone."""
    if not addresses[left] or not addresses[right]:
        return np.float32(np.inf)
    load_row(form, addresses, factors, left, block[0])
    load_row(form, addresses, factors, right, block[1])
    return np.float32(square_distance(block[0], block[1]))


@helper
def _free_place(listed: I32, parents: I32, host: int) -> int:
    """Return the first free place of a list; in a full one give up the farthest that is no child; -1 if all are."""
    last = listed.shape[0] - 1
    if listed[last] < 0:
        while last > 0 and listed[last - 1] < 0:
            last -= 1
        return int(last)
    given_up = last
    while given_up >= 0 and parents[listed[given_up]] == host:
        given_up -= 1
    if given_up < 0:
        return -1
    for place in range(given_up, last):
        listed[place] = listed[place + 1]
    return int(last)


@kernel(
    (
        read(types.int64),
        read(types.int64),
        read(types.float32, 2),
        write(types.int32, 2),
        read(types.int32),
        types.int64,
        types.int64,
        write(types.float32, 2),
    ),
    twin=reference.insert_edge,
)
def insert_edge(
    form: I64, addresses: I64, factors: F32, neighbours: I32, parents: I32, host: int, row: int, block: F32
) -> bool:
    """Let `host` name `row`, in the order of distances; return whether it could.

    A full host gives up the farthest of its neighbours that is not its child in the tree; without one it cannot.
    form (2,), addresses (n,), factors (n, 2): see `_rows.load_row`; neighbours (n, R), changed; parents (n,) of the
    tree. Scratch: block (2, wide).
    """
    listed = neighbours[host]
    place = _free_place(listed, parents, host)
    if place < 0:
        return False
    distance = _apart(form, addresses, factors, host, row, block)
    while place > 0:
        before = np.int64(listed[place - 1])
        if _apart(form, addresses, factors, host, before, block) <= distance:
            break
        listed[place] = np.int32(before)
        place -= 1
    listed[place] = np.int32(row)
    return True
