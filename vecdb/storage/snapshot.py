"""What a reader holds: one transaction, and everything that is known at its commit.

A `State` is the database at one version; it fills itself lazily from the transaction of whoever asks first, starting
from the previous state, and is then shared by all readers of that version. A `Snapshot` pairs a state with a live
transaction. Invariant: a state is only ever filled by a transaction that reads exactly its version.
"""

from __future__ import annotations

import threading
import time
from collections import ChainMap
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

import numpy as np

from vecdb.errors import CollectionMissingError, CorruptionError, SnapshotExpiredError, SpaceMissingError
from vecdb.storage.env import Environment
from vecdb.storage.format import BLOCK_CLASSES, block_capacity, decode_ids
from vecdb.storage.history import Change, changes_after
from vecdb.storage.records import read_metadata, record_key, record_keys
from vecdb.storage.spaces import BlockCache, SpaceView, load_view
from vecdb.storage.state import (
    STATE,
    Catalog,
    CollectionEntry,
    CollectionState,
    Counters,
    SpaceCounts,
    read_catalog,
    read_collection,
    read_counters,
)
from vecdb.storage.tx import Tx
from vecdb.types import Id, Space

if TYPE_CHECKING:
    from vecdb.storage.columns import ColumnChunk
    from vecdb.storage.columnstore import ColumnView

_LARGEST_BLOCK: Final = BLOCK_CLASSES[-1]
_MANY_ROWS: Final = 64
"""Rows from which making keys with arrays is quicker."""
_MOST_IDS: Final = 1 << 16
"""Ids of a collection that are remembered: some megabytes."""
_COMMIT_SECONDS: Final = 60.0
"""How much older than its appearance the time in the log of a commit may be."""


class Caches:
    """What a process remembers of one opening of a file; thrown away whenever the file is reopened."""

    def __init__(self) -> None:
        self.blocks = BlockCache()
        self.chunks: dict[int, ColumnChunk] = {}
        self.ids: dict[int, dict[int, Id]] = {}
        """By collection, ids of rows that were asked for: a row is never given to another record."""
        self.indexes: dict[Any, Any] = {}
        """What the engine wants to find again of indexes; each value has ``keep(sets)``, which forgets the others, and
        ``unmap()``, which forgets what lies in the map."""
        self.state: State | None = None
        self._version = 0

    def without_map(self) -> Caches:
        """Return caches for the file mapped anew: what is loaded of indexes may be copies, too dear to load again."""
        caches = Caches()
        caches.indexes = self.indexes
        for known in list(self.indexes.values()):
            known.unmap()
        caches._version = self._version if self.state is None else self.state.counters.version
        return caches

    def keep_indexes_from(self, version: int) -> None:
        """Forget indexes if the file went back in time: somebody put another one in its place."""
        if version < self._version:
            self.indexes = {}
        self.stored = b""
        """The counters of `state` as they lie in the file: equal bytes, checksum included, are the same commit."""


def tail_room(space: Space) -> int:
    """Rows that a tail may hold before it is sealed: what fits into one large block."""
    return max(1, block_capacity(_LARGEST_BLOCK, space.columns * np.dtype(space.dtype).itemsize))


class State:
    """The database at one version. Lazily filled, then shared; see the module's invariant."""

    def __init__(self, tx: Tx, counters: Counters, caches: Caches, previous: State | _Remembered | None) -> None:
        self.counters = counters
        self.catalog: Catalog = read_catalog(tx)
        self._caches = caches
        self._previous = previous
        self._lock = threading.RLock()
        self._collections: dict[int, CollectionState] = {}
        self._spaces: dict[int, SpaceView] = {}
        self._columns: dict[int, ColumnView] = {}
        self._changes: dict[tuple[int, int], list[Change]] = {}
        self.derived: dict[str, Any] = {}
        """What the engine makes of this state and wants to find again."""

    def known_ids(self, collection: int) -> dict[int, Id]:
        """Return the ids of rows that committed states of this file were asked for, to be added to."""
        known = self._caches.ids.get(collection)
        return self._caches.ids.setdefault(collection, {}) if known is None else known

    @property
    def loaded_indexes(self) -> dict[Any, Any]:
        """What is loaded of indexes; shared by all readers of this opening of the file."""
        return self._caches.indexes

    def collection(self, tx: Tx, number: int) -> CollectionState:
        """Return the counts of a collection."""
        with self._lock:
            if number not in self._collections:
                self._collections[number] = read_collection(tx, number)
            return self._collections[number]

    def space(self, tx: Tx, collection: int, space: Space) -> SpaceView:
        """Return the view of a space."""
        with self._lock:
            if space.id not in self._spaces:
                counts = self.counts_of(tx, collection, space)
                before = self._previous.known_spaces().get(space.id) if self._previous is not None else None
                self._spaces[space.id] = load_view(tx, space, counts, before, self._caches.blocks, tail_room(space))
            return self._spaces[space.id]

    def counts_of(self, tx: Tx, collection: int, space: Space) -> SpaceCounts:
        """Return the counts of a space."""
        counts = self.collection(tx, collection).spaces.get(space.id)
        if counts is None:
            raise CorruptionError(f"space {space.name!r} has lost its counts", what="collection state")
        return counts

    def columns(self, tx: Tx, collection: int) -> ColumnView:
        """Return the metadata columns of a collection."""
        from vecdb.storage.columnstore import load_columns  # a search without a condition reads none

        with self._lock:
            if collection not in self._columns:
                before = self._previous.known_columns().get(collection) if self._previous is not None else None
                self._columns[collection] = load_columns(
                    tx,
                    collection,
                    before,
                    self._caches.chunks,
                    lambda row: read_metadata(tx, collection, row),
                )
            return self._columns[collection]

    def changes(self, tx: Tx, collection: int, seq: int) -> list[Change]:
        """Return what the commits after `seq` changed."""
        with self._lock:
            key = (collection, seq)
            if key not in self._changes:
                self._changes[key] = changes_after(tx, collection, seq)
            return self._changes[key]

    def known_spaces(self) -> Mapping[int, SpaceView]:
        """Return the newest view of each space that this state or an older one loaded."""
        older = self._previous.known_spaces() if self._previous is not None else {}
        return {**older, **self._spaces}

    def known_columns(self) -> Mapping[int, ColumnView]:
        older = self._previous.known_columns() if self._previous is not None else {}
        return {**older, **self._columns}

    def cut_chain(self) -> None:
        """Replace the older state by the views worth starting from, so that a chain of states cannot grow."""
        with self._lock:
            if self._previous is not None:
                entries = self.catalog.collections.values()
                spaces = {space.id for entry in entries for space in entry.spaces.values()}
                collections = {entry.id for entry in entries}
                self._previous = _Remembered(
                    {number: view for number, view in self._previous.known_spaces().items() if number in spaces},
                    {number: view for number, view in self._previous.known_columns().items() if number in collections},
                )


class _Remembered:
    """The views of older states that a newer one may start from."""

    __slots__ = ("_columns", "_spaces")

    def __init__(self, spaces: Mapping[int, SpaceView], columns: Mapping[int, ColumnView]) -> None:
        self._spaces = spaces
        self._columns = columns

    def known_spaces(self) -> Mapping[int, SpaceView]:
        return self._spaces

    def known_columns(self) -> Mapping[int, ColumnView]:
        return self._columns


class Snapshot:
    """One commit, read through one transaction, until the end of the ``with`` block that made it."""

    __slots__ = ("state", "tx")

    def __init__(self, tx: Tx, state: State) -> None:
        self.tx = tx
        self.state = state

    @property
    def seq(self) -> int:
        return self.state.counters.seq

    def entry(self, collection: int, name: str) -> CollectionEntry:
        """Return the catalog's entry of a collection by its number."""
        return entry_by_number(self.state.catalog, collection, name)

    def counts(self, collection: int) -> CollectionState:
        return self.state.collection(self.tx, collection)

    def space(self, collection: int, space: Space) -> SpaceView:
        return self.state.space(self.tx, collection, space)

    def columns(self, collection: int) -> ColumnView:
        return self.state.columns(self.tx, collection)

    def changes(self, collection: int, seq: int) -> list[Change]:
        return self.state.changes(self.tx, collection, seq)

    def ids(self, collection: int, rows: Iterable[int]) -> dict[int, Id]:
        """Return the id of each record at `rows`; what a hit without metadata needs, its checksum verified once."""
        known, found, missing = self.state.known_ids(collection), {}, []
        for row in rows:
            id = known.get(row)
            if id is None:
                missing.append(row)
            else:
                found[row] = id
        if missing:
            read = self._read_ids(collection, missing)
            if len(known) + len(read) > _MOST_IDS:
                known.clear()
            if len(read) <= _MOST_IDS:
                known.update(read)
            found.update(read)
        return found

    def id_list(self, collection: int, rows: list[int]) -> list[Id]:
        """Return the id of each record at `rows`, in their order."""
        known = self.state.known_ids(collection)
        found = [known.get(row) for row in rows]
        if None not in found:
            return found  # type: ignore[return-value]
        ids = self.ids(collection, rows)
        return [ids[row] for row in rows]

    def _read_ids(self, collection: int, rows: Iterable[int]) -> dict[int, Id]:
        ordered = sorted(rows)
        many = len(ordered) > _MANY_ROWS
        places = record_keys(collection, ordered) if many else [record_key(collection, row) for row in ordered]
        found = self.tx.pairs("records", places)
        if len(found) < len(places):
            there = {bytes(key) for key, _ in found}
            lost = next(row for row, place in zip(ordered, places, strict=True) if place not in there)
            raise CorruptionError(f"the record at row {lost} is missing", what="record", where=str(lost))
        return dict(zip(ordered, decode_ids(places, [value for _, value in found]), strict=True))


def entry_by_number(catalog: Catalog, number: int, name: str) -> CollectionEntry:
    """Return a collection by its number: one that was dropped and made anew under its name is another."""
    for entry in catalog.collections.values():
        if entry.id == number:
            return entry
    known = sorted(catalog.collections)
    raise CollectionMissingError(
        f"collection {name!r} was dropped", hint="Ask db.collections() for those there are.", name=name, available=known
    )


def find_collection(catalog: Catalog, name: object) -> CollectionEntry:
    """Return a collection of the catalog by name."""
    entry = catalog.collections.get(name) if isinstance(name, str) else None
    if entry is None:
        known = sorted(catalog.collections)
        raise CollectionMissingError(
            f"there is no collection {name!r}; there are {known}",
            hint="Make it with db.create_collection(name).",
            name=name,
            available=known,
        )
    return entry


def find_space(entry: CollectionEntry, name: object) -> Space:
    """Return a space of a collection by name."""
    space = entry.spaces.get(name) if isinstance(name, str) else None
    if space is None:
        known = list(entry.spaces)
        raise SpaceMissingError(
            f"collection {entry.name!r} has no space {name!r}; it has {known}",
            hint="Add it with add_space(name, dim=...).",
            name=name,
            available=known,
        )
    return space


def check_seq(counters: Counters, seq: int) -> None:
    """Refuse a seq that is not kept any more or was not reached yet."""
    if not counters.horizon <= seq <= counters.seq:
        raise SnapshotExpiredError(
            f"seq {seq} cannot be read: history goes from seq {counters.horizon} to {counters.seq}",
            hint="Keep older states with db.tag(name), or open with a longer retention.",
            seq=seq,
            oldest=counters.horizon,
        )


class SnapshotLease:
    """A context that opens a snapshot and holds its lease: a class, because generators cost every search."""

    __slots__ = ("_env", "_reader", "_tx")

    def __init__(self, reader: Reader, env: Environment) -> None:
        self._reader = reader
        self._env = env
        self._tx: Tx | None = None

    def __enter__(self) -> Snapshot:
        tx = self._tx = self._env.begin_read()
        try:
            return Snapshot(tx, self._reader.state(tx))
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tx, self._tx = self._tx, None
        if tx is not None:
            self._env.end_read(tx)
        if error is not None:
            self._env.translated().__exit__(kind, error, trace)


class Hold:
    """History that somebody in this process is reading: it is kept for as long as this object lives."""

    __slots__ = ("__weakref__", "since")

    def __init__(self) -> None:
        self.since = time.time()

    def reach(self, when: float) -> None:
        """Keep what was written at `when` or later, too."""
        self.since = min(self.since, when)


class Reader:
    """Hands out snapshots of one environment and keeps their shared caches."""

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._lock = threading.Lock()
        self._caches = Caches()
        self._opened = -1
        self._holds: WeakSet[Hold] = WeakSet()

    def hold(self) -> Hold:
        """Let commits of this process from now on leave the history that a reading needs; begin before it.

        A transaction that is open already may leave none, other processes know nothing of it, and history that takes
        more than its budget is forgotten all the same.
        """
        made = Hold()
        with self._lock:
            self._holds.add(made)
        return made

    def window(self, retention: float) -> float:
        """Return the seconds of history that a commit should keep: `retention`, or more while it is being read."""
        with self._lock:
            oldest = min((held.since for held in self._holds), default=None)
        return retention if oldest is None else max(retention, time.time() - oldest + _COMMIT_SECONDS)

    def snapshot(self) -> SnapshotLease:
        """Read the newest commit."""
        return SnapshotLease(self, self._env)

    def state(self, tx: Tx) -> State:
        """Return what is known at the transaction's commit; its counters are decoded once."""
        stored = tx.get("meta", STATE)
        with self._lock:
            if self._opened != self._env.opened:
                self._caches, self._opened = self._caches.without_map(), self._env.opened
            current = self._caches.state
            if current is not None and stored == self._caches.stored:
                return current
            counters = read_counters(tx)
            if current is None:
                self._caches.keep_indexes_from(counters.version)
            if current is not None and current.counters.version == counters.version:
                return current
            newer = current is None or current.counters.version < counters.version
            state = State(tx, counters, self._caches, current if newer else None)
            if newer:
                if current is not None:
                    current.cut_chain()
                    current.derived = {}  # the newer state remembers the older one, but not what was made of it
                self._caches.state, self._caches.stored = state, bytes(stored or b"")
                self._keep_named(state)
            return state

    def _keep_named(self, state: State) -> None:
        """Let go of what is loaded of indexes, transforms, filters and corrections that no catalog names now."""
        if self._caches.indexes:
            collections = state.catalog.collections.values()
            sets = {part.set for entry in collections for index in entry.indexes for part in index.parts}
            sets |= {each.set for entry in collections for each in entry.transforms}
            sets |= {each.set for entry in collections for each in entry.filters}
            sets |= {number for entry in collections for each in entry.corrections for number in each.sets}
            for memory in list(self._caches.indexes.values()):
                memory.keep(sets)

    def reset(self) -> None:
        """Forget everything, locks included: this is the child of a fork."""
        self._lock = threading.Lock()
        self._caches, self._opened = Caches(), -1
        self._holds = WeakSet()  # no reading survives a fork

    def private_caches(self) -> Caches:
        """Caches that read what readers know but keep what they learn to themselves."""
        with self._lock:
            caches = Caches()
            if self._opened == self._env.opened:
                caches.chunks = ChainMap({}, self._caches.chunks)  # type: ignore[assignment]
            return caches
