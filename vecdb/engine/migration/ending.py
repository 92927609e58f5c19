"""The two ends of a migration. Finishing drops the old space; rolling back takes away what the migration wrote.

A rollback is many small commits, so that no write waits for a collection to be rewritten. It can be killed between any
two of them: what is left to do is read off the spaces. Answers in the source space are the old ones at every moment of
it. A record's bytes are what they were before the migration, unless somebody else wrote it meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from vecdb.engine.migration.batches import put_records
from vecdb.engine.migration.begin import Key, put, require, stored
from vecdb.engine.migration.census import space_numbered, take_census
from vecdb.engine.view import CollectionView
from vecdb.errors import StateError
from vecdb.storage.failpoints import visit
from vecdb.storage.migrations import (
    ACTIVE,
    BACKFILLING,
    BRIDGING,
    COMPLETE,
    FINISHED,
    UNDOING,
    UNDONE,
    StoredMigration,
    tag_of,
)
from vecdb.storage.snapshot import Reader, Snapshot, State, entry_by_number
from vecdb.storage.spaces import profile_key
from vecdb.storage.writetx import Pending, WriteTx
from vecdb.types import Space

UNDO_ROWS = 2_048
"""Records of one commit of a rollback."""


def finish(collection: Key, number: int, reader: Reader, *, leave_missing: bool) -> Callable[[WriteTx], None]:
    """Return the operation that drops the source space and ends the migration."""

    def operation(write: WriteTx) -> None:
        migration = stored(write, collection, number)
        require(migration, (BRIDGING, BACKFILLING, COMPLETE), "finish")
        view = _view(write, collection, reader)
        waiting = int(take_census(view, migration).pending.sum())
        if waiting and not leave_missing:
            raise StateError(
                f"finish would leave {waiting} records of collection {collection[1]!r} without a vector in space "
                f"{migration.names[1]!r}",
                hint="run() embeds those that wait; see status().failures; finish(leave_missing=True) leaves them so.",
            )
        heir = migration.aim or migration.target
        write.drop_space(view.entry, space_numbered(view, migration.source), heir=heir)
        _end(write, collection, migration, FINISHED)
        visit("migrate.finished")

    return operation


def begin_undoing(collection: Key, number: int) -> Callable[[WriteTx], None]:
    """Return the operation after which nothing but the rollback goes on."""

    def operation(write: WriteTx) -> None:
        migration = stored(write, collection, number)
        require(migration, ACTIVE, "rollback")
        if migration.state != UNDOING:
            put(write, collection, replace(migration, state=UNDOING, paused=""))
            write.note(f"{collection[1]}: migration {number} is rolling back")

    return operation


def undo_some(collection: Key, number: int, reader: Reader) -> Callable[[WriteTx], bool]:
    """Return the operation that takes away some of what a migration wrote; it says whether anything may be left."""

    def operation(write: WriteTx) -> bool:
        migration = stored(write, collection, number)
        if migration.state != UNDOING:  # another process was quicker
            return False
        view = _view(write, collection, reader)
        target = space_numbered(view, migration.target)
        pending = write.pending(view.entry)
        rows, ordinals = _written(view, target, migration, UNDO_ROWS)
        if not len(rows):
            _forget_profile(write, pending, target)
            if migration.via == "map" and not pending.spaces[target.id].live:
                write.drop_space(view.entry, target)  # the migration made it
            _end(write, collection, migration, UNDONE)
            visit("migrate.undone")
            return False
        _take_away(write, pending, target, rows.tolist(), ordinals.tolist())
        visit("migrate.undoing")
        return True

    return operation


def _view(write: WriteTx, collection: Key, reader: Reader) -> CollectionView:
    """Return the collection as this commit's transaction sees it."""
    write.flush()
    snapshot = Snapshot(write.tx, State(write.tx, write.counters, reader.private_caches(), None))
    return CollectionView(snapshot, entry_by_number(write.catalog, *collection))


def _written(
    view: CollectionView, target: Space, migration: StoredMigration, most: int
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Return rows and ordinals of live vectors that the migration wrote, at most so many."""
    space_view = view.space(target)
    hidden = view.hidden(space_view)
    parts: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)]
    for first, stop in migration.written:
        between = np.arange(space_view.count_before(view.tx, first), space_view.count_before(view.tx, stop))
        parts.append(between if hidden is None else between[~hidden[between]])
    positions = np.concatenate(parts)[:most]
    return space_view.rows_at(view.tx, positions), space_view.ordinals_at(view.tx, positions)


def _take_away(write: WriteTx, pending: Pending, target: Space, rows: list[int], ordinals: list[int]) -> None:
    records = [(row, *write.read(pending, row)) for row in rows]
    refs = [
        {space: ordinal for space, ordinal in record.refs.items() if space != target.id} for _, _, record in records
    ]
    put_records(write, pending, records, refs)
    write.kill(pending, target.id, ordinals)
    write.note(f"{pending.entry.name}: rollback takes away {len(rows)} vectors of {target.name}")


def _forget_profile(write: WriteTx, pending: Pending, target: Space) -> None:
    """A space without vectors has no model to be held to: the one that was rolled back may have been the wrong one."""
    counts = pending.spaces[target.id]
    if not counts.live:
        write.tx.delete("meta", profile_key(target))
        pending.spaces[target.id] = replace(counts, profiled=0, cusum=(), loss=())


def _end(write: WriteTx, collection: Key, migration: StoredMigration, state: str) -> None:
    put(write, collection, replace(migration, state=state, paused="", ended=time.time()))
    tag = tag_of(collection[0], migration.number)
    if tag in write.catalog.tags:
        write.remove_tag(tag)
    write.note(f"{collection[1]}: migration {migration.number} is {state}")
