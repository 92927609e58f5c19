"""The memory-mapped file: beside `lmdberrors` the only module that imports lmdb, and where each of its traps is closed.

Invariants: one environment per file and process; nobody reads the map outside a lease; closing, growing and swapping
the file wait until no lease is out; a write transaction begins and ends on one thread; a fork finds the file closed.
Why each rule exists: docs/explanation/storage-design.md, "Traps of the map".
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import lmdb

from vecdb.errors import (
    ClosedError,
    CorruptionError,
    ForkedError,
    MapFullError,
    NotADatabaseError,
    StateError,
    StorageError,
    VecdbError,
)
from vecdb.storage import platform
from vecdb.storage.failpoints import visit
from vecdb.storage.filecheck import check_tables, inspect_file
from vecdb.storage.format import LMDB_ENGINE
from vecdb.storage.lmdberrors import MAX_READERS, Translated
from vecdb.storage.lockfile import LockFile, hold_data_file, in_use, make_table, table_path
from vecdb.storage.pagewalk import damaged_pages
from vecdb.storage.signals import MapResized, Panicked
from vecdb.storage.tx import Tx

TABLES: Final = ("meta", "log", "ids", "records", "history", "tail", "segments", "blocks", "columns", "deaths", "blobs")
_SPARE_READERS: Final = 8
_READER_CHECK_EVERY: Final = 8
"""Write transactions between two looks for killed readers."""
_LARGEST_MAP: Final = 1 << 40
_SMALLEST_MAP: Final = 1 << 30


class Environment:
    """One open database file in this process, shared by every handle on it.

    Parameters
    ----------
    path : Path
        The data file.
    readonly : bool
    durability : {"full", "relaxed", "bulk"}
    map_size : int or None
        First size of the memory map in bytes; it grows by itself. None: 1 TiB, halved until the system allows it.
    timeout : float
        Seconds to wait for a lock.
    create : callable, optional
        Fills an empty file, in its first transaction; without it an empty file is refused.

    Notes
    -----
    The file is mapped for reading until somebody writes: opening LMDB's tables for writing takes LMDB's own lock, which
    knows no time-out, so it is done under ours. Whoever only reads waits for nobody.
    """

    def __init__(
        self,
        path: Path,
        *,
        readonly: bool,
        durability: str,
        map_size: int | None,
        timeout: float,
        create: Callable[[Tx], None] | None = None,
    ) -> None:
        self.path = path
        self.readonly = readonly
        self.durability = durability
        self.timeout = timeout
        self.opened = 0
        """How often the file was mapped: views and caches made under another count are dead."""
        self.writer_lock = LockFile(path.with_name(path.name + "-writer"))
        self._create = create
        self._map_size = map_size
        self._writable = False
        self._env: lmdb.Environment | None = None
        self._tables: dict[str, Any] = {}
        self._descriptor: int | None = None
        self._kept: int | None = None
        self._lock = threading.RLock()
        self._gate = threading.Condition(self._lock)
        self._leases = 0
        self._begun = 0
        self._held = threading.local()
        self._owner: int | None = None
        self._refusal: Callable[[], VecdbError] | None = None
        self._fork_hold: contextlib.AbstractContextManager[None] | None = None

    # --- opening and closing ---

    def open(self) -> None:
        """Open the file unless it is open; check first that it is one LMDB can be trusted with."""
        with self._gate:
            if self._refusal is not None:
                raise self._refusal()
            if self._env is None:
                self._open()

    def _open(self) -> None:
        self._descriptor = hold_data_file(self.path, readonly=self.readonly, timeout=self.timeout)
        try:
            empty = not inspect_file(self.path, self._descriptor)
            if not make_table(self.path, self._descriptor, readonly=self.readonly, timeout=self.timeout):
                self._shut()
                return self._open()
            if empty or not self._open_map():
                self._fill()
                if not self._open_map():
                    raise CorruptionError(f"{self.path} lost its tables", what="file", where=str(self.path))
        except BaseException:
            self._shut()
            raise
        self.opened += 1

    def _open_map(self) -> bool:
        """Map the file and find its tables; False if it has none yet."""
        with self.translated():
            env = self._env = self._map(readonly=not self._writable)
            env.reader_check()
            if self._find_tables(env):
                return True
            with env.begin() as raw, raw.cursor() as cursor:
                names = {bytes(name).decode(errors="replace") for name in islice(cursor.iternext(values=False), 99)}
            if names and self._find_tables(env):  # another process made them between the two looks
                return True
            self._env = None
            env.close()
        if names:
            check_tables(self.path, names, TABLES, readonly=self.readonly)
        return False

    def _find_tables(self, env: lmdb.Environment) -> bool:
        with contextlib.suppress(lmdb.NotFoundError, lmdb.ReadonlyError):
            self._tables = {name: env.open_db(name.encode(), create=False) for name in TABLES}
            return True
        return False

    def _fill(self) -> None:
        """Make a database of an empty file, unless another process was quicker."""
        if self._create is None:
            hint = "Open it with mode='a' to make a database."
            raise NotADatabaseError(f"{self.path} is empty", hint=hint, path=str(self.path))
        with self.writer_lock.held(self.timeout), self.translated():
            env = self._map(readonly=False)
            try:
                with env.begin(write=True) as raw:
                    empty = raw.stat(env.open_db(None))["entries"] == 0
                    tables = {name: env.open_db(name.encode(), raw) for name in TABLES}  # or those it does not have yet
                    if empty:
                        self._create(Tx(raw, tables))
                        visit("create.half")
            finally:
                env.close()
        platform.sync_directory(self.path.parent)

    def _map(self, *, readonly: bool) -> lmdb.Environment:
        size = self._map_size or _LARGEST_MAP
        while True:
            try:
                return lmdb.open(
                    os.fspath(self.path),
                    map_size=size,
                    subdir=False,
                    readonly=readonly,
                    metasync=self.durability != "relaxed",
                    sync=self.durability != "bulk",
                    mode=0o600,
                    lock=table_path(self.path).exists(),
                    max_readers=MAX_READERS,
                    max_dbs=len(TABLES),
                    max_spare_txns=_SPARE_READERS,
                    lib_version=LMDB_ENGINE,
                )
            except lmdb.MemoryError:
                if size <= _SMALLEST_MAP:
                    raise
                size //= 2

    def close(self) -> None:
        """Wait until no lease is out, then close; a second call does nothing."""
        with self.exclusive():
            self._shut()
            self._refusal = partial(ClosedError, f"{self.path} was closed", what="database")

    def suspend(self, *, keep_lock: bool = False) -> None:
        """Close the file so that the next use opens it anew. Call under `exclusive`.

        With `keep_lock` our lock on the old file stays until `drop_kept_lock`: who waits for it finds the new file.
        """
        if keep_lock:
            self._kept, self._descriptor = self._descriptor, None
        self._shut()

    def drop_kept_lock(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            os.close(kept)

    def share_again(self) -> None:
        """Go back from sole use to sharing the file; the lock is given up for a moment, as in `_try_sole_use`."""
        with self.exclusive():
            if self._descriptor is None:
                return
            platform.lock(self._descriptor, exclusive=False, timeout=self.timeout, refuse=partial(in_use, self.path))
            if not os.path.samestat(os.fstat(self._descriptor), self.path.stat()):
                self._shut()

    def _shut(self) -> None:
        env, self._env, self._tables = self._env, None, {}
        self._writable = False
        if env is not None:
            env.close()
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    # --- leases ---

    @contextlib.contextmanager
    def lease(self) -> Iterator[Tx]:
        """Read at the newest commit; views of the map are valid until the end of the block."""
        tx = self.begin_read()
        try:
            with self.translated():
                yield tx
        finally:
            self.end_read(tx)

    def begin_read(self) -> Tx:
        """Begin what `lease` is; the caller ends it on this thread."""
        with self._lock:  # the gate's own, without its Python
            raw = self._begin_at_once()
        return Tx(self._begin_read() if raw is None else raw, self._tables)

    def _begin_at_once(self) -> lmdb.Transaction | None:
        """Begin a read if the file is open and nobody wants it alone; None: the long way does it, or says why not."""
        if self._owner is not None or self._env is None or self._refusal is not None:
            return None
        try:
            raw = self._env.begin(buffers=True)
        except lmdb.Error:  # the long way meets it again
            return None
        self._enter()
        return raw

    def end_read(self, tx: Tx) -> None:
        """End a read transaction."""
        if not tx.reads(self._tables) and not self.held_here():  # begun before the fork that made this process
            return platform.leave_to_parent(tx.raw)
        tx.raw.abort()  # the binding keeps the reader slot for the next lease
        return self._leave()

    def _begin_read(self) -> lmdb.Transaction:
        for _ in range(3):
            try:
                raw = self._try_begin_read()
            except MapResized:
                self._adopt_map()
                continue
            if raw is not None:
                return raw
        raise StorageError(f"{self.path}: the memory map keeps changing its size")

    def _try_begin_read(self) -> lmdb.Transaction | None:
        with self._gate:
            self._wait_for_gate()
            self.open()
            assert self._env is not None
            with self.translated():
                try:
                    raw = self._begin(self._env)
                except lmdb.PanicError:
                    raw = None
            if raw is not None:
                self._enter()
                return raw
        self.refresh()  # waits for the leases of others: their views must not lose the map
        return None

    def _adopt_map(self) -> None:
        """Take over the size to which another process enlarged the map."""
        with self.exclusive():
            self.open()
            assert self._env is not None
            self.opened += 1
            try:
                with self.translated():
                    self._env.set_mapsize(0)
            except BaseException:
                self._shut()  # the old map is gone, the new one was refused
                raise

    @staticmethod
    def _begin(env: lmdb.Environment) -> lmdb.Transaction:
        try:
            return env.begin(buffers=True)
        except lmdb.ReadersFullError:
            env.reader_check()
            return env.begin(buffers=True)

    def _wait_for_gate(self) -> None:
        """Let whoever wants the file alone go first, unless they wait for a lease of this very thread."""
        while self._owner is not None and self._owner != threading.get_ident() and not self.held_here():
            self._gate.wait()

    def held_here(self) -> int:
        return int(getattr(self._held, "count", 0))

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Wait until this process reads and writes nothing, and keep it so for the block."""
        with self._gate:
            if self.held_here():  # it would wait for itself
                what = f"{self.path}: this call needs the file alone, but was made while its own thread reads from it"
                raise StateError(what, hint="Make it outside of progress and cancel callbacks.")
            self._wait_for_gate()
            nested = self._owner is not None
            self._owner = threading.get_ident()
        try:
            with self._gate:
                while self._leases:
                    self._gate.wait()
            yield
        finally:
            if not nested:
                with self._gate:
                    self._owner = None
                    self._gate.notify_all()

    def before_fork(self) -> None:
        """Close the file and keep everybody out of it until `after_fork`: neither side may share LMDB's state."""
        if not self.held_here():  # else the parent keeps the file, and the child leaves it alone
            self._fork_hold = self.exclusive()
            self._fork_hold.__enter__()
        self._gate.acquire()
        if self._fork_hold is not None:
            self._shut()

    def after_fork(self, *, child: bool) -> None:
        """Let both sides go on; each opens the file anew when it is next used."""
        hold, self._fork_hold = self._fork_hold, None
        if child:
            if self._env is not None:
                platform.leave_to_parent(self._env)
                self._env, self._descriptor, self._tables = None, None, {}
                what = f"{self.path} was being read by the thread that forked, so the child cannot use it"
                self._refusal = partial(ForkedError, what, hint="Fork outside of reads.", what="database")
            self._lock = threading.RLock()
            self._gate = threading.Condition(self._lock)
            self._leases, self._owner, self._held = 0, None, threading.local()
            return
        self._gate.release()
        if hold is not None:
            hold.__exit__(None, None, None)

    # --- writing ---

    def begin_write(self) -> Tx:
        """Begin a write transaction on this thread; the caller holds the writer lock."""
        for _ in range(3):
            self._map_for_writing()
            with self._gate:
                self._wait_for_gate()
                self.open()
                self._enter()
            try:
                with self.translated():
                    assert self._env is not None
                    self._clear_dead_readers(self._env)
                    return Tx(self._env.begin(write=True), self._tables)
            except MapResized:
                self._leave()
                self._adopt_map()
            except Panicked:
                self._leave()
                self.refresh()
            except BaseException:
                self._leave()
                raise
        raise StorageError(f"{self.path}: the memory map keeps changing its size")

    def _clear_dead_readers(self, env: lmdb.Environment) -> None:
        """Now and then free the slots of killed readers: no page that they could still read is used again."""
        self._begun += 1
        if self._begun % _READER_CHECK_EVERY == 0:
            env.reader_check()

    def _map_for_writing(self) -> None:
        if self._writable and self._env is not None:
            return
        with self.exclusive():
            self._shut()
            self._writable = True
            self.open()

    def commit(self, tx: Tx) -> None:
        """Make the transaction durable; whatever happens, it is over afterwards."""
        with self.translated():
            tx.raw.commit()
        self._end_write(tx)

    def abort(self, tx: Tx) -> None:
        """Throw the transaction away; a second call, or one after a failed commit, does nothing more."""
        if not tx.over:
            with contextlib.suppress(lmdb.Error):  # dead already: the error that killed it is the one to report
                tx.raw.abort()
            self._end_write(tx)

    def _end_write(self, tx: Tx) -> None:
        tx.over = True
        self._leave()

    def _enter(self) -> None:
        self._leases += 1
        self._held.count = self.held_here() + 1

    def _leave(self) -> None:
        with self._lock:
            self._leases -= 1
            self._held.count = self.held_here() - 1
            if self._owner is not None:  # who waits for leases to end owns the gate
                self._gate.notify_all()

    def grow(self) -> None:
        """Double the memory map; the caller has aborted its transaction."""
        self._map_for_writing()
        with self.exclusive():
            assert self._env is not None
            self._env.reader_check()
            size = int(self._env.info()["map_size"]) * 2
            self.opened += 1
            try:
                self._env.set_mapsize(size)
            except (lmdb.Error, MemoryError) as error:
                self._shut()  # LMDB gave up the old map before it asked for the new one
                what, hint = "the memory map is full and cannot grow", "Raise the limit on the process's address space."
                raise MapFullError(f"{self.path}: {what} to {size} bytes", hint=hint, map_size=size // 2) from error
            self._map_size = size

    def refresh(self) -> None:
        """Close the file for a moment: after a failed commit LMDB may refuse every call until it is opened anew."""
        with self.exclusive():
            self._shut()

    # --- facts and copies ---

    def sync(self) -> None:
        with self._counted() as env, self.translated():
            env.sync(True)

    def copy(self, target: Path) -> None:
        """Write a compact, consistent copy; readers and writers go on meanwhile."""
        with self._counted() as env, self.translated():
            env.copy(os.fspath(target), compact=True)

    def damaged_pages(self) -> list[str]:
        """Return what is wrong with the tree pages of the newest commit."""
        while True:
            with self.lease() as tx:
                assert self._descriptor is not None
                problems = damaged_pages(self._descriptor, tx.raw.id())
                if problems is not None:
                    return problems

    def reader_check(self) -> int:
        with self._counted() as env, self.translated():
            return int(env.reader_check())

    def commits(self) -> tuple[int, int, int]:
        """Return LMDB's numbers of the newest commit and of the oldest that is being read, and the bytes of its pages.

        Pages freed by a commit are used again once nothing older is read; where nothing is, the newest is the oldest.
        """
        with self._counted() as env, self.translated():
            info, table = env.info(), str(env.readers()).splitlines()[1:]
            ages = [int(line.split()[2]) for line in table if line.split()[2] != "-"]
            last = int(info["last_txnid"])
            return last, min(ages, default=last), int(info["last_pgno"] + 1) * int(env.stat()["psize"])

    def facts(self) -> dict[str, int]:
        """Sizes: of the file, of its pages in use, of a page; the last transaction; the oldest reader's lag."""
        last, oldest, _ = self.commits()
        with self._counted() as env, self.translated():
            info = env.info()
            return {
                "file_bytes": self.path.stat().st_size,
                "page_bytes": int(env.stat()["psize"]),
                "map_bytes": int(info["map_size"]),
                "last_txn": last,
                "oldest_reader_lag": last - oldest,
                "readers": int(info["num_readers"]),
            }

    @contextlib.contextmanager
    def _counted(self) -> Iterator[lmdb.Environment]:
        with self._gate:
            self._wait_for_gate()
            self.open()
            self._enter()
            env = self._env
        try:
            assert env is not None
            yield env
        finally:
            self._leave()

    def hold_exclusively(self, timeout: float) -> None:
        """Turn our shared lock on the file into the only one; raise `LockedError` that names the others."""
        began = time.monotonic()
        while not self._try_sole_use():
            waited = time.monotonic() - began
            if waited >= timeout:
                raise in_use(self.path, waited)
            time.sleep(0.02)

    def _try_sole_use(self) -> bool:
        """Try to become the only one who has the file open.

        Converting a lock gives it up for a moment, in which another process may swap the file: nobody here may use
        the map meanwhile, and it is opened anew if the path names another file afterwards.
        """
        with self.exclusive():
            self.open()
            descriptor = self._descriptor
            assert descriptor is not None
            if platform.try_lock(descriptor, exclusive=True):
                if os.path.samestat(os.fstat(descriptor), self.path.stat()):
                    return True
            else:
                platform.lock(descriptor, exclusive=False, timeout=self.timeout, refuse=partial(in_use, self.path))
                if os.path.samestat(os.fstat(descriptor), self.path.stat()):
                    return False
            self._shut()
            return False

    def translated(self) -> Translated:
        return Translated(self.path)
