"""Recording a migration, pausing it and letting it go on: small commits that change nothing but its entry.

Invariant: an entry only moves forward through the states of vecdb/storage/migrations.py, and each move is one commit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from vecdb.errors import CorruptionError, ParameterError, StateError
from vecdb.storage.failpoints import visit
from vecdb.storage.joints import joint_of
from vecdb.storage.migrations import (
    StoredMigration,
    find_migration,
    read_migrations,
    tag_of,
    write_migrations,
)
from vecdb.storage.snapshot import entry_by_number, find_space
from vecdb.storage.writetx import WriteTx

R = TypeVar("R")
Key = tuple[int, str]


@dataclass(frozen=True, slots=True)
class MigrationPlan:
    """What a caller asked for, checked; fields as in `StoredMigration`."""

    source: str
    target: str
    via: str
    inputs: str
    policy: str
    params: Mapping[str, Any]
    batch: int
    canary: float
    seed: int
    aim: int = 0
    transforms: tuple[str, ...] = ()


def begin(collection: Key, plan: MigrationPlan) -> Callable[[WriteTx], int]:
    """Return the operation that records a migration and keeps the state before it readable; it returns its number."""

    def operation(write: WriteTx) -> int:
        entry = entry_by_number(write.catalog, *collection)
        source, target = find_space(entry, plan.source), find_space(entry, plan.target)
        known = read_migrations(write.tx, entry.id)
        if source.id == target.id:
            raise ParameterError(
                f"source and target are both {source.name!r}", name="target", got=target.name, allowed="another space"
            )
        for end in (source, target):
            if joint_of(entry.joints, end.id) is not None:
                raise ParameterError(
                    f"space {end.name!r} is a joint space: its rows follow the vectors of others",
                    hint="Migrate from the old space to the new one.",
                    name="target" if end is target else "source",
                    got=end.name,
                )
        if known and known[-1].active:
            raise _busy(entry.name, known[-1])
        counts = write.pending(entry).spaces
        made = StoredMigration(
            len(known) + 1,
            source.id,
            target.id,
            (source.name, target.name),
            plan.via,
            plan.inputs,
            plan.policy,
            dict(plan.params),
            plan.batch,
            plan.canary,
            plan.seed,
            write.counters.seq,
            counts[source.id].next_ordinal,
            counts[target.id].next_ordinal,
            time.time(),
            aim=plan.aim,
            transforms=plan.transforms,
        )
        write.add_tag(tag_of(entry.id, made.number), write.counters.seq)
        put(write, collection, made)
        write.note(f"{entry.name}: begin migration {made.number} from {source.name} to {target.name}")
        visit("migrate.begun")
        return made.number

    return operation


def _busy(collection: str, active: StoredMigration) -> StateError:
    source, target = active.names
    return StateError(
        f"collection {collection!r} is being migrated from {source!r} to {target!r} ({active.state})",
        hint="Go on with migration(), or finish or roll back that one first.",
    )


def put(write: WriteTx, collection: Key, migration: StoredMigration) -> None:
    """Store what is known of a migration in this commit."""
    write.dirty = True
    known = read_migrations(write.tx, collection[0])
    others = [each for each in known if each.number != migration.number]
    write_migrations(write.tx, collection[0], [*others, migration])


def stored(write: WriteTx, collection: Key, number: int) -> StoredMigration:
    """Return what the file says of a migration."""
    return known_one(read_migrations(write.tx, collection[0]), number)


def known_one(migrations: Sequence[StoredMigration], number: int) -> StoredMigration:
    """Return the migration with this number; numbers are never given twice, so it must be there."""
    found = find_migration(migrations, number)
    if found is None:
        raise CorruptionError(f"migration {number} is not in the file any more", what="migrations")
    return found


def require(migration: StoredMigration, states: tuple[str, ...], call: str) -> None:
    """Refuse a call that the migration's state does not allow."""
    if migration.state not in states:
        raise StateError(
            f"{call} is not possible: migration {migration.number} is {migration.state}",
            hint=f"It is possible while it is {' or '.join(states)}.",
        )


def advance(collection: Key, number: int, before: str, after: str, **changes: Any) -> Callable[[WriteTx], bool]:
    """Return the operation that moves a migration from one state to the next; False if somebody else did."""

    def operation(write: WriteTx) -> bool:
        migration = stored(write, collection, number)
        if migration.state != before or migration.paused:
            return False
        put(write, collection, replace(migration, state=after, **changes))
        write.note(f"{collection[1]}: migration {number} is {after}")
        return True

    return operation


def set_paused(collection: Key, number: int, reason: str) -> Callable[[WriteTx], None]:
    """Return the operation that pauses a migration, or with an empty reason lets it go on."""

    def operation(write: WriteTx) -> None:
        migration = stored(write, collection, number)
        if not migration.active:
            require(migration, ("prepared", "bridging", "backfilling", "complete"), "pause" if reason else "resume")
        put(write, collection, replace(migration, paused=reason))
        write.note(f"{collection[1]}: migration {number} {'pauses: ' + reason if reason else 'goes on'}")

    return operation


def add_traffic(collection: Key, number: int, hits: Mapping[int, int]) -> Callable[[WriteTx], None]:
    """Return the operation that adds hits of bridged searches, by row, to what a migration knows."""

    def operation(write: WriteTx) -> None:
        migration = stored(write, collection, number)
        if migration.active:
            put(write, collection, migration.with_traffic(hits))
            write.note(f"{collection[1]}: migration {number}: hits of {len(hits)} records")

    return operation


def forget_failures(collection: Key, number: int) -> Callable[[WriteTx], None]:
    """Return the operation after which records that could not be embedded are tried again."""

    def operation(write: WriteTx) -> None:
        migration = stored(write, collection, number)
        if migration.active and migration.failed:
            put(write, collection, replace(migration, failed=()))
            write.note(f"{collection[1]}: migration {number}: {len(migration.failed)} records are tried again")

    return operation
