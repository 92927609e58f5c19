"""Helpers that several kernels share: rotation, the table of a query, keys that order by score, heaps and lists.

Compiled into each kernel that calls them; nothing here is a kernel. A key is one uint64 whose upper half orders as the
score does, so that pools and heaps compare and move one machine word an entry. Source of the table: Gao & Long,
"RaBitQ", SIGMOD 2024, section 3.3.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vecdb.kernels._intrinsics import butterflies
from vecdb.kernels._jit import helper

__all__ = [
    "LEVELS",
    "fill_table",
    "insert_key",
    "offer_nearer",
    "rotate_row",
    "score_key",
    "score_of",
    "select",
    "sift_down",
    "smallest",
    "sort_down",
    "walsh_hadamard",
]

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]

LEVELS = 31
"""Largest magnitude of a rounded query component: four of them, shifted to be positive, fill a byte of the table."""


@helper
def walsh_hadamard(row: F32) -> None:
    """Transform a row whose length is a power of two, in place, normalised."""
    size, half = row.shape[0], 1
    if size % 16 == 0:  # steps within a vector register are not what a compiler sees through
        address = int(np.int64(row.ctypes.data))
        for start in range(0, size, 16):
            butterflies(address + 4 * start)
        half = 16
    while half < size:
        for start in range(0, size, 2 * half):
            left, right = row[start : start + half], row[start + half : start + 2 * half]
            for place in range(half):
                upper, lower = left[place], right[place]
                left[place] = upper + lower
                right[place] = upper - lower
        half *= 2
    scale = np.float32(1.0 / np.sqrt(np.float64(size)))
    for place in range(size):
        row[place] *= scale


@helper
def rotate_row(row: F32, signs: F32) -> None:
    """Rotate a row (D,) in place: rounds of sign flips (signs (rounds, D)) and two overlapping transforms."""
    width = row.shape[0]
    size = 1
    while 2 * size <= width:
        size *= 2
    for turn in range(signs.shape[0]):
        flips = signs[turn]
        for place in range(width):
            row[place] *= flips[place]
        walsh_hadamard(row[:size])
        if size < width:
            walsh_hadamard(row[width - size :])


@helper
def fill_table(query: F32, table: npt.NDArray[np.uint8]) -> np.float32:
    """Write the 16 sums of each group of four rounded components; return the size of a rounding step."""
    largest = np.float32(0.0)
    for place in range(query.shape[0]):
        largest = max(largest, abs(query[place]))
    step = largest / np.float32(LEVELS) if largest > np.float32(0.0) else np.float32(1.0)
    inverse = np.float32(1.0) / step
    for group in range(query.shape[0] // 4):
        part, entries = query[4 * group : 4 * group + 4], table[16 * group : 16 * group + 16]
        first, second = np.int16(np.rint(part[0] * inverse)), np.int16(np.rint(part[1] * inverse))
        third, fourth = np.int16(np.rint(part[2] * inverse)), np.int16(np.rint(part[3] * inverse))
        for code in range(16):  # without its bit a component counts with -1, with it with +1
            sum_of = (first if code & 1 else -first) + (second if code & 2 else -second)
            sum_of += (third if code & 4 else -third) + (fourth if code & 8 else -fourth)
            entries[code] = np.uint8(sum_of + 4 * LEVELS)
    return step


@helper
def score_key(score: np.float32, position: int) -> np.uint64:
    """Return a number that orders by score, and equal scores by descending position."""
    bits = np.uint64(np.float32(score).view(np.uint32))
    ordered = bits ^ np.uint64(0xFFFFFFFF) if bits >> np.uint64(31) else bits | np.uint64(0x80000000)
    return np.uint64(ordered << np.uint64(32)) | np.uint64(0xFFFFFFFF - position)


@helper
def score_of(entry: np.uint64) -> np.float32:
    """Return the score of a key."""
    bits = entry >> np.uint64(32)
    plain = bits ^ np.uint64(0x80000000) if bits >> np.uint64(31) else bits ^ np.uint64(0xFFFFFFFF)
    return np.float32(np.uint32(plain).view(np.float32))


@helper
def sift_down(heap: npt.NDArray[np.uint64], start: int, count: int) -> None:
    """Let the entry at `start` sink in a heap whose smallest is first."""
    entry, place = heap[start], start
    child = 2 * place + 1
    while child < count:
        if child + 1 < count and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= entry:
            break
        heap[place] = heap[child]
        place, child = child, 2 * child + 1
    heap[place] = entry


@helper
def select(keys: npt.NDArray[np.uint64], count: int, wanted: int) -> None:
    """Reorder ``keys[:count]`` so that its `wanted` largest come first (Hoare's selection)."""
    low, high = 0, count - 1
    while low < high:
        pivot = keys[(low + high) // 2]
        left, right = low, high
        while left <= right:
            while keys[left] > pivot:
                left += 1
            while keys[right] < pivot:
                right -= 1
            if left <= right:
                keys[left], keys[right] = keys[right], keys[left]
                left += 1
                right -= 1
        if wanted - 1 <= right:
            high = right
        elif wanted - 1 >= left:
            low = left
        else:
            break


@helper
def smallest(keys: npt.NDArray[np.uint64], count: int) -> np.uint64:
    """Return the least of ``keys[:count]``, count at least 1."""
    least = keys[0]
    for place in range(1, count):
        least = min(least, keys[place])
    return np.uint64(least)


@helper
def sort_down(heap: npt.NDArray[np.uint64], count: int) -> None:
    """Sort keys, the largest first, through a heap whose smallest is on top."""
    for start in range(count // 2 - 1, -1, -1):
        sift_down(heap, start, count)
    for last in range(count - 1, 0, -1):
        heap[0], heap[last] = heap[last], heap[0]
        sift_down(heap, 0, last)


@helper
def offer_nearer(values: F32, rows: I32, value: np.float32, row: int) -> np.float32:
    """Put a row into a full list sorted by value, behind equal ones, for the last; return the new largest value."""
    place = values.shape[0] - 1
    while place > 0 and values[place - 1] > value:
        values[place] = values[place - 1]
        rows[place] = rows[place - 1]
        place -= 1
    values[place] = value
    rows[place] = row
    return np.float32(values[values.shape[0] - 1])


@helper
def insert_key(keys: npt.NDArray[np.uint64], key: np.uint64) -> None:
    """Put a key into a list whose keys but the last ascend, for the last.

    Each place takes the middle one of itself, the key before it and the new key: no step depends on another, and
    none is guessed.
    """
    last = keys.shape[0] - 1
    keys[last] = np.uint64(0xFFFFFFFFFFFFFFFF)
    for place in range(last, 0, -1):
        keys[place] = min(max(keys[place - 1], key), keys[place])
    keys[0] = min(keys[0], key)
