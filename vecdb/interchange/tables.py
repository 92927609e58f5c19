"""Tables in memory as record sources: pandas, Polars, Arrow, or a dict of columns.

Each library is used through the object handed in; none is imported here except by name of its own type, so a pandas
table needs no Arrow and the reverse. Nulls (and pandas' NaN, NaT and NA) are left out of the metadata unless
``Fields.nulls``. Dates and times become ISO 8601 text, which sorts by time; what else metadata cannot hold is refused
where records are written.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from vecdb.errors import DTypeError, SourceError, VectorMissingError
from vecdb.interchange.chunks import Block, Chunk, Fields, Limits, stack

__all__ = ["Columns", "TableRecords", "as_columns", "check_fields", "chunk_of"]

_CHUNK_OF_WIDTH = 1024


class Columns(Protocol):
    """One table: named columns of equal length."""

    names: list[str]
    rows: int
    row_bytes: int
    """Roughly what one row takes, for cutting chunks."""

    def values(self, name: str, start: int, stop: int) -> list[Any]:
        """Return plain Python values; None where the table has no value."""

    def vectors(self, name: str, start: int, stop: int, first: int) -> Block:
        """Return a column of vectors; `first` is the row number of `start`, for messages."""


class TableRecords:
    """A table in memory."""

    def __init__(self, columns: Columns, fields: Fields, name: str = "table") -> None:
        self.name = name
        self.rows: int | None = columns.rows
        self._columns = columns
        self._fields = fields
        check_fields(columns.names, fields, name)

    def chunks(self, start: int, limits: Limits) -> Iterator[Chunk]:
        rows = self._columns.rows
        step = Limits(limits.rows, limits.nbytes, limits.row_bytes + self._columns.row_bytes).most_rows()
        for first in range(start, rows, step):
            yield chunk_of(self._columns, self._fields, first, first, min(first + step, rows))

    def width(self, column: str) -> tuple[int, np.dtype[Any]]:
        for start in range(0, self._columns.rows, _CHUNK_OF_WIDTH):
            stop = min(start + _CHUNK_OF_WIDTH, self._columns.rows)
            rows = self._columns.vectors(column, start, stop, start).rows
            if rows.size:
                return rows.shape[1], rows.dtype
        raise VectorMissingError(f"column {column!r} of {self.name} holds no vector.", hint="check the column's name.")

    def count(self) -> int:
        return self._columns.rows

    def fingerprint(self) -> Any:
        return None

    def close(self) -> None:
        """Nothing is held open."""


def check_fields(names: Sequence[str], fields: Fields, name: str) -> None:
    """Refuse columns that the table does not have."""
    missing = (fields.special() | set(fields.metadata or ())) - set(names)
    if missing:
        raise SourceError(
            f"{name} has no column {', '.join(map(repr, sorted(missing)))}; it has {', '.join(map(repr, names))}.",
            hint="name the columns that hold id, text, vectors and metadata.",
            path=name,
        )


def chunk_of(columns: Columns, fields: Fields, first: int, start: int, stop: int) -> Chunk:
    """Cut rows ``start:stop`` of a table; `first` is the row number that `start` has in the whole source."""
    ids = columns.values(fields.id, start, stop) if fields.id is not None else list(range(first, first + stop - start))
    texts = columns.values(fields.text, start, stop) if fields.text is not None else None
    names = fields.metadata
    if names is None:
        names = tuple(name for name in columns.names if name not in fields.special())
    vectors = {space: columns.vectors(name, start, stop, first) for space, name in fields.vectors.items()}
    return Chunk(first, ids, _metadata(columns, names, fields.nulls, start, stop), texts, vectors)


def _metadata(columns: Columns, names: Sequence[str], nulls: bool, start: int, stop: int) -> list[dict[str, Any]]:
    taken = [[_plain(value) for value in columns.values(name, start, stop)] for name in names]
    out: list[dict[str, Any]] = [{} for _ in range(stop - start)]
    for name, values in zip(names, taken, strict=True):
        for record, value in zip(out, values, strict=True):
            if value is not None or nulls:
                record[name] = value
    return out


def _plain(value: Any) -> Any:
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value


def as_columns(table: Any) -> Columns | None:
    """Return the adapter of a table, or None if `table` is none that is known."""
    kind = type(table)
    library = kind.__module__.partition(".")[0]
    if library == "pandas" and kind.__name__ == "DataFrame":
        return _PandasColumns(table)
    if library == "polars" and kind.__name__ == "DataFrame":
        return _PolarsColumns(table)
    if library == "polars" and kind.__name__ == "LazyFrame":
        raise DTypeError("a LazyFrame has no rows yet.", hint="pass frame.collect().", got="LazyFrame")
    if library == "pyarrow" and kind.__name__ in ("Table", "RecordBatch"):
        from vecdb.interchange.arrowtables import ArrowColumns

        return ArrowColumns(table)
    if isinstance(table, Mapping):
        return _DictColumns(table)
    return None


class _DictColumns:
    """A dict of lists and arrays."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        self._table = table
        self.names = list(table)
        lengths = {name: len(values) for name, values in table.items()}
        if len(set(lengths.values())) > 1:
            raise SourceError(
                f"the columns have different lengths: {lengths}.", hint="one value a row in each.", path="table"
            )
        self.rows = next(iter(lengths.values()), 0)
        self.row_bytes = 64 * len(self.names)

    def values(self, name: str, start: int, stop: int) -> list[Any]:
        part = self._table[name][start:stop]
        return part.tolist() if isinstance(part, np.ndarray) else list(part)

    def vectors(self, name: str, start: int, stop: int, first: int) -> Block:
        part = self._table[name][start:stop]
        where = f"column {name!r}"
        if isinstance(part, np.ndarray) and part.ndim == 2:
            return Block(part, None, where)
        return stack(list(part), where, first)


class _PandasColumns:
    def __init__(self, frame: Any) -> None:
        self._frame = frame
        self.names = [str(name) for name in frame.columns]
        self._place = {name: place for place, name in enumerate(self.names)}
        if len(self._place) < len(self.names):
            raise SourceError("two columns of the table have the same name.", hint="rename one.", path="table")
        self.rows = len(frame)
        self.row_bytes = int(frame.memory_usage(index=False).sum()) // max(1, self.rows)

    def values(self, name: str, start: int, stop: int) -> list[Any]:
        part = self._frame.iloc[start:stop, self._place[name]]
        return [None if gone else value for value, gone in zip(part.tolist(), part.isna().tolist(), strict=True)]

    def vectors(self, name: str, start: int, stop: int, first: int) -> Block:
        return stack(self.values(name, start, stop), f"column {name!r}", first)


class _PolarsColumns:
    def __init__(self, frame: Any) -> None:
        self._frame = frame
        self.names = list(frame.columns)
        self.rows = frame.height
        self.row_bytes = int(frame.estimated_size()) // max(1, self.rows)

    def values(self, name: str, start: int, stop: int) -> list[Any]:
        values: list[Any] = self._frame[name][start:stop].to_list()
        return values

    def vectors(self, name: str, start: int, stop: int, first: int) -> Block:
        part = self._frame[name][start:stop]
        where = f"column {name!r}"
        if type(part.dtype).__name__ == "Array" and part.dtype.inner.is_numeric():
            present = part.drop_nulls()
            at = None if len(present) == len(part) else np.flatnonzero(part.is_not_null().to_numpy())
            rows = present.to_numpy() if len(present) else np.empty((0, 0), dtype=np.float32)
            return Block(rows, at, where)
        return stack([None if row is None else np.asarray(row) for row in part.to_list()], where, first)
