"""Migrations as an application sees them: `Collection.migrate`, and the `Migration` that it returns.

Arguments are settled here; the work is done by vecdb/engine/migration. How to: docs/how-to/migrate.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from vecdb.engine.names import check_count, check_number, check_option
from vecdb.engine.view import CollectionView
from vecdb.errors import StateError
from vecdb.lazy import LazyModule
from vecdb.storage.snapshot import find_space
from vecdb.storage.state import CollectionEntry
from vecdb.types import CancelCheck, MigrationStatus, Progress, Space

if TYPE_CHECKING:
    from vecdb.contracts import params as parameters
    from vecdb.database import Database
    from vecdb.engine import batch as batching
    from vecdb.engine import reading, spaces, transforms
    from vecdb.engine.batch import Batch
    from vecdb.engine.bridge.twostage import Made
    from vecdb.engine.migration import batches, begin, both, encoders, ending, mapped, status, traffic, work
    from vecdb.storage import migrations
else:  # what a first search does without
    batches = LazyModule("vecdb.engine.migration.batches")
    batching = LazyModule("vecdb.engine.batch")
    begin = LazyModule("vecdb.engine.migration.begin")
    both = LazyModule("vecdb.engine.migration.both")
    encoders = LazyModule("vecdb.engine.migration.encoders")
    ending = LazyModule("vecdb.engine.migration.ending")
    status = LazyModule("vecdb.engine.migration.status")
    traffic = LazyModule("vecdb.engine.migration.traffic")
    work = LazyModule("vecdb.engine.migration.work")
    mapped = LazyModule("vecdb.engine.migration.mapped")
    migrations = LazyModule("vecdb.storage.migrations")
    reading = LazyModule("vecdb.engine.reading")
    spaces = LazyModule("vecdb.engine.spaces")
    transforms = LazyModule("vecdb.engine.transforms")
    parameters = LazyModule("vecdb.contracts.params")

__all__ = ["Migration"]

Encode = Callable[[list[Any]], Any]
R = TypeVar("R")


class Migrating:
    """The part of `Collection` that changes its model."""

    name: str

    if TYPE_CHECKING:
        _database: Database
        _number: int

        def _entry(self) -> CollectionEntry: ...

    def migrate(
        self,
        source: str,
        target: str,
        encode: Encode | None = None,
        policy: str = "novelty",
        batch: int = 256,
        *,
        via: Literal["encode", "map"] = "encode",
        canary: float = 0.03,
        seed: int = 0,
        params: Mapping[str, Any] | None = None,
        inputs: Literal["texts", "records"] = "texts",
        encode_old: Encode | None = None,
        retries: int = 3,
        retry_wait: float = 0.5,
        rate: float | None = None,
        trust: bool = False,
    ) -> Migration:
        """Record the change of this collection from one space to another; nothing is embedded before `Migration.run`.

        Parameters
        ----------
        source, target : str
            The space that the records have vectors in, and the one that they are to get vectors in.
        encode : callable, optional
            ``list[str] -> array`` of shape (n, dim of `target`); None in the place of a row says that this record
            cannot be embedded. Kept by this handle only; give it to `migration` in another process.
        policy : str, default "novelty"
            Order of the records: "novelty", "traffic", "hybrid", "uncertainty", "random", or a plugin's.
        batch : int, default 256
            Records of one call of `encode` and one commit.
        via : {"encode", "map"}, default "encode"
            "map" makes vectors of the old ones by the best stored transforms, without an encoder and in no particular
            order. They are not the new model's: they go to a space of their own, ``"TARGET-mapped"``, with a bridge
            from `target` to it, and a later migration from there embeds for real.
        canary : float in [0, 0.5], default 0.03
            Share of the records that is embedded first, at random, to see whether what was predicted is true.
        seed : int, default 0
            Of everything random in it.
        params : mapping, optional
            Parameters of the policy.
        inputs : {"texts", "records"}, default "texts"
            What the encoders are given: texts, or `Record` objects.
        encode_old : callable, optional
            The same for `source`. While it runs, records that this process writes with a text and a vector in `target`
            alone get an old vector in the same commit, and `run` gives one to those that others wrote; so a rollback
            leaves nobody out.
        retries : int, default 3
            Further attempts after `encode` raised; then the records at which it fails are found by halves.
        retry_wait : float, default 0.5
            Seconds before the first of them, doubled before each next one.
        rate : float, optional
            Records per second at most.
        trust : bool, default False
            Skip the guard against another model's vectors.

        Returns
        -------
        Migration

        Raises
        ------
        StateError
            A migration of this collection is neither finished nor rolled back.
        SpaceMissingError, UnknownNameError, ParameterError

        Notes
        -----
        While it is active, the state before it stays readable with ``as_of=migration.status().tag``, and the history
        that this needs is kept. Neither space can be dropped.
        """
        database = self._database
        database._refuse_in_transaction("migrate")
        settings = _Settings(encode, encode_old, encoders.check_rules(inputs, retries, retry_wait, rate), trust)
        provided = database._registry.find("backfill policy", policy)
        settled = parameters.settle_params(f"backfill policy {policy!r}", provided.thing.parameters, params or {})
        check_number("canary", canary, 0.0, 0.5)
        check_option("via", via, ("encode", "map"))
        plan = begin.MigrationPlan(
            source,
            target,
            via,
            inputs,
            policy,
            settled,
            check_count("batch", batch, 1),
            float(canary),
            check_count("seed", seed, 0),
        )
        number: int = self._begin_map(plan) if via == "map" else database._write(begin.begin(self._numbered, plan))
        return self._handle(number, settings)

    @property
    def _numbered(self) -> tuple[int, str]:
        return self._number, self.name

    def _begin_map(self, plan: begin.MigrationPlan) -> int:
        """Add the space of the images with its bridge, and record the migration, in one commit."""
        database = self._database
        with database._read() as snapshot:
            view = CollectionView(snapshot, snapshot.entry(*self._numbered))
            ends = find_space(view.entry, plan.source), find_space(view.entry, plan.target)
            images = mapped.plan_images(view, *ends, database._registry)
            bridge = mapped.bridge_to(view, *ends, images.space, images.transforms, database._registry)
        with database.transaction():
            space = database._write(spaces.add_space(self._numbered, images.space))
            database._write(transforms.put_transform(self._numbered, replace(bridge, target=space)))
            whole = replace(
                plan,
                target=space.name,
                inputs="records",
                policy="random",
                params={},
                canary=0.0,
                aim=ends[1].id,
                transforms=images.transforms,
            )
            number: int = database._write(begin.begin(self._numbered, whole))
        return number

    def migration(
        self,
        encode: Encode | None = None,
        *,
        encode_old: Encode | None = None,
        retries: int = 3,
        retry_wait: float = 0.5,
        rate: float | None = None,
        trust: bool = False,
    ) -> Migration:
        """Return the newest migration of this collection, to go on with it in this process.

        Parameters
        ----------
        encode, encode_old, retries, retry_wait, rate, trust
            As in `migrate`; they are not stored.

        Raises
        ------
        StateError
            There is none.
        """
        with self._database._read() as snapshot:
            found = migrations.read_migrations(snapshot.tx, self._number)
        if not found:
            raise StateError(f"collection {self.name!r} was never migrated", hint="Begin with migrate().")
        rules = encoders.check_rules(found[-1].inputs, retries, retry_wait, rate)
        settings = _Settings(encode, encode_old, rules, trust)
        return self._handle(found[-1].number, settings)

    def _handle(self, number: int, settings: _Settings) -> Migration:
        made = Migration(self, number, settings)
        if made.status().active:
            self._database._traffic.setdefault(self._number, traffic.Traffic())
        old = made._encoder(settings.encode_old, "source")
        if old is not None:
            self._database._old_encoders[self._number] = old
        return made

    def _in_both_spaces(self, batch: Batch) -> Batch:
        """Return a batch with old vectors for what has a new one alone, while a migration is active."""
        database = self._database
        with database._read() as snapshot:
            active = migrations.active_migration(snapshot.tx, self._number)
        encoder = database._old_encoders.get(self._number)
        if active is None or encoder is None or encoder.space.id != active.source:
            database._old_encoders.pop(self._number, None)
            return batch
        return both.completed(batch, active, encoder)

    @property
    def migrations(self) -> tuple[MigrationStatus, ...]:
        """Every migration of this collection, oldest first; at most the last one is active."""
        with self._database._read() as snapshot:
            view = CollectionView(snapshot, snapshot.entry(self._number, self.name))
            found = migrations.read_migrations(snapshot.tx, self._number)
            return tuple(status.describe(view, each) for each in found)

    def _backfill(self, space: Space, made: Made) -> Made:
        """Give vectors that a search made to the migration into their space; return those that it has no part in."""
        database = self._database
        with database._read() as snapshot:
            active = migrations.active_migration(snapshot.tx, self._number)
            if active is None or active.target != space.id or active.via == "map":
                return made
            view = CollectionView(snapshot, snapshot.entry(*self._numbered))
            part = batching.space_batch(space, made.vectors, len(made.ids), False)
            delivery, others = both.made_by_search(view, active, made.ids, made.versions, part)
            review = database._guard.review(snapshot, self._number, delivery.part, trust=False)
        if delivery.candidates:
            operation = batches.deliver(self._numbered, active.number, delivery, [review])
            database._write(operation, view.entry)
        return replace(
            made,
            ids=[made.ids[place] for place in others],
            versions=[made.versions[place] for place in others],
            vectors=made.vectors[others],
        )


class _Settings:
    """What a handle of a migration keeps that is not stored."""

    __slots__ = ("encode", "encode_old", "rules", "trust")

    def __init__(
        self, encode: Encode | None, encode_old: Encode | None, rules: encoders.EncodeRules, trust: bool
    ) -> None:
        encoders.check_callable("encode", encode)
        encoders.check_callable("encode_old", encode_old)
        self.encode = encode
        self.encode_old = encode_old
        self.rules = rules
        self.trust = trust


class Migration:
    """The change of a collection from one space to another; made by `Collection.migrate` and `Collection.migration`.

    All that it knows is in the file: any process that has the file open may make one and go on with it.
    """

    def __init__(self, collection: Migrating, number: int, settings: _Settings) -> None:
        self._collection = collection
        self._number = number
        self._settings = settings

    def __repr__(self) -> str:
        return f"<Migration {self._number} of {self._collection.name!r}>"

    @property
    def _key(self) -> tuple[int, str]:
        return self._collection._number, self._collection.name

    def _write(self, operation: Callable[[Any], R], entry: CollectionEntry | None = None) -> R:
        return self._collection._database._write(operation, entry)

    def status(self) -> MigrationStatus:
        """Return where it stands now."""
        with self._collection._database._read() as snapshot:
            view = CollectionView(snapshot, snapshot.entry(*self._key))
            found = migrations.read_migrations(snapshot.tx, self._key[0])
            return status.describe(view, begin.known_one(found, self._number))

    def run(
        self,
        limit: int | None = None,
        *,
        retry_failed: bool = False,
        progress: Progress | None = None,
        cancel: CancelCheck | None = None,
    ) -> MigrationStatus:
        """Embed the next `limit` records, or all that wait, each batch one commit.

        Parameters
        ----------
        limit : int, optional
        retry_failed : bool, default False
            Try records again that could not be embedded at three passes.
        progress : callable, optional
            Called as ``progress(records done, records in all)`` after each commit.
        cancel : callable, optional
            Asked before each batch; `CancelledError` then, and what was committed stays.

        Returns
        -------
        MigrationStatus
            ``paused`` says so if it stopped by itself.

        Raises
        ------
        StateError
            It is paused, finished or rolled back.
        EncoderError
            `encode` failed for every record of a batch, retries included. What was committed stays.
        DimensionError, DTypeError
            `encode` returned another number of rows, another width, or no numbers.
        WrongModelError
            Its vectors do not look like those that the space holds; the migration is paused.
        """
        self._collection._database._refuse_in_transaction("run")
        wanted = None if limit is None else check_count("limit", limit, 0)
        if retry_failed:
            self._write(begin.forget_failures(self._key, self._number))
        work.run(self._tools(progress, cancel), self._number, wanted)
        return self.status()

    def _tools(self, progress: Progress | None, cancel: CancelCheck | None) -> work.Tools:
        database, settings = self._collection._database, self._settings
        return work.Tools(
            database._read,
            database._write,
            self._key,
            database._registry,
            database._guard,
            self._mapper() or self._encoder(settings.encode, "target"),
            self._encoder(settings.encode_old, "source"),
            settings.trust,
            traffic=database._traffic.get(self._key[0]),
            progress=progress,
            cancel=cancel,
        )

    def _encoder(self, call: Encode | None, side: Literal["source", "target"]) -> encoders.Encoder | None:
        """Return an encoder of one of the spaces, None where there is none, or the space is gone."""
        if call is None:
            return None
        with self._collection._database._read() as snapshot:
            stored = begin.known_one(migrations.read_migrations(snapshot.tx, self._key[0]), self._number)
            entry = snapshot.entry(*self._key)
        number = stored.source if side == "source" else stored.target
        space = next((space for space in entry.spaces.values() if space.id == number), None)
        return None if space is None else encoders.Encoder(call, space, self._settings.rules)

    def _mapper(self) -> mapped.Mapper | None:
        """Return what makes the vectors where they are mapped and not embedded."""
        database = self._collection._database
        with database._read() as snapshot:
            stored = begin.known_one(migrations.read_migrations(snapshot.tx, self._key[0]), self._number)
            known = {space.id: space for space in snapshot.entry(*self._key).spaces.values()}
        if stored.via != "map" or not stored.active:
            return None
        ends = known[stored.target], known[stored.source], known[stored.aim]
        return mapped.Mapper(*ends, stored.transforms, database._registry, self._view)

    def _view(self) -> AbstractContextManager[CollectionView]:
        return reading.OpenView(self._collection._database._read(), self._key, None)

    def pause(self, reason: str = "by request") -> None:
        """Let nobody go on with it, in whatever process, until `resume`."""
        check_option("reason", type(reason).__name__, ("str",))
        self._write(begin.set_paused(self._key, self._number, reason[:900] or "by request"))

    def resume(self) -> None:
        """Let it go on; `run` then does."""
        self._write(begin.set_paused(self._key, self._number, ""))

    def finish(self, *, leave_missing: bool = False) -> None:
        """Drop the source space with its vectors, and end the migration; it cannot be rolled back any more.

        Parameters
        ----------
        leave_missing : bool, default False
            Also where records still wait for their new vector, or could not be embedded: they are then without any.

        Raises
        ------
        StateError
            Records would be left without a vector, or the migration is not active.
        """
        self._write_alone(ending.finish(self._key, self._number, self._reader, leave_missing=leave_missing), "finish")
        self._collection._database._traffic.pop(self._key[0], None)

    def rollback(self, *, progress: Progress | None = None) -> MigrationStatus:
        """Take away every vector that the migration wrote, and end it; the source space was never touched.

        Records written meanwhile stay as they are: ``status().only_new`` lists those without an old vector. It may be
        killed and called again.

        Returns
        -------
        MigrationStatus
            ``only_new`` as above.
        """
        database = self._collection._database
        database._refuse_in_transaction("rollback")
        before = self.status()
        self._write(ending.begin_undoing(self._key, self._number), self._collection._entry())
        gone = 0
        while self._write(ending.undo_some(self._key, self._number, self._reader), self._collection._entry()):
            gone = min(gone + ending.UNDO_ROWS, before.done)
            if progress is not None:
                progress(gone, before.done)
        database._traffic.pop(self._key[0], None)
        return replace(self.status(), only_new=before.only_new)

    @property
    def _reader(self) -> Any:
        return self._collection._database._opened().reader

    def _write_alone(self, operation: Callable[[Any], None], call: str) -> None:
        self._collection._database._refuse_in_transaction(call)
        self._write(operation)
