"""Reads one chunk: its directory at once, a column when somebody asks for it.

Invariant: opening touches the header, the directory and the rows only, and whatever the bytes are, the outcome is an
answer or a `CorruptionError`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.storage.columns.layout import (
    HEADER,
    MAGIC,
    MAX_PATHS,
    MAX_RECORDS,
    MISSING,
    VERSION,
    Array,
    Cursor,
    corrupt,
    pad,
)
from vecdb.storage.columns.values import Values, read_values

__all__ = ["Column", "ColumnChunk"]

_OVERFLOW = 1


@dataclass(frozen=True, slots=True)
class Column:
    """One path in one chunk.

    Attributes
    ----------
    records : int
    places : ndarray of unsigned int, or None
        The records that have the path, ascending, as places in the chunk; None where all have it.
    values : Values
        The value of each of those records.
    """

    records: int
    places: Array | None
    values: Values

    def spread(self, mask: npt.NDArray[np.bool_] | bool) -> npt.NDArray[np.bool_]:
        """Widen a mask over `values` to one over the chunk's records, False where the path is missing."""
        whole = np.zeros(self.records, dtype=bool)
        whole[slice(None) if self.places is None else self.places] = mask
        return whole


class ColumnChunk:
    """The columns of up to `MAX_RECORDS` records.

    Attributes
    ----------
    rows : ndarray of uint64, shape (n,)
        Record rows, strictly ascending.
    overflow : bool
        The records have more paths than are listed.
    paths : tuple of str
        The paths that have a column.

    Notes
    -----
    Columns may be views into the buffer that was opened: they live no longer than it does. Threads may share a chunk;
    at worst a column is decoded twice.
    """

    __slots__ = ("_columns", "_data", "_spans", "overflow", "paths", "rows")

    def __init__(self, rows: Array, data: memoryview, spans: Mapping[str, tuple[int, int]], *, overflow: bool) -> None:
        self.rows = rows
        self.overflow = overflow
        self.paths = tuple(path for path, (_, size) in spans.items() if size)
        self._data = data
        self._spans = spans
        self._columns: dict[str, Column] = {}

    @property
    def bare(self) -> bool:
        """Whether every record's metadata are empty."""
        return not self._spans and not self.overflow

    @classmethod
    def open(cls, buffer: bytes | bytearray | memoryview) -> ColumnChunk:
        """Open what `encode_columns` returned.

        Parameters
        ----------
        buffer : bytes-like, at any alignment
            Kept, not copied.

        Raises
        ------
        CorruptionError
            If the bytes are not a chunk. Columns are checked when they are first used.
        """
        view = memoryview(buffer).toreadonly().cast("B")
        if len(view) < HEADER.size:
            corrupt(f"{len(view)} bytes, shorter than a header", "header")
        magic, version, flags, count, size, first = HEADER.unpack_from(view)
        if magic != MAGIC or version != VERSION or flags & ~_OVERFLOW or count > MAX_RECORDS:
            corrupt(f"magic {magic!r}, version {version}, flags {flags}, {count} records", "header")
        end = HEADER.size + size
        if end + pad(size) > len(view):
            corrupt(f"a directory of {size} bytes in {len(view)}", "header")
        data = view[end + pad(size) :]
        row_span, spans = _read_directory(bytes(view[HEADER.size : end]), len(data))
        return cls(_read_rows(data, row_span, count, first), data, spans, overflow=bool(flags & _OVERFLOW))

    def __len__(self) -> int:
        return len(self.rows)

    def covers(self, path: str) -> bool:
        """Whether the chunk can answer for this path; if not, the records must be read."""
        span = self._spans.get(path)
        return not self.overflow if span is None else span[1] > 0

    def column(self, path: str) -> Column | None:
        """Return the column of a path that the chunk covers, decoded on first use; None where no record has it."""
        column = self._columns.get(path)
        if column is None and path in self._spans:
            column = self._columns[path] = self._read(path)
        return column

    def values(self, path: str) -> list[Any]:
        """Return the path's value in each record as Python objects.

        `MISSING` stands for no value, `OPAQUE` for a dict and for a list or dict inside a list.
        """
        column = self.column(path)
        if column is None:
            return [MISSING] * len(self)
        values = column.values.python()
        if column.places is None:
            return values
        whole: list[Any] = [MISSING] * len(self)
        for place, value in zip(column.places.tolist(), values, strict=True):
            whole[place] = value
        return whole

    def _read(self, path: str) -> Column:
        start, size = self._spans[path]
        cursor = Cursor(self._data[start : start + size], f"path {path[:80]!r}")
        places = cursor.places("u", len(self))
        count = len(places) or len(self)
        values = read_values(cursor, count)
        cursor.finish()
        return Column(len(self), places if len(places) else None, values)


def _read_directory(raw: bytes, available: int) -> tuple[tuple[int, int], dict[str, tuple[int, int]]]:
    try:
        directory = json.loads(raw)
        start, size = directory["rows"]
        row_span = _span(start, size, available)
        listed = directory["columns"]
        spans = {str(path): _span(start, size, available) for path, start, size in listed}
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        corrupt("the directory cannot be read", "directory", error)
    if len(spans) != len(listed) or len(spans) > MAX_PATHS:
        corrupt(f"{len(listed)} columns, {len(spans)} of them with a name of their own", "directory")
    return row_span, spans


def _span(start: Any, size: Any, available: int) -> tuple[int, int]:
    if type(start) is not int or type(size) is not int or start < 0 or size < 0 or start + size > available:
        raise ValueError("a span lies outside of the chunk")
    return start, size


def _read_rows(data: memoryview, span: tuple[int, int], count: int, first: int) -> Array:
    start, size = span
    if size:
        cursor = Cursor(data[start : start + size], "rows")
        gaps = cursor.places("u", 2**64 - first, count).astype(np.uint64)
        cursor.finish()
    else:
        gaps = np.arange(count, dtype=np.uint64)
    if count and (first + int(gaps[-1]) >= 2**64 or int(gaps[0]) != 0):
        corrupt("rows do not begin with the first, or pass 64 bits", "rows")
    rows = gaps + np.uint64(first)
    rows.flags.writeable = False
    return rows
