"""One LMDB transaction as our tables: what the storage layer reads and writes through.

Read transactions return views of the map, valid while their lease lasts; write transactions return copies.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, takewhile
from operator import lt, methodcaller
from typing import Any, Final

from vecdb.storage.format import Buffer

_NODE_BYTES: Final = 10
"""What LMDB adds to each entry of a page, about."""


class Tx:
    """One LMDB transaction over our tables. Read transactions return views of the map, write transactions copies.

    Attributes
    ----------
    raw : lmdb.Transaction
    over : bool
        Whether it has ended.
    written : int
        Bytes of values put.
    """

    __slots__ = ("_tables", "over", "raw", "written")

    def __init__(self, raw: Any, tables: dict[str, Any]) -> None:
        self.raw = raw
        self.over = False
        self.written = 0
        self._tables = tables

    def reads(self, tables: dict[str, Any]) -> bool:
        """Whether it was begun on these very tables."""
        return self._tables is tables

    def get(self, table: str, key: bytes) -> Buffer | None:
        found: Buffer | None = self.raw.get(key, db=self._tables[table])
        return found

    def put(self, table: str, key: bytes, value: Buffer, *, append: bool = False) -> None:
        self.written += len(value)
        self.raw.put(key, value, db=self._tables[table], append=append)

    def put_all(self, table: str, keys: Sequence[bytes], values: Sequence[Buffer]) -> None:
        """Put a value under each key, in key order; what lies behind all stored keys is appended, in full pages."""
        if not keys:
            return
        self.written += sum(map(len, values))
        ordered = ascending(keys)
        pairs = zip(keys, values, strict=True) if ordered else iter(sorted(zip(keys, values, strict=True)))
        first = keys[0] if ordered else min(keys)
        with self.raw.cursor(db=self._tables[table]) as cursor:
            behind = not cursor.last() or bytes(cursor.key()) < first
            cursor.putmulti(pairs, append=behind)

    def any_between(self, table: str, first: bytes, last: bytes) -> bool:
        """Whether a key from `first` to `last`, both included, is stored."""
        with self.raw.cursor(db=self._tables[table]) as cursor:
            return bool(cursor.set_range(first)) and bytes(cursor.key()) <= last

    def get_many(self, table: str, keys: list[bytes]) -> dict[bytes, Buffer]:
        """Return what is stored under those of `keys` that exist."""
        with self.raw.cursor(db=self._tables[table]) as cursor:
            return {bytes(key): value for key, value in cursor.getmulti(keys)}

    def pairs(self, table: str, keys: list[bytes]) -> list[tuple[Buffer, Buffer]]:
        """Return (key, value) of those of `keys` that exist, in their order."""
        with self.raw.cursor(db=self._tables[table]) as cursor:
            found: list[tuple[Buffer, Buffer]] = cursor.getmulti(keys)
            return found

    def delete(self, table: str, key: bytes) -> bool:
        return bool(self.raw.delete(key, db=self._tables[table]))

    def range(self, table: str, prefix: bytes, start: bytes | None = None) -> Iterator[tuple[bytes, Buffer]]:
        """Yield pairs whose key begins with `prefix`, from `start` on, in key order."""
        with self.raw.cursor(db=self._tables[table]) as cursor:
            if not cursor.set_range(prefix if start is None else start):
                return
            for key, value in cursor.iternext(keys=True, values=True):
                name = bytes(key)
                if not name.startswith(prefix):
                    return
                yield name, value

    def keys(self, table: str, prefix: bytes) -> list[bytes]:
        """Return the keys that begin with `prefix`, in order."""
        with self.raw.cursor(db=self._tables[table]) as cursor:
            if not cursor.set_range(prefix):
                return []
            found = map(bytes, cursor.iternext(keys=True, values=False))
            return list(takewhile(methodcaller("startswith", prefix), found))

    def delete_run(self, table: str, keys: Sequence[bytes]) -> None:
        """Delete `keys`, which follow each other in the table: that is, what `Tx.keys` just returned."""
        with self.raw.cursor(db=self._tables[table]) as cursor:
            if keys and cursor.set_key(keys[0]):
                for _ in keys:
                    cursor.delete()

    def delete_range(self, table: str, prefix: bytes, stop: bytes | None = None, limit: int | None = None) -> int:
        """Delete the keys that begin with `prefix` and lie before `stop`; return how many."""
        gone = 0
        with self.raw.cursor(db=self._tables[table]) as cursor:
            there = cursor.set_range(prefix)
            while there and (limit is None or gone < limit):
                name = bytes(cursor.key())
                if not name.startswith(prefix) or (stop is not None and name >= stop):
                    break
                there = cursor.delete() and bool(cursor.key())
                gone += 1
        return gone

    def last(self, table: str, prefix: bytes = b"") -> tuple[bytes, Buffer] | None:
        """Return the pair with the largest key under `prefix`."""
        with self.raw.cursor(db=self._tables[table]) as cursor:
            beyond = prefix + b"\xff" * 24
            there = (
                (cursor.set_range(beyond) and cursor.prev()) if prefix and cursor.set_range(beyond) else cursor.last()
            )
            if not there:
                return None
            key = bytes(cursor.key())
            return (key, cursor.value()) if key.startswith(prefix) else None

    def pack(self, table: str) -> bool:
        """Fill the pages of a table that deletions left more than a third empty; True if it was rewritten.

        What is stored small is held in memory meanwhile, and pays for itself: it is at most two thirds of its pages.
        """
        stat = self.entries(table)
        held, items = 0, []
        for key, value in self.range(table, b""):
            held += len(key) + (len(value) if len(value) < stat["psize"] // 2 else 8) + _NODE_BYTES
            if 3 * held > 2 * stat["leaf_pages"] * stat["psize"]:
                return False
            items.append((key, bytes(value)))
        if stat["leaf_pages"] < 2:
            return False
        self.raw.drop(self._tables[table], delete=False)
        with self.raw.cursor(db=self._tables[table]) as cursor:
            cursor.putmulti(items, append=True)
        return True

    def entries(self, table: str) -> dict[str, int]:
        return dict(self.raw.stat(self._tables[table]))


def ascending(keys: Sequence[bytes]) -> bool:
    """Whether each key is larger than the one before it."""
    return all(map(lt, keys, islice(keys, 1, None)))
