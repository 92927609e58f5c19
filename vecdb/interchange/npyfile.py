"""The ``.npy`` format, read and written as a stream.

numpy's own reader maps the file, so a file cut off by somebody else during the import would kill the process with
SIGBUS, and it reads archive members whole. Here headers are parsed under a size limit, only plain numbers pass (never
objects, which would be pickled), and the declared shape is compared with the bytes present before anything is
allocated. Invariant of `NpyWriter`: until `finish` the file's header says that it holds no rows.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from vecdb.errors import DTypeError, SourceError

__all__ = ["NpyHeader", "NpyWriter", "read_exactly", "read_header"]

_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 4096
_WRITTEN_HEADER = 128
_PLAIN = re.compile(r"[<>|=][fiu](1|2|4|8)\Z")
_LIMIT = 1 << 48


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """What an array file says about itself; `offset` is where its numbers begin, `nbytes` their length."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    offset: int

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


def read_exactly(stream: IO[bytes], size: int, path: str) -> bytes:
    """Return `size` bytes, or say that the file is cut off."""
    data = stream.read(size)
    if len(data) != size:
        raise SourceError(
            f"{path} is cut off: {size - len(data):,} bytes are missing.", hint="copy it again.", path=path
        )
    return data


def read_header(stream: IO[bytes], path: str) -> NpyHeader:
    """Parse the header at the stream's position.

    Raises
    ------
    SourceError
        Not an array file, or a header that makes no sense.
    DTypeError
        Elements that are not plain numbers of at most 8 bytes.
    """
    start = read_exactly(stream, 8, path)
    if start[:6] != _MAGIC or start[6] not in (1, 2, 3):
        raise SourceError(f"{path} is not a .npy file.", hint="save the array with numpy.save.", path=path)
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(read_exactly(stream, width, path), "little")
    if length > _MAX_HEADER:
        raise _bad_header(path, f"it is {length:,} bytes long, at most {_MAX_HEADER:,} are expected")
    facts = _literal(read_exactly(stream, length, path), path)
    dtype, shape = _dtype(facts["descr"], path), _shape(facts["shape"], path)
    if type(facts["fortran_order"]) is not bool:
        raise _bad_header(path, "'fortran_order' is neither True nor False")
    return NpyHeader(dtype, shape, facts["fortran_order"] and len(shape) > 1, 8 + width + length)


def _literal(text: bytes, path: str) -> dict[str, Any]:
    try:
        facts = ast.literal_eval(text.decode("latin1").strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise _bad_header(path, "it cannot be parsed") from error
    if not isinstance(facts, dict) or set(facts) != {"descr", "fortran_order", "shape"}:
        raise _bad_header(path, "'descr', 'fortran_order' and 'shape' are expected")
    return facts


def _dtype(descr: Any, path: str) -> np.dtype[Any]:
    if not isinstance(descr, str) or not _PLAIN.match(descr):
        raise DTypeError(
            f"{path} holds elements of type {descr!r}, expected plain numbers.",
            hint="objects are never unpickled; save a float32 or float16 array.",
            expected="float32 or float16",
            got=str(descr),
            where=path,
        )
    return _number_type(descr, path)


def _number_type(descr: str, path: str) -> np.dtype[Any]:
    try:
        return np.dtype(descr)
    except TypeError as error:  # "<f1" has the right form but does not exist
        raise _bad_header(path, f"the type {descr!r} does not exist") from error


def _shape(shape: Any, path: str) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or not all(type(n) is int and 0 <= n < _LIMIT for n in shape) or len(shape) > 8:
        raise _bad_header(path, "its shape is not a short tuple of sizes")
    return shape


def _bad_header(path: str, problem: str) -> SourceError:
    return SourceError(f"{path} has a bad .npy header: {problem}.", hint="save it again with numpy.save.", path=path)


def check_length(header: NpyHeader, present: int, path: str) -> None:
    """Compare the size that a header declares with the bytes that follow it."""
    if header.nbytes == present:
        return
    missing = header.nbytes > present
    raise SourceError(
        f"{path} declares {header.dtype} of shape {header.shape}, which is {header.nbytes:,} bytes, "
        f"but {present:,} bytes follow its header.",
        hint="the file is cut off; copy it again." if missing else "only one array is expected in the file.",
        path=path,
    )


class NpyWriter:
    """Write rows of one width to a ``.npy`` file whose length is not known yet.

    Parameters
    ----------
    path : str
        Must not exist.
    dtype : dtype
    width : int or None
        Columns; None makes a one-dimensional array.
    """

    def __init__(self, path: str, dtype: npt.DTypeLike, width: int | None) -> None:
        self.path = path
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.width = width
        self.rows = 0
        self._stream = open(path, "xb", buffering=1 << 20)  # noqa: SIM115 - closed by finish or close
        self._stream.write(self._header())

    def append(self, rows: npt.NDArray[Any]) -> None:
        """Write one row of shape ``(width,)`` or several of shape ``(n, width)``; one-dimensional: ``(n,)``."""
        if self.width is None:
            self.rows += rows.size
        else:
            self.rows += rows.size // self.width
        self._stream.write(np.ascontiguousarray(rows, dtype=self.dtype).tobytes())

    def finish(self, sync: Callable[[IO[bytes]], object] | None = None) -> None:
        """Write the true header, hand the open file to `sync` and close it."""
        self._stream.seek(0)
        self._stream.write(self._header())
        self._stream.flush()
        if sync is not None:
            sync(self._stream)
        self._stream.close()

    def close(self) -> None:
        self._stream.close()

    def _header(self) -> bytes:
        shape = (self.rows,) if self.width is None else (self.rows, self.width)
        facts = f"{{'descr': {self.dtype.str!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
        room = _WRITTEN_HEADER - len(_MAGIC) - 4
        return _MAGIC + b"\x01\x00" + room.to_bytes(2, "little") + (facts.ljust(room - 1) + "\n").encode()


def flush_to_disk(stream: IO[bytes]) -> None:
    """Make what was written survive a power cut."""
    stream.flush()
    os.fsync(stream.fileno())
