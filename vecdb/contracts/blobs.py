"""How a plugin persists: named blobs that the engine stores, checks and removes with the object they belong to.

A plugin never sees the database file, so its state is committed, copied, verified and given back like everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from vecdb.contracts.rows import MappedRows

__all__ = ["BlobReader", "BlobWriter", "Data", "MadeRows"]

MAX_ROW_BYTES = 1 << 20

Data: TypeAlias = bytes | bytearray | memoryview | npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class MadeRows:
    """Rows that are made while they are stored, some at a time, so that they are never in memory all at once.

    Attributes
    ----------
    count : int
        Number of rows, at least 0.
    row_bytes : int
        Bytes of a row, 1 to 2**20.
    make : callable
        ``make(first, stop)`` returns the rows from `first` to ``stop - 1`` as a C-contiguous array of any plain dtype
        and shape that has ``(stop - first) * row_bytes`` bytes. It is called in any order until the commit, perhaps
        more than once, by another thread, when no view is lent any more; it always returns the same for the same rows.
    """

    count: int
    row_bytes: int
    make: Callable[[int, int], npt.NDArray[Any]]


class BlobWriter(Protocol):
    """Takes the named blobs of one object; they become durable together, in one commit, or not at all."""

    def write(self, name: str, data: Data) -> None:
        """Store `data` under `name`.

        Parameters
        ----------
        name : str
            1 to 64 characters of ``a-z 0-9 . _ -``; each name once.
        data : bytes-like or ndarray
            C-contiguous. Borrowed until the commit: do not change it afterwards.

        Raises
        ------
        PluginContractError
            An unusable or repeated name, or data that is not contiguous bytes.
        """
        ...

    def write_rows(self, name: str, rows: npt.NDArray[Any] | MadeRows) -> None:
        """Store rows so that `BlobReader.rows` finds them where they lie, without reading the others.

        Parameters
        ----------
        name : str
            As in `write`.
        rows : ndarray of any plain dtype, shape (n, width), or MadeRows
            C-contiguous; a row has 1 to 2**20 bytes. Borrowed until the commit. Rows that would take much memory are
            given as `MadeRows`, and made piece by piece while they are stored.

        Raises
        ------
        PluginContractError
            An unusable or repeated name, or rows of another form.
        """
        ...


class BlobReader(Protocol):
    """Gives the named blobs of one object back; every byte is verified against its checksum before it is returned."""

    def names(self) -> Sequence[str]:
        """Return the names, in the order they were written."""
        ...

    def size(self, name: str) -> int:
        """Return the length of a blob in bytes.

        Raises
        ------
        CorruptionError
            If there is no blob of this name: what was stored is not what the plugin wrote.
        """
        ...

    def read(self, name: str) -> bytes:
        """Return a blob as bytes that the caller owns.

        Raises
        ------
        CorruptionError
            If the blob is missing or damaged.
        """
        ...

    def array(self, name: str, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """Return a blob as a read-only C-contiguous array that the caller owns.

        Parameters
        ----------
        name : str
        dtype : dtype_like
            Without objects.
        shape : tuple of int
            One axis may be -1.

        Raises
        ------
        CorruptionError
            If the blob is missing, damaged, or its length does not fit `dtype` and `shape`.
        """
        ...

    def rows(self, name: str, dtype: npt.DTypeLike, width: int, count: int) -> MappedRows:
        """Return `count` rows that `BlobWriter.write_rows` stored, where they lie; nothing of them is read.

        Parameters
        ----------
        name : str
        dtype : dtype_like
            Without objects.
        width : int
            Items in a row.
        count : int

        Raises
        ------
        CorruptionError
            If the blob is missing, is not one of rows, or has other rows than these.
        """
        ...


def as_bytes(data: Data) -> memoryview:
    """Return a buffer as flat bytes, without a copy.

    Raises
    ------
    TypeError, ValueError
        If `data` has no buffer, holds objects, or is not C-contiguous.
    """
    if isinstance(data, np.ndarray) and data.dtype.hasobject:
        raise TypeError("an array of objects cannot be stored")
    view = memoryview(data)  # type: ignore[arg-type]  # arrays have a buffer, but their stubs say so from 3.12 on only
    if not view.c_contiguous:
        raise ValueError("the data are not C-contiguous")
    return view.cast("B") if view.nbytes else memoryview(b"")


def row_bytes_of(rows: npt.NDArray[Any] | MadeRows) -> int:
    """Return the bytes of one row of what is given to `BlobWriter.write_rows`.

    Raises
    ------
    TypeError, ValueError
        If it is no array of two axes, holds objects, is not C-contiguous, or its rows are empty or too long.
    """
    given: Any = rows
    if isinstance(given, MadeRows):
        return _made_row_bytes(given)
    if not isinstance(given, np.ndarray) or given.dtype.hasobject:
        raise TypeError(f"{type(given).__name__} is no array of plain numbers")
    if given.ndim != 2 or not given.flags.c_contiguous:
        raise ValueError(f"the array of shape {given.shape} is not C-contiguous with two axes")
    width = int(given.shape[1] * given.dtype.itemsize)
    if not 1 <= width <= MAX_ROW_BYTES:
        raise ValueError(f"a row has {width} bytes, expected 1 to {MAX_ROW_BYTES}")
    return width


def _made_row_bytes(rows: MadeRows) -> int:
    if not callable(rows.make):
        raise TypeError(f"{type(rows.make).__name__} makes no rows")
    if not 1 <= rows.row_bytes <= MAX_ROW_BYTES or rows.count < 0:
        raise ValueError(f"{rows.count} rows of {rows.row_bytes} bytes, expected 1 to {MAX_ROW_BYTES} bytes a row")
    return rows.row_bytes
