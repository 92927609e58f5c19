"""The blobs of one index part as plugins see them: gathered for a commit, and read back verified."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.contracts.blobs import Data, MadeRows, as_bytes, row_bytes_of
from vecdb.contracts.rows import MappedRows
from vecdb.errors import CorruptionError, PluginContractError
from vecdb.storage.blobs import MAX_BLOBS, BlobData, BlobLine, stored_rows
from vecdb.storage.indexes import ORDINALS, IndexPart, read_named
from vecdb.storage.tx import Tx

_NAME: Final = re.compile(r"[a-z0-9._-]{1,64}")


Guard = Callable[[], AbstractContextManager[object]]


class BlobCollector:
    """A `BlobWriter` that keeps what it is given until the commit stores it.

    Parameters
    ----------
    guard : callable, optional
        Gives the block in which rows are made: there, whatever a plugin raises becomes an error that names it.
    """

    def __init__(self, guard: Guard = nullcontext) -> None:
        self.blobs: list[BlobData] = []
        self._guard = guard

    def write(self, name: str, data: Data) -> None:
        self._take(name, data, 0)

    def write_rows(self, name: str, rows: npt.NDArray[Any] | MadeRows) -> None:
        try:
            row_bytes = row_bytes_of(rows)
        except (TypeError, ValueError) as error:
            raise _misuse(f"the blob {name!r} is given as rows: {error}") from error
        self._take(name, _MadeBytes(name, rows, self._guard) if isinstance(rows, MadeRows) else rows, row_bytes)

    def _take(self, name: str, data: Data | _MadeBytes, row_bytes: int) -> None:
        given: object = name
        if not isinstance(given, str) or not _NAME.fullmatch(given):
            raise _misuse(f"a blob is named {name!r}, expected 1 to 64 of the characters a-z 0-9 . _ -")
        if any(name == known.name for known in self.blobs):
            raise _misuse(f"the blob {name!r} is written twice")
        if len(self.blobs) >= MAX_BLOBS:
            raise _misuse(f"more than {MAX_BLOBS} blobs are written")
        try:
            contents = data if isinstance(data, _MadeBytes) else as_bytes(data)
            self.blobs.append(BlobData(str(name), contents, row_bytes))
        except (TypeError, ValueError) as error:
            raise _misuse(f"the blob {name!r} is given {type(data).__name__}: {error}") from error


class _MadeBytes:
    """The bytes of rows that a plugin makes when they are asked for."""

    __slots__ = ("_guard", "_name", "_rows")

    def __init__(self, name: str, rows: MadeRows, guard: Guard) -> None:
        self._name = name
        self._rows = rows
        self._guard = guard

    def __len__(self) -> int:
        return self._rows.count * self._rows.row_bytes

    def __getitem__(self, part: slice) -> memoryview:
        """Return whole rows: a slice in bytes from one boundary of rows to another."""
        first, stop = (place // self._rows.row_bytes for place in part.indices(len(self))[:2])
        with self._guard():
            try:
                made = as_bytes(self._rows.make(first, stop))
            except (TypeError, ValueError) as error:
                raise _misuse(f"rows {first} to {stop} of the blob {self._name!r} are made: {error}") from error
            if len(made) != (stop - first) * self._rows.row_bytes:
                raise _misuse(f"rows {first} to {stop} of the blob {self._name!r} have {len(made)} bytes")
        return made


class StoredBlobs:
    """A `BlobReader` over one part, valid under the lease of its transaction.

    Parameters
    ----------
    tx : Tx
    part : IndexPart
    own : bool, default False
        Rows are copied into memory, so that what is loaded outlives the lease.

    Attributes
    ----------
    mapped : bool
        Rows were given that lie in the map.
    """

    def __init__(self, tx: Tx, part: IndexPart, *, own: bool = False) -> None:
        self._tx = tx
        self._part = part
        self._own = own
        self.mapped = False

    def names(self) -> list[str]:
        return [line.name for line in self._part.blobs if line.name != ORDINALS]

    def size(self, name: str) -> int:
        return self._line(name).length

    def read(self, name: str) -> bytes:
        return read_named(self._tx, self._part, self._line(name).name)

    def array(self, name: str, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        wanted = np.dtype(dtype)
        if wanted.hasobject:
            raise _misuse(f"the blob {name!r} is asked for as objects")
        known = math.prod(length for length in shape if length >= 0) * wanted.itemsize
        size = self.size(name)
        open_axes = sum(length < 0 for length in shape)
        fits = size == known if not open_axes else open_axes == 1 and known > 0 and size % known == 0
        if not fits:
            raise self._damaged(name, f"has {size} bytes, which is not {wanted} of shape {shape}")
        return np.frombuffer(self.read(name), wanted).reshape(shape)

    def rows(self, name: str, dtype: npt.DTypeLike, width: int, count: int) -> MappedRows:
        item = np.dtype(dtype)
        if item.hasobject:
            raise _misuse(f"the blob {name!r} is asked for as objects")
        line = self._line(name)
        if line.row_bytes != width * item.itemsize or line.length != count * line.row_bytes:
            raise self._damaged(
                name, f"has {line.length} bytes in rows of {line.row_bytes}, not {count} x {width} {item}"
            )
        stored = stored_rows(self._tx, self._part.set, self._part.blobs.index(line), line)
        pieces = [np.frombuffer(payload, item).reshape(-1, width) for payload in stored.payloads]
        mapped = MappedRows(pieces, stored.shift, item, width, stored)
        if self._own:
            return MappedRows.of(mapped.array())
        self.mapped = True
        return mapped

    def _line(self, name: str) -> BlobLine:
        for line in self._part.blobs:
            if line.name == name and name != ORDINALS:
                return line
        raise self._damaged(name, "is not there")

    def _damaged(self, name: str, problem: str) -> CorruptionError:
        return CorruptionError(f"the index blob {name!r} {problem}", what="index blob", where=str(self._part.set))


def _misuse(problem: str) -> PluginContractError:
    return PluginContractError(problem, rule="blobs", problem=problem)
