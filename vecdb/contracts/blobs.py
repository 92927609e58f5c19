"""How a plugin persists: named blobs that the engine stores, checks and removes with the object they belong to.

A plugin never sees the database file, so its state is committed, copied, verified and given back like everything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["BlobReader", "BlobWriter", "Data"]

Data: TypeAlias = bytes | bytearray | memoryview | npt.NDArray[Any]


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
