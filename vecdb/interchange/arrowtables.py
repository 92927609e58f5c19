"""Arrow tables and batches, Parquet files and Arrow IPC files as record sources. Needs the extra ``arrow``.

Files are read batch by batch through ordinary reads (never mapped). An IPC batch is validated in full before a value
is touched, because its offsets come from the file and Arrow follows them unchecked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from vecdb.errors import DimensionError, DTypeError, ExtraMissingError, SourceError, VecdbError, VectorMissingError
from vecdb.interchange.chunks import Block, Chunk, Fields, Limits
from vecdb.interchange.lines import access_error, fingerprint_file
from vecdb.interchange.tables import check_fields, chunk_of

__all__ = ["SUFFIXES", "ArrowColumns", "ArrowFileRecords", "require_arrow"]

SUFFIXES = (".parquet", ".arrow", ".feather", ".ipc")


def require_arrow(what: str) -> Any:
    """Import pyarrow, or say which extra brings it."""
    try:
        import pyarrow
    except ImportError as error:
        raise ExtraMissingError(
            f"{what} needs pyarrow, which is not installed.",
            hint="run: python -m pip install 'vecdb[arrow]'",
            package="pyarrow",
            extra="arrow",
        ) from error
    return pyarrow


class ArrowColumns:
    """A pyarrow Table or RecordBatch."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self.names = list(table.schema.names)
        if len(set(self.names)) < len(self.names):
            raise SourceError("two columns of the table have the same name.", hint="rename one.", path="table")
        self.rows = table.num_rows
        self.row_bytes = int(table.nbytes) // max(1, self.rows)

    def values(self, name: str, start: int, stop: int) -> list[Any]:
        values: list[Any] = self._table.column(name).slice(start, stop - start).to_pylist()
        return values

    def vectors(self, name: str, start: int, stop: int, first: int) -> Block:
        column = self._table.column(name).slice(start, stop - start)
        if hasattr(column, "combine_chunks"):
            column = column.combine_chunks()
        return _vector_block(column, f"column {name!r}", first)


def _vector_block(column: Any, where: str, first: int) -> Block:
    pa = require_arrow("reading an Arrow column")
    kind = column.type
    if not (pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        raise DTypeError(
            f"{where} is of type {kind}, expected lists of numbers.",
            hint="vectors are a column of type fixed_size_list<float>[d] or list<float>.",
            expected="fixed_size_list<float>",
            got=str(kind),
            where=where,
        )
    present = np.flatnonzero(np.asarray(column.is_valid()))
    flat = column.flatten()
    if flat.null_count:
        raise DTypeError(
            f"{where} has a null inside a vector between rows {first:,} and {first + len(column):,}.",
            hint="a record without a vector is a null list.",
            where=where,
        )
    dim = _list_width(column, present, where, first)
    rows = flat.to_numpy(zero_copy_only=False).reshape(len(present), dim)
    return Block(rows, None if len(present) == len(column) else present.astype(np.intp), where)


def _list_width(column: Any, present: Any, where: str, first: int) -> int:
    if hasattr(column.type, "list_size"):
        return int(column.type.list_size) if len(present) else 0
    lengths = np.asarray(column.value_lengths().to_numpy(zero_copy_only=False))[present]
    if lengths.size and (lengths != lengths[0]).any():
        bad = int(np.flatnonzero(lengths != lengths[0])[0])
        raise DimensionError(
            f"{where}: row {first + int(present[bad]):,} has {int(lengths[bad])} numbers, expected {int(lengths[0])}.",
            hint="all vectors of a space have the same width.",
            expected=int(lengths[0]),
            got=int(lengths[bad]),
            where=where,
        )
    return int(lengths[0]) if lengths.size else 0


class ArrowFileRecords:
    """A Parquet or Arrow IPC file (file or stream format), read batch by batch."""

    def __init__(self, path: str, fields: Fields) -> None:
        self._pa = require_arrow(f"reading {os.path.basename(path)}")
        self.name = path
        self._fields = fields
        self.rows: int | None = None
        with self._guard():
            names = self._open()
        check_fields(names, fields, path)
        self._wanted = self._columns(names)

    def _open(self) -> list[str]:
        """Read the schema, and the row count where the file's footer has one."""
        if self.name.lower().endswith(".parquet"):
            with self._parquet() as file:
                self.rows = file.metadata.num_rows
                return list(file.schema_arrow.names)
        with self._pa.OSFile(self.name) as raw:
            return list(self._ipc(raw).schema.names)

    def _columns(self, names: list[str]) -> list[str]:
        if self._fields.metadata is None:
            return names
        return [name for name in names if name in self._fields.special() | set(self._fields.metadata)]

    def _parquet(self) -> Any:
        import pyarrow.parquet

        return pyarrow.parquet.ParquetFile(self.name, memory_map=False, pre_buffer=False)

    def _ipc(self, raw: Any) -> Any:
        import pyarrow.ipc

        try:
            return pyarrow.ipc.open_file(raw)
        except self._pa.ArrowInvalid:  # the stream format has no footer
            raw.seek(0)
            return pyarrow.ipc.open_stream(raw)

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            yield
        except VecdbError:
            raise
        except FileNotFoundError as error:
            raise access_error(self.name, error) from error
        except (self._pa.ArrowException, OSError, OverflowError, ValueError, MemoryError) as error:
            first_line = str(error).strip().partition("\n")[0]
            raise SourceError(
                f"{self.name} is damaged or not of its type: {first_line.rstrip('.')}.",
                hint="write it again.",
                path=self.name,
            ) from error

    def _batches(self, rows: int) -> Iterator[Any]:
        if self.name.lower().endswith(".parquet"):
            with self._parquet() as file:
                yield from file.iter_batches(batch_size=rows, columns=self._wanted, use_threads=False)
            return
        with self._pa.OSFile(self.name) as raw:
            yield from self._ipc_batches(self._ipc(raw))

    def _ipc_batches(self, reader: Any) -> Iterator[Any]:
        if hasattr(reader, "num_record_batches"):
            found: Iterator[Any] = (reader.get_batch(place) for place in range(reader.num_record_batches))
        else:
            found = iter(reader)
        for batch in found:
            batch.validate(full=True)
            yield batch.select(self._wanted)

    def chunks(self, start: int, limits: Limits) -> Iterator[Chunk]:
        first = 0
        most = limits.most_rows()
        with self._guard():
            for batch in self._batches(most):
                for begin, end in _cuts(batch, max(0, start - first), limits):
                    yield chunk_of(ArrowColumns(batch), self._fields, first + begin, begin, end)
                first += batch.num_rows

    def width(self, column: str) -> tuple[int, np.dtype[Any]]:
        with self._guard():
            for batch in self._batches(1024):
                rows = ArrowColumns(batch).vectors(column, 0, batch.num_rows, 0).rows
                if rows.size:
                    return rows.shape[1], rows.dtype
        raise VectorMissingError(f"column {column!r} of {self.name} holds no vector.", hint="check the column's name.")

    def count(self) -> int:
        if self.rows is not None:
            return self.rows
        with self._guard():
            return sum(batch.num_rows for batch in self._batches(1 << 16))

    def fingerprint(self) -> Any:
        return fingerprint_file(self.name)

    def close(self) -> None:
        """The file is open only while it is read."""


def _cuts(batch: Any, skip: int, limits: Limits) -> Iterator[tuple[int, int]]:
    """Cut one batch, after its first `skip` rows, into ranges that keep the limits."""
    size = int(batch.nbytes) // max(1, batch.num_rows)
    step = Limits(limits.rows, limits.nbytes, limits.row_bytes + size).most_rows()
    for begin in range(skip, batch.num_rows, step):
        yield begin, min(begin + step, batch.num_rows)
