"""One query and what it says of rows: estimated distances from codes, exact ones where the vectors lie.

Helpers of `vecdb.kernels.graph_search`. A query is laid out in scratch that its caller gives, and handed on as
addresses. The sum of a code is the same integer from bit planes, one record at a time, as from the table, 32 at once.
Source of the estimator: Gao & Long, "RaBitQ", SIGMOD 2024, sections 3.2 and 3.3. What is stored:
`vecdb.indexes.codes`, `vecdb.indexes.graph_layout`. Invariant: nothing here checks an address.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vecdb.kernels._intrinsics import (
    bits_of,
    bytes_at,
    floats_at,
    half_to_single,
    halves_at,
    keys_at,
    longs_at,
    plane_sum,
    table_sums,
    words_at,
)
from vecdb.kernels._jit import helper, inline_helper, strict_helper
from vecdb.kernels._lookup import LEVELS, fill_table, rotate_row

__all__ = [
    "BLOCK",
    "CODES",
    "FAR",
    "LINE",
    "PLANES",
    "Asked",
    "Stored",
    "address_at",
    "address_of",
    "block_estimates",
    "exact_distance",
    "filled",
    "lay_out",
    "prepare",
    "record_estimate",
]

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

BLOCK = 32
LINE = 64
PLANES = 6
"""Bits of a rounded component that was raised to be positive."""
CODES = 416
"""Where the codes of a block of neighbours begin, behind numbers, offsets, slopes and cells."""
FAR = np.float32(3.0e38)
"""No distance is larger."""
_CHUNK = 256
"""Groups whose sums fit 16 bits."""


class Asked(NamedTuple):
    """One query, as addresses: tuples of numbers cost nothing to hand on, those of arrays are counted at every call.

    query (dim,) float32; turned (D,) float32, its rotated rest; table (4 D,) uint8; planes (6, words) uint64;
    bases (cells,) float32; numbers (2,) float32, bend and size of a rounding step; totals (65,) int32, the sum of all
    rounded components and scratch behind it; raised (words, 64) uint8, the rounded components made positive.
    """

    query: int
    dim: int
    turned: int
    width: int
    table: int
    planes: int
    words: int
    bases: int
    cells: int
    numbers: int
    totals: int
    raised: int


class Stored(NamedTuple):
    """The vectors: blocks (B + 1, 3) int64 as `VectorBlocks.scan_table`, places (n,) int64 or 0, the first place."""

    blocks: int
    last: int
    places: int
    first: int
    form: int
    half: int


# --- the query --------------------------------------------------------------------------------------------


@inline_helper
def _product(left: F32, right: F32) -> np.float32:
    total = np.float32(0.0)
    for place in range(left.shape[0]):
        total += left[place] * right[place]
    return total


@helper
def prepare(anchors: F32, signs: F32, form: int, asked: Asked) -> None:
    """Fill in what is known of a query before any row is looked at; see `vecdb.indexes.codes`."""
    query, turned = floats_at(asked.query, asked.dim), floats_at(asked.turned, asked.width)
    bases, numbers = floats_at(asked.bases, asked.cells), floats_at(asked.numbers, 2)
    dim, mean = asked.dim, anchors[asked.cells]
    bend = np.float32(1.0)
    if form != 2:
        bend = _product(query, mean[:dim]) / mean[dim] if mean[dim] > np.float32(0.0) else np.float32(0.0)
    for place in range(dim):
        turned[place] = query[place] - bend * mean[place]
    for place in range(dim, asked.width):
        turned[place] = np.float32(0.0)
    rotate_row(turned, signs)
    for cell in range(asked.cells):
        product = _product(query, anchors[cell, :dim])
        bases[cell] = np.float32(2.0) * product - anchors[cell, dim] if form == 2 else product
    numbers[0] = bend
    numbers[1] = fill_table(turned, bytes_at(asked.table, 4 * asked.width))
    _fill_planes(asked)


@helper
def _fill_planes(asked: Asked) -> None:
    """Write the bits of the rounded components, all of them raised to be positive, as the table has them."""
    table = bytes_at(asked.table, 4 * asked.width)
    planes, raised = keys_at(asked.planes, PLANES * asked.words), bytes_at(asked.raised, 64 * asked.words)
    total = np.int32(0)
    for place in range(asked.width):
        group = place >> 2 << 4
        rounded = (np.int32(table[group + (1 << (place & 3))]) - np.int32(table[group])) >> 1
        total += rounded
        raised[place] = np.uint8(rounded + LEVELS)
    for place in range(asked.width, 64 * asked.words):
        raised[place] = np.uint8(0)
    for word in range(asked.words):
        for plane in range(PLANES):
            planes[asked.words * plane + word] = bits_of(asked.raised + 64 * word, plane)
    words_at(asked.totals, 1)[0] = total


# --- exact distances --------------------------------------------------------------------------------------


@inline_helper
def _half_product(left: F32, right: npt.NDArray[np.uint16]) -> np.float32:
    total = np.float32(0.0)
    for place in range(left.shape[0]):
        total += left[place] * half_to_single(right[place])
    return total


@inline_helper
def _square(left: F32, right: F32) -> np.float32:
    total = np.float32(0.0)
    for place in range(left.shape[0]):
        difference = left[place] - right[place]
        total += difference * difference
    return total


@inline_helper
def _half_square(left: F32, right: npt.NDArray[np.uint16]) -> np.float32:
    total = np.float32(0.0)
    for place in range(left.shape[0]):
        difference = left[place] - half_to_single(right[place])
        total += difference * difference
    return total


@inline_helper
def _block_of(table: I64, last: int, place: int) -> int:
    """Return the block that holds a place; blocks are mostly of one size, so a guess is near."""
    block = min(last, place * (last + 1) // max(1, table[3 * last + 5]))
    while table[3 * block + 2] > place:
        block -= 1
    while block < last and table[3 * block + 5] <= place:
        block += 1
    return int(block)


@inline_helper
def address_of(stored: Stored, row: int, row_bytes: int) -> tuple[int, int]:
    """Return the addresses of a row's vector and of its scale; 0 for a vector that is gone."""
    place = longs_at(stored.places + 8 * row, 1)[0] if stored.places else stored.first + row
    if place < 0:
        return 0, 0
    table = longs_at(stored.blocks, 3 * stored.last + 6)
    block = _block_of(table, stored.last, place)
    inside = place - table[3 * block + 2]
    return table[3 * block] + inside * row_bytes, table[3 * block + 1] + 4 * inside


@helper
def exact_distance(stored: Stored, asked: Asked, address: int, scale: int) -> np.float32:
    """Return the distance that a vector at an address answers with: smaller is nearer, and it is finite."""
    dim = asked.dim
    query = floats_at(asked.query, dim)
    if stored.form == 2:
        found = _half_square(query, halves_at(address, dim)) if stored.half else _square(query, floats_at(address, dim))
    else:
        found = (
            _half_product(query, halves_at(address, dim)) if stored.half else _product(query, floats_at(address, dim))
        )
        found = -found
        if stored.form == 0:
            found *= floats_at(scale, 1)[0]
    return found if abs(found) < FAR else FAR


# --- estimates --------------------------------------------------------------------------------------------


@strict_helper
def _estimate(
    bases: F32, cell: int, numbers: F32, offset: np.float32, slope: np.float32, total: np.int32
) -> np.float32:
    """Return an estimated distance, of the same bits wherever this is compiled into: a pool knows a row by it."""
    near = bases[min(cell, bases.shape[0] - 1)] + numbers[0] * offset
    return np.float32(-(near + slope * (numbers[1] * np.float32(total))))


@helper
def record_estimate(asked: Asked, address: int) -> np.float32:
    """Return the estimated distance of the row whose code lies at an address."""
    factors, numbers = floats_at(address + 8 * asked.words, 2), floats_at(asked.numbers, 2)
    cell = int(np.int64(np.uint32(words_at(address + 8 * asked.words + 8, 1)[0])))
    total = 2 * plane_sum(address, asked.planes, asked.words) - words_at(asked.totals, 1)[0]
    return _estimate(floats_at(asked.bases, asked.cells), cell, numbers, factors[0], factors[1], np.int32(total))


@inline_helper
def _block_sums(asked: Asked, codes: int) -> npt.NDArray[np.int32]:
    """Return the sums of the 32 codes of a block, less what stands for zero."""
    groups = asked.width // 4
    sums, more = words_at(asked.totals + 64, BLOCK), words_at(asked.totals + 64 + 4 * BLOCK, BLOCK)
    table_sums(codes, asked.table, min(groups, _CHUNK), asked.totals + 64)
    for chunk in range(_CHUNK, groups, _CHUNK):
        size = min(groups - chunk, _CHUNK)
        table_sums(codes + 16 * chunk, asked.table + 16 * chunk, size, asked.totals + 64 + 4 * BLOCK)
        for place in range(BLOCK):
            sums[place] += more[place]
    middle = np.int32(4 * LEVELS * groups)
    for place in range(BLOCK):
        sums[place] -= middle
    return sums


@inline_helper
def block_estimates(asked: Asked, block: int, values: F32) -> None:
    """Write the estimated distances of the 32 neighbours of a block: ids, offsets, slopes, cells, codes."""
    sums = _block_sums(asked, block + CODES)
    factors, cells = floats_at(block + 128, 2 * BLOCK), bytes_at(block + 384, BLOCK)
    bases, numbers = floats_at(asked.bases, asked.cells), floats_at(asked.numbers, 2)
    for place in range(BLOCK):
        cell = int(np.int64(cells[place]))
        values[place] = _estimate(bases, cell, numbers, factors[place], factors[BLOCK + place], sums[place])


# --- scratch ----------------------------------------------------------------------------------------------


@inline_helper
def address_at(array: Any) -> int:
    """Return the address of an array as a signed number: mixed with unsigned ones, numba would compute in floats."""
    return int(np.int64(array.ctypes.data))


@inline_helper
def filled(size: int) -> int:
    """Return a number of bytes filled up to whole cache lines."""
    return (size + LINE - 1) // LINE * LINE


@helper
def lay_out(address: int, width: int, dim: int, cells: int) -> Asked:
    """Lay the scratch of a query out from an address on."""
    words = (width + 63) // 64
    table = address + filled(4 * width)
    planes = table + 4 * width
    bases = planes + filled(8 * PLANES * words)
    numbers = bases + filled(4 * cells)
    return Asked(
        0, dim, address, width, table, planes, words, bases, cells, numbers, numbers + LINE, numbers + 6 * LINE
    )
