"""Pools of nominated rows, for the kernels of exact scans: brackets of scores, thinned out as they grow.

Invariant: no row whose upper bound reaches the k-th largest lower bound is dropped; NaN is kept, because nothing is
known of such a row.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vecdb.kernels._jit import helper

__all__ = ["drop_the_beaten", "first_trigger", "is_crowded", "kth_largest", "offer", "thin_out", "thin_out_if_due"]

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

_SMALL_POOL = 8


def first_trigger(k: int) -> int:
    """Return the count at which a fresh or settled pool for the best k is thinned out first."""
    return 2 * k + _SMALL_POOL


@helper
def kth_largest(values: F32, count: int, k: int) -> np.float32:
    """Return the k-th largest of ``values[:count]``, which is reordered (Hoare's selection)."""
    low, high, wanted = 0, count - 1, k - 1
    while low < high:
        pivot = values[(low + high) // 2]
        left, right = low, high
        while left <= right:
            while values[left] > pivot:
                left += 1
            while values[right] < pivot:
                right -= 1
            if left <= right:
                values[left], values[right] = values[right], values[left]
                left += 1
                right -= 1
        if wanted <= right:
            high = right
        elif wanted >= left:
            low = left
        else:
            break
    return np.float32(values[wanted])


@helper
def thin_out(k: int, bounds: F32, positions: I64, count: int, floor: np.float32) -> tuple[int, np.float32]:
    """Raise the floor to the k-th largest lower bound and drop what is below it; return (count, floor)."""
    if count < k:
        return count, floor
    for place in range(count):
        bounds[2, place] = bounds[0, place]
    floor = max(floor, kth_largest(bounds[2], count, k))
    kept = 0
    for place in range(count):
        if not (bounds[1, place] < floor):  # NaN is kept: nothing is known about such a row
            bounds[0, kept] = bounds[0, place]
            bounds[1, kept] = bounds[1, place]
            positions[kept] = positions[place]
            kept += 1
    return kept, floor


@helper
def thin_out_if_due(k: int, bounds: F32, positions: I64, state: I64, floor: np.float32) -> np.float32:
    """Thin a pool out that has reached its trigger, and set the next one; return the new floor."""
    if state[0] < state[1]:
        return floor
    count, floor = thin_out(k, bounds, positions, state[0], floor)
    state[0] = count
    state[1] = max(2 * count, 2 * k + _SMALL_POOL)
    return floor


@helper
def offer(
    k: int, bounds: F32, positions: I64, state: I64, floor: np.float32, middle: np.float32, error: np.float32, row: int
) -> np.float32:
    """Put a row into the pool, thin the pool out when it reaches its trigger; return the new floor."""
    count = state[0]
    lower = middle - error
    bounds[0, count] = lower if lower == lower else np.float32(-np.inf)
    bounds[1, count] = middle + error
    positions[count] = row
    state[0] = count + 1
    return thin_out_if_due(k, bounds, positions, state, floor)


@helper
def drop_the_beaten(k: int, bounds: F32, positions: I64, state: I64, floor: np.float32) -> np.float32:
    """Thin out once more where a stretch ends, so that only rows are left which may be among the best k so far."""
    count, floor = thin_out(k, bounds, positions, state[0], floor)
    state[0] = count
    return floor


@helper
def is_crowded(state: I64, positions: I64) -> bool:
    """Whether thinning out left so many rows that the next trigger lies beyond the pool: the caller settles it."""
    crowded: bool = state[1] > positions.shape[0]
    return crowded
