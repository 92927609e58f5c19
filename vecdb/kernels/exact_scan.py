"""Exact scans, compiled: every row that could be among the best k of one query, or of a batch.

Ladder: `scan_blocks` (kernel, one query, all rows through the address table), `scan_listed` (kernel, one query, given
rows), `absorb_tile` (kernel, a batch: takes the products of a tile in) <- `vecdb.kernels.nominate` (entry);
`scan_biased` (kernel, one query, all rows, each score with a bias) <- `vecdb.corrections.compiled` (entry). Each keeps
per query a bounded pool of rows as (lower bound, upper bound, position) and a floor, the k-th largest lower bound so
far; a row whose upper bound is below the floor is dropped. The proof that no winner is dropped is in
vecdb/kernels/bounds.py. A pool that stays crowded after thinning out (thousands of ties) is handed back to Python,
which decides it by canonical scores and lets the scan go on.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import types

from vecdb.blocks import KINDS
from vecdb.kernels import reference
from vecdb.kernels._int8 import dequantise, int8_size, multiply_codes
from vecdb.kernels._intrinsics import floats_at, half_to_single, halves_at, prefetch
from vecdb.kernels._jit import helper, kernel, read, write
from vecdb.kernels._pools import drop_the_beaten, first_trigger, is_crowded, offer, thin_out_if_due
from vecdb.kernels.bounds import FORM_CODES

__all__ = [
    "FORMS",
    "HALF",
    "INT8",
    "STRIP",
    "absorb_tile",
    "first_trigger",
    "scan_biased",
    "scan_blocks",
    "scan_listed",
]

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_COSINE = FORM_CODES["cosine"]
_DOT = FORM_CODES["dot"]
_EXPANDED = FORM_CODES["l2-expanded"]
_DIRECT = FORM_CODES["l2-direct"]
FORMS = 4
"""Times the place of the rows' type in `blocks.KINDS`, added to a form's code."""
HALF = FORMS * KINDS.index(np.dtype(np.float16))
INT8 = FORMS * KINDS.index(np.dtype(np.int8))

STRIP = 64
"""Rows whose values are computed, and compared with the floor, before any of them is looked at singly."""

_AHEAD = 8192  # bytes: the hardware stops prefetching at page ends; asking two pages ahead gained 15 % of bandwidth
_PIECE = 192  # components asked for and summed at a time: more requests at once than the core can track stall it
_ROWS_AHEAD = 4  # of a list; rows of another block are asked for at a wrong address, which is harmless
_LANES = 128  # queries whose bounds for one row of a batch are compared at a time,
_FEW_LANES = 8  # and those that are then looked at singly, if any of them may be reached


@helper
def _prefetch(address: int, size: int) -> None:
    for offset in range(0, size, 64):
        prefetch(address + offset)


@helper
def _dot_single(components: F32, wanted: F32) -> np.float32:
    total = np.float32(0.0)
    for j in range(components.shape[0]):
        total += components[j] * wanted[j]
    return total


@helper
def _products_single(address: int, rows: int, query: F32, ahead: int, out: F32) -> None:
    """Write the inner products of the query with `rows` float32 rows."""
    d = query.shape[0]
    for row in range(rows):
        place = address + 4 * d * row
        if d <= _PIECE:
            _prefetch(place + ahead, 4 * d)
            out[row] = _dot_single(floats_at(place, d), query)
            continue
        total = np.float32(0.0)
        for start in range(0, d, _PIECE):
            count = min(_PIECE, d - start)
            _prefetch(place + 4 * start + ahead, 4 * count)
            wanted = floats_at(query.ctypes.data + 4 * start, count)  # cheaper than cutting a slice
            total += _dot_single(floats_at(place + 4 * start, count), wanted)
        out[row] = total


@helper
def _dot_half(components: npt.NDArray[np.uint16], wanted: F32) -> np.float32:
    total = np.float32(0.0)
    for j in range(components.shape[0]):
        total += half_to_single(components[j]) * wanted[j]
    return total


@helper
def _products_half(address: int, rows: int, query: F32, ahead: int, out: F32) -> None:
    """`_products_single` for float16 rows."""
    d = query.shape[0]
    for row in range(rows):
        place = address + 2 * d * row
        if d <= 2 * _PIECE:
            _prefetch(place + ahead, 2 * d)
            out[row] = _dot_half(halves_at(place, d), query)
            continue
        total = np.float32(0.0)
        for start in range(0, d, 2 * _PIECE):
            count = min(2 * _PIECE, d - start)
            _prefetch(place + 2 * start + ahead, 2 * count)
            wanted = floats_at(query.ctypes.data + 4 * start, count)  # cheaper than cutting a slice
            total += _dot_half(halves_at(place + 2 * start, count), wanted)
        out[row] = total


@helper
def _square_single(components: F32, wanted: F32) -> np.float32:
    total = np.float32(0.0)
    for j in range(components.shape[0]):
        difference = components[j] - wanted[j]
        total += difference * difference
    return total


@helper
def _squares_single(address: int, rows: int, query: F32, ahead: int, out: F32) -> None:
    """Write the squared distances of the query to `rows` float32 rows."""
    d = query.shape[0]
    for row in range(rows):
        place = address + 4 * d * row
        if d <= _PIECE:
            _prefetch(place + ahead, 4 * d)
            out[row] = _square_single(floats_at(place, d), query)
            continue
        total = np.float32(0.0)
        for start in range(0, d, _PIECE):
            count = min(_PIECE, d - start)
            _prefetch(place + 4 * start + ahead, 4 * count)
            wanted = floats_at(query.ctypes.data + 4 * start, count)  # cheaper than cutting a slice
            total += _square_single(floats_at(place + 4 * start, count), wanted)
        out[row] = total


@helper
def _square_half(components: npt.NDArray[np.uint16], wanted: F32) -> np.float32:
    total = np.float32(0.0)
    for j in range(components.shape[0]):
        difference = half_to_single(components[j]) - wanted[j]
        total += difference * difference
    return total


@helper
def _squares_half(address: int, rows: int, query: F32, ahead: int, out: F32) -> None:
    """`_squares_single` for float16 rows."""
    d = query.shape[0]
    for row in range(rows):
        place = address + 2 * d * row
        if d <= 2 * _PIECE:
            _prefetch(place + ahead, 2 * d)
            out[row] = _square_half(halves_at(place, d), query)
            continue
        total = np.float32(0.0)
        for start in range(0, d, 2 * _PIECE):
            count = min(2 * _PIECE, d - start)
            _prefetch(place + 2 * start + ahead, 2 * count)
            wanted = floats_at(query.ctypes.data + 4 * start, count)  # cheaper than cutting a slice
            total += _square_half(halves_at(place + 2 * start, count), wanted)
        out[row] = total


@helper
def _size(form: int, d: int) -> int:
    """Return the bytes of a stored row."""
    if form >= INT8:
        return int8_size(d)
    return d * (2 if form >= HALF else 4)


@helper
def _products_codes(address: int, rows: int, query: F32, ahead: int, out: F32) -> None:
    """`_products_single` for int8 rows: of the codes, times the step."""
    size = int8_size(query.shape[0])
    for row in range(rows):
        place = address + size * row
        _prefetch(place + ahead, size)
        out[row] = multiply_codes(place, query)


@helper
def _squares_codes(address: int, rows: int, query: F32, ahead: int, out: F32, room: F32) -> None:
    """`_squares_single` for int8 rows; room (d,) takes one of them at a time."""
    d = query.shape[0]
    size = int8_size(d)
    for row in range(rows):
        place = address + size * row
        _prefetch(place + ahead, size)
        dequantise(place, d, room)
        out[row] = _square_single(room, query)


@helper
def _measure(form: int, address: int, rows: int, query: F32, ahead: int, out: F32, strip: F32) -> None:
    """Write what the scan computes from the components of `rows` rows: inner products or squared distances.

    `ahead` is how many bytes further on memory is asked for; the address need not exist. The strip has room behind the
    query for one row.
    """
    d = query.shape[0]
    if form == _DIRECT + INT8:
        _squares_codes(address, rows, query, ahead, out, strip[STRIP + d : STRIP + 2 * d])
    elif form >= INT8:
        _products_codes(address, rows, query, ahead, out)
    elif form == _DIRECT:
        _squares_single(address, rows, query, ahead, out)
    elif form == _DIRECT + HALF:
        _squares_half(address, rows, query, ahead, out)
    elif form >= HALF:
        _products_half(address, rows, query, ahead, out)
    else:
        _products_single(address, rows, query, ahead, out)


@helper
def _weights(form: int, slope: np.float32, offset: np.float32) -> tuple[np.float32, ...]:
    """Return (plain, times, minus, slope, offset): ``key = value * (plain + times * scale) - minus * scale``.

    One expression for every form, without a branch in the loops over rows. For the direct form the value takes the
    place of the scale, too, because its bound is relative to the squared distance itself.
    """
    form %= FORMS
    plain = np.float32(1.0 if form == _DOT else 2.0 if form == _EXPANDED else -1.0 if form == _DIRECT else 0.0)
    times = np.float32(1.0 if form == _COSINE else 0.0)
    minus = np.float32(1.0 if form == _EXPANDED else 0.0)
    return plain, times, minus, slope, offset


@helper
def _middle_and_doubt(
    value: np.float32, scale: np.float32, weights: tuple[np.float32, ...]
) -> tuple[np.float32, np.float32]:
    """Return (approximate key, half the width of its bracket) of one row."""
    plain, times, minus, slope, offset = weights
    return value * (plain + times * scale) - minus * scale, slope * scale + offset


@helper
def _prepared(form: int, query: F32, scratch: F32) -> F32:
    """Return what the rows are compared with: the query, for cosine at unit length and behind the strip."""
    if form % FORMS != _COSINE:
        return query
    square = 0.0
    for j in range(query.shape[0]):
        square += np.float64(query[j]) * np.float64(query[j])
    norm = math.sqrt(square) if square > 0.0 else 1.0
    unit = scratch[STRIP : STRIP + query.shape[0]]
    for j in range(query.shape[0]):
        unit[j] = np.float32(np.float64(query[j]) / norm)
    return unit


@helper
def _any_allowed(allowed: Bools) -> bool:
    matches = 0
    for place in range(allowed.shape[0]):
        matches += 1 if allowed[place] else 0
    any_one: bool = matches > 0
    return any_one


@helper
def _none_reaches(values: F32, scales: F32, weights: tuple[np.float32, ...], floor: np.float32) -> bool:
    """Whether every upper bound of a strip is below the floor: counted, not searched, so that it is vectorised."""
    below = 0
    for j in range(values.shape[0]):
        middle, doubt = _middle_and_doubt(values[j], scales[j], weights)
        below += 1 if middle + doubt < floor else 0
    nothing: bool = below == values.shape[0]
    return nothing


@helper
def _none_biased_reaches(
    values: F32, scales: F32, bias: F32, weights: tuple[np.float32, ...], floor: np.float32
) -> bool:
    """`_none_reaches`, with a bias added to each score."""
    below = 0
    for j in range(values.shape[0]):
        middle, doubt = _middle_and_doubt(values[j], scales[j], weights)
        below += 1 if middle + bias[j] + doubt < floor else 0
    nothing: bool = below == values.shape[0]
    return nothing


@helper
def _all_beaten(
    values: F32,
    factor: np.float32,
    shift: np.float32,
    scale: np.float32,
    errors: F32,
    floors: F32,
    start: int,
    stop: int,
) -> bool:
    """Whether one row's upper bound is below the floor of every query from `start` to `stop`.

    The indexes are unsigned: a signed one that starts at a variable could wrap around, which stops vectorisation.
    """
    below = 0
    for query in range(np.uint64(start), np.uint64(stop)):
        upper = values[query] * factor - shift + (errors[0, query] * scale + errors[1, query])
        below += 1 if upper < floors[query] else 0
    beaten: bool = below == stop - start
    return beaten


_POOL = (write(types.float32, 2), write(types.int64), write(types.int64), write(types.float32))
_ERROR = read(types.float32)


@kernel(
    (
        types.int64,
        read(types.float32),
        read(types.int64, 2),
        read(types.boolean),
        types.int64,
        _ERROR,
        types.int64,
        *_POOL,
        write(types.float32),
    ),
    twin=reference.scan_blocks,
)
def scan_blocks(
    form: int,
    query: F32,
    table: I64,
    allowed: Bools,
    end: int,
    error: F32,
    k: int,
    bounds: F32,
    positions: I64,
    state: I64,
    floor: F32,
    strip: F32,
) -> int:
    """Scan positions ``state[2]`` to `end`; return 0 when done, 1 if the pool has to be settled first.

    form: code, plus `FORMS` times the rows' type; query (d,) as given; table (B + 1, 3) as `VectorBlocks.any_table`;
    allowed (n,), or (0,) for every row; error (2,) slope and offset; k at most a quarter of the pool; bounds
    (3, capacity): lower, upper, scratch; positions (capacity,); state (3,): rows in the pool, the count at which it
    is thinned out, next position; floor (1,); strip (STRIP + 2 d,) scratch. Call again with the same pool to go on.
    """
    size = _size(form, query.shape[0])
    query = _prepared(form, query, strip)
    position: int = state[2]
    block = 0
    while block + 2 < table.shape[0] and table[block + 1, 2] <= position:
        block += 1
    weights, lowest = _weights(form, error[0], error[1]), floor[0]
    while position < end:
        first = table[block, 2]
        last = min(table[block + 1, 2], end)
        all_scales = floats_at(table[block, 1], last - first)
        while position < last:
            rows = min(last - position, STRIP)
            if allowed.shape[0] and not _any_allowed(allowed[position : position + rows]):
                position += rows
                continue
            values = strip[:rows]
            _measure(form, table[block, 0] + (position - first) * size, rows, query, _AHEAD, values, strip)
            scales = values if form % FORMS == _DIRECT else all_scales[position - first : position - first + rows]
            if not _none_reaches(values, scales, weights, lowest):
                for j in range(rows):
                    middle, doubt = _middle_and_doubt(values[j], scales[j], weights)
                    if (middle + doubt < lowest) or (allowed.shape[0] and not allowed[position + j]):
                        continue
                    lowest = offer(k, bounds, positions, state, lowest, middle, doubt, position + j)
                    if is_crowded(state, positions):
                        floor[0] = lowest
                        state[2] = position + j + 1
                        return 1
            position += rows
        block += 1
    floor[0] = drop_the_beaten(k, bounds, positions, state, lowest)
    state[2] = position
    return 0


@kernel(
    (
        read(types.int64),
        read(types.float32),
        read(types.int64, 2),
        read(types.boolean),
        read(types.float32),
        _ERROR,
        *_POOL,
        write(types.float32),
    ),
    twin=reference.scan_biased,
)
def scan_biased(
    plan: I64,
    query: F32,
    table: I64,
    allowed: Bools,
    bias: F32,
    error: F32,
    bounds: F32,
    positions: I64,
    state: I64,
    floor: F32,
    strip: F32,
) -> int:
    """Scan as `scan_blocks` does, with a bias added to the score of each row; not for distances.

    plan (3,): form, end and k as there; bias (n,); error (2,), widened by what adding a bias rounds; the rest as there.
    """
    form, end, k = plan[0], plan[1], plan[2]
    size = _size(form, query.shape[0])
    query = _prepared(form, query, strip)
    position: int = state[2]
    block = 0
    while block + 2 < table.shape[0] and table[block + 1, 2] <= position:
        block += 1
    weights, lowest = _weights(form, error[0], error[1]), floor[0]
    while position < end:
        first = table[block, 2]
        last = min(table[block + 1, 2], end)
        all_scales = floats_at(table[block, 1], last - first)
        while position < last:
            rows = min(last - position, STRIP)
            if allowed.shape[0] and not _any_allowed(allowed[position : position + rows]):
                position += rows
                continue
            values, added = strip[:rows], bias[position : position + rows]
            _measure(form, table[block, 0] + (position - first) * size, rows, query, _AHEAD, values, strip)
            scales = all_scales[position - first : position - first + rows]
            if not _none_biased_reaches(values, scales, added, weights, lowest):
                for j in range(rows):
                    middle, doubt = _middle_and_doubt(values[j], scales[j], weights)
                    middle += added[j]
                    if (middle + doubt < lowest) or (allowed.shape[0] and not allowed[position + j]):
                        continue
                    lowest = offer(k, bounds, positions, state, lowest, middle, doubt, position + j)
                    if is_crowded(state, positions):
                        floor[0] = lowest
                        state[2] = position + j + 1
                        return 1
            position += rows
        block += 1
    floor[0] = drop_the_beaten(k, bounds, positions, state, lowest)
    state[2] = position
    return 0


@kernel(
    (
        types.int64,
        read(types.float32),
        read(types.int64, 2),
        read(types.int64),
        types.int64,
        _ERROR,
        types.int64,
        *_POOL,
        write(types.float32),
    ),
    twin=reference.scan_listed,
)
def scan_listed(
    form: int,
    query: F32,
    table: I64,
    wanted: I64,
    end: int,
    error: F32,
    k: int,
    bounds: F32,
    positions: I64,
    state: I64,
    floor: F32,
    strip: F32,
) -> int:
    """Scan the rows at ``wanted[state[2]:end]``; as `scan_blocks`, but wanted (m,) is ascending positions."""
    size = _size(form, query.shape[0])
    query = _prepared(form, query, strip)
    block = 0
    weights, lowest = _weights(form, error[0], error[1]), floor[0]
    for place in range(state[2], end):
        position = wanted[place]
        while block + 2 < table.shape[0] and table[block + 1, 2] <= position:
            block += 1
        row = position - table[block, 2]
        ahead = (wanted[min(place + _ROWS_AHEAD, end - 1)] - position) * size
        _measure(form, table[block, 0] + row * size, 1, query, ahead, strip, strip)
        scale = strip[0] if form % FORMS == _DIRECT else floats_at(table[block, 1], row + 1)[row]
        middle, doubt = _middle_and_doubt(strip[0], scale, weights)
        if not (middle + doubt < lowest):
            lowest = offer(k, bounds, positions, state, lowest, middle, doubt, position)
            if is_crowded(state, positions):
                floor[0] = lowest
                state[2] = place + 1
                return 1
    floor[0] = drop_the_beaten(k, bounds, positions, state, lowest)
    state[2] = end
    return 0


@kernel(
    (
        types.int64,
        read(types.float32, 2),
        read(types.float32),
        read(types.int64),
        read(types.boolean),
        read(types.float32, 2),
        types.int64,
        write(types.float32, 3),
        write(types.int64, 2),
        write(types.int64, 2),
        write(types.float32),
        write(types.int64),
    ),
    twin=reference.absorb_tile,
)
def absorb_tile(
    form: int,
    products: F32,
    scales: F32,
    places: I64,
    allowed: Bools,
    errors: F32,
    k: int,
    bounds: F32,
    positions: I64,
    states: I64,
    floors: F32,
    resume: I64,
) -> int:
    """Take a tile of products into the pools; return -1 when done, else the query whose pool must be settled.

    form: code; products (rows, q); scales (rows,); places (rows,) positions; allowed (rows,), or (0,) for every row;
    errors (2, q) slopes and offsets; bounds (q, 3, capacity), positions (q, capacity), states (q, 2) and floors (q,)
    as in `scan_blocks`; resume (2,): row and query to go on with, zeros at first.
    """
    rows, queries = products.shape
    first_row, first_query = resume[0], resume[1]
    for row in range(first_row, rows):
        start = first_query if row == first_row else 0
        if allowed.shape[0] and not allowed[row]:
            continue
        plain, times, minus, _, _ = _weights(form, errors[0, 0], errors[1, 0])
        factor, shift = plain + times * scales[row], minus * scales[row]
        values = products[row]
        while start < queries:
            stop = min(start + _LANES, queries)
            if not _all_beaten(values, factor, shift, scales[row], errors, floors, start, stop):
                stop = min(start + _FEW_LANES, queries)  # a closer look, and the next step compares many again
                for query in range(start, stop):
                    middle = values[query] * factor - shift
                    doubt = errors[0, query] * scales[row] + errors[1, query]
                    if middle + doubt < floors[query]:
                        continue
                    count = states[query, 0]  # as `offer`, without a slice of every array for each row
                    bounds[query, 0, count] = middle - doubt if middle - doubt == middle - doubt else -np.inf
                    bounds[query, 1, count] = middle + doubt
                    positions[query, count] = places[row]
                    states[query, 0] = count + 1
                    if count + 1 < states[query, 1]:
                        continue
                    pool = (bounds[query], positions[query], states[query], floors[query])
                    floors[query] = thin_out_if_due(k, *pool)
                    if is_crowded(states[query], positions[query]):
                        resume[0], resume[1] = row, query + 1
                        return query
            start = stop
    for query in range(queries):
        floors[query] = drop_the_beaten(k, bounds[query], positions[query], states[query], floors[query])
    resume[0], resume[1] = 0, 0
    return -1
