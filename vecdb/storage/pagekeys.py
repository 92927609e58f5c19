"""Many keys of LMDB at once, and their order: byte by byte, a key before those that it begins.

Invariant: keys are compared as LMDB compares them, eight bytes of all pairs at a time. A key lies anywhere in a buffer
that goes on for at least eight bytes behind it. Design: docs/explanation/storage-design.md, "Traps of the map".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["PAD", "Keys", "ascending", "before", "joined", "ragged", "unaligned"]

Bools = npt.NDArray[np.bool_]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

PAD: Final = bytes(8)
"""What a buffer of keys ends with."""
_MASKS: Final = np.array([0, *((1 << 64) - (1 << (64 - 8 * left)) for left in range(1, 9))], dtype=np.uint64)
"""Which bits of eight bytes, the first highest, belong to a key of which so many bytes are left."""


class Keys(NamedTuple):
    """Keys in order.

    Attributes
    ----------
    data : bytes
        Ends with `PAD`.
    places, widths : ndarray of int64, shape (n,)
        Where each key begins in `data`, and its bytes.
    """

    data: bytes
    places: I64
    widths: I64

    def part(self, which: slice | I64) -> Keys:
        """Return some of the keys."""
        return Keys(self.data, self.places[which], self.widths[which])

    def key(self, index: int) -> bytes:
        """Return one key."""
        start = int(self.places[index])
        return self.data[start : start + int(self.widths[index])]

    def after(self, width: int) -> Keys:
        """Return the keys with the one before them that ends the buffer, `width` bytes long."""
        places = np.concatenate([[len(self.data) - len(PAD) - width], self.places])
        return Keys(self.data, places, np.concatenate([[width], self.widths]))

    def turned(self) -> Keys:
        """Return keys of eight bytes with the highest first, so that little-endian numbers are in their order."""
        data: bytes = unaligned(self.data, "<u8")[self.places].astype(">u8").tobytes()
        return Keys(data + PAD, 8 * np.arange(len(self.places)), np.full(len(self.places), 8))

    def compact(self) -> Keys:
        """Return the same keys in a buffer of their own."""
        data: bytes = np.frombuffer(self.data, np.uint8)[ragged(self.places, self.widths)].tobytes()
        return Keys(data + PAD, np.cumsum(self.widths) - self.widths, self.widths)


def joined(parts: Sequence[Keys]) -> Keys:
    """Return the keys of all parts, one part after another."""
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(part.data) for part in parts)])
    places = [part.places + start for part, start in zip(parts, starts, strict=False)]
    data = b"".join(part.data for part in parts)
    return Keys(data, np.concatenate(places), np.concatenate([part.widths for part in parts]))


def unaligned(data: bytes, kind: str) -> npt.NDArray[np.uint64]:
    """Return the number that begins at each byte of `data`, without a copy; `kind` is a numpy type such as "<u2"."""
    dtype = np.dtype(kind)
    return np.ndarray((len(data) - dtype.itemsize + 1,), dtype, data, strides=(1,))


def ragged(starts: I64, counts: I64) -> I64:
    """Return start, start + 1, ... of each run, `counts` of them, one run after another."""
    total = int(counts.sum())
    return np.repeat(starts - (np.cumsum(counts) - counts), counts) + np.arange(total)


def before(first: Keys, second: Keys) -> Bools:
    """Return for each pair whether the key of `first` comes strictly before that of `second`."""
    longest = int(max(first.widths.max(initial=0), second.widths.max(initial=0)))
    words = ((_words(first, start), _words(second, start)) for start in range(0, longest, 8))
    return _decide(first.widths < second.widths, words)


def ascending(keys: Keys) -> Bools:
    """Return for each key but the last whether it comes strictly before the next one."""
    words = (_words(keys, start) for start in range(0, int(keys.widths.max(initial=0)), 8))
    return _decide(keys.widths[:-1] < keys.widths[1:], ((each[:-1], each[1:]) for each in words))


def _decide(shorter: Bools, pairs: Iterable[tuple[U64, U64]]) -> Bools:
    """Return which are in order by the first words that differ, and where none do, by which is `shorter`."""
    result = shorter
    undecided = np.arange(len(result))
    for first, second in pairs:
        one, other = first[undecided], second[undecided]
        same = one == other
        result[undecided] = np.where(same, result[undecided], one < other)
        undecided = undecided[same]
        if not len(undecided):
            break
    return result


def _words(keys: Keys, start: int) -> U64:
    """Return eight bytes of each key from `start` on as a number; bytes behind its end count as zero."""
    left = np.minimum(np.maximum(keys.widths - start, 0), 8)
    words = unaligned(keys.data, ">u8")[np.where(left > 0, keys.places + start, 0)]
    return words.astype(np.uint64) & _MASKS[left]
