"""Copies of the whole file: hot backups, and compaction, which swaps a copy in.

Both write to a temporary name beside the target, make it durable, prove it readable, and only then rename. Compaction
needs the file to itself: under a process that keeps the old file open, later writes would be lost with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from vecdb.errors import CorruptionError, ExistsError, FileAccessError
from vecdb.storage import platform
from vecdb.storage.env import Environment
from vecdb.storage.failpoints import visit
from vecdb.storage.handles import Store, moved, moving


def backup(store: Store, target: Path, prove: Callable[[Path], None]) -> int:
    """Write a consistent copy of the newest commit to `target`; return its size in bytes.

    Raises
    ------
    ExistsError
        If `target` is there already, or is made by somebody else meanwhile.
    FileAccessError
        If its folder is missing.
    """
    target = Path(os.path.abspath(target))
    if target.exists():
        raise ExistsError(f"{target} exists", hint="Name a new file.", kind="file", name=str(target))
    if not target.parent.is_dir():
        raise FileAccessError(f"{target.parent} is not a directory", hint="Create it first.", path=str(target))
    temporary = target.with_name(f"{target.name}.copying-{os.getpid()}")
    try:
        _copy(store.env, temporary, prove)
        visit("backup.copied")
        _name(temporary, target)
    finally:
        _remove(temporary)
    platform.sync_directory(target.parent)
    return target.stat().st_size


def _name(temporary: Path, target: Path) -> None:
    """Give a file its name unless somebody took it meanwhile, in one step where the file system has hard links."""
    try:
        try:
            os.link(temporary, target)
        except FileExistsError:
            raise
        except OSError:  # no hard links here: an empty file holds the name until the rename
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            os.replace(temporary, target)
    except FileExistsError as error:
        raise ExistsError(
            f"{target} was made by somebody else meanwhile", hint="Name a new file.", kind="file", name=str(target)
        ) from error
    except OSError as error:
        raise platform.access_error(target, error) from error


def _copy(env: Environment, temporary: Path, prove: Callable[[Path], None]) -> None:
    problems = env.damaged_pages()
    if problems:  # LMDB would end the process over them
        raise CorruptionError(
            f"{env.path} is damaged: {problems[0]}", hint="Restore from a backup.", what="page", where=str(env.path)
        )
    temporary.unlink(missing_ok=True)
    env.copy(temporary)
    os.chmod(temporary, 0o600)
    platform.sync_file(temporary)
    prove(temporary)


def _remove(temporary: Path) -> None:
    for suffix in ("", "-lock", "-writer"):
        temporary.with_name(temporary.name + suffix).unlink(missing_ok=True)


def compact(store: Store, prove: Callable[[Path], None], timeout: float) -> tuple[int, int]:
    """Replace the file by a compact copy of itself; return its size before and after.

    Raises
    ------
    LockedError
        If another process has the file open; nothing is changed then.
    """
    env, path = store.env, store.path
    temporary = path.with_name(f"{path.name}.compacting")
    with store.writer.turn(timeout):
        env.hold_exclusively(timeout)
        before = path.stat().st_size
        try:
            _copy(env, temporary, prove)
            visit("compact.copied")
            with env.exclusive():
                moving(store, temporary)
                try:
                    _swap(env, temporary, path)
                finally:
                    moved(store)
        finally:
            _remove(temporary)
            env.share_again()
    return before, path.stat().st_size


def _swap(env: Environment, temporary: Path, path: Path) -> None:
    visit("compact.before-rename")
    env.suspend(keep_lock=True)
    try:
        os.replace(temporary, path)
        visit("compact.after-rename")
        platform.sync_directory(path.parent)
        env.open()
    finally:
        env.drop_kept_lock()
