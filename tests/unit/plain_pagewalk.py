"""The walk over LMDB's pages as it reads in the file format, node by node: the oracle of vecdb.storage.pagewalk.

The walk starts at a root and proves of each page that it lies in the file, is the page and of the kind that its parent
expects, keeps its keys in order, and that values of several pages lie in the file; then that the counts agree and that
no free page is in use. Values are not looked at: they carry checksums of ours. Layout: data format 1 of LMDB 0.9.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from vecdb.storage import platform

__all__ = ["damaged_pages", "newest_commit"]

_PAGE: Final = struct.Struct("<QHHHH")
_NODE: Final = struct.Struct("<HHHH")
_TREE: Final = struct.Struct("<IHHQQQQQ")
_U64: Final = struct.Struct("<Q")
_HEAD: Final = _PAGE.size
_BRANCH, _LEAF, _OVERFLOW = 0x01, 0x02, 0x04
_BIG_VALUE, _SUBTREE = 0x01, 0x02
_NO_ROOT: Final = 0xFFFF_FFFF_FFFF_FFFF
_DEEPEST: Final = 32
_MAGIC: Final = 0xBEEFC0DE
_FREE_ROOT, _MAIN_ROOT, _TAIL = 40, 88, 136
"""Where a root page keeps its two trees, and after them its last page and its transaction."""


class _Damage(Exception):
    """One page is not what it must be."""


@dataclass(slots=True)
class _Tree:
    """What is said of a tree, and what was found of it."""

    name: str
    depth: int
    pages: int
    root: int
    entries: int
    found: int = 0
    last: bytes | None = None


@dataclass(slots=True)
class _Walk:
    """One walk over a file.

    Attributes
    ----------
    descriptor : int
    page_bytes : int
    pages : int
        Whole pages in the file.
    used : bytearray
        One byte a page: 1 where something lives.
    """

    descriptor: int
    page_bytes: int
    pages: int
    used: bytearray = field(default_factory=bytearray)

    def read(self, page: int, count: int = 1) -> bytes:
        return platform.read_at(self.descriptor, count * self.page_bytes, page * self.page_bytes)

    def claim(self, page: int, count: int = 1) -> None:
        """Take pages for a tree."""
        if page < 2 or page + count > self.pages:
            raise _Damage(f"page {page} lies outside the file")
        if any(self.used[page : page + count]):
            raise _Damage(f"page {page} is used twice")
        self.used[page : page + count] = b"\x01" * count


def damaged_pages(descriptor: int, commit: int, most: int | None = None) -> list[str] | None:
    """Return what is wrong with the pages of one commit; empty if they are sound.

    Parameters
    ----------
    descriptor : int
        An open LMDB file.
    commit : int
        LMDB's number of the commit. Its pages stay as they are while it is the newest or somebody reads it.
    most : int, optional
        Do not begin if the trees have more pages than this; then empty, too.

    Returns
    -------
    list of str or None
        None if the file has no root of this commit any more.
    """
    page_bytes, roots = _roots(descriptor)
    if commit not in roots:
        return None
    pages = os.fstat(descriptor).st_size // page_bytes
    try:
        return _prove(_Walk(descriptor, page_bytes, pages, bytearray(pages)), roots[commit], most)
    except _Damage as damage:
        return [str(damage)]
    except struct.error:
        return ["a page is shorter than it says"]


def newest_commit(descriptor: int) -> int:
    """Return LMDB's number of the newest commit, -1 if neither root is sound."""
    return max(_roots(descriptor)[1], default=-1)


def _prove(walk: _Walk, root: bytes, most: int | None) -> list[str]:
    last_page = int(_U64.unpack_from(root, _TAIL)[0])
    free, names = _tree("free pages", root, _FREE_ROOT), _tree("names", root, _MAIN_ROOT)
    named = [(name, value) for name, flags, value in _leaves(walk, names) if flags & _SUBTREE]
    trees = [_tree(name.decode("ascii", "replace"), value, 0) for name, value in named]
    if most is not None and sum(tree.pages for tree in (free, names, *trees)) > most:
        return []
    freed = [page for entry in _leaves(walk, free) for page in _free_list(entry[2], last_page)]
    for tree in trees:
        for _ in _leaves(walk, tree):
            pass
    for tree in (free, names, *trees):
        if tree.found != tree.entries:
            raise _Damage(f"the tree of {tree.name} has {tree.found} entries, its root says {tree.entries}")
    if len(set(freed)) < len(freed) or any(page < walk.pages and walk.used[page] for page in freed):
        raise _Damage("a free page is in use")
    return []


def _roots(descriptor: int) -> tuple[int, dict[int, bytes]]:
    """Return the page size and the root pages by the number of their commit."""
    first = platform.read_at(descriptor, 4096, 0)
    declared = struct.unpack_from("<I", first, _FREE_ROOT)[0] if len(first) > _FREE_ROOT + 4 else 0
    page_bytes = declared if declared in (4096, 8192, 16384, 32768, 65536) else 4096
    pages = [first, platform.read_at(descriptor, 4096, page_bytes)]
    sound = [page for page in pages if len(page) >= 152 and struct.unpack_from("<I", page, _HEAD)[0] == _MAGIC]
    return page_bytes, {int(_U64.unpack_from(page, _TAIL + 8)[0]): page for page in sound}


def _tree(name: str, data: bytes, place: int) -> _Tree:
    _, _, depth, branches, leaves, _, entries, root = _TREE.unpack_from(data, place)
    return _Tree(name, depth, branches + leaves, root, entries)


def _leaves(walk: _Walk, tree: _Tree) -> Iterator[tuple[bytes, int, bytes]]:
    """Yield (key, flags, value) of each entry in order; values of several pages are not read but for the free list."""
    if tree.root == _NO_ROOT:
        if tree.depth or tree.entries:
            raise _Damage(f"the tree of {tree.name} has lost its root")
        return
    if not 0 < tree.depth <= _DEEPEST:
        raise _Damage(f"the tree of {tree.name} is said to be {tree.depth} pages deep")
    yield from _below(walk, tree, tree.root, 1)


def _below(walk: _Walk, tree: _Tree, page: int, level: int) -> Iterator[tuple[bytes, int, bytes]]:
    walk.claim(page)
    data = walk.read(page)
    leaf = level == tree.depth
    places = _node_places(tree, page, data, _LEAF if leaf else _BRANCH)
    for turn, place in enumerate(places):
        low, high, flags, width = _NODE.unpack_from(data, place)
        key = data[place + 8 : place + 8 + width]
        if place + 8 + width > len(data):
            raise _Damage(f"page {page} of {tree.name}: a key reaches beyond its page")
        if not leaf:
            if turn and tree.last is not None and not _follows(tree, key):
                raise _Damage(f"page {page} of {tree.name}: keys are out of order")
            yield from _below(walk, tree, low | high << 16 | flags << 32, level + 1)
            continue
        if not _follows(tree, key):
            raise _Damage(f"page {page} of {tree.name}: keys are out of order")
        tree.last = key
        tree.found += 1
        yield key, flags, _value(walk, tree, page, data, place + 8 + width, low | high << 16, flags)


def _node_places(tree: _Tree, page: int, data: bytes, kind: int) -> tuple[int, ...]:
    """Return where the nodes of a page lie."""
    number, _, flags, lower, upper = _PAGE.unpack_from(data)
    if number != page or flags != kind:
        raise _Damage(f"page {page} of {tree.name} is another page (number {number}, kind {flags:#x})")
    count = (lower - _HEAD) // 2
    if not (_HEAD < lower <= upper <= len(data)) or lower % 2 or (kind == _BRANCH and count < 2):
        raise _Damage(f"page {page} of {tree.name} has impossible bounds")
    places = struct.unpack_from(f"<{count}H", data, _HEAD)
    if min(places) < upper or max(places) + _NODE.size > len(data):
        raise _Damage(f"page {page} of {tree.name}: an entry lies outside its page")
    return places


def _follows(tree: _Tree, key: bytes) -> bool:
    """Whether `key` may come after the last key of the tree so far; the free list's keys are little-endian numbers."""
    if tree.last is None:
        return True
    if tree.name == "free pages":
        return len(key) == 8 and _U64.unpack(key) > _U64.unpack(tree.last)
    return key > tree.last


def _value(walk: _Walk, tree: _Tree, page: int, data: bytes, place: int, size: int, flags: int) -> bytes:
    if flags & ~(_BIG_VALUE | _SUBTREE):
        raise _Damage(f"page {page} of {tree.name}: an entry has unknown flags {flags:#x}")
    if not flags & _BIG_VALUE:
        if place + size > len(data):
            raise _Damage(f"page {page} of {tree.name}: a value reaches beyond its page")
        return data[place : place + size]
    first = int(_U64.unpack_from(data, place)[0])
    count = -(-(size + _HEAD) // walk.page_bytes)
    if first >= walk.pages:
        raise _Damage(f"page {first} lies outside the file")
    head = platform.read_at(walk.descriptor, _HEAD, first * walk.page_bytes)
    number, _, kind, low, high = _PAGE.unpack(head)
    if number != first or kind != _OVERFLOW or (low | high << 16) < count:
        raise _Damage(f"page {first} of {tree.name} does not begin a value of {count} pages")
    walk.claim(first, low | high << 16)
    return walk.read(first, count)[_HEAD : _HEAD + size] if tree.name == "free pages" else b""


def _free_list(value: bytes, last_page: int) -> tuple[int, ...]:
    """Return the pages that one transaction freed."""
    count = _U64.unpack_from(value)[0]
    if len(value) < 8 + 8 * count:
        raise _Damage("a list of free pages is shorter than it says")
    pages = struct.unpack_from(f"<{count}Q", value, 8)
    if pages and (min(pages) < 2 or max(pages) > last_page):
        raise _Damage("a free page lies outside the file")
    return pages
