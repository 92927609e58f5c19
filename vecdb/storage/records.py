"""Records and ids: where a record lies, and reading it as it is now.

Keys of ``ids``: collection + typed id -> row. Keys of ``records``: collection + row -> the sealed record.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from vecdb.errors import CorruptionError
from vecdb.storage.format import (
    Buffer,
    StoredRecord,
    decode_metadata,
    decode_metadatas,
    decode_record,
    read_u64,
    u32,
    u32_u64,
)
from vecdb.storage.idkeys import prefixed
from vecdb.storage.tx import Tx


def record_key(collection: int, row: int) -> bytes:
    return u32_u64(collection, row)


def id_place(collection: int, key: bytes) -> bytes:
    return u32(collection) + key


def record_keys(collection: int, rows: Sequence[int]) -> list[bytes]:
    """Return `record_key` of each row."""
    return prefixed(u32(collection), rows)


def id_places(collection: int, keys: Sequence[bytes]) -> list[bytes]:
    """Return `id_place` of each key."""
    prefix = u32(collection)
    return [prefix + key for key in keys]


def find_row(tx: Tx, collection: int, key: bytes) -> int | None:
    """Return the row of the record with this typed id."""
    value = tx.get("ids", id_place(collection, key))
    return None if value is None else _row(value)


def find_rows(tx: Tx, collection: int, keys: Sequence[bytes]) -> list[int | None]:
    """Return the row of each id, None where there is no record."""
    return rows_at(tx, id_places(collection, keys))


def rows_at(tx: Tx, places: list[bytes]) -> list[int | None]:
    """Return the row under each key of ``ids``, None where there is none.

    New ids often lie beside all stored ones (counted up, or by time): one look at their range then stands for all.
    """
    if len(places) > 1 and not tx.any_between("ids", min(places), max(places)):
        return [None] * len(places)
    if len(places) == 1:
        value = tx.get("ids", places[0])
        return [None if value is None else _row(value)]
    found = tx.get_many("ids", places)
    return [None if (value := found.get(place)) is None else _row(value) for place in places]


def _row(value: Buffer) -> int:
    if len(value) != 8:
        raise CorruptionError("an id leads to no row", what="id")
    return read_u64(value)


def require_id(record: StoredRecord, key: bytes, row: int) -> None:
    """Refuse a record that another id led to: rows of ``ids`` carry no checksum of their own."""
    if record.key != key:
        raise CorruptionError(
            f"an id leads to row {row}, which holds another record",
            hint="Run `vecdb check`, and restore from a backup.",
            what="id",
            where=key.hex(),
        )


def read_record(tx: Tx, collection: int, row: int) -> StoredRecord:
    """Return the record at `row` as it is now."""
    key = record_key(collection, row)
    value = tx.get("records", key)
    if value is None:
        raise CorruptionError(f"the record at row {row} is missing", what="record", where=key.hex())
    return decode_record(key, value)


def read_metadata(tx: Tx, collection: int, row: int) -> dict[str, Any]:
    """Return the metadata of the record at `row`."""
    key = record_key(collection, row)
    value = tx.get("records", key)
    if value is None:
        raise CorruptionError(f"the record at row {row} is missing", what="record", where=key.hex())
    return decode_metadata(key, value)


def read_metadatas(tx: Tx, collection: int, rows: Sequence[int]) -> list[dict[str, Any]]:
    """Return the metadata of many records, in a write transaction."""
    keys = record_keys(collection, rows)
    found = tx.get_many("records", keys)
    if len(found) < len(keys):
        missing = next(row for row, key in zip(rows, keys, strict=True) if key not in found)
        raise CorruptionError(f"the record at row {missing} is missing", what="record")
    return decode_metadatas(keys, [bytes(found[key]) for key in keys])


def stored_bytes(tx: Tx, collection: int, row: int) -> bytes:
    """Return the record's value as it lies in the file, for its pre-image."""
    value = tx.get("records", record_key(collection, row))
    if value is None:
        raise CorruptionError(f"the record at row {row} is missing", what="record")
    return bytes(value)


def iterate_rows(tx: Tx, collection: int, start: int = 0) -> Iterator[tuple[int, bytes, Buffer]]:
    """Yield (row, key, value) of the live records from row `start` on."""
    for key, value in tx.range("records", u32(collection), record_key(collection, start)):
        yield read_u64(key[4:]), key, value
