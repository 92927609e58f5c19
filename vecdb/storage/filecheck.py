"""Looking at a file before anything maps it: whether it is ours, and whether it still has its end.

A memory map of a file that was cut short ends in a bus error, so the two roots of LMDB are read with plain reads first.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from vecdb.errors import CorruptionError, FormatVersionError, NotADatabaseError
from vecdb.storage import pagewalk, platform

_LMDB_MAGIC: Final = 0xBEEFC0DE
_META = struct.Struct("<II")
_META_TAIL = struct.Struct("<QQ")


_LATER_TABLES: Final = frozenset({"blobs"})
"""Tables that the first files did not have."""
_SMALL: Final = 1024
"""Tree pages up to which opening walks all of them: some ten milliseconds. Of larger files `check` does."""


def inspect_file(path: Path, descriptor: int) -> bool:
    """Refuse what is not an LMDB file of our engine, lost its end, or has damaged pages, before anything maps it.

    Returns False for an empty file.
    """
    size = os.fstat(descriptor).st_size
    if size == 0:
        return False
    head = platform.read_at(descriptor, 4096 * 2, 0)
    metas = [found for start in (0, _page_bytes(head)) if (found := _read_meta(head, start)) is not None]
    if not metas:
        raise NotADatabaseError(f"{path} is not a vecdb database", hint="Choose another path.", path=str(path))
    last_page, _, page = max(metas, key=lambda meta: meta[1])
    short = size < (last_page + 1) * page  # which is sound if the pages behind the end are free
    problems = _walk(descriptor, None if short else _SMALL)
    if problems:
        what = "is cut short" if short else "is damaged"
        raise CorruptionError(
            f"{path} {what}: {problems[0]}", hint="Restore from a backup.", what="file", where=str(path)
        )
    return True


def check_tables(path: Path, found: set[str], known: Sequence[str], *, readonly: bool) -> None:
    """Refuse a file that lacks tables, unless an older vecdb made it and its tables may be completed now.

    Raises
    ------
    NotADatabaseError
        If no vecdb made such tables.
    FormatVersionError
        If an older one did, and the file is opened for reading only.
    """
    missing = set(known) - found
    if not (missing <= _LATER_TABLES and found <= set(known)):
        what = f"{path} is an LMDB file but not a vecdb database"
        raise NotADatabaseError(what, hint="Choose another path.", path=str(path))
    if readonly:
        raise FormatVersionError(
            f"{path} was written by an older vecdb and has no table {', '.join(sorted(missing))}",
            hint="Open it once with mode='a', which adds what is missing.",
            found=sorted(found),
            supported=sorted(known),
        )


def _walk(descriptor: int, most: int | None) -> list[str]:
    """Return what is wrong with the newest commit, if none comes while it is looked at: then its pages change."""
    problems: list[str] | None = []
    for _ in range(8):
        commit = pagewalk.newest_commit(descriptor)
        problems = pagewalk.damaged_pages(descriptor, commit, most)
        if not problems or pagewalk.newest_commit(descriptor) == commit:
            return problems or []
    return []  # somebody writes all the time, and LMDB goes along with what is there


def _page_bytes(head: bytes) -> int:
    declared = struct.unpack_from("<I", head, 40)[0] if len(head) >= 44 else 0
    return declared if declared in (4096, 8192, 16384, 32768, 65536) else 4096


def _read_meta(head: bytes, start: int) -> tuple[int, int, int] | None:
    """Return (last page, transaction, page size) of one of the two roots."""
    if len(head) < start + 152:
        return None
    magic, version = _META.unpack_from(head, start + 16)
    if magic != _LMDB_MAGIC or version != 1:
        return None
    last_page, transaction = _META_TAIL.unpack_from(head, start + 136)
    return last_page, transaction, _page_bytes(head)
