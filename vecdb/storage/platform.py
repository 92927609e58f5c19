"""Every call that differs between operating systems: file locks, syncing, kinds of file systems.

Invariant: a lock belongs to the open file it was taken on and vanishes with the process, so no crash leaves one behind.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Final

from vecdb.errors import FileAccessError, LockedError, RemoteFileSystemError

_left_to_parents: list[object] = []
REMOTE_KINDS: Final = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "afs",
        "ceph",
        "glusterfs",
        "lustre",
        "beegfs",
        "fuse.sshfs",
        "fuse.glusterfs",
        "fuse.s3fs",
        "fuse.rclone",
        "gpfs",
        "orangefs",
        "webdav",
    }
)

if sys.platform == "win32":  # pragma: no cover - exercised on Windows only
    import ctypes
    import msvcrt
    from ctypes import wintypes

    class _Overlapped(ctypes.Structure):
        _fields_ = (
            ("internal", ctypes.c_void_p),
            ("internal_high", ctypes.c_void_p),
            ("offset", wintypes.DWORD),
            ("offset_high", wintypes.DWORD),
            ("event", wintypes.HANDLE),
        )

    _LOCK_FAR: Final = 0x7FFF_FFFF  # lock a byte no data can reach: Windows locks are mandatory
    _kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)

    def try_lock(descriptor: int, exclusive: bool) -> bool:
        handle = msvcrt.get_osfhandle(descriptor)
        place = _Overlapped(offset=0, offset_high=_LOCK_FAR)
        flags = 1 | (2 if exclusive else 0)
        _kernel32.UnlockFileEx(handle, 0, 1, 0, ctypes.byref(place))
        return bool(_kernel32.LockFileEx(handle, flags, 0, 1, 0, ctypes.byref(place)))

    def unlock(descriptor: int) -> None:
        place = _Overlapped(offset=0, offset_high=_LOCK_FAR)
        _kernel32.UnlockFileEx(msvcrt.get_osfhandle(descriptor), 0, 1, 0, ctypes.byref(place))

else:
    import fcntl

    def try_lock(descriptor: int, exclusive: bool) -> bool:
        """Take a shared or exclusive lock if it is free; a lock held on `descriptor` before is given up first."""
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(descriptor: int) -> None:
        """Release the lock held on `descriptor`."""
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def leave_to_parent(thing: object) -> None:
    """Keep what a fork copied from ever being closed here: that would release what the parent still reads."""
    _left_to_parents.append(thing)


def lock(descriptor: int, *, exclusive: bool, timeout: float, refuse: Callable[[float], LockedError]) -> None:
    """Take a shared or exclusive lock on an open file, asking until `timeout` seconds have passed.

    Raises
    ------
    LockedError
        What `refuse` makes of the seconds waited.
    """
    began = time.monotonic()
    pause = 0.0005
    while not try_lock(descriptor, exclusive):
        waited = time.monotonic() - began
        if waited >= timeout:
            raise refuse(waited)
        time.sleep(min(pause, max(0.0, timeout - waited)))
        pause = min(pause * 2, 0.05)


def describe_self() -> bytes:
    """What a lock file says of its holder."""
    return b'%s, "since": %r}' % (_name_of(os.getpid()), time.time())


@lru_cache(maxsize=1)
def _name_of(pid: int) -> bytes:
    """Return the part of `describe_self` that stays, without the closing brace: it is written with every commit."""
    import json
    import socket

    return json.dumps({"pid": pid, "host": socket.gethostname()}).encode()[:-1]


def read_holder(descriptor: int) -> str:
    """Return who wrote the lock file last, in words."""
    import json

    try:
        said = json.loads(read_at(descriptor, 4096, 0))
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(said["since"])))
        return f"process {int(said['pid'])} on {said['host']} since {since}"
    except (ValueError, KeyError, TypeError, OSError):
        return "a process that left no name"


def read_at(descriptor: int, count: int, offset: int) -> bytes:
    """Read up to `count` bytes at `offset`."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, count, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)  # pragma: no cover - Windows has no pread
    return os.read(descriptor, count)  # pragma: no cover


def write_at_start(descriptor: int, data: bytes) -> None:
    """Overwrite the first bytes of a file."""
    if hasattr(os, "pwrite"):
        os.pwrite(descriptor, data, 0)
        return
    os.lseek(descriptor, 0, os.SEEK_SET)  # pragma: no cover - Windows has no pwrite
    os.write(descriptor, data)  # pragma: no cover


def holders_of(path: Path) -> list[int]:
    """Return the processes that hold a lock on `path`, other than this one, as far as the system tells."""
    try:
        inode = path.stat().st_ino
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return []
    found = set()
    for line in lines:
        cells = line.split()
        if "FLOCK" in cells and cells[-3].rpartition(":")[2] == str(inode):
            found.add(int(cells[-4]))
    return sorted(found - {os.getpid()})


def sync_directory(folder: Path) -> None:
    """Make a rename in `folder` durable."""
    if sys.platform == "win32":  # pragma: no cover - NTFS journals renames
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Flush a finished file to the medium."""
    descriptor = os.open(path, os.O_RDONLY if sys.platform != "win32" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def filesystem_kind(path: Path) -> str:
    """Return the type of the file system that `path` lies on ("" where the system does not tell)."""
    try:
        table = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    wanted = str(path.resolve())
    best, kind = -1, ""
    for line in table.splitlines():
        left, _, right = line.partition(" - ")
        place = left.split()[4].replace("\\040", " ")
        inside = place == "/" or wanted == place or wanted.startswith(place + "/")
        if inside and len(place) >= best:
            best, kind = len(place), right.split()[0]
    return kind


def refuse_remote(path: Path) -> None:
    """Raise `RemoteFileSystemError` where memory maps and locks cannot be trusted."""
    kind = filesystem_kind(path.parent)
    if kind in REMOTE_KINDS:
        raise RemoteFileSystemError(
            f"{path} lies on a network file system ({kind})",
            hint="Keep it on a local disk and copy it with `vecdb backup`; allow_remote=True opens it all the same.",
            path=str(path),
            kind=kind,
        )


def access_error(path: Path, error: OSError) -> FileAccessError:
    """Put an operating-system error into our words."""
    return FileAccessError(
        f"{path}: {error.strerror or error}",
        hint="Check that the directory exists and that you may use it.",
        path=str(path),
    )


def no_room_left(path: Path) -> bool:
    """Whether a failed write is explained by a full disk or a file-size limit (LMDB reports both as I/O errors)."""
    import shutil

    if shutil.disk_usage(path.parent).free < 4 << 20:
        return True
    with contextlib.suppress(ImportError):
        resource = importlib.import_module("resource")
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        return bool(limit != resource.RLIM_INFINITY and path.stat().st_size + (4 << 20) > limit)
    return False
