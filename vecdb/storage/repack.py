"""Which blocks of a space are worth rewriting without their dead: numbers in, numbers out.

A rewrite puts the survivors of neighbouring blocks together, so its gain is what their old blocks take above the new
ones. Invariant: a plan never costs more bytes than it gives back, and never joins blocks that are not neighbours,
because ordinals ascend through them. Design: docs/explanation/storage-design.md, "How vectors live".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.storage.format import BLOCK_CLASSES, BlockRef, block_capacity

WIDEST: Final = 12
"""Neighbours rewritten together at most; at a fifth dead, five make four."""
_SMALL_SPACE: Final = 64 << 20

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Neighbouring blocks, ``start`` to ``stop`` of their space, that are rewritten together."""

    start: int
    stop: int
    written: int
    """Bytes of the new blocks."""


def usual_class(stored: int, width: int) -> int:
    """Return the block class of small writes into a space.

    Parameters
    ----------
    stored : int
        Vectors in the space, the dead included.
    width : int
        Bytes of a vector.

    Returns
    -------
    int
        256 KB while the vectors take up to 64 MB, more where that would leave a tenth of each block unused; then 1 MB.

    Notes
    -----
    Between two new blocks small commits use up free pages from the oldest on, and cut up every run on their way. How
    far they get grows with the rows of a block, and so does what the file needs before a run of a block is left over:
    about 25 MB for 1 MB blocks of 384 float32, a quarter for 256 KB.
    """
    if stored * width <= _SMALL_SPACE:
        for size_class in BLOCK_CLASSES[2:]:
            if 10 * block_capacity(size_class, width) * (width + 16) >= 9 * size_class:
                return size_class
    return BLOCK_CLASSES[-1]


def cut(rows: int, width: int, largest: int) -> list[int]:
    """Return into blocks of how many rows `rows` are cut: full ones of class `largest`, then what wastes little.

    The rest fills smaller classes until what is left takes three quarters of a block.
    """
    counts = []
    size_class = largest
    while rows:
        capacity = block_capacity(size_class, width)
        smaller = block_capacity(size_class // 2, width) if size_class > BLOCK_CLASSES[0] else 0
        if rows >= capacity or not smaller or (rows > smaller and 4 * rows >= 3 * capacity):
            counts.append(min(rows, capacity))
            rows -= counts[-1]
        elif rows > smaller:
            counts.append(smaller)
            rows -= smaller
        else:
            size_class //= 2
    return counts


def plan(
    refs: Sequence[BlockRef], dead: Counts, width: int, *, largest: int, threshold: float, most: int
) -> list[Stretch]:
    """Choose what to rewrite now.

    Parameters
    ----------
    refs : sequence of BlockRef
        Every block of the space, in order.
    dead : ndarray of int64, shape (n,)
        How many vectors of each block may go.
    width : int
        Bytes of a vector.
    largest : int
        Class of the new blocks.
    threshold : float
        Share of its bytes that a stretch must give back.
    most : int
        Bytes to write at most; blocks without survivors cost nothing and always go.

    Returns
    -------
    list of Stretch
        In order, apart from each other; those that give back most for what they write.
    """
    rows = np.array([ref.rows for ref in refs], np.int64)
    sizes = np.array([ref.size_class for ref in refs], np.int64)
    found = [Stretch(place, place + 1, 0) for place in np.flatnonzero(dead >= rows).tolist()]
    candidates = _candidates(rows - dead, sizes, _bytes_for(width, largest), threshold, most)
    taken = np.zeros(len(refs), np.bool_)
    taken[[stretch.start for stretch in found]] = True
    for start, stop, written in candidates:
        if written <= most and not taken[start:stop].any():
            taken[start:stop] = True
            most -= written
            found.append(Stretch(start, stop, written))
    return sorted(found, key=lambda stretch: stretch.start)


def _candidates(live: Counts, sizes: Counts, bytes_for: Any, threshold: float, most: int) -> list[tuple[int, int, int]]:
    """Return (start, stop, bytes written) of each stretch that pays, the best first."""
    live_before, size_before = (np.concatenate(([0], np.cumsum(part))) for part in (live, sizes))
    parts = []
    for length in range(1, min(WIDEST, len(live)) + 1):
        survivors = live_before[length:] - live_before[:-length]
        old = size_before[length:] - size_before[:-length]
        written = bytes_for(survivors)
        pays = (written > 0) & (written <= most) & (old - written >= threshold * old) & (old > written)
        starts = np.flatnonzero(pays)
        parts.append(np.stack([starts, starts + length, written[starts], old[starts]], axis=1))
    if not parts:
        return []
    table = np.concatenate(parts)
    order = np.lexsort((table[:, 2] - table[:, 3], table[:, 2] / table[:, 3]))  # of equals the one that saves more
    return [(start, stop, written) for start, stop, written, _ in table[order].tolist()]


def _bytes_for(width: int, largest: int) -> Any:
    """Return a function from numbers of rows to the most bytes that their blocks take."""
    classes = np.array([size for size in BLOCK_CLASSES if size <= largest], np.int64)
    capacities = np.array([block_capacity(size, width) for size in classes.tolist()], np.int64)
    sizes = np.concatenate(([0], classes))

    def bytes_for(rows: Counts) -> Counts:
        full, rest = np.divmod(rows, capacities[-1])
        places = np.where(rest == 0, 0, np.searchsorted(capacities, rest) + 1)
        result: Counts = full * classes[-1] + sizes[places]
        return result

    return bytes_for
