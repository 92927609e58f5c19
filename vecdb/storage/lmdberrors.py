"""What lmdb raises, in our words: which of our errors each of its own is, and what may be done about it."""

from __future__ import annotations

import errno
from pathlib import Path
from types import TracebackType
from typing import Final

import lmdb

from vecdb.errors import (
    CorruptionError,
    DiskFullError,
    FileAccessError,
    FormatVersionError,
    ReadersFullError,
    StorageError,
    VecdbError,
)
from vecdb.storage import platform
from vecdb.storage.format import LMDB_ENGINE
from vecdb.storage.signals import MapResized, NeedsGrowth, Panicked

__all__ = ["MAX_READERS", "Translated", "translate"]

MAX_READERS: Final = 512


class Translated:
    """Puts lmdb's exceptions into our words, so that none crosses this room."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, lmdb.Error):
            raise translate(error, self._path) from error


def translate(error: lmdb.Error, path: Path) -> VecdbError:
    """Return our error for one of lmdb's."""
    if isinstance(error, lmdb.MapFullError):
        return NeedsGrowth(f"{path}: the memory map is full")
    if isinstance(error, lmdb.MapResizedError):
        return MapResized(f"{path}: another process enlarged the map")
    if isinstance(error, lmdb.PanicError):
        return Panicked(f"{path}: an earlier write failed half-way")
    if isinstance(error, lmdb.ReadersFullError):
        what = f"{path}: all {MAX_READERS} reader slots are taken"
        return ReadersFullError(what, hint="Close idle processes.", limit=MAX_READERS)
    if isinstance(error, lmdb.VersionMismatchError):
        return FormatVersionError(f"{path} was written by another LMDB engine", found=str(error), supported=LMDB_ENGINE)
    if isinstance(
        error,
        (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.IncompatibleError, lmdb.BadValsizeError),
    ):
        what = f"{path} is damaged: {error}"
        return CorruptionError(what, hint="Restore from a backup.", what="page", where=str(path))
    return _system_error(error, path)


def _system_error(error: lmdb.Error, path: Path) -> VecdbError:
    code = getattr(error, "code", None)
    full = code in (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", None))
    if full or (code in (errno.EIO, -30772) and platform.no_room_left(path)):
        what = f"{path}: no room left to write; the commit was rolled back"
        return DiskFullError(what, hint="Free some space and try again.", path=str(path))
    if isinstance(error, (lmdb.ReadonlyError, lmdb.LockError)) or code in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = "Check the permissions of the file, its directory and its lock files."
        return FileAccessError(f"{path}: {error}", hint=hint, path=str(path))
    return StorageError(f"{path}: {error}")
