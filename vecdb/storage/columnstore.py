"""Metadata columns on disk: sealed chunks, their stale rows, and the delta of rows no chunk covers yet.

Invariant: every live row stands in exactly one place, either in one chunk where it is not stale, or in the delta.
Keys of ``columns``, after the collection: ``i`` + chunk -> its directory line, ``c`` + chunk -> the columns,
``m`` + chunk -> bitmap of stale rows, ``d`` + row -> the version that wrote it. Chunk numbers are never reused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.errors import CorruptionError
from vecdb.storage.columns import ColumnChunk, encode_columns
from vecdb.storage.failpoints import visit
from vecdb.storage.format import pack_sealed, read_u64, seal, seal_all, stored_numbers, u32, u64, unpack_sealed, unseal
from vecdb.storage.idkeys import prefixed
from vecdb.storage.tx import Tx

CHUNK_ROWS: Final = 16_384
DELTA_ROWS: Final = 1_024
"""Rows evaluated one by one from their records; past this they are sealed into a chunk."""
_SEALED_AT_ONCE: Final = 512
"""A batch of so many rows becomes a chunk of its own, made of the metadata at hand."""
_SMALL_CHUNK: Final = 4_096
_MANY_SMALL: Final = 8

Numbers = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ChunkLine:
    """What the directory says of a chunk."""

    id: int
    first: int
    last: int
    rows: int
    stale: int
    version: int


@dataclass(frozen=True, slots=True)
class ChunkView:
    """A chunk at one commit: `fresh` marks the rows that count, None where all do."""

    line: ChunkLine
    columns: ColumnChunk
    fresh: Bools | None


@dataclass(frozen=True, slots=True)
class ColumnView:
    """All metadata of a collection at one commit, as `where` sees it."""

    chunks: tuple[ChunkView, ...]
    delta: Mapping[int, tuple[int, Mapping[str, Any]]]
    """Row -> (version that wrote it, metadata)."""


ChunkCache = MutableMapping[int, ColumnChunk]


def _key(collection: int, letter: bytes, number: int = 0) -> bytes:
    return u32(collection) + letter + u64(number)


def _prefix(collection: int, letter: bytes) -> bytes:
    return u32(collection) + letter


# --- reading ----------------------------------------------------------------------------------------------


def read_lines(tx: Tx, collection: int) -> list[ChunkLine]:
    """Return the directory of chunks, oldest first."""
    lines = []
    for key, value in tx.range("columns", _prefix(collection, b"i")):
        plain = unpack_sealed(key, value, "column directory")
        lines.append(ChunkLine(read_u64(key[5:]), *stored_numbers(plain, "column directory", 5)))
    return lines


def open_chunk(tx: Tx, collection: int, line: ChunkLine, cache: ChunkCache) -> ColumnChunk:
    """Return a chunk, verified when first opened in this process."""
    chunk = cache.get(line.id)
    if chunk is None:
        key = _key(collection, b"c", line.id)
        value = tx.get("columns", key)
        if value is None:
            raise CorruptionError(f"column chunk {line.id} is missing", what="column chunk")
        chunk = ColumnChunk.open(
            bytes(unseal(key, value, "column chunk"))
        )  # a small value moves when its page is rewritten
        if len(chunk.rows) != line.rows:
            raise CorruptionError(
                f"column chunk {line.id} has {len(chunk.rows)} rows, expected {line.rows}", what="column chunk"
            )
        cache[line.id] = chunk
    return chunk


def read_stale(tx: Tx, collection: int, line: ChunkLine) -> Bools:
    """Return which rows of a chunk were changed or deleted since it was sealed."""
    if not line.stale:
        return np.zeros(line.rows, np.bool_)
    key = _key(collection, b"m", line.id)
    value = tx.get("columns", key)
    if value is None:
        raise CorruptionError(f"the stale rows of column chunk {line.id} are missing", what="column chunk")
    bits = np.unpackbits(np.frombuffer(unseal(key, value, "stale rows"), np.uint8))
    if len(bits) < line.rows:
        raise CorruptionError(f"the stale rows of column chunk {line.id} are too short", what="column chunk")
    return bits[: line.rows].astype(np.bool_)


def load_columns(
    tx: Tx,
    collection: int,
    previous: ColumnView | None,
    cache: ChunkCache,
    metadata_of: Callable[[int], Mapping[str, Any]],
) -> ColumnView:
    """Return the columns at this commit, reusing the parts of `previous` that did not change."""
    known = {chunk.line: chunk for chunk in previous.chunks} if previous is not None else {}
    chunks = [known.get(line) or _chunk_view(tx, collection, line, cache) for line in read_lines(tx, collection)]
    for number in {line.id for line in known} - {chunk.line.id for chunk in chunks}:
        cache.pop(number, None)  # rewritten: chunk numbers never come again, so nothing would ever push it out
    old = previous.delta if previous is not None else {}
    delta = {}
    for key, value in tx.range("columns", _prefix(collection, b"d")):
        row, version = read_u64(key[5:]), read_u64(unseal(key, value, "delta"))
        before = old.get(row)
        delta[row] = before if before is not None and before[0] == version else (version, metadata_of(row))
    return ColumnView(tuple(chunks), delta)


def _chunk_view(tx: Tx, collection: int, line: ChunkLine, cache: ChunkCache) -> ChunkView:
    fresh = ~read_stale(tx, collection, line) if line.stale else None
    return ChunkView(line, open_chunk(tx, collection, line, cache), fresh)


# --- writing ----------------------------------------------------------------------------------------------


class ColumnWriter:
    """Keeps the columns of one collection true within a write transaction.

    Parameters
    ----------
    new_chunk : callable
        Hands out the next chunk number.
    metadatas_of : callable
        Returns the metadata of live rows, for sealing the delta.
    """

    def __init__(
        self,
        tx: Tx,
        collection: int,
        version: int,
        cache: ChunkCache,
        new_chunk: Callable[[], int],
        metadatas_of: Callable[[Sequence[int]], Sequence[Mapping[str, Any]]],
    ) -> None:
        self.tx = tx
        self.collection = collection
        self.version = version
        self._cache = cache
        self._new_chunk = new_chunk
        self._metadatas_of = metadatas_of

    def write(
        self, rows: Sequence[int], metadatas: Sequence[Mapping[str, Any]], changed: Sequence[int], delta: int
    ) -> int:
        """Take in the new metadata of `rows`, of which `changed` had some before; return the new size of the delta."""
        delta -= self.forget(changed)
        if len(rows) >= _SEALED_AT_ONCE:
            self._seal(rows, metadatas)
            return delta
        keys = prefixed(_prefix(self.collection, b"d"), sorted(rows))
        self.tx.put_all("columns", keys, seal_all(keys, [u64(self.version)] * len(keys)))
        delta += len(rows)
        return self.seal_delta(dict(zip(rows, metadatas, strict=True))) if delta > DELTA_ROWS else delta

    def forget(self, rows: Sequence[int]) -> int:
        """Take rows out of the delta or mark them stale in their chunk; return how many left the delta."""
        sealed = [row for row in rows if not self.tx.delete("columns", _key(self.collection, b"d", row))]
        if sealed:
            self._mark_stale(np.array(sorted(sealed), np.uint64))
        return len(rows) - len(sealed)

    def _mark_stale(self, rows: Numbers) -> None:
        missing = len(rows)
        for line in read_lines(self.tx, self.collection):
            inside = rows[np.searchsorted(rows, line.first) : np.searchsorted(rows, line.last, side="right")]
            if len(inside):
                missing -= self._mark_in(line, inside)
            if not missing:
                return
        raise CorruptionError(f"{missing} records of collection {self.collection} are in no column", what="columns")

    def _mark_in(self, line: ChunkLine, rows: Numbers) -> int:
        chunk_rows = open_chunk(self.tx, self.collection, line, self._cache).rows
        places = np.minimum(np.searchsorted(chunk_rows, rows), len(chunk_rows) - 1)
        places = places[chunk_rows[places] == rows]
        stale = read_stale(self.tx, self.collection, line)
        places = places[~stale[places]]
        if not len(places):
            return 0
        stale[places] = True
        total = int(stale.sum())
        if total == line.rows:
            self._drop(line)
        else:
            self._put_stale(line, stale, total)
        return len(places)

    def _put_stale(self, line: ChunkLine, stale: Bools, total: int) -> None:
        key = _key(self.collection, b"m", line.id)
        self.tx.put("columns", key, seal(key, np.packbits(stale).tobytes()))
        self._put_line(ChunkLine(line.id, line.first, line.last, line.rows, total, self.version))

    def _put_line(self, line: ChunkLine) -> None:
        key = _key(self.collection, b"i", line.id)
        self.tx.put("columns", key, pack_sealed(key, [line.first, line.last, line.rows, line.stale, line.version]))

    def _drop(self, line: ChunkLine) -> None:
        for letter in (b"i", b"c", b"m"):
            self.tx.delete("columns", _key(self.collection, letter, line.id))

    def _seal(self, rows: Sequence[int], metadatas: Sequence[Mapping[str, Any]]) -> None:
        order = sorted(range(len(rows)), key=rows.__getitem__)
        for start in range(0, len(order), CHUNK_ROWS):
            part = order[start : start + CHUNK_ROWS]
            chosen = np.array([rows[place] for place in part], np.uint64)
            self._put_chunk(chosen, [metadatas[place] for place in part])

    def _put_chunk(self, rows: Numbers, metadatas: Sequence[Mapping[str, Any]]) -> None:
        number = self._new_chunk()
        key = _key(self.collection, b"c", number)
        self.tx.put("columns", key, seal(key, encode_columns(rows, metadatas)))
        self._put_line(ChunkLine(number, int(rows[0]), int(rows[-1]), len(rows), 0, self.version))

    def seal_delta(self, known: Mapping[int, Mapping[str, Any]] | None = None) -> int:
        """Move the delta into a chunk; return the new size of the delta, which is 0.

        `known` holds metadata that need not be read again.
        """
        keys = self.tx.keys("columns", _prefix(self.collection, b"d"))
        rows = [read_u64(key[5:]) for key in keys]
        if rows:
            self._seal(rows, self._metadatas(rows, known or {}))
            visit("columns.sealed")
            self.tx.delete_run("columns", keys)
        return 0

    def _metadatas(self, rows: Sequence[int], known: Mapping[int, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        unknown = [row for row in rows if row not in known]
        read = {**known, **dict(zip(unknown, self._metadatas_of(unknown), strict=True))}
        return [read[row] for row in rows]

    def tidy(self, *, everything: bool = False) -> bool:
        """Rewrite chunks that are small or a third stale, or all that are not perfect; True if there was any."""
        lines = read_lines(self.tx, self.collection)
        small = [line for line in lines if line.rows - line.stale < _SMALL_CHUNK]
        chosen = {line for line in lines if 3 * line.stale > line.rows or (everything and line.stale)}
        if len(small) > (1 if everything else _MANY_SMALL):
            chosen.update(small)
        if not everything:
            chosen = set(_up_to_one_chunk(chosen))
        if not chosen:
            return False
        known: dict[int, Mapping[str, Any]] = {}
        fresh = []
        for line in chosen:
            chunk = open_chunk(self.tx, self.collection, line, self._cache)
            fresh.append(chunk.rows[~read_stale(self.tx, self.collection, line)])
            known.update({row: {} for row in fresh[-1].tolist()} if chunk.bare else {})
            self._drop(line)
        rows = np.sort(np.concatenate(fresh)).tolist()
        self._seal(rows, self._metadatas(rows, known))
        return True


def _up_to_one_chunk(lines: Iterable[ChunkLine]) -> Iterator[ChunkLine]:
    """Yield the oldest lines whose fresh rows fill one chunk: what one tidying may rewrite."""
    room = CHUNK_ROWS
    for line in sorted(lines, key=lambda line: line.id):
        room -= line.rows - line.stale
        if room < 0:
            return
        yield line


def drop_columns(tx: Tx, collection: int) -> None:
    """Remove everything stored for a collection."""
    tx.delete_range("columns", u32(collection))
