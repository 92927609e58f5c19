"""Vectors of a file or an array as a source of row ranges.

Every source knows its rows, width and element type before the first row is read, has compared them with the size of
the file, and reads rows ``start:stop`` into a new array: nothing is memory-mapped, so memory is bounded by the range
asked for and a file that shrinks meanwhile gives an error instead of a SIGBUS.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from functools import partial
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from vecdb.errors import DimensionError, DTypeError, SourceError, VecdbError
from vecdb.interchange.lines import fingerprint_file, reading
from vecdb.interchange.npyfile import NpyHeader, check_length, read_exactly, read_header
from vecdb.types import MAX_DIM

__all__ = ["SUFFIXES", "ArraySource", "VectorSource", "open_vectors"]

_MEMBER = "::"
_SKIP = 1 << 20


class VectorSource(Protocol):
    """Rows of vectors of one width."""

    name: str
    rows: int
    dim: int
    dtype: np.dtype[Any]

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return rows ``start:stop`` as a new or read-only array of shape ``(stop - start, dim)``."""

    def fingerprint(self) -> Any:
        """Return JSON that changes when the content does; None for arrays in memory."""

    def close(self) -> None: ...


def open_vectors(path: str) -> VectorSource:
    """Open a vector file by its suffix.

    Parameters
    ----------
    path : str
        ``.npy``; ``.npz`` (with several arrays: ``file.npz::name``); ``.fvecs``, ``.bvecs``, ``.ivecs``.

    Raises
    ------
    SourceError, DTypeError, DimensionError, FileAccessError
    """
    file, _, member = path.partition(_MEMBER)
    suffix = os.path.splitext(file)[1].lower()
    if suffix == ".npz":
        return _NpzSource(file, member)
    if suffix not in SUFFIXES:
        raise SourceError(
            f"{path} is not a vector file that can be read.",
            hint=f"known suffixes: {', '.join((*SUFFIXES, '.npz'))}; for a field of the records write @field.",
            path=path,
        )
    return SUFFIXES[suffix](file)


def check_matrix(shape: tuple[int, ...], name: str) -> tuple[int, int]:
    """Return ``(rows, dim)`` of a shape that can hold vectors."""
    if len(shape) != 2 or not 1 <= shape[1] <= MAX_DIM:
        raise DimensionError(
            f"{name} has shape {shape}, expected (rows, width) with a width of 1 to {MAX_DIM:,}.",
            hint="one row must be one vector.",
            expected="(rows, width)",
            got=shape,
            where=name,
        )
    return shape[0], shape[1]


class ArraySource:
    """Rows of an array in memory."""

    def __init__(self, array: Any, name: str) -> None:
        self._array = np.asarray(array)
        if self._array.dtype.kind not in "fiu":
            raise DTypeError(
                f"{name} has elements of type {self._array.dtype}, expected numbers.",
                hint="all rows must have the same width and hold numbers only.",
                expected="float32 or float16",
                got=str(self._array.dtype),
                where=name,
            )
        self.name = name
        self.rows, self.dim = check_matrix(self._array.shape, name)
        self.dtype = self._array.dtype

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        return self._array[start:stop]

    def fingerprint(self) -> Any:
        return None

    def close(self) -> None:
        """Nothing is held open."""


class _NpySource:
    def __init__(self, path: str) -> None:
        self.name = path
        with reading(path):
            self._stream = open(path, "rb")  # noqa: SIM115 - closed by close()
        try:
            with reading(path):
                self._header = read_header(self._stream, path)
                present = os.fstat(self._stream.fileno()).st_size - self._header.offset
            check_length(self._header, present, path)
            self.rows, self.dim = check_matrix(self._header.shape, path)
        except BaseException:
            self._stream.close()
            raise
        self.dtype = self._header.dtype

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        with reading(self.name):
            return self._columns(start, stop) if self._header.fortran else self._rows(start, stop)

    def _rows(self, start: int, stop: int) -> npt.NDArray[Any]:
        width = self.dim * self.dtype.itemsize
        self._stream.seek(self._header.offset + start * width)
        data = read_exactly(self._stream, (stop - start) * width, self.name)
        return np.frombuffer(data, dtype=self.dtype).reshape(-1, self.dim)

    def _columns(self, start: int, stop: int) -> npt.NDArray[Any]:
        """A file in Fortran order holds column after column: collect the range from each."""
        out = np.empty((stop - start, self.dim), dtype=self.dtype)
        for column in range(self.dim):
            self._stream.seek(self._header.offset + (column * self.rows + start) * self.dtype.itemsize)
            data = read_exactly(self._stream, (stop - start) * self.dtype.itemsize, self.name)
            out[:, column] = np.frombuffer(data, dtype=self.dtype)
        return out

    def fingerprint(self) -> Any:
        return fingerprint_file(self.name)

    def close(self) -> None:
        self._stream.close()


class _NpzSource:
    """One array of an archive, decompressed as it is read and never held whole."""

    def __init__(self, path: str, member: str) -> None:
        self.name = f"{path}{_MEMBER}{member}" if member else path
        self._path = path
        self._archive = self._open_archive()
        try:
            self._member = self._choose(member)
            self._header = self._rewind()
            check_length(self._header, self._member.file_size - self._header.offset, self.name)
            self.rows, self.dim = check_matrix(self._header.shape, self.name)
            if self._header.fortran:
                raise SourceError(
                    f"{self.name} is stored in Fortran order, which cannot be read as a stream.",
                    hint="save numpy.ascontiguousarray(array), or save it as .npy.",
                    path=path,
                )
        except BaseException:
            self.close()
            raise
        self.dtype = self._header.dtype

    def _open_archive(self) -> zipfile.ZipFile:
        archive: zipfile.ZipFile = self._guard(lambda: zipfile.ZipFile(self._path))
        return archive

    def _guard(self, action: Callable[[], Any]) -> Any:
        # RuntimeError: encrypted; NotImplementedError: a compression that Python does not know; the others: damage.
        try:
            with reading(self._path):
                return action()
        except VecdbError:
            raise
        except (zipfile.BadZipFile, RuntimeError, ValueError, OverflowError, LookupError) as error:
            raise SourceError(
                f"{self._path} is not a readable .npz archive: {error}.", hint="save it again.", path=self._path
            ) from error

    def _choose(self, member: str) -> zipfile.ZipInfo:
        found = {info.filename.removesuffix(".npy"): info for info in self._archive.infolist()}
        if member in found:
            return found[member]
        if not member and len(found) == 1:
            return next(iter(found.values()))
        raise SourceError(
            f"{self._path} holds the arrays {', '.join(sorted(found)) or '(none)'}"
            + (f", not {member!r}." if member else "."),
            hint=f"name one: {self._path}{_MEMBER}NAME.",
            path=self._path,
        )

    def _rewind(self) -> NpyHeader:
        self._stream: IO[bytes] = self._guard(lambda: self._archive.open(self._member))
        self._next = 0
        header: NpyHeader = self._guard(lambda: read_header(self._stream, self.name))
        return header

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        if start < self._next:
            self._stream.close()
            self._rewind()
        self._skip(start - self._next)
        width = self.dim * self.dtype.itemsize
        data = self._guard(lambda: read_exactly(self._stream, (stop - start) * width, self.name))
        self._next = stop
        return np.frombuffer(data, dtype=self.dtype).reshape(-1, self.dim)

    def _skip(self, rows: int) -> None:
        left = rows * self.dim * self.dtype.itemsize
        for size in (*[_SKIP] * (left // _SKIP), left % _SKIP):
            self._guard(partial(read_exactly, self._stream, size, self.name))

    def fingerprint(self) -> Any:
        return {**fingerprint_file(self._path), "member": self._member.filename}

    def close(self) -> None:
        if hasattr(self, "_stream"):
            self._stream.close()
        self._archive.close()


class _VecsSource:
    """The ``.fvecs`` family: each row is its width as a little-endian int32, then the components."""

    def __init__(self, path: str, component: str) -> None:
        self.name = path
        self.dtype = np.dtype(component)
        with reading(path):
            self._stream = open(path, "rb")  # noqa: SIM115 - closed by close()
            size = os.fstat(self._stream.fileno()).st_size
            self.dim = int.from_bytes(self._stream.read(4), "little", signed=True) if size else 0
        self._width = 4 + self.dim * self.dtype.itemsize
        if not 1 <= self.dim <= MAX_DIM or size % self._width:
            self._stream.close()
            raise SourceError(
                f"{path} is not a {os.path.splitext(path)[1]} file: it begins with a width of {self.dim}, and its "
                f"{size:,} bytes are not a whole number of such rows.",
                hint="the file is cut off or of another type.",
                path=path,
            )
        self.rows = size // self._width

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        with reading(self.name):
            self._stream.seek(start * self._width)
            data = read_exactly(self._stream, (stop - start) * self._width, self.name)
        lines = np.frombuffer(data, dtype=np.uint8).reshape(-1, self._width)
        widths = np.ascontiguousarray(lines[:, :4]).view("<i4")[:, 0]
        if (widths != self.dim).any():
            bad = int(np.flatnonzero(widths != self.dim)[0])
            raise DimensionError(
                f"{self.name}: row {start + bad:,} has width {int(widths[bad])}, expected {self.dim} as in row 0.",
                hint="all rows of the file must have the same width.",
                expected=self.dim,
                got=int(widths[bad]),
                where=self.name,
            )
        return np.ascontiguousarray(lines[:, 4:]).view(self.dtype)

    def fingerprint(self) -> Any:
        return fingerprint_file(self.name)

    def close(self) -> None:
        self._stream.close()


SUFFIXES: dict[str, Callable[[str], VectorSource]] = {
    ".npy": _NpySource,
    ".fvecs": lambda path: _VecsSource(path, "<f4"),
    ".bvecs": lambda path: _VecsSource(path, "u1"),
    ".ivecs": lambda path: _VecsSource(path, "<i4"),
}
"""Vector files by suffix; ``.npz`` is opened by `open_vectors` itself because it may name a member."""
