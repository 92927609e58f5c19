"""Arrow tables, Parquet and Arrow IPC files, and pandas frames made from a collection. Needs the extra ``arrow``.

Columns: ``id``, ``text``, one for each top-level metadata field, one for each space. A field becomes int64, double,
bool, string or list<string> if all its values are of that type (missing and null alike become null); a field of mixed
or nested values becomes a string column of JSON. This is convenient and not loss-free: the export directory is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from vecdb.interchange.arraywriters import id_type
from vecdb.interchange.arrowtables import require_arrow
from vecdb.interchange.codec import dumps
from vecdb.interchange.npyfile import flush_to_disk
from vecdb.interchange.plan import Plan, Written
from vecdb.types import Record, Space

__all__ = ["to_table", "write_arrow", "write_parquet"]

_BATCH_BYTES = 8 << 20
_RESERVED = ("id", "text")


def write_parquet(plan: Plan, path: str) -> Written:
    require_arrow("writing Parquet")
    import pyarrow.parquet

    layout = _Layout(plan, ".parquet")
    with open(path, "xb") as stream:
        with pyarrow.parquet.ParquetWriter(stream, layout.schema, compression="zstd") as writer:
            for batch in layout.batches():
                writer.write_batch(batch)
        flush_to_disk(stream)
    return layout.records, layout.counts


def write_arrow(plan: Plan, path: str) -> Written:
    require_arrow("writing Arrow")
    import pyarrow.ipc

    layout = _Layout(plan, ".arrow")
    with open(path, "xb") as stream:
        with pyarrow.ipc.new_file(stream, layout.schema) as writer:
            for batch in layout.batches():
                writer.write_batch(batch)
        flush_to_disk(stream)
    return layout.records, layout.counts


def to_table(plan: Plan) -> Any:
    """Return everything as one pyarrow Table."""
    pa = require_arrow("making an Arrow table")
    layout = _Layout(plan, "an Arrow table")
    return pa.Table.from_batches(list(layout.batches()), schema=layout.schema)


class _Layout:
    """The columns of one export, found by a first pass, and the batches of a second one."""

    def __init__(self, plan: Plan, kind: str) -> None:
        plan.check_names(_RESERVED)
        self._plan = plan
        self._pa = require_arrow(f"writing {kind}")
        ids, _ = id_type(plan, kind)
        self._fields = self._metadata_types()
        self.records = 0
        self.counts = dict.fromkeys(plan.spaces, 0)
        self.schema = self._schema(ids)

    def _metadata_types(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for record in self._plan.records(()):
            for key, value in record.metadata.items():
                kind = _kind(value)
                if kind is not None:
                    found[key] = kind if found.get(key, kind) == kind else "json"
                else:
                    found.setdefault(key, "")
        return {key: kind or "json" for key, kind in found.items()}

    def _schema(self, ids: type) -> Any:
        pa = self._pa
        types = {
            "int": pa.int64(),
            "float": pa.float64(),
            "bool": pa.bool_(),
            "str": pa.string(),
            "strings": pa.list_(pa.string()),
            "json": pa.string(),
        }
        columns = [pa.field("id", pa.int64() if ids is int else pa.string()), pa.field("text", pa.string())]
        columns += [pa.field(self.column(key), types[kind]) for key, kind in self._fields.items()]
        columns += [pa.field(name, self._vector_type(space)) for name, space in self._plan.spaces.items()]
        return pa.schema(columns)

    def _vector_type(self, space: Space) -> Any:
        pa = self._pa
        return pa.list_(pa.float32() if space.returned == "float32" else pa.float16(), space.dim)

    def column(self, key: str) -> str:
        """Name the column of a metadata field; one that would hide another column gets a prefix."""
        return f"metadata.{key}" if key in (*_RESERVED, *self._plan.spaces) else key

    def batches(self) -> Iterator[Any]:
        size = 256 + sum(space.dim * 4 for space in self._plan.spaces.values())
        most = max(1, _BATCH_BYTES // size)
        waiting: list[Record] = []
        for record in self._plan.records():
            waiting.append(record)
            if len(waiting) == most:
                yield self._batch(waiting)
                waiting = []
        if waiting:
            yield self._batch(waiting)

    def _batch(self, records: list[Record]) -> Any:
        self.records += len(records)
        columns: list[Any] = [[record.id for record in records], [record.text for record in records]]
        for key, kind in self._fields.items():
            values = [record.metadata.get(key) for record in records]
            columns.append([None if v is None else dumps(v) for v in values] if kind == "json" else values)
        arrays = [self._pa.array(column, type=field.type) for column, field in zip(columns, self.schema, strict=False)]
        arrays += [self._vectors(name, space, records) for name, space in self._plan.spaces.items()]
        return self._pa.record_batch(arrays, schema=self.schema)

    def _vectors(self, name: str, space: Space, records: list[Record]) -> Any:
        """A fixed-size list column: the numbers in one array, and nulls where a record has no vector."""
        matrix = np.zeros((len(records), space.dim), dtype=space.returned)
        missing = np.ones(len(records), dtype=bool)
        for place, record in enumerate(records):
            if name in record.vectors:
                matrix[place] = record.vectors[name]
                missing[place] = False
        self.counts[name] += int((~missing).sum())
        flat = self._pa.array(matrix.reshape(-1))
        mask = self._pa.array(missing) if missing.any() else None
        return self._pa.FixedSizeListArray.from_arrays(flat, space.dim, mask=mask)


def _kind(value: Any) -> str | None:
    """Name the column type that holds a value without loss; None says nothing about the column."""
    if value is None:
        return None
    if isinstance(value, bool | int | float | str):
        return type(value).__name__
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "strings"
    return "json"
