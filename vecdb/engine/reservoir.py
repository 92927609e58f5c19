"""A uniform sample of everything a space ever stored, kept as ordinals at the cost of what it accepts.

Invariant: which rows are in the reservoir depends on the capacity and on how many rows were seen, never on how they
were split into writes, on the process or on a global generator; each row seen is in it with the same probability.
Called by the write path once a commit; deleted rows stay in it and are skipped by whoever gathers the vectors.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from vecdb.errors import CorruptionError, ParameterError

__all__ = ["DEFAULT_CAPACITY", "MAX_SEEN", "Reservoir"]

DEFAULT_CAPACITY = 4096
MAX_SEEN = 1 << 62
_MAX_CAPACITY = 1 << 24
_BLOCK_SHARE = 64

_Times = npt.NDArray[np.int64]
_Ordinals = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True, eq=False)
class Reservoir:
    """Immutable reservoir of ordinals.

    Attributes
    ----------
    capacity : int
        Ordinals kept, 1 to 16,777,216.
    seen : int
        Rows offered so far.
    ordinals : ndarray of uint64, shape (min(seen, capacity),)
        Not to be written to.
    """

    capacity: int
    seen: int
    ordinals: _Ordinals

    @classmethod
    def empty(cls, capacity: int = DEFAULT_CAPACITY) -> Reservoir:
        """Return a reservoir that has seen nothing.

        Raises
        ------
        ParameterError
            If `capacity` is out of its bounds.
        """
        if not 1 <= capacity <= _MAX_CAPACITY:
            raise ParameterError(
                f"a reservoir holds 1 to {_MAX_CAPACITY} ordinals, got {capacity}.", name="capacity", got=capacity
            )
        return cls(capacity, 0, np.empty(0, dtype=np.uint64))

    def add(self, first_ordinal: int, count: int) -> Reservoir:
        """Return the reservoir after rows ``first_ordinal .. first_ordinal + count - 1`` were stored.

        Parameters
        ----------
        first_ordinal : int, >= 0
        count : int, >= 0

        Returns
        -------
        Reservoir
            The same object if nothing was added; the arrays are shared if nothing was accepted.

        Raises
        ------
        ParameterError
            If a number is negative or leaves the range of ordinals.

        Notes
        -----
        Row number t (from 0) is accepted with probability ``capacity / (t + 1)`` and replaces a random slot:
        algorithm R of Vitter (ACM TOMS 1985). The accepted rows of a block of consecutive numbers are drawn at once,
        from a generator seeded by the block's number, so the cost is that of the rows accepted.
        """
        if count < 0 or first_ordinal < 0 or first_ordinal + count > MAX_SEEN or self.seen + count > MAX_SEEN:
            raise ParameterError(
                f"cannot add {count} rows from ordinal {first_ordinal} to {self.seen} seen.", name="count", got=count
            )
        if count == 0:
            return self
        end = self.seen + count
        filled = max(0, min(count, self.capacity - self.seen))
        ordinals = self.ordinals
        if filled:
            fresh = np.arange(first_ordinal, first_ordinal + filled, dtype=np.uint64)
            ordinals = np.concatenate([ordinals, fresh])
        times, slots = _accepted(self.capacity, self.seen + filled, end)
        if len(times):
            ordinals = ordinals.copy()
            last = np.unique(slots[::-1], return_index=True)[1]  # of several rows for one slot the last one stays
            kept = len(slots) - 1 - last
            ordinals[slots[kept]] = (times[kept] - self.seen + first_ordinal).astype(np.uint64)
        return Reservoir(self.capacity, end, ordinals)

    def to_bytes(self) -> bytes:
        """Return the ordinals as little-endian uint64; capacity and seen are stored beside them."""
        return self.ordinals.astype("<u8").tobytes()

    @classmethod
    def from_bytes(cls, capacity: int, seen: int, data: bytes) -> Reservoir:
        """Return a stored reservoir.

        Raises
        ------
        CorruptionError
            If the numbers are out of range or the length is not that of ``min(seen, capacity)`` ordinals.
        """
        plain = type(capacity) is int and type(seen) is int and isinstance(data, bytes)
        if not plain or not 1 <= capacity <= _MAX_CAPACITY or not 0 <= seen <= MAX_SEEN:
            raise CorruptionError("stored reservoir: capacity or count is not valid.", what="reservoir")
        if len(data) != 8 * min(seen, capacity):
            raise CorruptionError(
                f"stored reservoir: {len(data)} bytes for {min(seen, capacity)} ordinals.", what="reservoir"
            )
        return cls(capacity, seen, np.frombuffer(data, dtype="<u8").astype(np.uint64))


def _accepted(capacity: int, start: int, stop: int) -> tuple[_Times, _Times]:
    """Return the row numbers in [start, stop) that are accepted, ascending, and the slots they go to."""
    found = list(_accepted_by_block(capacity, start, stop))
    if not found:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    return np.concatenate([times for times, _ in found]), np.concatenate([slots for _, slots in found])


def _accepted_by_block(capacity: int, start: int, stop: int) -> Iterator[tuple[_Times, _Times]]:
    if start >= stop:
        return
    block = int(np.searchsorted(_bounds(capacity), start, side="right")) - 1
    while int(_bounds(capacity)[block]) < stop:
        times, slots = _block(capacity, block)
        low, high = np.searchsorted(times, [start, stop])
        if low < high:
            yield times[low:high], slots[low:high]
        block += 1


@lru_cache(maxsize=8)
def _bounds(capacity: int) -> _Times:
    """Return the first row number of every block; a block is 1/64 of what came before it."""
    bounds = [capacity]
    while bounds[-1] <= MAX_SEEN:
        bounds.append(bounds[-1] + max(1, bounds[-1] // _BLOCK_SHARE))
    return np.array(bounds, dtype=np.int64)


@lru_cache(maxsize=64)
def _block(capacity: int, block: int) -> tuple[_Times, _Times]:
    """Return row numbers and slots accepted in one block: drawn at the block's highest rate, then thinned."""
    first, stop = (int(bound) for bound in _bounds(capacity)[block : block + 2])
    rng = np.random.default_rng([capacity, block])
    drawn = int(rng.binomial(stop - first, capacity / (first + 1)))
    times = first + np.sort(rng.choice(stop - first, drawn, replace=False))
    kept = rng.random(drawn) * (times + 1) < first + 1
    return times[kept], rng.integers(0, capacity, drawn)[kept]
