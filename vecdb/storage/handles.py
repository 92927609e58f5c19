"""One store per file and process: opening, creating, sharing, forking, closing.

Every handle that the process opens on a path shares one `Store`; the last one to leave closes it. Around a fork all
stores are closed and their locks held, so that parent and child start from clean files.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vecdb.errors import ExistsError, FileAccessError, ParameterError, StateError
from vecdb.storage import platform
from vecdb.storage.env import Environment
from vecdb.storage.saying import say
from vecdb.storage.snapshot import Reader
from vecdb.storage.state import create_header, read_header
from vecdb.storage.writer import Writer

DURABILITIES: Final = ("full", "relaxed", "bulk")


@dataclass(frozen=True, slots=True)
class OpenOptions:
    """How a file is opened; see `vecdb.open`."""

    mode: str = "a"
    durability: str = "full"
    timeout: float = 10.0
    retention: float = 600.0
    map_size: int | None = None
    allow_remote: bool = False


class Store:
    """An open file with its reader and writer.

    Attributes
    ----------
    path : Path
        The file that is open; during a bulk load that is not published yet, a file beside `target`.
    target : Path
        The file that the user named.
    header : dict
    """

    def __init__(self, path: Path, target: Path, options: OpenOptions) -> None:
        self.path = path
        self.target = target
        self.options = options
        readonly = options.mode == "r"
        self.env = Environment(
            path,
            readonly=readonly,
            durability=options.durability,
            map_size=options.map_size,
            timeout=options.timeout,
            create=None if readonly else create_header,
        )
        self.reader = Reader(self.env)
        self.writer = Writer(self.env, self.reader, retention=options.retention)
        self.header: dict[str, Any] = {}
        self.users = 0
        self.closed: threading.Event | None = None
        """While the last user closes it: set when whoever wants the file may open it anew."""
        self.settled: dict[int, Any] = {}
        """What housekeeping notes of its last attempt to repack each space, by number."""
        self.looked: dict[int, int] = {}
        """How many vectors of each space were dead when it last looked for blocks without survivors."""
        self.joined: dict[int, Any] = {}
        """What makes the rows of joint spaces, by the number of the space."""

    def start(self) -> None:
        """Open the file, make it a database if it is empty, and read its header."""
        self.env.open()
        try:
            with self.env.lease() as tx:
                self.header = read_header(tx, str(self.path))
        except BaseException:
            self.env.close()
            self.writer.close()
            raise

    def require_sole_use(self, timeout: float) -> None:
        """Raise `LockedError` if another process has the file open and keeps it for `timeout` seconds."""
        with self.writer.turn(timeout):
            self.env.hold_exclusively(timeout)
            self.env.share_again()

    def close(self) -> None:
        """Close the file; a bulk load is made durable and published under its name first."""
        bulk = self.options.durability == "bulk"
        if bulk:
            self.env.sync()
        self.env.close()
        self.writer.close()
        if bulk:
            self._publish()

    def _publish(self) -> None:
        platform.sync_file(self.path)
        try:
            os.link(self.path, self.target)
        except FileExistsError as error:
            raise ExistsError(
                f"{self.target} was created by somebody else meanwhile; the load is kept in {self.path}",
                hint="Move it to its place by hand.",
                kind="file",
                name=str(self.target),
            ) from error
        except OSError as error:  # no room for the name, or a file system without hard links
            raise platform.access_error(self.target, error) from error
        os.unlink(self.path)
        for suffix in ("-lock", "-writer"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        platform.sync_directory(self.target.parent)


_stores: dict[tuple[int, int], Store] = {}
_guard = threading.RLock()
"""Held while a file is opened, and while its last user is counted off."""
_table = threading.Lock()
"""Guards `_stores` for a moment; nobody waits for anything while holding it, so compaction may take it."""
_fork_hooks: list[tuple[Callable[[], None], Callable[[bool], None]]] = []


def acquire(path: str | os.PathLike[str], options: OpenOptions) -> Store:
    """Return the process's store on `path`, opening it if it is not open yet."""
    target = Path(os.path.realpath(os.fspath(path)))  # lock files lie beside the file, whatever name led to it
    if not options.allow_remote:
        platform.refuse_remote(target)
    while True:
        with _guard:
            _prepare(target, options)
            store = _find(target)
            closed = None if store is None else store.closed
            if store is None or closed is None:
                return _use(store, target, options)
        if store.env.held_here():
            raise StateError(f"{target} is being closed, and its own thread still reads it", hint="Open it afterwards.")
        closed.wait()  # not under the guard: it ends when readers in other threads have, who may open other files


def _use(store: Store | None, target: Path, options: OpenOptions) -> Store:
    """Count one more user of a store, started here if the file is not open yet."""
    if store is not None and store.options.mode == "r" and options.mode != "r":
        _reopen_for_writing(store, options)
    elif store is None:
        store = _start(target, options)
    _check_same(store, options)
    store.users += 1
    return store


def _prepare(target: Path, options: OpenOptions) -> None:
    try:
        exists = target.exists()
    except OSError as error:  # a name that is too long, a directory that may not be searched
        raise platform.access_error(target, error) from error
    if target.is_dir():
        raise FileAccessError(f"{target} is a directory", hint="Name a file, such as 'news.vecdb'.", path=str(target))
    if options.mode == "r" and not exists:
        raise FileAccessError(f"{target} does not exist", hint="Open it with mode='a' to create it.", path=str(target))
    if options.durability == "bulk" and any(store.target == target for store in open_stores()):
        raise ExistsError(f"{target} is being loaded already", hint="Use that handle.", kind="file", name=str(target))
    if exists and (options.mode == "x" or options.durability == "bulk"):
        why = (
            "mode='x' creates a new file"
            if options.mode == "x"
            else "durability='bulk' is for a file that does not exist yet"
        )
        raise ExistsError(
            f"{target} exists, and {why}", hint="Choose another path, or another mode.", kind="file", name=str(target)
        )
    if not exists and not target.parent.is_dir():
        raise FileAccessError(f"{target.parent} is not a directory", hint="Create it first.", path=str(target))


def _find(target: Path) -> Store | None:
    try:
        found = target.stat()
    except FileNotFoundError:
        return None
    with _table:
        return _stores.get((found.st_dev, found.st_ino))


def _start(target: Path, options: OpenOptions) -> Store:
    path = target if options.durability != "bulk" else _loading_name(target)
    store = Store(path, target, options)
    store.start()
    _register(store)
    _watch_forks()
    say("%s: opened, mode %s, durability %s", path, options.mode, options.durability)
    return store


def _loading_name(target: Path) -> Path:
    """Return where a bulk load is written until it is published, cleared of what a dead process may have left there."""
    path = target.with_name(f"{target.name}.loading-{os.getpid()}")
    for suffix in ("", "-lock", "-writer"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return path


def _register(store: Store) -> None:
    found = store.path.stat()
    with _table:
        _stores[found.st_dev, found.st_ino] = store


def _reopen_for_writing(store: Store, options: OpenOptions) -> None:
    """A reader and a writer on one file in one process share one map, so the map becomes the writer's."""
    env = store.env
    before = env.readonly, env.durability
    with env.exclusive():
        env.suspend()
        env.readonly, env.durability = False, options.durability
        try:
            env.open()
        except BaseException:
            env.readonly, env.durability = before  # the readers go on as they were
            raise
        store.options = options
        store.writer.retention = options.retention


def _check_same(store: Store, options: OpenOptions) -> None:
    if options.mode != "r" and store.options.durability != options.durability:
        raise ParameterError(
            f"{store.target} is already open in this process with durability {store.options.durability!r}, "
            f"not {options.durability!r}",
            hint="Use the same durability for every handle.",
            name="durability",
            got=options.durability,
            allowed=(store.options.durability,),
        )


def release(store: Store) -> None:
    """Give up one use of a store; the last one closes it, while others may open and close other files."""
    with _guard:
        store.users -= 1
        if store.users:
            return
        closed = store.closed = threading.Event()
    try:
        store.close()
        say("%s: closed", store.path)
    finally:
        with _table:
            _forget(store)
        closed.set()


def moving(store: Store, path: Path) -> None:
    """Note that the store's path is about to name the file at `path`: whoever opens it must find this very store."""
    found = path.stat()
    with _table:
        _stores[found.st_dev, found.st_ino] = store


def moved(store: Store) -> None:
    """Note which file the store's path names now (after compaction, or after it failed)."""
    found = store.path.stat()
    with _table:
        _forget(store)
        _stores[found.st_dev, found.st_ino] = store


def _forget(store: Store) -> None:
    for key, known in list(_stores.items()):
        if known is store:
            del _stores[key]


def open_stores() -> list[Store]:
    """Return the stores that are open in this process."""
    with _table:
        return list(dict.fromkeys(_stores.values()))


# --- forks ------------------------------------------------------------------------------------------------


def on_fork(before: Callable[[], None], after: Callable[[bool], None]) -> None:
    """Have other parts of the process called around forks; `after` is told whether it runs in the child."""
    _fork_hooks.append((before, after))


_watching = False


def _watch_forks() -> None:
    global _watching
    if not _watching and sys.platform != "win32":
        os.register_at_fork(
            before=_before_fork, after_in_parent=lambda: _after_fork(False), after_in_child=lambda: _after_fork(True)
        )
        _watching = True


def _before_fork() -> None:
    for before, _ in _fork_hooks:
        before()
    while not _hold_writers():
        time.sleep(0.001)
    for store in open_stores():
        store.env.before_fork()
    _table.acquire()


def _hold_writers() -> bool:
    """Take the guard and every writer's turn, or nothing: a thread in a transaction may be waiting for the guard."""
    _guard.acquire()
    held: list[Store] = []
    for store in open_stores():
        if not store.writer.before_fork(timeout=0.05):
            for other in held:
                other.writer.after_fork(child=False)
            _guard.release()
            return False
        held.append(store)
    return True


def _after_fork(child: bool) -> None:
    global _guard, _table
    if child:
        _table = threading.Lock()
    else:
        _table.release()
    for store in open_stores():
        store.env.after_fork(child=child)
        store.writer.after_fork(child=child)
        if child:
            store.reader.reset()
            if store.closed is not None:  # by a thread that is not here
                _forget(store)
    for _, after in _fork_hooks:
        after(child)
    if child:
        _guard = threading.RLock()
    else:
        _guard.release()
