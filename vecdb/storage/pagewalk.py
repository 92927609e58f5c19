"""LMDB's own pages, walked with plain reads: LMDB trusts them, and a damaged one ends the process or hides records.

The walk starts at a root and proves of each page that it lies in the file, is the page and of the kind that its parent
expects, keeps its keys in order and between those by which the branches above lead to it, and that values of several
pages lie in the file; then that the counts agree and that no free page is in use. Values are not looked at: they carry
checksums of ours. A level of a tree is looked at in pieces, all pages of a piece at once; hostile
numbers are compared with what there is before anything of their size is made. Layout: data format 1 of LMDB 0.9.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from vecdb.storage import platform
from vecdb.storage.pagekeys import I64, PAD, U64, Bools, Keys, ascending, before, joined, ragged, unaligned

__all__ = ["damaged_pages", "newest_commit"]

_PAGE: Final = struct.Struct("<QHHHH")
_PAGES: Final = np.dtype([("number", "<u8"), ("pad", "<u2"), ("kind", "<u2"), ("lower", "<u2"), ("upper", "<u2")])
_NODE_BYTES: Final = 8
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
_AT_ONCE: Final = 1 << 18
"""Bytes of pages that are looked at together; what is made of them stays in the cache."""
_FREE_PAGES: Final = "free pages"


class _Damage(Exception):
    """One page is not what it must be."""


class _Tree:
    """What is said of a tree, and how many entries were found in it."""

    __slots__ = ("depth", "entries", "found", "name", "pages", "root")

    def __init__(self, name: str, data: bytes, place: int) -> None:
        _, _, self.depth, branches, leaves, _, self.entries, self.root = _TREE.unpack_from(data, place)
        self.name = name
        self.pages = branches + leaves
        self.found = 0


class _Walk:
    """One walk over a file.

    Attributes
    ----------
    descriptor : int
    page_bytes : int
    pages : int
        Whole pages in the file.
    used : ndarray of bool, shape (pages,)
        Where something lives.
    """

    def __init__(self, descriptor: int, page_bytes: int) -> None:
        self.descriptor = descriptor
        self.page_bytes = page_bytes
        self.pages = os.fstat(descriptor).st_size // page_bytes
        self.used: Bools = np.zeros(self.pages, np.bool_)

    def read(self, page: int, count: int = 1) -> bytes:
        data = platform.read_at(self.descriptor, count * self.page_bytes, page * self.page_bytes)
        if len(data) != count * self.page_bytes:
            raise _Damage(f"page {page + len(data) // self.page_bytes} is shorter than it says")
        return data

    def read_all(self, pages: I64, last: bytes) -> bytes:
        """Return the bytes of some pages, `last` and `PAD`; neighbours are read together."""
        breaks = np.flatnonzero(np.diff(pages) != 1) + 1
        runs = zip([0, *breaks.tolist()], [*breaks.tolist(), len(pages)], strict=True)
        return b"".join([*(self.read(int(pages[start]), end - start) for start, end in runs), last, PAD])

    def inside(self, firsts: U64, counts: U64) -> None:
        """Refuse runs of pages that do not lie in the file."""
        outside = (firsts < 2) | (firsts >= self.pages) | (counts > self.pages - np.minimum(firsts, self.pages))
        if outside.any():
            raise _Damage(f"page {firsts[outside][0]} lies outside the file")

    def claim(self, firsts: U64, counts: U64) -> I64:
        """Take runs of pages for a tree, and return their first pages."""
        self.inside(firsts, counts)
        starts, lengths = firsts.astype(np.int64), counts.astype(np.int64)
        order = np.argsort(starts, kind="stable")
        twice = starts[order[1:]] < (starts + lengths)[order[:-1]]
        if twice.any():
            raise _Damage(f"page {starts[order[1:]][twice][0]} is used twice")
        taken = ragged(starts, lengths)
        if self.used[taken].any():
            raise _Damage(f"page {taken[self.used[taken]][0]} is used twice")
        self.used[taken] = True
        return starts


class _Nodes(NamedTuple):
    """The nodes of some pages of a tree, in order.

    Attributes
    ----------
    pages : ndarray of int64, shape (p,)
    firsts : ndarray of int64, shape (p,)
        The first node of each page.
    owners, ends : ndarray of int64, shape (n,)
        Of each node: which of `pages` it is on, and where that page ends in the bytes of `keys`.
    low, flags : ndarray of uint64, shape (n,)
        The lower 32 bits of what a node says (a page, or the bytes of a value), and the 16 bits after them.
    keys : Keys
    """

    pages: I64
    firsts: I64
    owners: I64
    ends: I64
    low: U64
    flags: U64
    keys: Keys

    def page(self, wrong: Bools) -> int:
        """Return the page of the first node that is wrong."""
        return int(self.pages[self.owners[np.argmax(wrong)]])


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
    try:
        return _prove(_Walk(descriptor, page_bytes), roots[commit], most)
    except _Damage as damage:
        return [str(damage)]
    except struct.error:
        return ["a page is shorter than it says"]


def newest_commit(descriptor: int) -> int:
    """Return LMDB's number of the newest commit, -1 if neither root is sound."""
    return max(_roots(descriptor)[1], default=-1)


def _prove(walk: _Walk, root: bytes, most: int | None) -> list[str]:
    last_page = int(_U64.unpack_from(root, _TAIL)[0])
    free, names = _Tree(_FREE_PAGES, root, _FREE_ROOT), _Tree("names", root, _MAIN_ROOT)
    named = [entry for nodes in _leaves(walk, names) for entry in _entries(walk, nodes) if entry[1] & _SUBTREE]
    trees = [_Tree(name.decode("ascii", "replace"), value, 0) for name, _, value in named]
    if most is not None and sum(tree.pages for tree in (free, names, *trees)) > most:
        return []
    freed = [np.empty(0, np.uint64)]
    for nodes in _leaves(walk, free):
        freed.extend(_free_list(value, last_page) for _, _, value in _entries(walk, nodes))
    for tree in trees:
        for _ in _leaves(walk, tree):
            pass
    for tree in (free, names, *trees):
        if tree.found != tree.entries:
            raise _Damage(f"the tree of {tree.name} has {tree.found} entries, its root says {tree.entries}")
    pages = np.sort(np.concatenate(freed))
    if (pages[1:] == pages[:-1]).any() or walk.used[pages[pages < walk.pages].astype(np.int64)].any():
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


# --- trees ------------------------------------------------------------------------------------------------


def _leaves(walk: _Walk, tree: _Tree) -> Iterator[_Nodes]:
    """Yield the entries of a tree in order, when all is proven of them."""
    if tree.root == _NO_ROOT:
        if tree.depth or tree.entries:
            raise _Damage(f"the tree of {tree.name} has lost its root")
        return
    if not 0 < tree.depth <= _DEEPEST:
        raise _Damage(f"the tree of {tree.name} is said to be {tree.depth} pages deep")
    pages = np.array([tree.root], np.uint64)
    leads = Keys(PAD, np.zeros(1, np.int64), np.zeros(1, np.int64))
    for _ in range(tree.depth - 1):
        pages, leads = _children(walk, tree, pages, leads)
    last: bytes | None = None
    for piece in _pieces(walk, len(pages)):
        nodes = _load(walk, tree, pages[piece], _LEAF, last or b"")
        _check_order(tree, nodes, leads.part(piece), last)
        _check_values(walk, tree, nodes)
        tree.found += len(nodes.owners)
        last = nodes.keys.key(-1)
        yield nodes


def _pieces(walk: _Walk, count: int) -> Iterator[slice]:
    step = _AT_ONCE // walk.page_bytes
    return (slice(start, start + step) for start in range(0, count, step))


def _children(walk: _Walk, tree: _Tree, pages: U64, leads: Keys) -> tuple[U64, Keys]:
    """Return the pages one level down, and of each the key that leads to it.

    The key of a page's first node says nothing: what leads to its child is what leads to the page.
    """
    below, keys = [], []
    for piece in _pieces(walk, len(pages)):
        nodes, above = _load(walk, tree, pages[piece], _BRANCH), leads.part(piece)
        below.append(nodes.low | nodes.flags << np.uint64(32))
        places, widths = nodes.keys.places.copy(), nodes.keys.widths.copy()
        places[nodes.firsts] = above.places + len(nodes.keys.data)
        widths[nodes.firsts] = above.widths
        keys.append(Keys(nodes.keys.data + above.data, places, widths).compact())
    return np.concatenate(below), joined(keys)


def _load(walk: _Walk, tree: _Tree, wanted: U64, kind: int, last: bytes = b"") -> _Nodes:
    """Read pages of a tree and find their nodes; `last` is put behind them for `Keys.after`."""
    pages = walk.claim(wanted, np.ones(len(wanted), np.uint64))
    data, size = walk.read_all(pages, last), walk.page_bytes
    counts, upper = _bounds(tree, pages, np.ndarray(len(pages), _PAGES, data, strides=(size,)), kind, size)
    firsts = np.cumsum(counts) - counts
    owners = np.repeat(np.arange(len(pages)), counts)
    numbers = unaligned(data, "<u2")
    starts = owners * size
    inside = numbers[starts + _HEAD + 2 * (np.arange(len(owners)) - firsts[owners])].astype(np.int64)
    wrong = (inside < upper[owners]) | (inside + _NODE_BYTES > size)
    if wrong.any():
        raise _Damage(f"page {pages[owners[np.argmax(wrong)]]} of {tree.name}: an entry lies outside its page")
    heads = unaligned(data, "<u8")[starts + inside]  # 32 bits of a page or a size, 16 of flags, 16 of the key's width
    keys = Keys(data, starts + inside + _NODE_BYTES, (heads >> np.uint64(48)).astype(np.int64))
    low, flags = heads & np.uint64(0xFFFF_FFFF), heads >> np.uint64(32) & np.uint64(0xFFFF)
    nodes = _Nodes(pages, firsts, owners, starts + size, low, flags, keys)
    beyond = keys.places + keys.widths > nodes.ends
    if beyond.any():
        raise _Damage(f"page {nodes.page(beyond)} of {tree.name}: a key reaches beyond its page")
    return nodes


def _bounds(tree: _Tree, pages: I64, heads: npt.NDArray[np.void], kind: int, size: int) -> tuple[I64, I64]:
    """Return how many nodes each page has, and where they begin in it."""
    other = (heads["number"] != pages.astype(np.uint64)) | (heads["kind"] != kind)
    if other.any():
        head, page = heads[np.argmax(other)], pages[np.argmax(other)]
        raise _Damage(f"page {page} of {tree.name} is another page (number {head['number']}, kind {head['kind']:#x})")
    lower, upper = heads["lower"].astype(np.int64), heads["upper"].astype(np.int64)
    counts = (lower - _HEAD) // 2
    wrong = (lower <= _HEAD) | (lower > upper) | (upper > size) | (lower % 2 != 0)
    wrong |= (counts * _NODE_BYTES > size - upper) | (counts < (2 if kind == _BRANCH else 1))
    if wrong.any():
        raise _Damage(f"page {pages[np.argmax(wrong)]} of {tree.name} has impossible bounds")
    return counts, upper


def _check_order(tree: _Tree, nodes: _Nodes, leads: Keys, last: bytes | None) -> None:
    """Prove that keys ascend from `last`, and that each page holds what comes from its leading key on."""
    keys = nodes.keys if last is None else nodes.keys.after(len(last))
    earlier = len(keys.places) - len(nodes.owners)
    first = nodes.firsts + earlier
    later = np.flatnonzero(first > 0)
    between = leads.part(later)
    wrong = np.zeros(len(keys.places), np.bool_)
    if tree.name == _FREE_PAGES:
        wrong = keys.widths != _U64.size
        wrong[first[later]] |= between.widths != _U64.size
        keys, between = keys.turned(), between.turned()
    wrong[1:] |= ~ascending(keys)
    behind, ahead = keys.part(first[later] - 1), keys.part(first[later])
    wrong[first[later]] |= ~before(behind, between) | before(ahead, between)
    if wrong.any():
        raise _Damage(f"page {nodes.page(wrong[earlier:])} of {tree.name}: keys are out of order")


def _check_values(walk: _Walk, tree: _Tree, nodes: _Nodes) -> None:
    unknown = (nodes.flags & np.uint64(0xFFFF & ~(_BIG_VALUE | _SUBTREE))) != 0
    if unknown.any():
        flags = int(nodes.flags[np.argmax(unknown)])
        raise _Damage(f"page {nodes.page(unknown)} of {tree.name}: an entry has unknown flags {flags:#x}")
    big = (nodes.flags & np.uint64(_BIG_VALUE)) != 0
    places = nodes.keys.places + nodes.keys.widths
    beyond = places + np.where(big, _U64.size, nodes.low.astype(np.int64)) > nodes.ends
    if beyond.any():
        raise _Damage(f"page {nodes.page(beyond)} of {tree.name}: a value reaches beyond its page")
    firsts = unaligned(nodes.keys.data, "<u8")[places[big]]
    needed = (nodes.low[big] + np.uint64(_HEAD + walk.page_bytes - 1)) // np.uint64(walk.page_bytes)
    walk.inside(firsts, needed)
    pairs = zip(firsts.tolist(), needed.tolist(), strict=True)
    walk.claim(firsts, np.array([_run(walk, tree, first, count) for first, count in pairs], np.uint64))


def _run(walk: _Walk, tree: _Tree, first: int, needed: int) -> int:
    """Return how many pages a large value has: more than it needs if it was longer earlier in its transaction."""
    number, _, kind, low, high = _PAGE.unpack(platform.read_at(walk.descriptor, _HEAD, first * walk.page_bytes))
    pages: int = low | high << 16
    if number != first or kind != _OVERFLOW or pages < needed:
        raise _Damage(f"page {first} of {tree.name} does not begin a value of {needed} pages")
    return pages


def _entries(walk: _Walk, nodes: _Nodes) -> Iterator[tuple[bytes, int, bytes]]:
    """Yield (key, flags, value) of each entry."""
    for index, (place, size, flags) in enumerate(
        zip((nodes.keys.places + nodes.keys.widths).tolist(), nodes.low.tolist(), nodes.flags.tolist(), strict=True)
    ):
        value = nodes.keys.data[place : place + (_U64.size if flags & _BIG_VALUE else size)]
        if flags & _BIG_VALUE:
            count = -(-(size + _HEAD) // walk.page_bytes)
            value = walk.read(_U64.unpack(value)[0], count)[_HEAD : _HEAD + size]
        yield nodes.keys.key(index), flags, value


def _free_list(value: bytes, last_page: int) -> U64:
    """Return the pages that one transaction freed."""
    count = _U64.unpack_from(value)[0]
    if len(value) < 8 + 8 * count:
        raise _Damage("a list of free pages is shorter than it says")
    pages = np.frombuffer(value, "<u8", count, 8)
    if ((pages < 2) | (pages > last_page)).any():
        raise _Damage("a free page lies outside the file")
    return pages
