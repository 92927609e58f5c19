"""Locks between processes: the shared one on the data file itself, and the one that a single writer holds.

Who has the data file open holds a shared lock on it, so that nobody swaps it; the writer's lock is a file beside it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from vecdb.errors import LockedError
from vecdb.storage import platform


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
