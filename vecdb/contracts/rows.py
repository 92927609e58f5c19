"""Rows that stay where they are stored: addresses for kernels to follow, and proof of what was read.

An index of a large collection is opened without being read: a search follows addresses into the file's map, and what it
touched is compared with its checksums before the answer is believed. Invariant: `table` names whole pieces of
``2**shift`` rows, the last one perhaps shorter, each starting at a multiple of 16 bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["MappedRows", "RowsProof"]

Numbers = npt.NDArray[np.int64]
IN_MEMORY_SHIFT = 62
"""One piece holds every row of an array in memory."""


class RowsProof(Protocol):
    """Compares stored rows with their checksums, each chunk once in a process."""

    @property
    def sound(self) -> bool:
        """Whether every chunk was compared."""
        ...

    def verify(self) -> None: ...
    def verify_rows(self, rows: Numbers) -> None: ...


class MappedRows:
    """Rows of one width, where they lie; made by `BlobReader.rows`, or by `of` from an array in memory.

    Row r lies at ``table[r >> shift] + (r & ((1 << shift) - 1)) * row_bytes``. What is stored is mapped, not copied:
    use it only in the call that gave it (`IndexType.load`) and in searches of that index, and follow no row number that
    was not compared with `count`.

    Parameters
    ----------
    pieces : sequence of ndarray, shape (rows, width)
        C-contiguous, of one dtype, each but the last of ``2**shift`` rows.
    shift : int
    dtype : dtype_like
    width : int
        Items in a row.
    proof : RowsProof, optional
        None: the rows are in memory, and sound.

    Attributes
    ----------
    table : ndarray of int64, shape (pieces,)
        Address of each piece.
    shift, width : int
    count : int
        Number of rows.
    dtype : dtype
    """

    __slots__ = ("_pieces", "_proof", "count", "dtype", "shift", "table", "width")

    def __init__(
        self,
        pieces: Sequence[npt.NDArray[Any]],
        shift: int,
        dtype: npt.DTypeLike,
        width: int,
        proof: RowsProof | None = None,
    ) -> None:
        self._pieces = tuple(pieces)
        self._proof = proof
        self.dtype = np.dtype(dtype)
        self.width = width
        self.shift = shift
        self.count = sum(len(piece) for piece in pieces)
        self.table = np.fromiter((piece.__array_interface__["data"][0] for piece in pieces), np.int64, len(pieces))

    @classmethod
    def of(cls, array: npt.NDArray[Any]) -> MappedRows:
        """Return the rows of a C-contiguous array (n, width) in memory, kept alive and not copied."""
        if array.ndim != 2 or not array.flags.c_contiguous:
            raise ValueError(f"rows are a C-contiguous array of two axes, not {array.ndim} of shape {array.shape}")
        return cls((array,), IN_MEMORY_SHIFT, array.dtype, array.shape[1])

    @property
    def row_bytes(self) -> int:
        """Bytes from one row to the next."""
        return self.width * self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return self.count * self.row_bytes

    @property
    def sound(self) -> bool:
        """Whether everything was compared with its checksum, so that nothing is left to be verified."""
        return self._proof is None or self._proof.sound

    def verify(self) -> None:
        """Compare everything that was not compared yet; a scan does this first.

        Raises
        ------
        CorruptionError
            Something does not match its checksum.
        """
        if self._proof is not None:
            self._proof.verify()

    def verify_rows(self, rows: npt.ArrayLike) -> None:
        """Compare what holds these rows, before anything that they led to is returned; errors as in `verify`.

        Parameters
        ----------
        rows : array_like of int64
            Each at least 0 and below `count`; may repeat.
        """
        if not self.sound:
            numbers = np.asarray(rows, np.int64)
            if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < self.count:
                raise IndexError(f"rows {int(numbers.min())} to {int(numbers.max())} of {self.count}")
            assert self._proof is not None
            self._proof.verify_rows(numbers)

    def pieces(self) -> Iterator[npt.NDArray[Any]]:
        """Yield the rows piece by piece, read-only views of shape (rows, width), all of them verified."""
        self.verify()
        for piece in self._pieces:
            shown = piece.view()
            shown.flags.writeable = False
            yield shown

    def take(self, rows: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return verified copies of rows, shape (c, width)."""
        numbers = np.asarray(rows, np.int64)
        self.verify_rows(numbers)
        found = np.empty((len(numbers), self.width), self.dtype)
        places, inside = numbers >> self.shift, numbers & ((1 << self.shift) - 1)
        for place in np.unique(places).tolist():
            chosen = places == place
            found[chosen] = self._pieces[place][inside[chosen]]
        return found

    def array(self) -> npt.NDArray[Any]:
        """Return a verified copy of all rows, shape (count, width)."""
        parts = list(self.pieces())
        return np.concatenate(parts) if parts else np.empty((0, self.width), self.dtype)
