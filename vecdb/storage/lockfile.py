"""Locks between processes: the shared one on the data file itself, and the one that a single writer holds.

Who has the data file open holds a shared lock on it, so that nobody swaps it; the writer's lock is a file beside it.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from vecdb.errors import FileAccessError, LockedError
from vecdb.storage import platform

_PUBLISHING: Final = 0.5
"""Seconds for which a file may have two names: a finished copy gets its own before it loses the temporary one."""


class LockFile:
    """The file beside the database that one writer at a time holds, and that says who it is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @contextlib.contextmanager
    def held(self, timeout: float) -> Iterator[None]:
        """Hold the lock for the block, waiting for at most `timeout` seconds."""
        descriptor, process = self._open(), os.getpid()
        platform.lock(descriptor, exclusive=True, timeout=timeout, refuse=self._refuse)
        try:
            with contextlib.suppress(OSError):  # on a full disk: the name helps those who wait, no commit depends on it
                platform.write_at_start(descriptor, platform.describe_self().ljust(200))
            yield
        finally:
            if self._descriptor == descriptor and process == os.getpid():  # not in the child of a fork: see `abandon`
                platform.unlock(descriptor)

    def _open(self) -> int:
        if self._descriptor is None:
            try:
                self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
            except OSError as error:
                raise platform.access_error(self.path, error) from error
        return self._descriptor

    def _refuse(self, waited: float) -> LockedError:
        assert self._descriptor is not None
        holder = platform.read_holder(self._descriptor)
        return LockedError(
            f"{self.path.name}: the writer lock is held by {holder}; waited {waited:.1f} s",
            hint="Wait for that process, or pass a longer timeout.",
            path=str(self.path),
            holder=holder,
            waited=waited,
        )

    def abandon(self) -> None:
        """Close our descriptor without unlocking: after a fork the lock is the parent's."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def hold_data_file(path: Path, *, readonly: bool, timeout: float) -> int:
    """Open the data file under a shared lock, and make sure that the path still names that very file."""
    deadline = time.monotonic() + timeout
    flags = (os.O_RDONLY if readonly else os.O_RDWR | os.O_CREAT) | getattr(os, "O_CLOEXEC", 0)
    while True:
        try:
            descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            raise platform.access_error(path, error) from error
        try:
            left = max(0.0, deadline - time.monotonic())
            platform.lock(descriptor, exclusive=False, timeout=left, refuse=partial(in_use, path))
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def table_path(path: Path) -> Path:
    """Return where LMDB keeps the table of who reads the file at `path`."""
    return path.with_name(path.name + "-lock")


def make_table(path: Path, descriptor: int, *, readonly: bool, timeout: float) -> bool:
    """Make sure that the data file under a shared lock has its table of readers; False if it was swapped meanwhile.

    A table is made by somebody who has the data file alone for a moment. So whoever reads in a directory where none can
    be made may go without: nobody can begin to write while he has the file open. The table lies beside the one name of
    the file: under a second name there would be a second table, and each side would use pages that the other reads.

    Raises
    ------
    FileAccessError
        If the table cannot be made, or if the file has several names.
    LockedError
        If others have the file open without a table for `timeout` seconds.
    """
    table = table_path(path)
    if not table.exists():
        if readonly and not os.access(path.parent, os.W_OK):
            return True
        _make_alone(path, descriptor, table, timeout)
        if not os.path.samestat(os.fstat(descriptor), path.stat()):
            return False
    _refuse_other_names(path, descriptor)
    return True


def _make_alone(path: Path, descriptor: int, table: Path, timeout: float) -> None:
    began = time.monotonic()
    while not table.exists():
        if platform.try_lock(descriptor, exclusive=True):
            try:
                os.close(os.open(table, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600))
            except OSError as error:
                raise platform.access_error(table, error) from error
        elif time.monotonic() - began >= timeout:
            raise in_use(path, time.monotonic() - began)
        else:
            time.sleep(random.uniform(0.001, 0.02))  # holding nothing: of two who make it, one comes first
    left = max(0.0, began + timeout - time.monotonic())
    platform.lock(descriptor, exclusive=False, timeout=left, refuse=partial(in_use, path))


def _refuse_other_names(path: Path, descriptor: int) -> None:
    until = time.monotonic() + _PUBLISHING
    while os.fstat(descriptor).st_nlink > 1:
        if time.monotonic() >= until:
            raise FileAccessError(
                f"{path} has a second name (a hard link), under which it would be locked apart from this one",
                hint="Remove the other name, or make a copy of the file with `vecdb backup`.",
                path=str(path),
            )
        time.sleep(0.005)


def in_use(path: Path, waited: float) -> LockedError:
    """Return the error for a data file that others have open, naming them as far as the system tells."""
    holders = ", ".join(f"process {pid}" for pid in platform.holders_of(path)) or "another process"
    return LockedError(
        f"{path} is in use by {holders}; waited {waited:.1f} s",
        hint="Close it there, or pass a longer timeout.",
        path=str(path),
        holder=holders,
        waited=waited,
    )
