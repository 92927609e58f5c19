"""A collection as an application sees it: records, spaces, reads, writes, search.

Arguments are settled here and in `vecdb.engine.batch` before any lock is taken; the work is done by the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

import numpy.typing as npt

from vecdb.correcting import Correcting
from vecdb.diagnosing import Diagnosing
from vecdb.engine import queries, reading
from vecdb.engine.names import check_count
from vecdb.engine.view import CollectionView, Past
from vecdb.errors import CancelledError, IdError, ParameterError, StateError, WhereError
from vecdb.exploring import Exploring
from vecdb.filtering import Filtering
from vecdb.joining import Joining
from vecdb.judging import Judging
from vecdb.lazy import LazyModule
from vecdb.migrating import Migrating
from vecdb.searching import Searching
from vecdb.storage.idkeys import id_key, id_keys
from vecdb.storage.snapshot import entry_by_number, find_space
from vecdb.storage.state import CollectionEntry
from vecdb.types import (
    CancelCheck,
    Id,
    IndexInfo,
    Metric,
    Progress,
    Record,
    RecordVersion,
    Space,
    Where,
    WriteResult,
)
from vecdb.upgrading import Upgrading

if TYPE_CHECKING:
    from vecdb.database import Database
    from vecdb.engine import automatic, describing, housekeeping, indexing, inspection, operations, spaces
    from vecdb.engine import batch as batching
    from vecdb.engine import where as conditions
    from vecdb.storage.writer import Transaction
else:  # what a first search does without
    batching = LazyModule("vecdb.engine.batch")
    conditions = LazyModule("vecdb.engine.where")
    automatic = LazyModule("vecdb.engine.automatic")
    describing = LazyModule("vecdb.engine.describing")
    housekeeping = LazyModule("vecdb.engine.housekeeping")
    indexing = LazyModule("vecdb.engine.indexing")
    inspection = LazyModule("vecdb.engine.inspection")
    operations = LazyModule("vecdb.engine.operations")
    spaces = LazyModule("vecdb.engine.spaces")

__all__ = ["Collection"]

Encoder = Callable[[list[str]], Any]
Ids: TypeAlias = Sequence[Id] | npt.NDArray[Any] | Id


class Collection(Searching, Exploring, Migrating, Upgrading, Joining, Judging, Diagnosing, Filtering, Correcting):
    """Records with unique ids, and their vectors in any number of spaces.

    Get one from `Database.collection` or `Database.create_collection`. Threads may share it.

    Attributes
    ----------
    name : str
    """

    def __init__(self, database: Database, number: int, name: str) -> None:
        self.name = name
        self._database = database
        self._number = number

    def __repr__(self) -> str:
        return f"<Collection {self.name!r} of {str(self._database.path)!r}>"

    @property
    def database(self) -> Database:
        """The database that the collection belongs to."""
        return self._database

    @property
    def _key(self) -> tuple[int, str]:
        return self._number, self.name

    def _entry(self) -> CollectionEntry:
        transaction = self._database._own_transaction()
        if transaction is not None:  # its catalog is at hand; a snapshot would put everything pending in place first
            return entry_by_number(transaction.write_tx().catalog, *self._key)
        with self._database._read() as snapshot:
            return snapshot.entry(*self._key)

    # --- spaces ---

    @property
    def spaces(self) -> dict[str, Space]:
        """The spaces by name, in the order they were added."""
        return dict(self._entry().spaces)

    def add_space(
        self,
        name: str,
        *,
        dim: int,
        metric: Metric = "cosine",
        model: str = "",
        revision: str = "",
        dtype: Literal["float32", "float16", "int8"] = "float32",
        role: Literal["document", "query", "both"] = "both",
        encode: Encoder | None = None,
    ) -> Space:
        """Add a space: one embedding model's output. It may be added to a live collection and filled later.

        Parameters
        ----------
        name : str
            1 to 200 characters.
        dim : int
            Width of the vectors, 1 to 65,536.
        metric : {"cosine", "dot", "l2"}, default "cosine"
        model, revision : str
            Which model makes the vectors; recorded for people and tools.
        dtype : {"float32", "float16", "int8"}, default "float32"
            How vectors are stored: as given, rounded to float16, or as int8 with one step for each vector (its largest
            component is 127 steps). What is stored is what `get` returns and scores are made of; `stats` says how much
            rounding lost.
        role : {"document", "query", "both"}, default "both"
            What stored vectors are embedded as.
        encode : callable, optional
            ``list[str] -> array of shape (n, dim)``, so that `search` takes text. Kept by this process only; give it
            again with `set_encoder` after reopening.

        Raises
        ------
        ExistsError
            If the collection has a space of this name.
        ParameterError
            If a value is out of its bounds.
        """
        space = spaces.make_space(name, dim, metric, dtype, model, revision, role)
        queries.check_encoder(encode)
        added = self._database._write(spaces.add_space(self._key, space))
        if encode is not None:
            self.set_encoder(name, encode)
        return added

    def set_encoder(self, space: str, encode: Encoder | None) -> None:
        """Give, or with None take away, the callable that embeds query texts for `space` in this process."""
        queries.check_encoder(encode)
        found = find_space(self._entry(), space)
        encoders = self._database._encoders
        if encode is None:
            encoders.pop(found.id, None)
        else:
            encoders[found.id] = encode

    def rename_space(self, old: str, new: str) -> Space:
        """Give a space another name; vectors are not touched."""
        return self._database._write(spaces.rename_space(self._key, old, new))

    def drop_space(self, name: str) -> None:
        """Remove a space with all its vectors, in the past too; records stay."""
        self._database._write(spaces.drop_space(self._key, name))

    # --- writing ---

    def upsert(
        self,
        ids: Ids,
        vectors: Mapping[str, Any] | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | Mapping[str, Any] | None = None,
        texts: Sequence[str | None] | str | None = None,
        *,
        merge: bool = False,
        if_version: int | Sequence[int | None] | None = None,
        trust: bool = False,
    ) -> WriteResult:
        """Write records, new or not, in one commit; when it returns they are durable.

        Parameters
        ----------
        ids : sequence of str or int
            Unique within the call. A single id is accepted, with a single vector, dict and text.
        vectors : mapping of str to array_like of shape (n, dim), optional
            One row for each id; a list may hold None for records without a vector in that space. Copied.
        metadata : sequence of dicts, optional
            JSON-like values; keys without dots and ``$``; with the text at most 1 MB a record.
        texts : sequence of str or None, optional
        merge : bool, default False
            False replaces a record: what is not given is removed, vectors of other spaces included. True keeps what is
            not given, metadata key by key; None in the place of a record's metadata, text or vector is not given. So a
            text can only be taken away by replacing the record. While the collection is migrated, another text with a
            vector of one model takes away the vector of the other.
        if_version : int or sequence of int or None, optional
            Expected version of each record: 0 for "not there", None for "any".
        trust : bool, default False
            Skip the guard against another model's vectors.

        Returns
        -------
        WriteResult
            seq, inserted, updated; `unverified` counts vectors that the guard could not judge.

        Raises
        ------
        ArgumentError
            Ids, vectors or metadata cannot be stored (see the subclasses).
        WrongModelError
            A batch does not look like the space's model.
        ConflictError
            A record has another version than `if_version` says.

        Notes
        -----
        If it raises, nothing of the call is stored.
        """
        batch = self._batch(ids, vectors, metadata, texts)
        rules = operations.rules_for(operations.WriteRules(merge=merge), if_version, batch)
        return self._write_batch(batch, rules, trust=trust)

    def insert(
        self,
        ids: Ids,
        vectors: Mapping[str, Any] | None = None,
        metadata: Sequence[Mapping[str, Any] | None] | Mapping[str, Any] | None = None,
        texts: Sequence[str | None] | str | None = None,
        *,
        trust: bool = False,
    ) -> WriteResult:
        """Write new records; like `upsert`, but an id that is already there raises `RecordExistsError`."""
        return self._write_batch(
            self._batch(ids, vectors, metadata, texts),
            operations.WriteRules(existing=False, verb="insert"),
            trust=trust,
        )

    def upsert_many(
        self,
        batches: Iterable[Mapping[str, Any]],
        *,
        merge: bool = False,
        trust: bool = False,
        progress: Progress | None = None,
        cancel: CancelCheck | None = None,
    ) -> WriteResult:
        """Write a stream of batches, each one commit; memory is bounded by the largest batch.

        Parameters
        ----------
        batches : iterable of mappings
            Each with the arguments of `upsert`: ``ids``, and optionally ``vectors``, ``metadata``, ``texts``.
        merge, trust : bool
            As in `upsert`.
        progress : callable, optional
            Called as ``progress(records so far, None)`` after each commit.
        cancel : callable, optional
            Asked before each batch; `CancelledError` then, and what was committed stays.

        Returns
        -------
        WriteResult
            Sums over all batches, and the last seq.
        """
        if not isinstance(batches, Iterable):
            raise ParameterError(
                f"batches is a {type(batches).__name__}, expected an iterable of dicts", name="batches", got=batches
            )
        total = WriteResult(self._database.seq)
        for batch in batches:
            if cancel is not None and cancel():
                raise CancelledError(
                    f"upsert_many was cancelled after {total.inserted + total.updated} records; they stay"
                )
            done = self.upsert(**batching.upsert_arguments(batch), merge=merge, trust=trust)
            total = WriteResult(
                done.seq,
                total.inserted + done.inserted,
                total.updated + done.updated,
                0,
                total.unverified + done.unverified,
            )
            if progress is not None:
                progress(total.inserted + total.updated, None)
        return total

    def set_vectors(self, space: str, ids: Ids, vectors: Any, *, trust: bool = False) -> WriteResult:
        """Give existing records a vector in `space`, in place of one they may have; nothing else of them changes.

        Raises
        ------
        RecordMissingError
            If an id is not there.
        """
        batch = batching.vector_batch(ids, vectors, find_space(self._entry(), space))
        return self._write_batch(
            batch, operations.WriteRules(merge=True, new=False, verb=f"set vectors of {space}"), trust=trust
        )

    def set_metadata(
        self,
        ids: Ids,
        metadata: Sequence[Mapping[str, Any]] | Mapping[str, Any],
        *,
        merge: bool = False,
    ) -> WriteResult:
        """Replace the metadata of existing records, or with ``merge=True`` only the keys that are given."""
        batch = self._batch(ids, None, metadata, None)
        rules = operations.WriteRules(merge=True, new=False, replace_metadata=not merge, verb="set metadata")
        return self._write_batch(batch, rules, trust=False)

    def delete(
        self, ids: Ids | None = None, *, where: Where | None = None, missing_ok: bool = False, erase: bool = False
    ) -> WriteResult:
        """Delete records by id, or all that satisfy `where`, in one commit.

        Parameters
        ----------
        ids : sequence of str or int, optional
        where : mapping, optional
            A condition on metadata; an empty one is refused.
        missing_ok : bool, default False
            Ignore ids that are not there instead of raising.
        erase : bool, default False
            Also forget all untagged history at once, so that a following `Database.compact` removes the bytes.

        Raises
        ------
        RecordMissingError
            If an id is not there.
        WhereError
            If `where` is malformed or empty.
        """
        if (ids is None) == (where is None):
            raise ParameterError("delete takes either ids or where", hint="Give one of the two.", name="ids")
        if erase:
            self._database._refuse_in_transaction("delete(erase=True)")
        result = self._delete_where(where) if where is not None else self._delete_ids(ids, missing_ok=missing_ok)
        if erase:
            housekeeping.forget(self._database._writable(), "tags", self._database._timeout)
        return result

    def _delete_ids(self, ids: Any, *, missing_ok: bool) -> WriteResult:
        values, _ = batching.id_list(ids)
        operation = operations.delete_ids(self._key, values, batching.unique_keys(values), missing_ok=missing_ok)
        return self._database._write(operation, self._entry())

    def _delete_where(self, where: Where) -> WriteResult:
        if not where:
            raise WhereError(
                "delete(where={}) would delete every record", hint="Use drop_collection, or name a condition."
            )
        condition = conditions.parse(where)
        operation = operations.delete_where(self._key, condition, self._database._opened().reader)
        return self._database._write(operation, self._entry())

    def _batch(self, ids: object, vectors: Any, metadata: object, texts: object) -> batching.Batch:
        return batching.make_batch(ids, vectors, metadata, texts, self._entry().spaces, self.name)

    def _write_batch(self, batch: batching.Batch, rules: operations.WriteRules, *, trust: bool) -> WriteResult:
        database = self._database
        database._writable()
        if self._number in database._old_encoders:
            batch = self._in_both_spaces(batch)
        with database._read() as snapshot:
            entry = snapshot.state.catalog.collections.get(self.name)
            known = entry is not None and entry.id == self._number
            number = self._number if known else None
            reviews = [database._guard.review(snapshot, number, part, trust=trust) for part in batch.vectors]
        return database._write(operations.write_batch(self._key, batch, rules, reviews), entry if known else None)

    # --- reading ---

    def __len__(self) -> int:
        return self.count()

    def __contains__(self, id: object) -> bool:
        try:
            key = id_key(id)  # type: ignore[arg-type]
        except IdError:
            return False
        with self._view() as view:
            return view.find(key) is not None

    def _view(self, as_of: int | str | None = None) -> reading.OpenView:
        """Open the newest state, this thread's transaction included, or a past one, which it cannot have changed."""
        return reading.OpenView(self._database._read(own_writes=as_of is None), self._key, as_of)

    def _open_for_scan(
        self, transaction: Transaction | None, seq: int | str | None, past: Past | None
    ) -> reading.OpenView:
        """Open the state of one chunk; a scan that sees a transaction's own writes ends with it."""
        if transaction is not None:
            transaction.check()
        return reading.OpenView(self._database._read(own_writes=transaction is not None), self._key, seq, past)

    @overload
    def get(
        self,
        ids: Ids,
        *,
        vectors: Sequence[str] | str = ...,
        missing_ok: Literal[False] = ...,
        as_of: int | str | None = ...,
    ) -> list[Record]: ...
    @overload
    def get(
        self,
        ids: Ids,
        *,
        vectors: Sequence[str] | str = ...,
        missing_ok: bool,
        as_of: int | str | None = ...,
    ) -> list[Record | None]: ...
    def get(
        self,
        ids: Ids,
        *,
        vectors: Sequence[str] | str = (),
        missing_ok: bool = False,
        as_of: int | str | None = None,
    ) -> list[Record] | list[Record | None]:
        """Return records by id, in the order asked for.

        Parameters
        ----------
        ids : sequence of str or int
        vectors : sequence of str, or "all", optional
            Spaces whose vectors to return (copies).
        missing_ok : bool, default False
            Return None in the place of an unknown id instead of raising.
        as_of : int or str, optional
            A seq or tag: read that state instead of the newest.

        Raises
        ------
        RecordMissingError, SpaceMissingError, SnapshotExpiredError, TagMissingError
        """
        values, _ = batching.id_list(ids)
        keys = id_keys(values)
        with self._view(as_of) as view:
            rows = view.find_all(keys)
            absent = [values[place] for place, row in enumerate(rows) if row is None]
            if absent and not missing_ok:
                raise operations.missing_records(absent, len(rows), self.name)
            there = [(row, key) for row, key in zip(rows, keys, strict=True) if row is not None]
            chosen = reading.spaces_named(view, vectors)
            found = iter(view.present_many([row for row, _ in there], chosen, [key for _, key in there]))
            return [None if row is None else next(found) for row in rows]

    def count(self, where: Where | None = None, *, as_of: int | str | None = None) -> int:
        """Return how many records there are, or how many satisfy `where`."""
        condition = queries.condition(where)
        with self._view(as_of) as view:
            return view.live if condition is None else len(view.select(condition).rows)

    def scan(
        self,
        where: Where | None = None,
        *,
        limit: int | None = None,
        order_by: str | Sequence[str] | None = None,
        vectors: Sequence[str] | str = (),
        as_of: int | str | None = None,
    ) -> Iterator[Record]:
        """Iterate over records at one seq, read in chunks; writes meanwhile do not show.

        Inside a transaction it sees the transaction's own writes, later ones too, and ends with it.

        Parameters
        ----------
        where : mapping, optional
        limit : int, optional
            At most so many records.
        order_by : str or sequence of str, optional
            Metadata fields, ``"-field"`` for descending; missing values last. Default: the order of first insertion.
        vectors : sequence of str, or "all", optional
            Spaces whose vectors to return.
        as_of : int or str, optional

        Raises
        ------
        SnapshotExpiredError
            If the iteration outlives the history that is kept. This process keeps what its iterators still need; other
            processes, and a transaction that was open before, keep only what their own `retention` says (see
            `vecdb.open`), and history beyond its budget is forgotten whoever reads it.
        ForkedError
            If it is continued in the child of a fork.
        """
        if limit is not None:
            limit = check_count("limit", limit, 0)
        transaction = self._database._own_transaction() if as_of is None else None
        order = reading.parse_order_by(order_by)
        plan = reading.ScanPlan(queries.condition(where), limit, order, vectors, as_of, transaction is not None)
        hold = self._database._opened().reader.hold() if transaction is None else None
        return reading.scan(lambda seq, past: self._open_for_scan(transaction, seq, past), plan, hold)

    def history(self, id: Id) -> list[RecordVersion]:
        """Return the kept, committed states of a record, oldest first; `record` is None where it was deleted."""
        key = id_key(id)
        with reading.OpenView(self._database._read(), self._key, None) as view:
            return reading.history(view, key)

    def vector_order(self, space: str, *, as_of: int | str | None = None) -> list[Id]:
        """Return the ids of the records with a vector in `space`, the oldest vector first: how equal scores rank."""
        with self._view(as_of) as view:
            return reading.vector_order(view, find_space(view.entry, space))

    # --- search ---

    # --- upkeep ---

    def stats(self) -> dict[str, Any]:
        """Return counts of records, and of each space its live, dead, sealed and tail vectors and bytes."""
        with self._database._read() as snapshot:
            return inspection.collection_stats(snapshot, snapshot.entry(*self._key), self._database._registry)

    def optimize(self, progress: Progress | None = None, cancel: CancelCheck | None = None) -> int:
        """Seal what is small, rewrite what is mostly dead, bring indexes up to date.

        An index takes in what was written since it was built, is rebuilt where more than 30 % of it is dead or its
        stored form is damaged or of another version, is measured on recorded queries once there are 200, and is left
        alone where its type is not installed. A large space without an index gets one, unless one was dropped.

        Returns
        -------
        int
            How many steps had something to do.

        Raises
        ------
        PluginError
            An index type failed; what it had stored before stays, and the other indexes are done.
        """
        database = self._database
        useful = housekeeping.optimize(database._writable(), [self._entry()], database._timeout, progress, cancel)
        with automatic.by_hand(database._keeper):
            return useful + database._keep_indexes(self._key, cancel, progress)

    # --- indexes ---

    def create_index(
        self,
        space: str,
        kind: str,
        *,
        seed: int = 0,
        progress: Progress | None = None,
        cancel: CancelCheck | None = None,
        **params: Any,
    ) -> IndexInfo:
        """Build an index over a space; searches use it from then on.

        Parameters
        ----------
        space : str
        kind : str
            Name of a registered index type, or "auto": what plugins choose, else what suits the number of vectors.
            ``vecdb plugins`` lists them.
        seed : int, default 0
            For types that use randomness: the same vectors and seed give the same index where the type promises it.
        progress, cancel : callable, optional
        **params
            Parameters of the type; those left out have their defaults.

        Returns
        -------
        IndexInfo

        Raises
        ------
        UnknownNameError
            No plugin provides `kind`; close matches are in the hint.
        ExistsError
            The space has an index of this kind.
        ParameterError
            A parameter is unknown or out of its bounds, or the type cannot index this metric or width.
        PluginError
            The plugin failed; nothing is stored.
        CancelledError
            `cancel` said so; nothing is stored.

        Notes
        -----
        Reads and writes go on meanwhile. Vectors written after the build began are scanned by every search until
        `optimize` lets the index take them in.
        """
        database = self._database
        shop = database._workshop(self._key, progress, cancel)
        with automatic.by_hand(database._keeper):
            shop.maintain(housekeeping.sealing(self._entry(), space))
            number = indexing.create_index(shop, space, kind, params, seed)
        made = self._describe(number)
        if not made:
            raise StateError(f"index {kind!r} of space {space!r} was dropped as soon as it was made")
        return made[0]

    @property
    def indexes(self) -> list[IndexInfo]:
        """The indexes in the order they were made or last rebuilt, and whether each can be used here."""
        return self._describe()

    def _describe(self, number: int | None = None) -> list[IndexInfo]:
        with self._database._read() as snapshot:
            view = CollectionView(snapshot, snapshot.entry(*self._key))
            return describing.describe(view, self._database._registry, number)

    def drop_index(self, space: str, kind: str) -> None:
        """Remove an index and what it stored; its type need not be installed.

        Raises
        ------
        SpaceMissingError, UnknownNameError
            There is no such space, or it has no such index.
        """
        self._database._write(indexing.drop_index(self._key, space, kind))
