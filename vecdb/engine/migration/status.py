"""What can be said of a migration at one commit: how far it is, how fast, and who would be left out."""

from __future__ import annotations

import numpy as np

from vecdb.engine.migration.census import take_census
from vecdb.engine.view import CollectionView
from vecdb.storage.migrations import StoredMigration, tag_of
from vecdb.types import Id, MigrationStatus


def describe(view: CollectionView, migration: StoredMigration) -> MigrationStatus:
    """Return where a migration stands."""
    source, target = _names(view, migration)
    pending, failures, only_new = _left(view, migration)
    rate = migration.done / migration.seconds if migration.seconds > 0 else 0.0
    return MigrationStatus(
        migration.number,
        source,
        target,
        migration.state,
        migration.paused,
        migration.via,
        migration.policy,
        migration.done + pending,
        migration.done,
        pending,
        failures,
        only_new,
        migration.seconds,
        rate,
        pending / rate if rate and migration.active else None,
        dict(migration.measured),
        migration.begun,
        tag_of(view.number, migration.number),
        migration.time,
        migration.ended,
        view.seq,
    )


def _names(view: CollectionView, migration: StoredMigration) -> tuple[str, str]:
    """Return the names of the spaces now; those of a dropped one as they were."""
    now = {space.id: space.name for space in view.entry.spaces.values()}
    source, target = migration.names
    return now.get(migration.source, source), now.get(migration.target, target)


def _left(view: CollectionView, migration: StoredMigration) -> tuple[int, tuple[tuple[Id, str], ...], tuple[Id, ...]]:
    """Return how many records wait, which of them failed and why, and which have a new vector alone."""
    if not migration.active:
        return 0, (), ()
    census = take_census(view, migration)
    reasons = {ordinal: reason for ordinal, _, reason in migration.failed}
    failed = np.flatnonzero(census.pending & np.isin(census.ordinals, np.array(list(reasons), np.uint64)))
    rows, only_new = census.rows[failed].tolist(), census.only_new.tolist()
    ids = view.ids([*rows, *only_new])
    failures = tuple(
        (ids[row], reasons[ordinal]) for row, ordinal in zip(rows, census.ordinals[failed].tolist(), strict=True)
    )
    return int(census.pending.sum()), failures, tuple(ids[row] for row in only_new)
