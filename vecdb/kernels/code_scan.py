"""Scans of 1-bit codes, compiled: estimated scores of all rows, the best of them kept.

Ladder: `rotate` (kernel, in place) and `scan_codes` (kernel, one pass over all codes for each query) <- `nominate`
(entry). Codes lie in blocks of 32 rows, four bits a group, so that a byte shuffle looks a whole group of 32 rows up in
a table of 16 sums (André, Kermarrec, Le Scouarnec, "Quicker ADC", section 4); the table holds exact sums of four query
components rounded to 6 bits, so an estimate has the same bits whichever shuffle computes it. Estimator: Gao & Long,
"RaBitQ", SIGMOD 2024, section 3.2. What is stored: `vecdb.indexes.codes`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import types

from vecdb.kernels import reference
from vecdb.kernels._intrinsics import table_sums
from vecdb.kernels._jit import helper, kernel, read, write
from vecdb.kernels._lookup import LEVELS, fill_table, rotate_row, score_key, score_of, select, smallest, sort_down

__all__ = ["nominate", "rotate", "scan_codes"]

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_CHUNK = 256
"""Groups whose sums fit 16 bits."""


@kernel((write(types.float32, 2), read(types.float32, 2)), twin=reference.rotate)
def rotate(rows: F32, signs: F32) -> None:
    """Rotate rows (n, D) in place: rounds of sign flips (signs (rounds, D)) and two overlapping transforms."""
    for number in range(rows.shape[0]):
        rotate_row(rows[number], signs)


@helper
def _any(flags: Bools) -> bool:
    found = False
    for place in range(flags.shape[0]):
        found |= flags[place]
    return found


@helper
def _estimates(
    sums: npt.NDArray[np.int32],
    cells: npt.NDArray[np.uint8],
    offsets: F32,
    slopes: F32,
    base: F32,
    bend: np.float32,
    step: np.float32,
    middle: np.int32,
    floor: np.float32,
    out: F32,
) -> int:
    """Turn sums of a block of 32 into estimated scores; return how many are not below the floor, NaN among them."""
    above = np.int32(0)
    for place in range(32):  # a fixed number, and counting instead of a maximum: both let it be vectorised
        value = base[cells[place]] + bend * offsets[place] + slopes[place] * (step * np.float32(sums[place] - middle))
        out[place] = value
        above += np.int32(not (value <= floor))
    return int(above)


@helper
def _last_block(cells: npt.NDArray[np.uint8], offsets: F32, slopes: F32) -> tuple[npt.NDArray[np.uint8], F32, F32]:
    """Return what belongs to the rows behind the last whole block, filled up to 32; the filling is not looked at."""
    first = cells.shape[0] // 32 * 32
    left = cells.shape[0] - first
    near, far, steep = np.zeros(32, np.uint8), np.zeros(32, np.float32), np.zeros(32, np.float32)
    for place in range(left):
        near[place] = cells[first + place]
        far[place] = offsets[first + place]
        steep[place] = slopes[first + place]
    return near, far, steep


@kernel(
    (
        read(types.float32, 2),
        read(types.float32),
        read(types.float32, 2),
        read(types.uint8),
        read(types.uint8),
        read(types.float32, 2),
        read(types.boolean),
        write(types.uint8),
        write(types.float32),
        write(types.uint64),
        write(types.int64, 2),
        write(types.float32, 2),
    ),
    twin=reference.scan_codes,
)
def scan_codes(
    queries: F32,
    bends: F32,
    bases: F32,
    codes: npt.NDArray[np.uint8],
    cells: npt.NDArray[np.uint8],
    factors: F32,
    allowed: Bools,
    table: npt.NDArray[np.uint8],
    values: F32,
    keys: npt.NDArray[np.uint64],
    positions: I64,
    scores: F32,
) -> None:
    """Write the m best estimates of each query: positions (q, m) and scores (q, m), padded with -1 and -inf.

    queries (q, D), rotated, D a multiple of 16; bends (q,), the weight of the offsets; bases (q, cells);
    codes (bytes,), D * 4 for every 32 rows; cells (n,); factors (2, n), offset and slope of each row;
    allowed (n,), or (0,) for all rows. Scratch: table (D * 4,), values (32,), keys (more than m,): gathered until full,
    then cut to the best m, which raises the floor. The caller has proven all lengths.
    """
    count, groups, most = factors.shape[1], queries.shape[1] // 4, positions.shape[1]
    masked = allowed.shape[0] > 0
    middle = np.int32(4 * LEVELS * groups)
    offsets, slopes = factors[0], factors[1]
    code_address, table_address = codes.ctypes.data, table.ctypes.data
    sums = np.empty(64, np.int32)
    sums_address = sums.ctypes.data
    last_cells, last_offsets, last_slopes = _last_block(cells, offsets, slopes)
    for number in range(queries.shape[0]):
        step = fill_table(queries[number], table)
        held = 0
        floor = np.float32(np.nan)  # above nothing: until the keys are cut, every row is taken
        for first in range(0, count, 32):
            stop = min(first + 32, count)
            if masked and not _any(allowed[first:stop]):
                continue
            block = code_address + first // 32 * groups * 16
            table_sums(block, table_address, min(groups, _CHUNK), sums_address)
            for chunk in range(_CHUNK, groups, _CHUNK):
                table_sums(
                    block + chunk * 16, table_address + chunk * 16, min(groups - chunk, _CHUNK), sums_address + 128
                )
                for place in range(32):
                    sums[place] += sums[32 + place]
            if stop - first == 32:
                near = (cells[first : first + 32], offsets[first : first + 32], slopes[first : first + 32])
            else:
                near = (last_cells, last_offsets, last_slopes)
            above = _estimates(sums, *near, bases[number], bends[number], step, middle, floor, values)
            if not above:
                continue
            for place in range(stop - first):
                value = values[place]
                if not (value <= floor) and (not masked or allowed[first + place]):
                    keys[held] = score_key(value if value == value else np.float32(-np.inf), first + place)
                    held += 1
                    if held == keys.shape[0]:
                        select(keys, held, most)
                        held = most
                        floor = score_of(smallest(keys, most))
        if held > most:
            select(keys, held, most)
            held = most
        sort_down(keys, held)
        for place in range(most):
            inside = place < held
            positions[number, place] = 0xFFFFFFFF - np.int64(keys[place] & np.uint64(0xFFFFFFFF)) if inside else -1
            scores[number, place] = score_of(keys[place]) if inside else np.float32(-np.inf)


def nominate(
    queries: F32,
    bends: F32,
    bases: F32,
    codes: npt.NDArray[np.uint8],
    cells: npt.NDArray[np.uint8],
    factors: F32,
    allowed: Bools | None,
    most: int,
) -> tuple[I64, F32]:
    """Return positions and estimated scores of the `most` best rows of each query; arrays as in `scan_codes`."""
    width = queries.shape[1]
    positions = np.empty((len(queries), most), np.int64)
    scores = np.empty((len(queries), most), np.float32)
    scan_codes(
        queries,
        bends,
        bases,
        codes,
        cells,
        factors,
        np.empty(0, np.bool_) if allowed is None else allowed,
        np.empty(4 * width, np.uint8),
        np.empty(32, np.float32),
        np.empty(2 * most + 64, np.uint64),
        positions,
        scores,
    )
    return positions, scores
