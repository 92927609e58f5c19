"""Decoded values of one column: arrays by type, checked once, then only read.

Invariant: after decoding, every tag is known, every type has as many values as it has tags, every code lies in its
dictionary and every offset in what it points into. So readers index without looking.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.storage.columns.layout import BARE, OPAQUE, Array, Cursor, Tag, corrupt

__all__ = ["Lists", "Strings", "Values", "read_values"]

_SCALARS = frozenset({Tag.NULL, Tag.BOOL, Tag.INT, Tag.FLOAT, Tag.STR})
_MEMBERS = _SCALARS | {Tag.DICT}
_BISECT_BELOW = 16
"""Wanted texts up to which each is looked up alone; above, one pass over the dictionary is cheaper."""
_SEARCH_WHOLE = 8
"""One entry in so many may be a hit before a substring is looked for in each entry alone."""


class Strings:
    """Texts as codes into a dictionary sorted by code point.

    Keys are UTF-8 bytes; a lone surrogate in a key (``surrogatepass``) sorts where its code point does and equals
    nothing.

    Attributes
    ----------
    codes : ndarray of unsigned int, shape (count,)
    """

    __slots__ = ("_blob", "_entries", "_offsets", "_where", "codes")

    def __init__(self, codes: Array, offsets: Array, blob: bytes, where: str) -> None:
        self.codes = codes
        self._offsets = offsets
        self._blob = blob
        self._where = where
        self._entries: list[bytes] | None = None

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def entry(self, code: int) -> bytes:
        return self._blob[self._offsets[code] : self._offsets[code + 1]]

    def left(self, key: bytes) -> int:
        """Entries that sort before `key`."""
        return bisect.bisect_left(range(len(self)), key, key=self.entry)

    def right(self, key: bytes) -> int:
        """Entries that sort before `key` or equal it."""
        return bisect.bisect_right(range(len(self)), key, key=self.entry)

    def find(self, key: bytes) -> int:
        """The code of `key`, or -1."""
        code = self.left(key)
        return code if code < len(self) and self.entry(code) == key else -1

    def among(self, keys: frozenset[bytes]) -> npt.NDArray[np.bool_]:
        """Which entries are one of `keys`; shape (len(self),)."""
        if len(keys) > _BISECT_BELOW:
            return np.fromiter((entry in keys for entry in self.entries()), dtype=bool, count=len(self))
        table = np.zeros(len(self), dtype=bool)
        table[[code for code in map(self.find, keys) if code >= 0]] = True
        return table

    def containing(self, needle: bytes) -> npt.NDArray[np.bool_]:
        """Which entries contain `needle`; shape (len(self),).

        UTF-8 can be searched as bytes: a needle never begins or ends inside a character.
        """
        if not needle:
            return np.ones(len(self), dtype=bool)
        table = np.zeros(len(self), dtype=bool)
        ends = self._offsets.tolist()
        at = self._blob.find(needle)
        for _ in range(len(self) // _SEARCH_WHOLE):
            if at < 0:
                return table
            code = bisect.bisect_right(ends, at) - 1
            end = ends[code + 1]
            # A hit that reaches over the end belongs to nobody, and nothing after it fits into this entry either.
            table[code] |= at + len(needle) <= end
            at = self._blob.find(needle, end)
        # So many hits that looking at each entry is cheaper than looking for the next one.
        return np.fromiter((needle in entry for entry in self.entries()), dtype=bool, count=len(self))

    def entries(self) -> list[bytes]:
        """All entries, cut out once and kept."""
        if self._entries is None:
            ends = self._offsets.tolist()
            self._entries = [self._blob[start:end] for start, end in itertools.pairwise(ends)]
        return self._entries

    def python(self) -> list[str]:
        try:
            texts = [entry.decode() for entry in self.entries()]
        except UnicodeDecodeError as error:
            corrupt("a text is not UTF-8", self._where, error)
        return [texts[code] for code in self.codes.tolist()]


@dataclass(frozen=True, slots=True)
class Lists:
    """Lists, one after another: list i has ``members[offsets[i]:offsets[i + 1]]``.

    Attributes
    ----------
    offsets : ndarray of int64, shape (count + 1,)
    members : Values
        Scalars; a nested list or dict is tagged `Tag.DICT`.
    """

    offsets: Array
    members: Values

    def any(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Which lists have a member in `mask` (over all members); shape (count,)."""
        before = np.concatenate(([0], np.cumsum(mask)))[self.offsets]
        return np.asarray(before[1:] > before[:-1])

    def python(self) -> list[list[Any]]:
        members, ends = self.members.python(), self.offsets.tolist()
        return [members[start:end] for start, end in itertools.pairwise(ends)]


@dataclass(frozen=True, slots=True)
class Values:
    """Values of mixed types. Each type's values stand in one array, in the order of the values that have the type.

    Attributes
    ----------
    count : int
    kinds : frozenset of Tag
        The types that occur.
    tags : ndarray of unsigned int, shape (count,), or None
        None where all values have one type, and that type is not `BARE`.
    bools : ndarray of uint8
    ints : ndarray of int8, int16, int32 or int64
    floats : ndarray of float64
    strings : Strings or None
    lists : Lists or None
    """

    count: int
    kinds: frozenset[Tag]
    tags: Array | None
    bools: Array
    ints: Array
    floats: Array
    strings: Strings | None
    lists: Lists | None

    def combine(self, parts: Iterable[tuple[Tag, npt.NDArray[np.bool_] | bool]]) -> npt.NDArray[np.bool_]:
        """Put the masks of single types together; types without a mask are False.

        Parameters
        ----------
        parts : iterable of (tag, mask)
            The mask has one element for each value of that type, or is one bool for all of them. Types that do not
            occur are skipped.

        Returns
        -------
        ndarray of bool, shape (count,)
        """
        whole = np.zeros(self.count, dtype=bool)
        for tag, mask in parts:
            if tag in self.kinds and mask is not False:
                whole[slice(None) if self.tags is None else self.tags == tag] = mask
        return whole

    def python(self) -> list[Any]:
        """The values as Python objects; dicts, and containers inside lists, as `OPAQUE`."""
        if self.tags is None:
            return self._of(next(iter(self.kinds)))
        values: list[Any] = [None] * self.count
        for tag in self.kinds - {Tag.NULL}:
            for place, value in zip(np.flatnonzero(self.tags == tag).tolist(), self._of(tag), strict=True):
                values[place] = value
        return values

    def _of(self, tag: Tag) -> list[Any]:
        numbers = {Tag.BOOL: self.bools.astype(bool), Tag.INT: self.ints, Tag.FLOAT: self.floats}
        if tag in numbers:
            return list(numbers[tag].tolist())
        if tag is Tag.STR and self.strings is not None:
            return self.strings.python()
        if tag is Tag.LIST and self.lists is not None:
            return self.lists.python()
        return [None if tag is Tag.NULL else OPAQUE] * int(np.count_nonzero(self.tags == tag))


_NONE: Array = np.empty(0, dtype=np.uint8)


def read_values(cursor: Cursor, count: int, *, members: bool = False) -> Values:
    """Read `count` values (of a column, or the members of its lists) and check them completely."""
    kinds = _read_kinds(cursor, count, _MEMBERS if members else frozenset(Tag))
    # Types without values of their own always have tags: else a few bytes could claim any number of them.
    tags = None if len(kinds) == 1 and kinds[0] not in BARE else cursor.array("u", count)
    counts = _count_kinds(cursor, kinds, tags, count)
    return Values(
        count=count,
        kinds=frozenset(kinds),
        tags=tags,
        bools=_read_bools(cursor, counts[Tag.BOOL]) if Tag.BOOL in counts else _NONE,
        ints=cursor.array("i", counts[Tag.INT]) if Tag.INT in counts else _NONE,
        floats=cursor.array("f", counts[Tag.FLOAT]) if Tag.FLOAT in counts else _NONE,
        strings=_read_strings(cursor, counts[Tag.STR]) if Tag.STR in counts else None,
        lists=_read_lists(cursor, counts[Tag.LIST]) if Tag.LIST in counts else None,
    )


def _read_kinds(cursor: Cursor, count: int, allowed: frozenset[Tag]) -> list[Tag]:
    numbers = cursor.places("u", max(Tag) + 1).tolist()
    if (not numbers) != (count == 0) or not allowed.issuperset(numbers):
        cursor.fail(f"types {numbers} for {count} values")
    return [Tag(number) for number in numbers]


def _count_kinds(cursor: Cursor, kinds: list[Tag], tags: Array | None, count: int) -> dict[Tag, int]:
    if tags is None:
        return dict.fromkeys(kinds, count)
    counts = {kind: int(np.count_nonzero(tags == kind)) for kind in kinds}
    if sum(counts.values()) != count:
        cursor.fail("a value has a type that is not listed")
    return counts


def _read_bools(cursor: Cursor, count: int) -> Array:
    bools = cursor.array("u", count)
    if count and int(bools.max()) > 1:
        cursor.fail("a bool is neither 0 nor 1")
    return bools


def _read_strings(cursor: Cursor, count: int) -> Strings:
    codes = cursor.array("u", count)
    ends = cursor.array("u")
    blob = cursor.array("u")
    if blob.dtype.itemsize != 1 or not len(ends):
        cursor.fail("a dictionary without bytes or ends")
    offsets = _offsets(cursor, ends, len(blob))
    if count and int(codes.max()) >= len(offsets) - 1:
        cursor.fail("a code lies outside of its dictionary")
    return Strings(codes, offsets, blob.tobytes(), cursor.where)


def _read_lists(cursor: Cursor, count: int) -> Lists:
    ends = cursor.array("u", count + 1)
    offsets = _offsets(cursor, ends, None)
    return Lists(offsets, read_values(cursor, int(offsets[-1]), members=True))


def _offsets(cursor: Cursor, ends: Array, last: int | None) -> Array:
    """Check that offsets begin with 0, never fall and end at `last`; None leaves the end to what follows."""
    if int(ends[0]) != 0 or not bool(np.all(ends[1:] >= ends[:-1])) or (last is not None and int(ends[-1]) != last):
        cursor.fail("offsets do not begin with 0, fall, or end elsewhere")
    return ends.astype(np.int64)
