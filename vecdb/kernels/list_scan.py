"""Scans of codes that lie list by list, compiled: the nearest lists of a query first, until enough rows were seen.

Ladder: `probe_lists` (kernel, whole lists through `_scan_list`) <- `nominate` (entry). Blocks of 32 rows go on from one
list to the next, so a list begins and ends anywhere in a block. Estimates and tables are those of
`vecdb.kernels.code_scan`; what is stored: `vecdb.indexes.lists`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import types

from vecdb.kernels import reference
from vecdb.kernels._intrinsics import table_sums, words_at
from vecdb.kernels._jit import helper, kernel, read, write
from vecdb.kernels._lookup import LEVELS, fill_table, score_key, score_of, select, sift_down, smallest, sort_down
from vecdb.kernels._scores import block_scores, lowest_bit
from vecdb.kernels.code_queries import Ready

__all__ = ["nominate", "probe_lists"]

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Keys = npt.NDArray[np.uint64]

_CHUNK = 256
"""Groups whose sums fit 16 bits."""
_WARM = 8
"""Lists that are looked at nearest first before all the others, so that few rows of these are held to be good."""
_ALL = np.empty(0, np.bool_)


@helper
def _block_sums(block: int, table: int, groups: int, sums: npt.NDArray[np.int32]) -> None:
    """Write the sums of the 32 rows of a block; sums (64,), of which the upper half is scratch."""
    address = sums.ctypes.data
    table_sums(block, table, min(groups, _CHUNK), address)
    for chunk in range(_CHUNK, groups, _CHUNK):
        table_sums(block + chunk * 16, table + chunk * 16, min(groups - chunk, _CHUNK), address + 128)
        for place in range(32):
            sums[place] += sums[32 + place]


@helper
def _fill_bases(first: int, chosen: int, starts: I64, bases: F32, out: F32) -> int:
    """Write the base of each of the 32 rows from row `first` on, of which one at least is of the chosen list.

    Returns the row up to which they stay the same; not behind these 32 rows where these are of several lists.
    """
    if starts[chosen] <= first and first + 32 <= starts[chosen + 1]:
        out[:] = bases[chosen]
        return int(starts[chosen + 1])
    number, place = chosen, 0
    while starts[number] > first:
        number -= 1
    while place < 32:
        end = min(starts[number + 1] - first, 32) if number + 1 < bases.shape[0] else 32
        out[place:end] = bases[number]
        place, number = max(place, end), number + 1
    return first


@helper
def _may(names: npt.NDArray[np.int32], count: int, allowed: Bools, out: Bools) -> int:
    """Write which rows of a block may be returned, known and allowed; return how many."""
    found = 0
    for place in range(32):
        name = np.int64(names[place])
        usable = 0 <= name < count and (allowed.shape[0] == 0 or allowed[name])
        out[place] = usable
        found += 1 if usable else 0
    return found


@helper
def _between(flags: Bools, low: int, high: int) -> int:
    """Return how many flags from `low` to `high` are true, both cut to 0 to 32."""
    found = 0
    for place in range(max(low, 0), min(high, 32)):
        found += 1 if flags[place] else 0
    return found


@helper
def _cut(keys: Keys, held: int, most: int) -> np.float32:
    """Keep the best `most` of the keys; return the score of the last of them."""
    select(keys, held, most)
    return score_of(smallest(keys, most))


@helper
def _nearest_first(nearness: F32, heap: Keys) -> None:
    """Make a heap of all lists; the top is the nearest, of equal ones the first."""
    count = nearness.shape[0]
    for place in range(count):
        heap[place] = ~score_key(nearness[place], place)
    for start in range(count // 2 - 1, -1, -1):
        sift_down(heap, start, count)


@helper
def _take_nearest(heap: Keys, count: int) -> int:
    """Take the nearest list off a heap of `count`."""
    top = heap[0]
    heap[0] = heap[count - 1]
    sift_down(heap, 0, count - 1)
    return int(np.int64(top & np.uint64(0xFFFFFFFF)))


@helper
def _hand_over(keys: Keys, held: int, positions: I64, scores: F32) -> None:
    """Write the best keys in order; positions (m,), scores (m,)."""
    most = positions.shape[0]
    if held > most:
        select(keys, held, most)
        held = most
    sort_down(keys, held)
    for place in range(most):
        inside = place < held
        positions[place] = 0xFFFFFFFF - np.int64(keys[place] & np.uint64(0xFFFFFFFF)) if inside else -1
        scores[place] = score_of(keys[place]) if inside else np.float32(-np.inf)


@kernel(
    (
        read(types.float32, 2),
        read(types.float32),
        read(types.float32, 2),
        read(types.float32, 2),
        read(types.int64),
        types.int64,
        read(types.int64),
        read(types.boolean),
        types.int64,
        write(types.int64, 2),
        write(types.float32, 2),
    ),
    twin=reference.probe_lists,
)
def probe_lists(
    queries: F32,
    bends: F32,
    bases: F32,
    nearness: F32,
    table: I64,
    shift: int,
    starts: I64,
    allowed: Bools,
    wanted: int,
    positions: I64,
    scores: F32,
) -> None:
    """Write the m best estimates of each query: positions (q, m) and scores (q, m), padded with -1 and -inf.

    queries (q, D), rotated; bends (q,); bases (q, lists); nearness (q, lists); table (pieces,), addresses of pieces of
    ``2**shift`` blocks of D * 4 + 384 bytes: codes, offsets, slopes, positions as int32; starts (lists + 1,), the rows
    of each list; allowed (n,), or (0,) for all rows.
    Lists are taken nearest first until `wanted` allowed rows of theirs were seen; a block that a list shares with
    another is looked at as a whole, and once. The caller has proven all lengths.
    """
    groups, most, count = queries.shape[1] // 4, positions.shape[1], starts[starts.shape[0] - 1]
    masked = allowed.shape[0] > 0
    counting = masked and wanted < count
    middle = np.int32(4 * LEVELS * groups)
    row_bytes, inside = groups * 16 + 384, (1 << shift) - 1
    entries, sums = np.empty(16 * groups, np.uint8), np.empty(64, np.int32)
    known, values = np.empty(32, np.float32), np.empty(32, np.float32)
    done = np.empty((count + 31) // 32, np.bool_)
    keys, heap, may = np.empty(2 * most + 64, np.uint64), np.empty(nearness.shape[1], np.uint64), np.empty(32, np.bool_)
    for number in range(queries.shape[0]):
        step, bend = fill_table(queries[number], entries), bends[number]
        held, seen, left = 0, 0, heap.shape[0]
        floor = np.float32(np.nan)  # above nothing: until the keys are cut, every row is taken
        done[:] = False
        swept = False
        _nearest_first(nearness[number], heap)
        while not swept and left and seen < wanted:
            if wanted >= count and heap.shape[0] - left == _WARM:
                chosen, first, last, swept = 0, 0, count, True
            else:
                chosen = _take_nearest(heap, left)
                first, last = starts[chosen], starts[chosen + 1]
            left -= 1
            sole = 0
            seen += 0 if masked else last - first
            for block in range(first // 32, (last + 31) // 32):
                if done[block] and not counting:
                    continue
                address = table[block >> shift] + (block & inside) * row_bytes
                names = words_at(address + groups * 16 + 256, 32)
                if counting:
                    usable = _may(names, count, allowed, may)
                    seen += _between(may, first - 32 * block, last - 32 * block)
                    if not usable or done[block]:
                        continue
                done[block] = True
                _block_sums(address, entries.ctypes.data, groups, sums)
                while starts[chosen + 1] <= 32 * block:
                    chosen += 1
                if 32 * block + 32 > sole:
                    sole = _fill_bases(32 * block, chosen, starts, bases[number], known)
                good = block_scores(
                    sums.ctypes.data,
                    address + groups * 16,
                    known.ctypes.data,
                    bend,
                    step,
                    middle,
                    floor,
                    values.ctypes.data,
                )
                while good:
                    place = lowest_bit(good)
                    good &= good - 1
                    name = np.int64(names[place])
                    if 0 <= name < count and (not masked or allowed[name]) and not (values[place] <= floor):
                        score = values[place] if values[place] == values[place] else np.float32(-np.inf)
                        keys[held] = score_key(score, int(name))
                        held += 1
                        if held == keys.shape[0]:
                            floor = _cut(keys, held, most)
                            held = most
        _hand_over(keys, held, positions[number], scores[number])


def nominate(
    ready: Ready, table: I64, shift: int, starts: I64, allowed: Bools | None, wanted: int, most: int
) -> tuple[I64, F32]:
    """Return positions and estimated scores of the `most` best rows of each query; arrays as in `probe_lists`."""
    positions = np.empty((len(ready.turned), most), np.int64)
    scores = np.empty((len(ready.turned), most), np.float32)
    mask = _ALL if allowed is None else allowed
    probe_lists(*ready, table, shift, starts, mask, wanted, positions, scores)
    return positions, scores
