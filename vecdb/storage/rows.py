"""Blobs of rows: pieces that kernels read where they lie in the map, with a checksum for every 16 KB.

A piece holds a power of two of whole rows, so that a row is found by a shift; it fills whole pages, so that LMDB keeps
it on pages of its own, which never move while the set exists. Byte tables: docs/explanation/storage-design.md.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from vecdb.errors import CorruptionError
from vecdb.storage.format import CHUNK, checksum
from vecdb.storage.tx import Tx

_HEAD: Final = struct.Struct("<Q4sIII")
_MAGIC: Final = b"VROW"
_FORMAT: Final = 1
_PAGE: Final = 4_096
_MAP_OFFSET: Final = 16
"""What LMDB puts before a value on its first page."""
MOST_BYTES: Final = 1 << 20
"""Bytes of rows in a piece, at most; one row is no longer."""

Numbers = npt.NDArray[np.int64]


def shift_of(row_bytes: int) -> int:
    """Return s, where a piece holds ``2**s`` rows."""
    return max(0, (MOST_BYTES // row_bytes).bit_length() - 1)


def row_pieces(length: int, row_bytes: int) -> int:
    """Return how many pieces rows of `length` bytes in all fill."""
    return -(-length // (row_bytes << shift_of(row_bytes)))


def head_bytes(payload: int) -> int:
    """Bytes before the rows of a piece: fields and checksums, until the rows lie on a 64-byte boundary of the map."""
    used = _MAP_OFFSET + _HEAD.size + 8 * -(-payload // CHUNK)
    return -(-used // 64) * 64 - _MAP_OFFSET


def value_bytes(payload: int) -> int:
    """Length of the value of a piece: with what LMDB puts before it, it fills whole pages."""
    return -(-(_MAP_OFFSET + head_bytes(payload) + payload) // _PAGE) * _PAGE - _MAP_OFFSET


def encode_rows(key: bytes, row_bytes: int, rows: memoryview) -> bytes:
    """Return the value of a piece."""
    digests = b"".join(_digest(key, chunk, rows).to_bytes(8, "little") for chunk in range(-(-len(rows) // CHUNK)))
    rest = struct.pack("<4sIII", _MAGIC, _FORMAT, row_bytes, len(rows) // row_bytes) + digests
    head = struct.pack("<Q", checksum(rest, checksum(key))) + rest
    return b"".join([head.ljust(head_bytes(len(rows)), b"\0"), rows]).ljust(value_bytes(len(rows)), b"\0")


def _digest(key: bytes, chunk: int, rows: memoryview) -> int:
    """Return the checksum of a chunk: in another place, or under another key, it is another."""
    return checksum(rows[chunk * CHUNK : (chunk + 1) * CHUNK], checksum(key) + chunk)


def open_piece(key: bytes, value: memoryview, row_bytes: int, rows: int) -> tuple[memoryview, npt.NDArray[np.uint64]]:
    """Return the rows of a piece, not yet compared, and their checksums, which were.

    Raises
    ------
    CorruptionError
        It is not what was stored under this key.
    """
    payload = rows * row_bytes
    chunks = -(-payload // CHUNK)
    if len(value) != value_bytes(payload):
        raise _damaged(key, "has a wrong length")
    expected = (_MAGIC, _FORMAT, row_bytes, rows)
    digest, *fields = _HEAD.unpack_from(value)
    rest = value[8 : _HEAD.size + 8 * chunks]
    if tuple(fields) != expected or digest != checksum(rest, checksum(key)):
        raise _damaged(key, "has a damaged header or lies in the wrong place")
    start = head_bytes(payload)
    return value[start : start + payload], np.frombuffer(value, "<u8", chunks, _HEAD.size)


class StoredRows:
    """The pieces of one blob of rows: opened without reading them, compared with their checksums when asked.

    Parameters
    ----------
    tx : Tx
        Its lease is held while this is used.
    keys : list of bytes
        Of the pieces, in order.
    length, row_bytes : int
        Bytes of all rows, and of one.

    Raises
    ------
    CorruptionError
        A piece is missing, or its header is damaged.
    """

    def __init__(self, tx: Tx, keys: list[bytes], length: int, row_bytes: int) -> None:
        self.shift = shift_of(row_bytes)
        self.row_bytes = row_bytes
        self._keys = keys
        self.payloads: list[memoryview] = []
        self._digests: list[npt.NDArray[np.uint64]] = []
        count = length // row_bytes
        for place, key in enumerate(keys):
            value = tx.get("blobs", key)
            if value is None:
                raise _damaged(key, "is missing")
            rows = min(1 << self.shift, count - (place << self.shift))
            payload, digests = open_piece(key, memoryview(value), row_bytes, rows)
            self.payloads.append(payload)
            self._digests.append(digests)
        self._per_piece = len(self._digests[0]) if keys else 1
        self._proved = np.zeros(len(keys) * self._per_piece, np.bool_)
        if keys:
            self._proved[(len(keys) - 1) * self._per_piece + len(self._digests[-1]) :] = True
        self.sound = not keys

    def verify(self) -> None:
        """Compare every chunk that was not compared yet."""
        if not self.sound:
            self._compare(np.flatnonzero(~self._proved))
            self.sound = True

    def verify_rows(self, rows: Numbers) -> None:
        """Compare the chunks that hold these rows; once most are known, the rest with them."""
        if self.sound or not len(rows):
            return
        pieces, starts = rows >> self.shift, (rows & ((1 << self.shift) - 1)) * self.row_bytes
        first, last = starts // CHUNK, (starts + self.row_bytes - 1) // CHUNK
        steps = range(int((last - first).max()) + 1)
        chunks = np.concatenate([pieces * self._per_piece + np.minimum(first + step, last) for step in steps])
        unknown = np.unique(chunks[~self._proved[chunks]])
        if not len(unknown):
            return
        self._compare(unknown)
        if 2 * np.count_nonzero(self._proved) > len(self._proved):
            self.verify()

    def _compare(self, chunks: Numbers) -> None:
        for number in chunks.tolist():
            place, chunk = divmod(number, self._per_piece)
            if _digest(self._keys[place], chunk, self.payloads[place]) != int(self._digests[place][chunk]):
                raise _damaged(self._keys[place], f"does not match the checksum of its chunk {chunk}")
            self._proved[number] = True


def split_rows(length: int, row_bytes: int) -> Iterator[slice]:
    """Yield what goes into each piece of rows of `length` bytes."""
    step = row_bytes << shift_of(row_bytes)
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def _damaged(key: bytes, problem: str) -> CorruptionError:
    return CorruptionError(
        f"a piece of rows of an index, at key {key.hex()}, {problem}",
        hint="The index is rebuilt by optimize().",
        what="index blob",
        where=key.hex(),
    )
