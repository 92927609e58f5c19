"""Records and ids: where a record lies, and reading it as it is now.

Keys of ``ids``: collection + typed id -> row. Keys of ``records``: collection + row -> the sealed record.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from vecdb.errors import CorruptionError
from vecdb.storage.format import Buffer, StoredRecord, decode_id, decode_metadata, decode_record, read_u64, u32, u32_u64
from vecdb.storage.tx import Tx
from vecdb.types import Id


def record_key(collection: int, row: int) -> bytes:
    return u32_u64(collection, row)


def id_place(collection: int, key: bytes) -> bytes:
    return u32(collection) + key


def find_row(tx: Tx, collection: int, key: bytes) -> int | None:
    """Return the row of the record with this typed id."""
    value = tx.get("ids", id_place(collection, key))
    return None if value is None else _row(value)


def find_rows(tx: Tx, collection: int, keys: Sequence[bytes]) -> list[int | None]:
    """Return the row of each id, None where there is no record."""
    if len(keys) == 1:
        return [find_row(tx, collection, keys[0])]
    places = [id_place(collection, key) for key in keys]
    found = tx.get_many("ids", places)
    return [None if (value := found.get(place)) is None else _row(value) for place in places]


def _row(value: Buffer) -> int:
    if len(value) != 8:
        raise CorruptionError("an id leads to no row", what="id")
    return read_u64(value)


def read_record(tx: Tx, collection: int, row: int) -> StoredRecord:
    """Return the record at `row` as it is now."""
    key = record_key(collection, row)
    value = tx.get("records", key)
    if value is None:
        raise CorruptionError(f"the record at row {row} is missing", what="record", where=key.hex())
    return decode_record(key, value)


def read_id(tx: Tx, collection: int, row: int) -> Id:
    """Return the id of the record at `row`."""
    key = record_key(collection, row)
    value = tx.get("records", key)
    if value is None:
        raise CorruptionError(f"the record at row {row} is missing", what="record", where=key.hex())
    return decode_id(key, value)


def read_metadata(tx: Tx, collection: int, row: int) -> dict[str, Any]:
    """Return the metadata of the record at `row`."""
    key = record_key(collection, row)
    value = tx.get("records", key)
    if value is None:
        raise CorruptionError(f"the record at row {row} is missing", what="record", where=key.hex())
    return decode_metadata(key, value)


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
