"""The database as an application sees it: open, collections, transactions, time travel, upkeep.

The facade checks arguments, finds the right room for the work, and returns plain values. Collections:
vecdb/collection.py. The contract in one page: README.md; each promise and its test: docs/explanation/architecture.md.
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from vecdb.collection import Collection
from vecdb.engine import joint, reading
from vecdb.engine.given import Settings, given_registry, given_settings
from vecdb.engine.guard import Guard
from vecdb.engine.names import check_count, check_name, check_number, check_option, check_path, check_timeout
from vecdb.errors import (
    ClosedError,
    CollectionMissingError,
    ExistsError,
    ReadOnlyError,
    TransactionError,
)
from vecdb.kernels import loader
from vecdb.kernels.loader import warmup
from vecdb.lazy import LazyModule
from vecdb.reporting import Reporting
from vecdb.storage import handles
from vecdb.storage.handles import OpenOptions, Store
from vecdb.storage.snapshot import Snapshot, find_collection
from vecdb.storage.state import CollectionEntry
from vecdb.types import CancelCheck, CheckReport, Commit, Progress

if TYPE_CHECKING:
    from vecdb import registry as registries
    from vecdb.engine import automatic, encoding, housekeeping, inspection, tags, workshop
    from vecdb.engine.corrections import keeping
    from vecdb.engine.migration.encoders import Encoder
    from vecdb.engine.migration.traffic import Traffic
    from vecdb.registry import PluginRegistry
    from vecdb.storage import copying, writetx
    from vecdb.storage.writer import Transaction
    from vecdb.storage.writetx import WriteTx
else:  # what a first search does without
    copying = LazyModule("vecdb.storage.copying")
    housekeeping = LazyModule("vecdb.engine.housekeeping")
    automatic = LazyModule("vecdb.engine.automatic")
    encoding = LazyModule("vecdb.engine.encoding")
    keeping = LazyModule("vecdb.engine.corrections.keeping")
    inspection = LazyModule("vecdb.engine.inspection")
    tags = LazyModule("vecdb.engine.tags")
    registries = LazyModule("vecdb.registry")
    workshop = LazyModule("vecdb.engine.workshop")
    writetx = LazyModule("vecdb.storage.writetx")

__all__ = ["Database", "open", "warmup"]


handles.on_fork(loader.before_fork, lambda child: (loader.after_fork_in_parent, loader.after_fork_in_child)[child]())

R = TypeVar("R")
_open_databases: weakref.WeakSet[Database] = weakref.WeakSet()


def open(
    path: str | os.PathLike[str],
    mode: Literal["a", "r", "x"] = "a",
    *,
    durability: Literal["full", "relaxed", "bulk"] = "full",
    timeout: float = 10.0,
    retention: float = 600.0,
    map_size: int | None = None,
    automatic: bool = True,
    record_queries: bool = True,
    threads: int | None = None,
    allow_remote: bool = False,
    plugins: PluginRegistry | Iterable[object] | None = None,
) -> Database:
    """Open a database file, creating it if it does not exist.

    Parameters
    ----------
    path : path-like
        The file, by custom ``name.vecdb``. Two small lock files lie beside it while it is used.
    mode : {"a", "r", "x"}, default "a"
        "a" reads and writes, and creates; "r" only reads; "x" creates and refuses an existing file.
    durability : {"full", "relaxed", "bulk"}, default "full"
        "full": a call that returned survives a power cut. "relaxed": the last commits before a power cut may be lost,
        nothing is damaged, and a killed process loses nothing. "bulk": for loading a file that does not exist yet; it
        appears under its name, durable, when it is closed, and not at all if the process dies before.
    timeout : float, default 10.0
        Seconds to wait for another process's lock.
    retention : float, default 600.0
        Seconds for which older states stay readable with ``as_of``; 0 keeps only what tags need. Untagged history is
        forgotten early where it takes more than 64 MB and more than half as much as the data.
    map_size : int, optional
        First size of the memory map in bytes; it grows by itself. Default: 1 TiB of address space, less where
        the system does not allow it.
    automatic : bool, default True
        Whether writes do a bounded step of upkeep when it is due, and a thread keeps indexes up to date once writing
        pauses; a space of 4,096 vectors and 2,097,152 components that has no index then gets one. Otherwise only
        `optimize` does all that.
    record_queries : bool, default True
        Whether this process keeps some of the queries that it is asked, at most 1,024 or 4 MB of each space, in memory.
        `optimize` then measures recall on them, too, once there are 200; they are never written to the file.
    threads : int, optional
        Threads that one search may use, 1 to 64: for many queries at once, and for one that scans much. Answers do not
        depend on it. Default: as many as there are processors for this process, at most 16.
    allow_remote : bool, default False
        Whether to open a file on a network file system, where locks and memory maps cannot be trusted.
    plugins : PluginRegistry or iterable of plugins, optional
        Where index types and the like come from. Default: vecdb's own and those that are installed, as far as
        ``VECDB_PLUGINS`` allows; an iterable of modules or objects adds them to these. Installed plugins are imported
        when a name is looked up that vecdb does not provide itself, and at the first write.

    Returns
    -------
    Database
        A context manager; leaving it closes the database.

    Raises
    ------
    FileAccessError
        The file or its directory does not exist or may not be used.
    NotADatabaseError, FormatVersionError, CorruptionError
        The file is something else, newer, or damaged.
    ExistsError
        ``mode="x"`` or ``durability="bulk"`` and the file exists.
    LockedError
        Another process compacts the file for longer than `timeout`.
    RemoteFileSystemError
        The file lies on a network file system.
    PluginLoadError, PluginConflictError
        One of `plugins` cannot be registered.

    Examples
    --------
    >>> import tempfile, os, vecdb
    >>> folder = tempfile.mkdtemp()
    >>> with vecdb.open(os.path.join(folder, "news.vecdb")) as db:
    ...     docs = db.create_collection("docs")
    ...     space = docs.add_space("tiny", dim=2, metric="cosine")
    ...     result = docs.upsert(["a", "b"], vectors={"tiny": [[1, 0], [0, 1]]})
    ...     docs.search([1, 0.1], k=1).ids
    ['a']
    """
    check_option("mode", mode, ("a", "r", "x"))
    check_option("durability", durability, handles.DURABILITIES)
    check_number("retention", retention, 0)
    settings = given_settings(automatic, record_queries, threads)
    if map_size is not None:
        map_size = check_count("map_size", map_size, 1 << 16)
    if mode == "r" and durability == "bulk":
        check_option("durability", durability, ("full", "relaxed"))
    options = OpenOptions(mode, durability, check_timeout(timeout), float(retention), map_size, allow_remote)
    registry = given_registry(plugins)
    store = handles.acquire(check_path(path), options)
    database = Database(store, options, settings, registry)
    if registry is not None:
        database._listen(registry)
    return database


class Database(Reporting):
    """An open database; make one with `vecdb.open`.

    Threads may share it. After a fork, parent and child both go on with it; transactions and iterators do not survive
    into the child.

    Attributes
    ----------
    path : Path
    mode : {"a", "r", "x"}
    """

    def __init__(self, store: Store, options: OpenOptions, settings: Settings, registry: PluginRegistry | None) -> None:
        self.path: Path = store.target
        self.mode: str = options.mode
        self._timeout = options.timeout
        self._settings = settings
        self._options = options
        self._keeper: automatic.Keeper | None = None
        self._guard = Guard()
        self._store: Store | None = store
        self._closing = threading.Lock()
        self._encoders: dict[int, Callable[[list[str]], Any]] = {}
        self._old_encoders: dict[int, Encoder] = {}
        self._traffic: dict[int, Traffic] = {}
        self._known_registry = registry
        self._plugin_setting = os.environ.get("VECDB_PLUGINS")
        self._told: dict[str, object] = {}
        _open_databases.add(self)

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Database {str(self.path)!r}{' closed' if self.closed else ''}>"

    # --- life ---

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._store is None

    def close(self) -> None:
        """Close the database; a second call does nothing. Waits for reads and writes of other threads.

        Raises
        ------
        TransactionError
            Inside a transaction, which has to end first.
        """
        if self._store is not None and self._store.users == 1:  # other handles keep the file open for the transaction
            self._refuse_in_transaction("close")
        with self._closing:
            store, self._store = self._store, None
        if self._keeper is not None:
            self._keeper.stop()
        if store is not None:
            handles.release(store)

    def _opened(self) -> Store:
        store = self._store
        if store is None:
            raise ClosedError(f"the database {self.path} was closed", hint="Open it again.", what="database")
        return store

    def _writable(self) -> Store:
        store = self._opened()
        if self.mode == "r":
            raise ReadOnlyError(
                f"{self.path} was opened with mode='r'", hint="Open it with mode='a' to write.", path=str(self.path)
            )
        return store

    @property
    def plugins(self) -> PluginRegistry:
        """Where this handle gets index types, transforms and relevance filters from."""
        return self._registry

    @property
    def _registry(self) -> PluginRegistry:
        if self._known_registry is None:
            self._known_registry = registries.default_registry(self._plugin_setting)
            self._listen(self._known_registry)
        return self._known_registry

    def _listen(self, registry: PluginRegistry) -> None:
        """Tell the plugins of a registry that the database is open, those that it loads later too."""
        registry.on_change(self._announce)
        self._announce()

    def _announce(self) -> None:
        """Tell loaded plugins that were not told yet that the database is open."""
        if not self.closed:
            self._registry.tell("vecdb_database_opened", self._told, database=self)

    @property
    def uuid(self) -> str:
        """The identity that the file was given when it was made; copies share it."""
        return str(self._opened().header["uuid"])

    @property
    def seq(self) -> int:
        """The number of the newest commit."""
        with self._read() as snapshot:
            return snapshot.seq

    # --- reading and writing, for collections ---

    def _own_transaction(self) -> Transaction | None:
        """Return the transaction that this thread has open."""
        return self._opened().writer.own_transaction()

    def _refuse_in_transaction(self, call: str) -> None:
        if self._own_transaction() is not None:
            raise TransactionError(f"{call} cannot run inside a transaction", hint="End the transaction first.")

    def _read(self, *, own_writes: bool = False) -> AbstractContextManager[Snapshot]:
        """Open the newest commit, or inside this thread's transaction, its own uncommitted state."""
        store = self._opened()
        transaction = store.writer.own_transaction() if own_writes else None
        return store.reader.snapshot() if transaction is None else reading.uncommitted(store, transaction)

    def _write(self, operation: Callable[[WriteTx], R], entry: CollectionEntry | None = None) -> R:
        store = self._writable()
        if not self._registry.loaded:
            self._registry.load()
        result = self._commit(store, operation, entry)
        if store.writer.own_transaction() is None:
            self._tell_committed()
        return result

    def _commit(self, store: Store, operation: Callable[[WriteTx], R], entry: CollectionEntry | None) -> R:
        operation = joint.followed(operation, store, self._registry)
        if entry is None:
            return store.writer.run(operation, timeout=self._timeout)
        outcome: list[housekeeping.Outcome] = []
        able = encoding.encoders_of(store.reader, entry, self._registry) if entry.indexes else []

        def tracked(write: WriteTx) -> R:
            result = operation(write)
            if able:
                encoding.encode_sealed(write, encoding.collection_key(entry), able, store.reader)
            outcome[:] = [housekeeping.outcome(write, entry)]
            return result

        result = store.writer.run(tracked, timeout=self._timeout)
        if not self._settings.automatic:
            return result
        transaction = store.writer.own_transaction()
        if transaction is not None:
            transaction.left[entry.id] = (entry, outcome[0])
        elif store.writer.transaction is None:
            self._keep_house(store, entry, outcome[0])
        return result

    def _keep_house(self, store: Store, entry: CollectionEntry, left: housekeeping.Outcome) -> None:
        """After a commit: a bounded step at once, and indexes in a thread of their own."""
        housekeeping.after_write(store, entry, left)
        with self._closing:
            if self._keeper is None and self._options.durability != "bulk" and self._store is not None:
                self._keeper = automatic.Keeper(self._keep_in_background)
        if self._keeper is not None:
            self._keeper.look(entry, left.spaces)

    def _keep_indexes(self, key: tuple[int, str], cancel: CancelCheck | None, progress: Progress | None = None) -> int:
        """Give the spaces of a collection their indexes, and bring these and the tables of corrections up to date."""
        shop = self._workshop(key, progress, cancel)
        return automatic.keep_indexes(shop) + keeping.keep_tables(shop.read, shop.maintain, key, cancel)

    def _keep_in_background(self, key: tuple[int, str], cancel: CancelCheck) -> int:
        """Do the same in a thread of its own; a writer that takes long does not hold up its end."""
        writer, shop = self._writable().writer, self._workshop(key, None, cancel)
        patient = automatic.patiently(lambda work: writer.maintain(work, timeout=0.2), cancel, self._timeout)
        return automatic.keep_indexes(replace(shop, maintain=patient, patient=False))

    def _tell_committed(self) -> None:
        if self._registry.listens("vecdb_committed"):
            with contextlib.suppress(ClosedError):  # another thread closed the database since: nobody is left to tell
                self._registry.tell("vecdb_committed", database=self, seq=self.seq)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Database]:
        """Make every write inside the block one commit; an exception rolls all of it back.

        Reads by id, `count`, `scan` and ``where`` inside the block see its own writes; `search` sees the state at its
        beginning. The writer lock is held for the whole block. Transactions cannot be nested, and belong to the thread
        that began them.

        Raises
        ------
        LockedError
            Another writer kept the lock for longer than `timeout`.
        TransactionError
            Nested, or used from another thread.
        """
        store = self._writable()
        with store.writer.begin_transaction(self._timeout) as transaction:
            yield self
        for entry, outcome in transaction.left.values():
            self._keep_house(store, entry, outcome)
        if transaction.committed:
            self._tell_committed()

    # --- collections ---

    def collections(self) -> list[str]:
        """Return the names of the collections, in the order they were made."""
        with self._read(own_writes=True) as snapshot:
            return list(snapshot.state.catalog.collections)

    def collection(self, name: str) -> Collection:
        """Return a collection.

        Raises
        ------
        CollectionMissingError
            If there is none of this name.
        """
        with self._read(own_writes=True) as snapshot:
            entry = find_collection(snapshot.state.catalog, name)
        return Collection(self, entry.id, entry.name)

    def create_collection(self, name: str, exist_ok: bool = False) -> Collection:
        """Make an empty collection and return it.

        Parameters
        ----------
        name : str
            1 to 200 characters.
        exist_ok : bool, default False
            Return the collection if it is already there.

        Raises
        ------
        ExistsError
            If it is there and `exist_ok` is False.
        """
        check_name("collection", name)

        def create(write: WriteTx) -> int:
            catalog = write.catalog
            if name in catalog.collections:
                if exist_ok:
                    return catalog.collections[name].id
                raise ExistsError(
                    f"collection {name!r} exists", hint="Pass exist_ok=True to use it.", kind="collection", name=name
                )
            write.create_collection(CollectionEntry(catalog.next_collection, name))
            write.note(f"{name}: create collection")
            return catalog.next_collection

        if exist_ok:
            with contextlib.suppress(CollectionMissingError):
                return self.collection(name)
        return Collection(self, self._write(create), name)

    def drop_collection(self, name: str) -> None:
        """Remove a collection with everything in it, its history included."""

        def drop(write: WriteTx) -> None:
            write.drop_collection(find_collection(write.catalog, name))
            write.note(f"{name}: drop collection")

        self._write(drop)

    # --- time ---

    def tag(self, name: str, seq: int | None = None) -> int:
        """Name a commit, so that its state stays readable with ``as_of=name`` until `untag`; return its seq.

        Parameters
        ----------
        name : str
        seq : int, optional
            A commit that is still kept; default: the newest.

        Raises
        ------
        ExistsError
            If the name is taken.
        SnapshotExpiredError
            If `seq` is not kept any more.
        """
        check_name("tag", name)
        wanted = None if seq is None else check_count("seq", seq, 0)
        return self._write(tags.add_tag(name, wanted))

    def untag(self, name: str) -> None:
        """Remove a tag; the history that only it kept is forgotten by and by."""
        self._write(tags.remove_tag(name))

    def tags(self) -> dict[str, int]:
        """Return the tags and the seqs that they name."""
        with self._read(own_writes=True) as snapshot:
            return {name: tag.seq for name, tag in snapshot.state.catalog.tags.items()}

    def commits(self, limit: int | None = None) -> list[Commit]:
        """Return the kept part of the commit log, newest last; with `limit` only so many of the newest."""
        if limit is not None:
            limit = check_count("limit", limit, 0)
        with self._read() as snapshot:
            named: dict[int, list[str]] = {}
            for name, tag in snapshot.state.catalog.tags.items():
                named.setdefault(tag.seq, []).append(name)
            log = writetx.read_whole_log(snapshot.tx)
        chosen = log if limit is None else log[max(0, len(log) - limit) :]
        return [Commit(seq, when, tuple(changes), tuple(named.get(seq, ()))) for seq, when, changes in chosen]

    # --- upkeep ---

    def stats(self) -> dict[str, Any]:
        """Return counts and sizes: file, live and reclaimable bytes, history, the oldest reader's lag, collections."""
        store = self._opened()
        with self._read() as snapshot:
            return inspection.database_stats(store, snapshot, self._registry)

    def check(self, progress: Progress | None = None) -> CheckReport:
        """Prove every checksum, every reference and every count; damage is listed in the report, not raised."""
        damage = inspection.check_pages(self._opened().env)
        if damage is not None:
            return damage
        with self._read() as snapshot:
            return inspection.check(snapshot, progress, lambda: self._registry)

    def optimize(self, progress: Progress | None = None, cancel: CancelCheck | None = None) -> int:
        """Seal what is small, rewrite what is mostly dead, bring indexes up to date.

        Returns
        -------
        int
            How many steps had something to do.
        """
        store = self._writable()
        with self._read() as snapshot:
            entries = list(snapshot.state.catalog.collections.values())
        useful = housekeeping.optimize(store, entries, self._timeout, progress, cancel)
        with automatic.by_hand(self._keeper):
            for entry in entries:
                useful += self._keep_indexes(encoding.collection_key(entry), cancel, progress)
        return useful

    def _workshop(
        self, collection: tuple[int, str], progress: Progress | None, cancel: CancelCheck | None
    ) -> workshop.Workshop:
        store = self._writable()
        self._refuse_in_transaction("building an index")
        return workshop.Workshop(
            self._read,
            self._write,
            lambda work: store.writer.maintain(work, timeout=self._timeout),
            self._registry,
            collection,
            progress,
            cancel,
            self._settings.recorder.queries,
            lambda blobs, check: store.writer.stage(blobs, check, timeout=self._timeout),
        )

    def compact(
        self,
        keep: Literal["tags", "window", "nothing"] = "tags",
        timeout: float | None = None,
        progress: Progress | None = None,
    ) -> dict[str, int]:
        """Rewrite the file without what is dead; return its size before and after.

        Parameters
        ----------
        keep : {"tags", "window", "nothing"}, default "tags"
            What history survives: what tags need; also the retention window; or nothing (the tags are removed, but
            those of active migrations).
        timeout : float, optional
            Seconds to wait until no other process has the file open; default: the one given to `open`.

        Returns
        -------
        dict
            ``bytes_before`` and ``bytes_after``.

        Raises
        ------
        LockedError
            Another process has the file open; nothing was changed in that case except history that was forgotten.
        """
        store = self._writable()
        check_option("keep", keep, ("tags", "window", "nothing"))
        self._refuse_in_transaction("compact")
        wait = self._timeout if timeout is None else check_timeout(timeout)
        if self._keeper is not None:
            self._keeper.stop()
            self._keeper.go_on()
        store.require_sole_use(wait)
        if keep == "nothing":
            with self._read() as snapshot:
                free = tags.removable(snapshot)
            for name in free:
                self.untag(name)
        with self._read() as snapshot:
            entries = list(snapshot.state.catalog.collections.values())
        housekeeping.forget(store, keep, wait)
        housekeeping.squeeze(store, entries, wait, progress)
        before, after = copying.compact(store, inspection.prove_file, wait)
        return {"bytes_before": before, "bytes_after": after}

    def backup(self, path: str | os.PathLike[str], progress: Progress | None = None) -> int:
        """Write a consistent, verified copy to a new file while everything goes on; return its size in bytes.

        Raises
        ------
        ExistsError
            If `path` exists.
        """
        size = copying.backup(self._opened(), check_path(path), inspection.prove_file)
        if progress is not None:
            progress(size, size)
        return size
