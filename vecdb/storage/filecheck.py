"""Looking at a file before anything maps it: whether it is ours, and whether it still has its end.

A memory map of a file that was cut short ends in a bus error, so the two roots of LMDB are read with plain reads first.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

from vecdb.errors import CorruptionError, NotADatabaseError
from vecdb.storage import platform

_LMDB_MAGIC: Final = 0xBEEFC0DE
_META = struct.Struct("<II")
_META_TAIL = struct.Struct("<QQ")


Walk = Callable[[Path], list[str]]
"""Lists what is wrong with a file's pages without mapping it."""


def inspect_file(path: Path, descriptor: int, walk: Walk) -> bool:
    """Refuse what is not an LMDB file of our engine, and a file that lost its end, before anything maps it.

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
    if size < (last_page + 1) * page:
        _check_short_file(path, walk)
    return True


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


def _check_short_file(path: Path, walk: Walk) -> None:
    """Refuse a file that ends before its last page, unless the pages behind the end are free."""
    problems = walk(path)
    if problems:
        raise CorruptionError(
            f"{path} is cut short: {problems[0]}", hint="Restore from a backup.", what="file", where=str(path)
        )
