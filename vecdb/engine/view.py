"""A collection at one seq, now or in the past: which records there are, and what they say.

The past is the present with every later commit undone: rows changed since have their pre-images, rows born since are
cut off, vectors that died since live again (storage/history.py). Everything a read does goes through this view, so that
`as_of` works the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vecdb.storage.format import StoredRecord, decode_record
from vecdb.storage.history import Change, read_image
from vecdb.storage.records import find_row, find_rows, iterate_rows, read_record, record_key, require_id
from vecdb.storage.snapshot import Snapshot, check_seq
from vecdb.storage.spaces import SpaceView
from vecdb.storage.state import CollectionEntry
from vecdb.types import Id, Record, Space

if TYPE_CHECKING:
    from vecdb.engine.order import Order, SortKey
    from vecdb.engine.where import Condition
    from vecdb.storage.columns import ColumnChunk
    from vecdb.storage.columnstore import ChunkView

Rows = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Selection:
    """The rows that a condition selects, ascending, and the paths that had to be read from records."""

    rows: Rows
    decoded: tuple[str, ...] = ()


@dataclass(slots=True)
class Past:
    """What has to be undone to read one collection at an earlier commit.

    A reading that opens many snapshots keeps it between them, so that each of its views only looks at the commits that
    came since the last one.

    Attributes
    ----------
    known : int
        The newest commit that is undone; at first the one that is read.
    changed : dict of int to int
        Row -> the commit whose pre-image says what the record was.
    next_row, live : int
    born : mapping or None
        Space -> (next ordinal, live) before the first of the commits; None while the collection did not change.
    """

    known: int
    changed: dict[int, int] = field(default_factory=dict)
    next_row: int = 0
    live: int = 0
    born: Mapping[int, tuple[int, int]] | None = None

    def undo(self, changes: Sequence[Change], upto: int) -> None:
        """Add the commits after `known`, oldest first; rows that were born after the first do not count."""
        for change in changes:
            if self.born is None:
                self.next_row, self.live, self.born = change.next_row, change.live, change.spaces
            for row in change.rows.tolist():
                if row < self.next_row:
                    self.changed.setdefault(row, change.seq)
        self.known = upto


class CollectionView:
    """One collection at one seq.

    Parameters
    ----------
    snapshot : Snapshot
    entry : CollectionEntry
    seq : int, optional
        An earlier commit; None reads the snapshot's own.
    past : Past, optional
        What earlier views of the same reading found out about this commit; brought up to date.
    """

    def __init__(
        self, snapshot: Snapshot, entry: CollectionEntry, seq: int | None = None, past: Past | None = None
    ) -> None:
        self.snapshot = snapshot
        self.entry = entry
        self.tx = snapshot.tx
        self.number = entry.id
        self.counts = snapshot.counts(entry.id)
        self.seq = snapshot.seq if seq is None else seq
        self.next_row = self.counts.next_row
        self.live = self.counts.live
        self._changed: dict[int, int] = {}
        self._born: Mapping[int, tuple[int, int]] | None = None
        self._past_ids: dict[bytes, int] | None = None
        if self.seq != snapshot.seq:
            self._go_back(Past(self.seq) if past is None else past)

    @property
    def is_past(self) -> bool:
        return self.seq != self.snapshot.seq

    def changed_rows(self) -> list[int]:
        """Return the rows that commits since this one changed."""
        return list(self._changed)

    def _go_back(self, past: Past) -> None:
        check_seq(self.snapshot.state.counters, self.seq)
        if past.known < self.snapshot.seq:
            past.undo(self.snapshot.changes(self.number, past.known), self.snapshot.seq)
        self._changed, self._born = past.changed, past.born
        if past.born is not None:
            self.next_row, self.live = past.next_row, past.live

    # --- single records ---

    def find(self, key: bytes) -> int | None:
        """Return the row of a record by its typed id."""
        row = find_row(self.tx, self.number, key)
        if not self.is_past or (row is not None and row < self.next_row):
            return row
        return self._ids_of_changed().get(key)

    def find_all(self, keys: Sequence[bytes]) -> list[int | None]:
        """Return the row of each id, None where there is no record."""
        return [self.find(key) for key in keys] if self.is_past else find_rows(self.tx, self.number, keys)

    def _ids_of_changed(self) -> dict[bytes, int]:
        if self._past_ids is None:
            self._past_ids = {self.record(row).key: row for row in self._changed}
        return self._past_ids

    def record(self, row: int, key: bytes | None = None) -> StoredRecord:
        """Return the record at `row` as it was at this seq; `key` is the typed id that led there, if one did."""
        changed_at = self._changed.get(row)
        if changed_at is None:
            record = read_record(self.tx, self.number, row)
        else:
            record = decode_record(record_key(self.number, row), read_image(self.tx, self.number, row, changed_at))
        if key is not None:
            require_id(record, key, row)
        return record

    def ids(self, rows: Iterable[int]) -> dict[int, Id]:
        """Return the id of each record at `rows`; the rest of it is not decoded."""
        wanted = set(rows)
        if not self._changed:
            return self.snapshot.ids(self.number, wanted)
        changed = {row: self.record(row).id for row in wanted & self._changed.keys()}
        return changed | self.snapshot.ids(self.number, wanted - changed.keys())

    def id_list(self, rows: list[int]) -> list[Id]:
        """Return the id of each record at `rows`, in their order."""
        if not self._changed:
            return self.snapshot.id_list(self.number, rows)
        ids = self.ids(rows)
        return [ids[row] for row in rows]

    def metadata(self, row: int) -> dict[str, Any]:
        return self.record(row).content()[0]

    # --- many records ---

    def still_there(self, rows: Sequence[int]) -> list[int]:
        """Return those of `rows` that hold a record now."""
        return [row for row in rows if self.tx.get("records", record_key(self.number, row)) is not None]

    def rows_from(self, start: int, limit: int) -> list[int]:
        """Return the next live rows from `start` on, at most `limit`."""
        found: list[int] = []
        for row, _, _ in iterate_rows(self.tx, self.number, start):
            if row >= self.next_row or len(found) >= limit:
                break
            if row not in self._changed:
                found.append(row)
        if not self._changed:
            return found
        stop = found[-1] if len(found) >= limit else self.next_row
        return sorted({*found, *(row for row in self._changed if start <= row <= stop)})[:limit]

    def select(self, condition: Condition) -> Selection:
        """Return the rows whose metadata satisfy `condition`, evaluated on columns."""
        columns = self.snapshot.columns(self.number)
        decoded: set[str] = set()
        parts: list[Rows] = []
        for chunk in columns.chunks:
            decoded.update(condition.uncovered(chunk.columns))
            parts.append(self._select_in(chunk, condition))
        loose = [row for row, (_, metadata) in columns.delta.items() if condition.matches(metadata)]
        rows = np.concatenate([*parts, np.array(loose, np.uint64)])
        if self.is_past:
            rows = self._undo(rows, condition)
        return Selection(np.sort(rows), tuple(sorted(decoded)))

    def _select_in(self, chunk: ChunkView, condition: Condition) -> Rows:
        mask = condition.mask(chunk.columns, lambda: self._metadata_of(chunk.columns, chunk.fresh))
        if chunk.fresh is not None:
            mask &= chunk.fresh
        rows: Rows = chunk.columns.rows[mask]
        return rows

    def _metadata_of(self, chunk: ColumnChunk, fresh: Bools | None) -> list[dict[str, Any]]:
        """Return the current metadata of a chunk's rows; rows that are stale there do not count and read as empty."""
        alive = [True] * len(chunk.rows) if fresh is None else fresh.tolist()
        return [
            read_record(self.tx, self.number, row).content()[0] if valid else {}
            for row, valid in zip(chunk.rows.tolist(), alive, strict=True)
        ]

    def _undo(self, rows: Rows, condition: Condition) -> Rows:
        changed = np.array(sorted(self._changed), np.uint64)
        kept = rows[(rows < self.next_row) & ~np.isin(rows, changed)]
        again = [row for row in self._changed if condition.matches(self.metadata(row))]
        return np.concatenate([kept, np.array(again, np.uint64)])

    def sorted_rows(self, rows: Sequence[int], order: Order, limit: int | None) -> list[int]:
        """Return `rows` in the order asked for; the fields are read from columns."""
        keys = self._column_keys(np.array(sorted(rows), np.uint64), order)
        return order.sort(rows, [keys[row] if row in keys else order.key(self.metadata(row)) for row in rows], limit)

    def _column_keys(self, rows: Rows, order: Order) -> dict[int, SortKey]:
        """Return the sort keys of those of `rows` (ascending) that lie in a column chunk and did not change since."""
        keys: dict[int, SortKey] = {}
        for chunk in self.snapshot.columns(self.number).chunks:
            wanted = np.isin(chunk.columns.rows, rows, assume_unique=True)
            if chunk.fresh is not None:
                wanted &= chunk.fresh
            if wanted.any():
                found = order.keys(chunk.columns, lambda chunk=chunk: self._metadata_of(chunk.columns, chunk.fresh))  # type: ignore[misc]
                keys.update((int(chunk.columns.rows[place]), found[place]) for place in np.flatnonzero(wanted).tolist())
        return {row: key for row, key in keys.items() if row not in self._changed}

    # --- vectors ---

    def space(self, space: Space) -> SpaceView:
        return self.snapshot.space(self.number, space)

    def hidden(self, view: SpaceView) -> Bools | None:
        """Return which positions of a space hold no live vector at this seq; None if every one does."""
        if not self.is_past:
            return view.dead(self.tx)
        hidden = view.dead_as_of(self.tx, self.seq)
        if self._born is None:  # the collection did not change since
            return hidden
        born = self._born.get(view.space.id, (0, 0))  # a space that was not there yet had no vectors
        mask = np.zeros(len(view), np.bool_) if hidden is None else hidden
        mask[view.count_before(self.tx, born[0]) :] = True
        return mask

    def vector(self, record: StoredRecord, space: Space) -> npt.NDArray[Any] | None:
        """Return a copy of the record's vector in `space`, None if it has none."""
        ordinal = record.refs.get(space.id)
        return None if ordinal is None else self.space(space).vectors_of(self.tx, [ordinal])[0]

    # --- records as users see them ---

    def present_stored(self, stored: StoredRecord, spaces: Sequence[Space]) -> Record:
        """Return a stored record as a `Record`, with its vectors in `spaces`."""
        metadata, text = stored.content()
        vectors = {space.name: self.vector(stored, space) for space in spaces if space.id in stored.refs}
        names = tuple(space.name for space in self.entry.given_spaces if space.id in stored.refs)
        return Record(stored.id, metadata, text, stored.version, vectors, names)  # type: ignore[arg-type]

    def present_many(
        self, rows: Sequence[int], spaces: Sequence[Space], keys: Iterable[bytes | None] = repeat(None)
    ) -> Iterator[Record]:
        """Yield records; the vectors of one space are gathered together. `keys` are the ids that led to the rows."""
        stored = [self.record(row, key) for row, key in zip(rows, keys, strict=False)]
        gathered = {space.name: self._gather(stored, space) for space in spaces}
        for place, record in enumerate(stored):
            metadata, text = record.content()
            vectors = {name: found[place] for name, found in gathered.items() if place in found}
            names = tuple(space.name for space in self.entry.given_spaces if space.id in record.refs)
            yield Record(record.id, metadata, text, record.version, vectors, names)

    def _gather(self, stored: Sequence[StoredRecord], space: Space) -> dict[int, npt.NDArray[Any]]:
        places = [place for place, record in enumerate(stored) if space.id in record.refs]
        if not places:
            return {}
        vectors = self.space(space).vectors_of(self.tx, [stored[place].refs[space.id] for place in places])
        return {place: vectors[at].copy() for at, place in enumerate(places)}
