"""Named blobs of derived objects: byte strings in checksummed pieces, never changed, removed as a set.

A set has a number that is never reused. Each piece fills an allocation class, so that what a dropped set leaves behind
fits what comes next; the lengths are in the catalog, with the object that owns the set. Blobs of rows, which are read
where they lie, have pieces of their own (`vecdb.storage.rows`). Byte tables: docs/explanation/storage-design.md.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple, Protocol

from vecdb.errors import CorruptionError
from vecdb.storage.format import BLOCK_CLASSES, seal, unseal
from vecdb.storage.rows import MOST_BYTES, StoredRows, encode_rows, row_pieces, shift_of, split_rows, value_bytes
from vecdb.storage.tx import Tx

_KEY: Final = struct.Struct(">QII")
_SET: Final = struct.Struct(">Q")
_OVERHEAD: Final = 16 + 8
"""What LMDB puts before a value on its first page, and the checksum behind the payload."""
_LARGEST: Final = BLOCK_CLASSES[-1] - _OVERHEAD
MAX_BLOBS: Final = 4_096
"""Blobs that a plugin may write into one set; the engine may add some of its own."""


@dataclass(frozen=True, slots=True)
class BlobLine:
    """Name and length of one blob, and the bytes of a row if it is one of rows; its place in the set is its number."""

    name: str
    length: int
    row_bytes: int = 0


class Contents(Protocol):
    """Bytes to be stored: a memoryview, or what makes rows when they are sliced, from one row to another."""

    def __len__(self) -> int: ...
    def __getitem__(self, part: slice, /) -> memoryview: ...


class BlobData(NamedTuple):
    """A blob to be stored; with `row_bytes`, as rows."""

    name: str
    data: Contents
    row_bytes: int = 0


class Piece(NamedTuple):
    """A value of the table: its key, its bytes about, and what makes it."""

    key: bytes
    size: int
    make: Callable[[], bytes]

    def put(self, tx: Tx) -> None:
        tx.put("blobs", self.key, self.make(), append=False)


def room(size_class: int) -> int:
    """Payload bytes of a piece of this class."""
    return size_class - _OVERHEAD


def _pieces(length: int) -> Iterator[tuple[int, int, int]]:
    """Yield (piece, start, room): all pieces of the largest class, the last of the smallest that holds it."""
    for piece, start in enumerate(range(0, length, _LARGEST)):
        yield piece, start, _room_for(length - start)


def _room_for(left: int) -> int:
    return next(room(each) for each in BLOCK_CLASSES if room(each) >= min(left, _LARGEST))


def _last_piece(length: int) -> tuple[int, int, int]:
    """Return the last of `_pieces`, without going through those before it: nobody knows yet that they exist."""
    piece = (length - 1) // _LARGEST
    return piece, piece * _LARGEST, _room_for(length - piece * _LARGEST)


def write_blobs(tx: Tx, number: int, blobs: Sequence[BlobData]) -> tuple[BlobLine, ...]:
    """Store a set; return its lines for the catalog."""
    for piece in pieces_of(number, blobs):
        piece.put(tx)
    return lines_of(blobs)


def lines_of(blobs: Sequence[BlobData]) -> tuple[BlobLine, ...]:
    """Return what the catalog says of a set."""
    return tuple(BlobLine(blob.name, len(blob.data), blob.row_bytes) for blob in blobs)


def pieces_of(number: int, blobs: Sequence[BlobData]) -> Iterator[Piece]:
    """Yield what is stored of a set, in key order; each piece is made when it is put."""
    for place, (_, data, row_bytes) in enumerate(blobs):
        if row_bytes:
            for piece, part in enumerate(split_rows(len(data), row_bytes)):
                key = _KEY.pack(number, place, piece)
                yield Piece(key, part.stop - part.start, partial(_rows_value, key, row_bytes, data, part))
            continue
        for piece, start, space in _pieces(len(data)):
            key = _KEY.pack(number, place, piece)
            yield Piece(key, space, partial(_bytes_value, key, data, start, space))


def _rows_value(key: bytes, row_bytes: int, data: Contents, part: slice) -> bytes:
    return encode_rows(key, row_bytes, data[part])


def _bytes_value(key: bytes, data: Contents, start: int, space: int) -> bytes:
    return seal(key, bytes(data[start : start + space]).ljust(space, b"\0"))


def read_blob(tx: Tx, number: int, place: int, line: BlobLine) -> bytes:
    """Return a blob, every piece checked.

    Raises
    ------
    CorruptionError
        A piece is missing, damaged or of a wrong length.
    """
    if not line.length:
        return b""
    if line.row_bytes:
        rows = stored_rows(tx, number, place, line)
        rows.verify()
        return b"".join(rows.payloads)
    _piece(tx, number, place, line, _last_piece(line.length))  # before anything is allocated for a length that is a lie
    return b"".join([_piece(tx, number, place, line, piece) for piece in _pieces(line.length)])


def stored_rows(tx: Tx, number: int, place: int, line: BlobLine) -> StoredRows:
    """Return a blob of rows where it lies, its headers checked.

    Raises
    ------
    CorruptionError
        A piece is missing or its header damaged, or the lengths cannot be.
    """
    impossible = not 0 < line.row_bytes <= MOST_BYTES or line.length % line.row_bytes
    if impossible or line.length > line.row_bytes << (31 + shift_of(line.row_bytes)):
        raise _damaged(number, line, f"is said to have {line.length} bytes in rows of {line.row_bytes}")
    count = row_pieces(line.length, line.row_bytes)
    if (
        count and tx.get("blobs", _KEY.pack(number, place, count - 1)) is None
    ):  # before a list of a length that is a lie
        raise _damaged(number, line, f"has lost its piece {count - 1}")
    keys = [_KEY.pack(number, place, piece) for piece in range(count)]
    return StoredRows(tx, keys, line.length, line.row_bytes)


def _piece(tx: Tx, number: int, place: int, line: BlobLine, piece: tuple[int, int, int]) -> memoryview:
    index, start, space = piece
    if index >= 1 << 32:
        raise _damaged(number, line, f"is said to have {line.length} bytes, more than any can have")
    key = _KEY.pack(number, place, index)
    value = tx.get("blobs", key)
    if value is None:
        raise _damaged(number, line, f"has lost its piece {index}")
    payload = unseal(key, value, "index blob")
    if len(payload) != space:
        raise _damaged(number, line, f"has a piece {index} of a wrong length")
    return payload[: line.length - start]


def prove_blobs(tx: Tx, number: int, lines: Sequence[BlobLine]) -> int:
    """Check every piece of a set; return how many there are."""
    count = 0
    for place, line in enumerate(lines):
        if line.row_bytes:
            rows = stored_rows(tx, number, place, line)
            rows.verify()
            count += len(rows.payloads)
            continue
        for piece in _pieces(line.length):
            _piece(tx, number, place, line, piece)
            count += 1
    return count


def drop_blobs(tx: Tx, number: int) -> int:
    """Remove a set; return how many pieces it had."""
    return tx.delete_range("blobs", _SET.pack(number))


def stored_bytes_of(lines: Sequence[BlobLine]) -> int:
    """Bytes that the pieces of a set take."""
    return sum(_stored_bytes(line) for line in lines)


def _stored_bytes(line: BlobLine) -> int:
    length = line.length
    if not length:
        return 0
    if line.row_bytes:
        step = line.row_bytes << shift_of(line.row_bytes)
        before, left = divmod(length, step)
        return before * (value_bytes(step) + 16) + (value_bytes(left) + 16 if left else 0)
    before, _, last = _last_piece(length)
    return before * BLOCK_CLASSES[-1] + last + _OVERHEAD


def _damaged(number: int, line: BlobLine, problem: str) -> CorruptionError:
    return CorruptionError(
        f"blob {line.name!r} of set {number} {problem}",
        hint="The index is rebuilt by optimize().",
        what="index blob",
        where=str(number),
    )
