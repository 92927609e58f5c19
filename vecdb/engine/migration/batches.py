"""One batch of a migration: which records it takes, and the commit that gives them their vectors.

The records were read and embedded without any lock, so the commit looks at each again: one that changed meanwhile is
left as it is, and waits for the next time. A record's version stays, for its content does. Invariant: vectors, the
references to them, and what the migration knows of itself change together or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from vecdb.engine.batch import SpaceBatch
from vecdb.engine.guard import Review
from vecdb.engine.migration.begin import Key, put, stored
from vecdb.engine.view import CollectionView
from vecdb.storage.failpoints import visit
from vecdb.storage.format import StoredRecord, decode_record, encode_records, pack_refs
from vecdb.storage.migrations import BACKFILLING, BRIDGING, COMPLETE, UNDOING, StoredMigration
from vecdb.storage.records import record_key
from vecdb.storage.snapshot import entry_by_number
from vecdb.storage.writetx import Pending, WriteTx
from vecdb.types import Record, Space

_RUNNING: Final = (BRIDGING, BACKFILLING, COMPLETE)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A record that a batch takes, as it was read.

    Attributes
    ----------
    row, version : int
    ordinal : int
        Of its vector in the space that it already has.
    record : Record
    """

    row: int
    version: int
    ordinal: int
    record: Record


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a record must have, and must lack, to be taken: numbers of spaces."""

    has: int
    lacks: int


def read_candidates(
    view: CollectionView, rows: Sequence[int], wanted: Wanted, spaces: Sequence[Space] = ()
) -> list[Candidate]:
    """Return those of the records at `rows` that are there and wait for a vector, with their vectors in `spaces`."""
    found = []
    for row in view.still_there(rows):
        stored_record = view.record(row)
        if _waits(stored_record, wanted):
            record = view.present_stored(stored_record, spaces)
            found.append(Candidate(row, stored_record.version, stored_record.refs[wanted.has], record))
    return found


def _waits(record: StoredRecord, wanted: Wanted) -> bool:
    return wanted.has in record.refs and wanted.lacks not in record.refs


@dataclass(frozen=True, slots=True)
class Delivery:
    """Vectors for candidates, ready to be stored.

    Attributes
    ----------
    candidates : list of Candidate
        One for each row of `part`.
    part : SpaceBatch
    wanted : Wanted
    failures : mapping of int to str
        Of other candidates, by ordinal: why they have none.
    seconds : float
        What embedding them took.
    own : bool
        Whether a rollback takes the vectors away again.
    traffic : mapping of int to int
        Hits of bridged searches since the last batch, by row.
    asked : bool
        A search made the vectors and asked for them to be kept: a pause does not stop that.
    """

    candidates: Sequence[Candidate]
    part: SpaceBatch
    wanted: Wanted
    failures: Mapping[int, str]
    seconds: float
    own: bool = True
    traffic: Mapping[int, int] = field(default_factory=dict)
    asked: bool = False

    def welcome(self, migration: StoredMigration) -> bool:
        """Whether the migration takes it as things stand."""
        if self.asked:
            return migration.active and migration.state != UNDOING
        return migration.state in _RUNNING and not migration.paused


@dataclass(frozen=True, slots=True)
class Delivered:
    """What became of a delivery: how many vectors were stored, and whether the migration may go on."""

    stored: int
    going_on: bool


def deliver(
    collection: Key, number: int, delivery: Delivery, reviews: Sequence[Review]
) -> Callable[[WriteTx], Delivered]:
    """Return the operation that stores a delivery, unless the migration was paused or ended meanwhile."""

    def operation(write: WriteTx) -> Delivered:
        migration = stored(write, collection, number)
        if not delivery.welcome(migration):
            return Delivered(0, False)
        pending = write.pending(entry_by_number(write.catalog, *collection))
        taken = _still_waiting(write, pending, delivery)
        for review in reviews:
            review.apply(write, pending)
        first = _store(write, pending, delivery, taken)
        put(write, collection, _noted(migration, delivery, first, len(taken)))
        write.note(f"{collection[1]}: migration {number}: {len(taken)} vectors of {delivery.part.space.name}")
        visit("migrate.batch")
        return Delivered(len(taken), True)

    return operation


def _noted(migration: StoredMigration, delivery: Delivery, first: int, count: int) -> StoredMigration:
    migration = migration.with_traffic(delivery.traffic)
    if not delivery.own:
        return replace(migration, seconds=migration.seconds + delivery.seconds)
    return migration.with_written(first, count, delivery.seconds).with_failures(delivery.failures)


@dataclass(frozen=True, slots=True)
class _Taken:
    """A candidate that is as it was read: its place in the delivery, and what is stored of it."""

    place: int
    row: int
    value: bytes
    record: StoredRecord


def _still_waiting(write: WriteTx, pending: Pending, delivery: Delivery) -> list[_Taken]:
    found = []
    for place, candidate in enumerate(delivery.candidates):
        key = record_key(pending.entry.id, candidate.row)
        value = write.tx.get("records", key)
        if value is None:
            continue
        record = decode_record(key, value)
        same = record.version == candidate.version and record.refs.get(delivery.wanted.has) == candidate.ordinal
        if same and _waits(record, delivery.wanted):
            found.append(_Taken(place, candidate.row, bytes(value), record))
    return found


def _store(write: WriteTx, pending: Pending, delivery: Delivery, taken: Sequence[_Taken]) -> int:
    """Append the vectors of `taken` and refer to them; return the ordinal of the first."""
    if not taken:
        return 0
    part, places = delivery.part, [item.place for item in taken]
    rows = np.array([item.row for item in taken], np.uint64)
    errors = part.errors[places] if len(part.errors) else part.errors
    first = write.append_vectors(pending, part.space, part.stored[places], rows, part.scales[places], errors)
    refs = [{**item.record.refs, part.space.id: first + offset} for offset, item in enumerate(taken)]
    put_records(write, pending, [(item.row, item.value, item.record) for item in taken], refs)
    return first


def put_records(
    write: WriteTx,
    pending: Pending,
    records: Sequence[tuple[int, bytes, StoredRecord]],
    refs: Sequence[Mapping[int, int]],
) -> None:
    """Store records, given as (row, bytes, what they say), with other references; nothing else of them changes."""
    for row, value, _ in records:
        write.remember(pending, row, value)
    keys = [record_key(pending.entry.id, row) for row, _, _ in records]
    known: list[Any] = [record for _, _, record in records]
    values = encode_records(
        keys,
        [record.version for record in known],
        [pack_refs(each) for each in refs],
        [record.key for record in known],
        [record.body for record in known],
    )
    write.put_records(keys, values)
