"""Records as JSON lines or as dicts in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from vecdb.errors import SourceError, VectorMissingError
from vecdb.interchange.chunks import Chunk, Fields, Limits, stack
from vecdb.interchange.codec import dumps, loads, place
from vecdb.interchange.lines import count_lines, fingerprint_file, reading, real_lines

__all__ = ["JsonLines", "PlainRecords"]

_OBJECT_COST = 4
"""A parsed line takes about this many times its bytes."""


class _Builder:
    """Collects records until a chunk is full."""

    def __init__(self, fields: Fields, name: str, first: int) -> None:
        self._fields = fields
        self._name = name
        self._first = first
        self._ids: list[Any] = []
        self._texts: list[Any] = []
        self._metadata: list[dict[str, Any]] = []
        self._vectors: dict[str, list[Any]] = {space: [] for space in fields.vectors}
        self._lines: list[int] = []
        self.cost = 0

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, record: Mapping[str, Any], line: int | None, cost: int) -> None:
        fields = self._fields
        rest = dict(record)
        self._ids.append(self._id(rest, line))
        if fields.text is not None:
            self._texts.append(rest.pop(fields.text, None))
        for space, name in fields.vectors.items():
            self._vectors[space].append(rest.pop(name, None))
        self._metadata.append(self._chosen(rest))
        if line is not None:
            self._lines.append(line)
        self.cost += cost

    def _id(self, rest: dict[str, Any], line: int | None) -> Any:
        name = self._fields.id
        if name is None:
            return self._first + len(self._ids)
        if name not in rest:
            raise SourceError(
                f"{place(self._name, line)} has no field {name!r}; it has {', '.join(map(repr, rest)) or 'none'}.",
                hint="name the field that holds the id, or number the records by having none.",
                path=self._name,
                line=line,
                row=self._first + len(self._ids),
            )
        return rest.pop(name)

    def _chosen(self, rest: dict[str, Any]) -> dict[str, Any]:
        names = self._fields.metadata
        if names is not None:
            rest = {name: rest[name] for name in names if name in rest}
        return rest if self._fields.nulls else {name: value for name, value in rest.items() if value is not None}

    def build(self) -> Chunk:
        blocks = {
            space: stack(values, f"{self._name}, field {self._fields.vectors[space]!r}", self._first)
            for space, values in self._vectors.items()
        }
        return Chunk(
            self._first,
            self._ids,
            self._metadata,
            self._texts if self._fields.text is not None else None,
            blocks,
            self._lines or None,
        )


def _chunks(
    records: Iterable[tuple[int | None, Mapping[str, Any], int]], fields: Fields, name: str, start: int, limits: Limits
) -> Iterator[Chunk]:
    builder = _Builder(fields, name, start)
    for line, record, cost in records:
        builder.add(record, line, cost + limits.row_bytes)
        if len(builder) >= limits.rows or builder.cost >= limits.nbytes:
            yield builder.build()
            start += len(builder)
            builder = _Builder(fields, name, start)
    if len(builder):
        yield builder.build()


class JsonLines:
    """A ``.jsonl`` file, plain or gzip: one JSON object a line; blank lines are passed over."""

    rows: int | None = None

    def __init__(self, path: str, fields: Fields) -> None:
        self.name = path
        self._fields = fields
        with reading(path):
            open(path, "rb").close()

    def chunks(self, start: int, limits: Limits) -> Iterator[Chunk]:
        return _chunks(self._records(start), self._fields, self.name, start, limits)

    def _records(self, start: int) -> Iterator[tuple[int, Mapping[str, Any], int]]:
        for number, line in islice(real_lines(self.name), start, None):
            record = loads(line, path=self.name, number=number)
            if not isinstance(record, dict):
                raise SourceError(
                    f"{place(self.name, number)} holds a {type(record).__name__}, expected an object.",
                    hint='write one record a line: {"id": ..., "field": ...}.',
                    path=self.name,
                    line=number,
                )
            yield number, record, len(line) * _OBJECT_COST

    def width(self, column: str) -> tuple[int, np.dtype[Any]]:
        return _width((record for _, record, _ in self._records(0)), column, self.name)

    def count(self) -> int:
        return count_lines(self.name)

    def fingerprint(self) -> Any:
        return fingerprint_file(self.name)

    def close(self) -> None:
        """The file is open only while its lines are read."""


class PlainRecords:
    """Dicts in memory, or made one by one by an iterator (which can be read only once and not resumed)."""

    def __init__(self, records: Iterable[Mapping[str, Any]], fields: Fields) -> None:
        self.name = "records"
        self._records = records
        self._fields = fields
        self.rows: int | None = len(records) if isinstance(records, Sequence) else None

    def chunks(self, start: int, limits: Limits) -> Iterator[Chunk]:
        return _chunks(self._checked(start), self._fields, self.name, start, limits)

    def _checked(self, start: int) -> Iterator[tuple[None, Mapping[str, Any], int]]:
        for row, record in enumerate(islice(self._records, start, None), start):
            if not isinstance(record, Mapping):
                raise SourceError(
                    f"record {row:,} is a {type(record).__name__}, expected a dict.",
                    hint="give an iterable of dicts, a table, or a path.",
                    row=row,
                )
            yield None, record, 64 * len(record)

    def width(self, column: str) -> tuple[int, np.dtype[Any]]:
        return _width(self._again(), column, self.name)

    def count(self) -> int:
        return len(self._again())

    def _again(self) -> Sequence[Mapping[str, Any]]:
        if not isinstance(self._records, Sequence):
            raise SourceError(
                "an iterator of records can be read only once.",
                hint="pass a list, or carry the vectors inside the records and create the space first.",
            )
        return self._records

    def fingerprint(self) -> Any:
        return None

    def close(self) -> None:
        """Nothing is held open."""


def _width(records: Iterable[Mapping[str, Any]], column: str, name: str) -> tuple[int, np.dtype[Any]]:
    for row, record in enumerate(records):
        if record.get(column) is not None:
            rows = stack([record[column]], f"{name}, field {column!r}", row).rows
            return rows.shape[1], rows.dtype
    raise VectorMissingError(f"no record of {name} has a vector in field {column!r}.", hint="check the field's name.")


def write_line(record: Mapping[str, Any]) -> bytes:
    return (dumps(record) + "\n").encode()
