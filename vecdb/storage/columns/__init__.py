"""Typed columns of metadata, so that `where` and `order_by` read arrays instead of decoding records.

A chunk covers up to `MAX_RECORDS` sealed records. For each dotted path it keeps which records have the path, the
type of each value and the values themselves, by type. Invariant: a chunk answers exactly like the metadata it was
made of; a path it does not keep is reported by `ColumnChunk.covers`, never guessed.

`layout` holds the words of the byte format, `encode` writes it, `values` and `chunk` read it. Bytes:
docs/explanation/storage-design.md.
"""

from vecdb.storage.columns.chunk import Column, ColumnChunk
from vecdb.storage.columns.encode import encode_columns
from vecdb.storage.columns.layout import (
    MAX_COLUMN_BYTES,
    MAX_COLUMNS_BYTES,
    MAX_PATHS,
    MAX_RECORDS,
    MISSING,
    OPAQUE,
    Absent,
    Tag,
)
from vecdb.storage.columns.values import Lists, Strings, Values

__all__ = [
    "MAX_COLUMNS_BYTES",
    "MAX_COLUMN_BYTES",
    "MAX_PATHS",
    "MAX_RECORDS",
    "MISSING",
    "OPAQUE",
    "Absent",
    "Column",
    "ColumnChunk",
    "Lists",
    "Strings",
    "Tag",
    "Values",
    "encode_columns",
]
