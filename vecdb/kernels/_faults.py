"""What may be wrong with the candidates that an index returned for one query; shared by kernels that take them in."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vecdb.kernels._jit import strict_helper

__all__ = ["length_or_fault"]

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@strict_helper
def length_or_fault(positions: I64, scores: F32, count: int, allowed: Bools, least: int) -> int:
    """Return how many candidates a query has, or ``-1 - fault``.

    positions (m,); scores (m,); allowed (count,), or (0,) for all. Faults: 0 unknown position, 1 padding, 2 NaN,
    3 order, 4 duplicate, 5 fewer than `least`, 6 not allowed. Every position before the length is in ``[0, count)``.
    """
    width = positions.shape[0]
    length: int = width
    for place in range(width):
        position = positions[place]
        if position < -1 or position >= count:
            return -1
        if position == -1 and length == width:
            length = place
    for place in range(length, width):
        if positions[place] != -1 or scores[place] != -np.inf:
            return -2
    for place in range(length):
        score, position = scores[place], positions[place]
        if np.isnan(score):
            return -3
        if place:
            before = scores[place - 1]
            if score > before or (score == before and position < positions[place - 1]):
                return -4
    for place in range(length):
        for other in range(place):
            if positions[place] == positions[other]:
                return -5
    if length < least:
        return -6
    if allowed.shape[0]:
        for place in range(length):
            if not allowed[positions[place]]:
                return -7
    return length
