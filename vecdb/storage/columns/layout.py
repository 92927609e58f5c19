"""The words of the column format: limits, type tags, blocks of numbers and the cursor that reads them.

A chunk is ``header | directory (JSON) | bodies``, all numbers little-endian, every part padded to 8 bytes. A body is
a sequence of blocks; a block is ``dtype code u8, 3 zero bytes, count u32, numbers, padding``. Invariant: `Cursor`
hands out an array only after its dtype, its length and its end were checked against the buffer, so nothing is
allocated that the buffer does not pay for.
"""

from __future__ import annotations

import enum
import struct
from typing import Any, Final, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt

from vecdb.errors import CorruptionError

__all__ = [
    "BARE",
    "HEADER",
    "MAGIC",
    "MAX_COLUMNS_BYTES",
    "MAX_COLUMN_BYTES",
    "MAX_PATHS",
    "MAX_RECORDS",
    "MISSING",
    "OPAQUE",
    "VERSION",
    "Absent",
    "Array",
    "Cursor",
    "Tag",
    "corrupt",
    "pack_array",
    "pad",
]

Array: TypeAlias = npt.NDArray[Any]

MAX_RECORDS: Final = 16_384
"""Records of one chunk; a place in it fits 16 bits."""
MAX_PATHS: Final = 256
"""Paths that a chunk lists, the most frequent first."""
MAX_COLUMN_BYTES: Final = 8 << 20
"""A path whose values need more is listed without values: long texts would make every rewrite of the chunk dear."""
MAX_COLUMNS_BYTES: Final = 64 << 20
"""All columns of a chunk together; later paths are listed without values."""

MAGIC: Final = b"vcol"
VERSION: Final = 1
HEADER: Final = struct.Struct("<4sHHIIQ")
"""Magic, version, flags (1: there are more paths), records, bytes of the directory, first row."""
_BLOCK: Final = struct.Struct("<B3xI")
_DTYPES: Final = {
    number: np.dtype(name)
    for number, name in enumerate(("<u1", "<u2", "<u4", "<u8", "<i1", "<i2", "<i4", "<i8", "<f8"), start=1)
}
_CODES: Final = {dtype: number for number, dtype in _DTYPES.items()}


class Tag(enum.IntEnum):
    """The type of one value. A record without the path has no tag: it is missing from the column's places."""

    NULL = 1
    BOOL = 2
    INT = 3
    FLOAT = 4
    STR = 5
    LIST = 6
    DICT = 7
    """A dict; its keys are paths of their own. Inside a list: any list or dict, whose content is not kept."""


BARE: Final = frozenset({Tag.NULL, Tag.DICT})
"""Types that are all there is to say of a value."""


class Absent(enum.Enum):
    """What stands where a column has no Python value to give."""

    MISSING = "missing"
    OPAQUE = "opaque"

    def __repr__(self) -> str:
        return self.name


MISSING: Final = Absent.MISSING
"""The record does not have the path."""
OPAQUE: Final = Absent.OPAQUE
"""A dict, or a list inside a list: it exists, and equals nothing."""


def corrupt(problem: str, where: str, cause: BaseException | None = None) -> NoReturn:
    """Raise the error for bytes that no encoder wrote."""
    raise CorruptionError(
        f"column chunk, {where}: {problem}.",
        hint="run check(); columns are derived and can be rebuilt from the records.",
        what="columns",
        where=where,
    ) from cause


def pad(length: int) -> int:
    """Bytes up to the next multiple of 8."""
    return -length % 8


def pack_array(array: Array) -> bytes:
    """Return a block: the narrowest header that `Cursor.array` needs, the numbers, padding."""
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    data = little.tobytes()
    return _BLOCK.pack(_CODES[little.dtype], len(little)) + data + bytes(pad(len(data)))


class Cursor:
    """Reads the blocks of one body in order, checking each against the end of the body.

    Parameters
    ----------
    view : memoryview of bytes
        Exactly the body. Any alignment; arrays of unaligned numbers are copied, others are views.
    where : str
        What is read, for messages.
    """

    __slots__ = ("_at", "_view", "where")

    def __init__(self, view: memoryview, where: str) -> None:
        self._view = view
        self._at = 0
        self.where = where

    def array(self, kinds: str, count: int | None = None) -> Array:
        """Return the next block as a read-only array.

        Parameters
        ----------
        kinds : str
            Allowed dtype kinds: "u", "i", "f".
        count : int, optional
            The length it must have.
        """
        if self._at + _BLOCK.size > len(self._view):
            self.fail("a block begins past the end")
        code, length = _BLOCK.unpack_from(self._view, self._at)
        dtype = _DTYPES.get(code)
        if dtype is None or dtype.kind not in kinds:
            self.fail(f"a block of dtype code {code}, expected one of kind {kinds!r}")
        if count is not None and length != count:
            self.fail(f"a block of {length} numbers, expected {count}")
        start, size = self._at + _BLOCK.size, length * dtype.itemsize
        if start + size > len(self._view):
            self.fail(f"a block of {size} bytes ends past the end")
        self._at = start + size + pad(size)
        array = np.frombuffer(self._view, dtype, length, start)
        return array if array.flags.aligned else array.copy()

    def places(self, kinds: str, end: int, count: int | None = None) -> Array:
        """Return the next block as numbers that rise strictly and stay below `end`."""
        array = self.array(kinds, count)
        if len(array) and (int(array[-1]) >= end or not bool(np.all(array[1:] > array[:-1]))):
            self.fail("places do not rise, or lie outside")
        return array

    def finish(self) -> None:
        """Check that the body ends where its last block does."""
        if self._at != len(self._view):
            self.fail(f"{len(self._view) - self._at} bytes follow the last block")

    def fail(self, problem: str) -> NoReturn:
        corrupt(problem, self.where)
