"""From the arguments of an import to what is read: one record source and the vector sources beside it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vecdb.errors import ArgumentError, ParameterError, SourceError
from vecdb.interchange import arrowtables
from vecdb.interchange.chunks import Fields, NumberedRecords, RecordSource
from vecdb.interchange.foreign import ForeignFile, ForeignRecords
from vecdb.interchange.records import JsonLines, PlainRecords
from vecdb.interchange.suffixes import JSON_SUFFIXES, known_suffixes
from vecdb.interchange.tables import TableRecords, as_columns
from vecdb.interchange.vectorfiles import ArraySource, VectorSource, open_vectors

__all__ = ["SourceFacts", "Sources", "open_sources"]


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What a source holds, read without importing it.

    Attributes
    ----------
    rows : int or None
        None where only reading everything would tell.
    widths : dict of str to (int, dtype)
        Space name to width and element type of its vectors.
    """

    rows: int | None
    widths: dict[str, tuple[int, np.dtype[Any]]]


@dataclass(slots=True)
class Sources:
    """What one import reads; close it when done.

    Attributes
    ----------
    records : RecordSource
    vectors : dict of str to VectorSource
        Spaces whose vectors stand beside the records, row by row.
    columns : dict of str to str
        Spaces whose vectors stand in a field of the records.
    later : int
        Rows of vectors that follow the records (`Chunk.later`); then the number of records is known.
    """

    records: RecordSource
    vectors: dict[str, VectorSource] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    later: int = 0

    def close(self) -> None:
        self.records.close()
        for source in self.vectors.values():
            source.close()

    def row_bytes(self) -> int:
        return sum(source.dim * max(4, source.dtype.itemsize) for source in self.vectors.values())

    def total(self) -> int | None:
        """Return how many rows there are, as far as it is known without reading the records."""
        for source in self.vectors.values():
            return source.rows
        return None if self.records.rows is None else self.records.rows + self.later

    def records_in(self, rows: int) -> int:
        """Return how many of the first `rows` rows are records."""
        return rows if not self.later or self.records.rows is None else min(rows, self.records.rows)

    def check_counts(self) -> None:
        """Refuse, before anything is stored, sources of different lengths."""
        if not self.vectors:
            return
        rows = self.records.rows if self.records.rows is not None else self.records.count()
        for source in self.vectors.values():
            if source.rows != rows:
                raise SourceError(
                    f"{source.name} holds {source.rows:,} vectors, but {self.records.name} holds {rows:,} records.",
                    hint="row i of the vectors must belong to record i.",
                    path=source.name,
                )

    def facts(self) -> SourceFacts:
        widths = {space: (source.dim, source.dtype) for space, source in self.vectors.items()}
        widths.update({space: self.records.width(column) for space, column in self.columns.items()})
        return SourceFacts(self.total(), widths)

    def names(self) -> list[Any]:
        return [self.records.name, sorted((space, source.name) for space, source in self.vectors.items())]

    def fingerprint(self) -> Any:
        """Return what tells this import's data apart, or None if it cannot be told (data in memory)."""
        parts = [self.records.fingerprint(), *(self.vectors[space].fingerprint() for space in sorted(self.vectors))]
        return None if any(part is None for part in parts) else parts


def open_sources(
    source: Any,
    *,
    vectors: Mapping[str, Any],
    ids: Any,
    text: str | None,
    metadata: Sequence[str] | None,
    nulls: bool | None = None,
) -> Sources:
    """Open everything that an import reads; the parameters are those of `import_data`."""
    columns = {space: given[1:] for space, given in vectors.items() if isinstance(given, str) and given[:1] == "@"}
    beside: dict[str, VectorSource] = {}
    try:
        for space, given in vectors.items():
            if space not in columns:
                beside[space] = _open_beside(given, space)
        fields = _fields(ids, text, metadata, columns, nulls)
        return Sources(_open_records(source, fields, ids, beside), beside, columns)
    except BaseException:
        for opened in beside.values():
            opened.close()
        if isinstance(source, ForeignFile):
            source.close()
        raise


def _open_beside(given: Any, space: str) -> VectorSource:
    if isinstance(given, str | os.PathLike):
        return open_vectors(os.fspath(given))
    return ArraySource(given, f"vectors of space {space!r}")


def _fields(
    ids: Any, text: str | None, metadata: Sequence[str] | None, columns: Mapping[str, str], nulls: bool | None
) -> Fields:
    if isinstance(metadata, str):
        raise ParameterError(
            "metadata is a str.", hint="give a list of field names.", name="metadata", got=metadata, allowed="list"
        )
    return Fields(
        id=ids if isinstance(ids, str) else None,
        text=text,
        metadata=None if metadata is None else tuple(metadata),
        vectors=dict(columns),
        nulls=bool(nulls),
    )


def _open_records(source: Any, fields: Fields, ids: Any, beside: Mapping[str, VectorSource]) -> RecordSource:
    if source is None:
        return _numbered(fields, ids, beside)
    if ids is not None and not isinstance(ids, str):
        raise ParameterError(
            "ids are given as values although the source has records.",
            hint="name the field that holds the id, or put the ids into the table.",
            name="ids",
            got=type(ids).__name__,
            allowed="a field name or None",
        )
    if isinstance(source, ForeignFile):
        return ForeignRecords(source, fields, ids)
    if isinstance(source, str | os.PathLike):
        return _open_file(os.fspath(source), fields)
    columns = as_columns(source)
    if columns is not None:
        return TableRecords(columns, fields)
    if isinstance(source, Iterable):
        return PlainRecords(source, fields)
    raise ParameterError(
        f"a {type(source).__name__} cannot be imported.",
        hint="give a path, a table (pandas, Polars, Arrow, dict of columns) or an iterable of dicts.",
        name="source",
        got=type(source).__name__,
        allowed="path, table, iterable of dicts",
    )


def _open_file(path: str, fields: Fields) -> RecordSource:
    lower = path.lower()
    if lower.endswith(arrowtables.SUFFIXES):
        return arrowtables.ArrowFileRecords(path, fields)
    if lower.endswith(JSON_SUFFIXES):
        return JsonLines(path, fields)
    raise SourceError(
        f"{path} is not a file of records that can be read.",
        hint=f"known suffixes: {known_suffixes()}.",
        path=path,
    )


def _numbered(fields: Fields, ids: Any, beside: Mapping[str, VectorSource]) -> NumberedRecords:
    if not beside or fields.vectors or fields.text or fields.metadata:
        raise ArgumentError(
            "there are no records to import.", hint="give records, or vectors as files or arrays without fields."
        )
    rows = next(iter(beside.values())).rows
    if ids is None or isinstance(ids, str):
        return NumberedRecords(rows)
    if len(ids) != rows:
        raise SourceError(f"{len(ids):,} ids are given for {rows:,} vectors.", hint="one id a vector.")
    return NumberedRecords(rows, ids)
