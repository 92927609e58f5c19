"""Checks of what an index returned, compiled: all rules of an answer in one pass, for a handful of candidates a query.

Ladder: `first_fault` (kernel) <- `sound_lengths` (entry). The border names the rule by its own plain checks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import types

from vecdb.kernels import reference
from vecdb.kernels._faults import length_or_fault
from vecdb.kernels._jit import kernel, read, write

__all__ = ["first_fault", "sound_lengths"]

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
_ALL = np.empty(0, np.bool_)


@kernel(
    (
        read(types.int64, 2),
        read(types.float32, 2),
        types.int64,
        read(types.boolean),
        types.int64,
        write(types.int64),
    ),
    twin=reference.first_fault,
    strict=True,
)
def first_fault(positions: I64, scores: F32, count: int, allowed: Bools, least: int, lengths: I64) -> int:
    """Return ``8 * row + fault`` of the first query with a fault, -1 if there is none; write lengths (q,).

    positions (q, m); scores (q, m); allowed (count,), or (0,) for all. Faults: as `length_or_fault` numbers them.
    """
    for row in range(positions.shape[0]):
        length = length_or_fault(positions[row], scores[row], count, allowed, least)
        if length < 0:
            return 8 * row - 1 - length
        lengths[row] = length
    return -1


def sound_lengths(positions: I64, scores: F32, count: int, allowed: Bools | None, least: int) -> list[int] | None:
    """Return how many candidates each query has, None if any rule is broken; arrays as in `first_fault`."""
    lengths = np.empty(len(positions), np.int64)
    mask = _ALL if allowed is None else allowed
    sound = first_fault(positions, scores, count, mask, least, lengths) < 0
    return lengths.tolist() if sound else None
