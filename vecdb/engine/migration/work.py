"""The loop of a migration: the canary, what it showed, batch after batch, until nothing waits.

Every step begins with what the file says, so a loop may be killed, or go on in another process, between any two
instructions; two loops at once only embed some records twice. Invariant: nothing is held while an encoder runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from vecdb.engine.batch import space_batch
from vecdb.engine.guard import Guard
from vecdb.engine.migration.batches import Candidate, Delivered, Delivery, Wanted, deliver, read_candidates
from vecdb.engine.migration.begin import Key, add_traffic, advance, known_one, set_paused
from vecdb.engine.migration.census import Census, space_numbered, take_census
from vecdb.engine.migration.encoders import Encoded
from vecdb.engine.migration.order import COLLECT, Collect, changes_with_traffic, next_rows
from vecdb.engine.migration.traffic import Traffic, by_row
from vecdb.engine.migration.verdict import judge
from vecdb.engine.pairing import directed
from vecdb.engine.view import CollectionView
from vecdb.engine.views import as_float32
from vecdb.errors import CancelledError, ParameterError, StateError, WrongModelError
from vecdb.registry import PluginRegistry
from vecdb.storage.migrations import (
    BACKFILLING,
    BRIDGING,
    COMPLETE,
    MAX_FAILURES,
    PREPARED,
    StoredMigration,
    read_migrations,
)
from vecdb.storage.snapshot import Snapshot
from vecdb.storage.state import CollectionEntry
from vecdb.storage.writetx import WriteTx
from vecdb.types import CancelCheck, Progress, Record, Space

ASK_AGAIN = 8
"""Batches after which a policy that goes by traffic is asked again."""
_SAME = 0.999
"""Median cosine of old and new vectors from which they are taken for the same: models of one width agree to nothing."""
Judge = Callable[[CollectionView, StoredMigration, Census, PluginRegistry], tuple[Mapping[str, float], str]]
"""Measures with the canary's vectors what was promised; returns figures, and why to pause (empty: go on)."""


class Embedder(Protocol):
    """Makes the vectors of one space: an application's encoder, or a map of other vectors."""

    space: Space

    def encode(self, records: Sequence[Record]) -> Encoded: ...


@dataclass(frozen=True, slots=True)
class Tools:
    """What the loop needs of the database and of the application.

    Attributes
    ----------
    read : callable
        Opens a snapshot of the newest commit.
    write : callable
        Runs an operation in a commit that users see, given the collection's entry.
    collection : (int, str)
    registry, guard
    encoder, old_encoder : Embedder or None
        What makes the vectors of the target and of the source space.
    trust : bool
        Whether the guard against wrong models is skipped.
    """

    read: Callable[[], AbstractContextManager[Snapshot]]
    write: Callable[[Callable[[WriteTx], Any], CollectionEntry], Any]
    collection: Key
    registry: PluginRegistry
    guard: Guard
    encoder: Embedder | None
    old_encoder: Embedder | None = None
    trust: bool = False
    judge: Judge = judge
    collect: Mapping[str, Collect] = field(default_factory=lambda: dict(COLLECT))
    traffic: Traffic | None = None
    progress: Progress | None = None
    cancel: CancelCheck | None = None
    clock: Callable[[], float] = time.monotonic


def run(tools: Tools, number: int, limit: int | None) -> int:
    """Embed up to `limit` records, or all that wait; return how many were given a vector.

    Raises
    ------
    StateError
        The migration is paused, finished or rolled back.
    EncoderError, DimensionError, DTypeError, WrongModelError
        The encoder failed altogether, or returned what cannot be the target space's vectors.
    """
    loop = _Loop(tools, number, limit)
    loop.start()
    loop.complete_old()
    while loop.turn():
        pass
    return loop.done


@dataclass(slots=True)
class _Loop:
    """One call of `run`."""

    tools: Tools
    number: int
    limit: int | None
    done: int = 0
    tried: int = 0
    total: int = 0
    queue: list[int] = field(default_factory=list)
    """Rows of records that are next, in order."""
    mark: float = 0.0
    """When the last commit was over."""

    def _view(self, snapshot: Snapshot) -> CollectionView:
        return CollectionView(snapshot, snapshot.entry(*self.tools.collection))

    def _migration(self, view: CollectionView) -> StoredMigration:
        return known_one(read_migrations(view.tx, view.number), self.number)

    def _write(self, operation: Callable[[WriteTx], Any], entry: CollectionEntry) -> Any:
        return self.tools.write(operation, entry)

    def start(self) -> None:
        self.mark = self.tools.clock()
        with self.tools.read() as snapshot:
            view = self._view(snapshot)
            migration = self._migration(view)
            hits = self._hits(view)
        if migration.state not in (PREPARED, BRIDGING, BACKFILLING, COMPLETE):
            raise StateError(f"migration {self.number} is {migration.state}", hint="Begin another with migrate().")
        if migration.paused:
            raise StateError(f"migration {self.number} is paused: {migration.paused}", hint="resume() lets it go on.")
        if hits:
            self._write(add_traffic(self.tools.collection, self.number, hits), view.entry)
        if migration.state == PREPARED:
            self._write(advance(self.tools.collection, self.number, PREPARED, BRIDGING), view.entry)

    def turn(self) -> bool:
        """Do one batch, or one step from state to state; False when there is nothing more to do now."""
        if self.tools.cancel is not None and self.tools.cancel():
            raise CancelledError(f"the migration was cancelled after {self.done} records; they stay")
        with self.tools.read() as snapshot:
            view = self._view(snapshot)
            migration = self._migration(view)
            if migration.paused or not migration.active:
                return False
            wanted = Wanted(migration.source, migration.target)
            filled = bool(self.queue)
            if not filled:
                self._fill(view, migration)
            candidates = self._take(view, migration, wanted) if self._may_go_on() else []
        if not self._may_go_on():
            return False
        if candidates:
            return self._embed(view.entry, migration, candidates, wanted)
        return True if filled or self.queue else self._next_state(view.entry, migration)

    def _hits(self, view: CollectionView) -> dict[int, int]:
        """Return what bridged searches returned since the last time, by row."""
        return {} if self.tools.traffic is None else by_row(view, self.tools.traffic.drain())

    def _may_go_on(self) -> bool:
        return self.limit is None or self.tried < self.limit

    def _fill(self, view: CollectionView, migration: StoredMigration) -> None:
        census = take_census(view, migration)
        places = next_rows(view, migration, census, self.tools.registry, self.tools.collect)
        if changes_with_traffic(migration, self.tools.registry):
            places = places[: ASK_AGAIN * migration.batch]
        self.queue = census.rows[places].tolist()
        self.total = migration.done + int(census.pending.sum())

    def _take(self, view: CollectionView, migration: StoredMigration, wanted: Wanted) -> list[Candidate]:
        count = migration.batch if self.limit is None else min(migration.batch, self.limit - self.tried)
        rows, self.queue = self.queue[:count], self.queue[count:]
        spaces = [space_numbered(view, migration.source)] if migration.via == "map" else []
        return read_candidates(view, rows, wanted, spaces)

    # --- records with a new vector alone ---

    def complete_old(self) -> None:
        """Give old vectors to records that were written with a new one alone, so that a rollback leaves nobody out."""
        encoder = self.tools.old_encoder
        if encoder is None:
            return
        with self.tools.read() as snapshot:
            view = self._view(snapshot)
            migration = self._migration(view)
            rows = take_census(view, migration).only_new.tolist()
        wanted = Wanted(migration.target, migration.source)
        for start in range(0, len(rows), migration.batch):
            with self.tools.read() as snapshot:
                candidates = read_candidates(self._view(snapshot), rows[start : start + migration.batch], wanted)
            encoded = encoder.encode([candidate.record for candidate in candidates])
            self._deliver(view.entry, migration, self._delivery(encoder, candidates, encoded, wanted, own=False))

    # --- one batch ---

    def _embed(
        self, entry: CollectionEntry, migration: StoredMigration, candidates: Sequence[Candidate], wanted: Wanted
    ) -> bool:
        encoder = self.tools.encoder
        if encoder is None:
            raise ParameterError(
                f"migration {self.number} needs an encoder of space {migration.names[1]!r}",
                hint="Pass encode= to migrate() or migration().",
                name="encode",
                got=None,
            )
        encoded = encoder.encode([candidate.record for candidate in candidates])
        delivery = self._delivery(encoder, candidates, encoded, wanted, own=True)
        self.tried += len(candidates)
        if not self.tools.trust and migration.via == "encode" and not migration.done:
            self._refuse_old_vectors(entry, migration, delivery)
        return self._deliver(entry, migration, delivery)

    def _refuse_old_vectors(self, entry: CollectionEntry, migration: StoredMigration, delivery: Delivery) -> None:
        """Refuse what the old model makes of the first records: nothing is known yet that a guard could go by.

        Two spaces of one model, to store its vectors otherwise, hold the same vectors on purpose.
        """
        with self.tools.read() as snapshot:
            view = self._view(snapshot)
            source, target = (space_numbered(view, number) for number in (migration.source, migration.target))
            if source.dim != target.dim or source.model == target.model or not delivery.candidates:
                return
            ordinals = [candidate.ordinal for candidate in delivery.candidates]
            old = directed(as_float32(view.space(source).vectors_of(view.tx, ordinals)), "cosine")
        agreement = float(np.median((old * directed(delivery.part.vectors.astype(np.float32), "cosine")).sum(axis=1)))
        if agreement < _SAME:
            return
        error = WrongModelError(
            f"the encoder of space {target.name!r} returned the vectors that are stored in space {source.name!r}",
            hint="Give the new model's encoder; trust=True skips this guard.",
            space=target.name,
            numbers={"median cosine": agreement},
        )
        self._pause(entry, error.message)
        raise error

    def _delivery(
        self, encoder: Embedder, candidates: Sequence[Candidate], encoded: Encoded, wanted: Wanted, *, own: bool
    ) -> Delivery:
        with self.tools.read() as snapshot:
            hits = self._hits(self._view(snapshot))
        return Delivery(
            [candidates[place] for place in encoded.places],
            space_batch(encoder.space, encoded.vectors, len(encoded.places), False),
            wanted,
            {candidates[place].ordinal: reason for place, reason in encoded.failures.items()},
            self.tools.clock() - self.mark,
            own,
            hits,
        )

    def _deliver(self, entry: CollectionEntry, migration: StoredMigration, delivery: Delivery) -> bool:
        try:
            with self.tools.read() as snapshot:
                review = self.tools.guard.review(
                    snapshot, self.tools.collection[0], delivery.part, trust=self.tools.trust
                )
            operation = deliver(self.tools.collection, self.number, delivery, [review])
            delivered: Delivered = self._write(operation, entry)
            self.mark = self.tools.clock()
        except WrongModelError as error:
            self._pause(entry, f"the vectors look like another model's: {error.message}")
            raise
        if not delivery.own:
            return delivered.going_on
        self.done += delivered.stored
        self._tell(migration.done + delivered.stored)
        failed = len(migration.failed) + len(delivery.failures)
        if delivery.failures and failed >= MAX_FAILURES:
            self._pause(entry, f"{failed} records could not be embedded")
        return delivered.going_on

    def _pause(self, entry: CollectionEntry, reason: str) -> None:
        self._write(set_paused(self.tools.collection, self.number, reason[:900]), entry)

    def _tell(self, done: int) -> None:
        if self.tools.progress is not None:
            self.tools.progress(done, max(self.total, done))

    # --- from state to state ---

    def _next_state(self, entry: CollectionEntry, migration: StoredMigration) -> bool:
        """Nothing waits in this state: go on to the next one, if there is one."""
        if migration.state == BRIDGING:
            return self._judge_canary(entry)
        if migration.state == BACKFILLING:
            self._write(advance(self.tools.collection, self.number, BACKFILLING, COMPLETE), entry)
        return False

    def _judge_canary(self, entry: CollectionEntry) -> bool:
        with self.tools.read() as snapshot:
            view = self._view(snapshot)
            migration = self._migration(view)
            measured, missed = self.tools.judge(view, migration, take_census(view, migration), self.tools.registry)
        on = advance(
            self.tools.collection, self.number, BRIDGING, BACKFILLING, measured=dict(measured), paused=missed[:900]
        )
        self._write(on, entry)
        return not missed
