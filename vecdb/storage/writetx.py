"""One commit in the making: counts, history, vectors, columns and the log, kept consistent with each other.

Operations of the engine call these methods between `Writer`'s begin and commit. Everything an operation does here is
either in the file after the commit or nowhere: no state outlives a `WriteTx` except through the transaction.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.errors import CorruptionError, TransactionError
from vecdb.storage.blobs import drop_blobs
from vecdb.storage.columnstore import ChunkCache, ColumnWriter, drop_columns
from vecdb.storage.failpoints import visit
from vecdb.storage.format import (
    StoredRecord,
    decode_record,
    pack_sealed,
    read_u64,
    stored_numbers,
    u32,
    u64,
    unpack_sealed,
)
from vecdb.storage.history import (
    forget_collection,
    forget_commit,
    read_deaths,
    settle_deaths,
    write_change,
    write_deaths,
    write_image,
)
from vecdb.storage.idkeys import prefixed
from vecdb.storage.indexes import drop_parts
from vecdb.storage.joints import JointEntry
from vecdb.storage.migrations import held_tags, migrations_key
from vecdb.storage.pending import Appended
from vecdb.storage.pending import Pending as Pending
from vecdb.storage.records import id_place, read_metadatas, record_key, require_id, stored_bytes
from vecdb.storage.spaces import Segment, profile_key, read_segments
from vecdb.storage.spare import release
from vecdb.storage.state import (
    Catalog,
    CollectionEntry,
    CollectionState,
    Counters,
    SpaceCounts,
    Tag,
    collection_key,
    read_catalog,
    read_collection,
    read_counters,
    write_catalog,
    write_collection,
    write_counters,
)
from vecdb.storage.tx import Tx
from vecdb.storage.vectors import VectorWriter, dead_in, drop_vectors, joined, row_bytes
from vecdb.types import Space

LOG_ENTRIES: Final = 10_000
"""Entries of the commit log that are kept at least as long as they are not behind the horizon."""
_LOG_NOTES: Final = 100
_MANY_DEATHS: Final = 64
"""Entries of deaths that are folded together even if no block is rewritten."""
_STEPS: Final = 256
"""Commits forgotten per commit at most: bounds the work that one write inherits from earlier ones."""
HISTORY_FLOOR: Final = 64 << 20
"""Bytes that untagged history may always take; past it, and past half of the data, it is forgotten early."""

Numbers = npt.NDArray[np.uint64]
_NO_ERRORS: Final = np.empty(0, np.float64)


class WriteTx:
    """The writer's view of one commit.

    Attributes
    ----------
    tx : Tx
    seq : int
        The commit's number.
    catalog : Catalog
        Assign a new one to change it.
    swept : bool
        Whether blobs that somebody staged and never named were removed in it.
    """

    def __init__(self, tx: Tx, *, retention: float, chunks: ChunkCache) -> None:
        self.tx = tx
        self.retention = retention
        self.dirty = False
        self.swept = False
        self._chunks = chunks
        self._begin(read_counters(tx), read_catalog(tx))

    def _begin(self, counters: Counters, catalog: Catalog) -> None:
        self.counters = counters
        self.seq = counters.seq + 1
        self.version = counters.version + 1
        self._catalog = catalog
        self._catalog_changed = False
        self._pending: dict[int, Pending] = {}
        self._notes: list[str] = []
        self._noted = 0
        self._forgotten = 0
        self._overwrote = False
        self._deaths: dict[int, list[int]] = {}
        self._next_block = counters.next_block
        self._next_chunk = counters.next_chunk

    @property
    def catalog(self) -> Catalog:
        return self._catalog

    @catalog.setter
    def catalog(self, catalog: Catalog) -> None:
        self.dirty = True
        self._catalog = catalog
        self._catalog_changed = True
        for pending in self._pending.values():
            for entry in catalog.collections.values():
                if entry.id == pending.entry.id:
                    pending.entry = entry

    @property
    def keeps_history(self) -> bool:
        return self.retention > 0 or bool(self._catalog.tags)

    def note(self, change: str) -> None:
        """Say in the commit log what was done; of a long transaction the first hundred things."""
        self._noted += 1
        if self._noted <= _LOG_NOTES:
            self._notes.append(change)

    def pending(self, entry: CollectionEntry) -> Pending:
        """Return the collection's counts for changing."""
        found = self._pending.get(entry.id)
        if found is None:
            before = read_collection(self.tx, entry.id)
            found = Pending(entry, before, before.next_row, before.live, before.delta, dict(before.spaces))
            self._pending[entry.id] = found
        return found

    def with_joints(self) -> list[Pending]:
        """Return the collections of this commit that have joint spaces."""
        return [pending for pending in self._pending.values() if pending.entry.joints]

    # --- collections and spaces ---

    def create_collection(self, entry: CollectionEntry) -> None:
        write_collection(self.tx, entry.id, CollectionState())
        self.catalog = replace(self._catalog.with_collection(entry), next_collection=entry.id + 1)

    def drop_collection(self, entry: CollectionEntry) -> None:
        """Remove a collection with everything in it, its history included."""
        self.dirty = True
        for space in entry.spaces.values():
            self._drop_space_data(space)
        for index in entry.indexes:
            drop_parts(self.tx, index.parts)
        for number in (*(each.set for each in entry.transforms), *(each.set for each in entry.filters)):
            drop_blobs(self.tx, number)
        for number in (number for each in entry.corrections for number in each.sets):
            drop_blobs(self.tx, number)
        for table in ("ids", "records"):
            self.tx.delete_range(table, u32(entry.id))
        drop_columns(self.tx, entry.id)
        self._forgotten += forget_collection(self.tx, entry.id)
        for tag in held_tags(self.tx, [entry.id]):
            self.remove_tag(tag)
        for key in (collection_key(entry.id), migrations_key(entry.id)):
            self.tx.delete("meta", key)
        self._pending.pop(entry.id, None)
        left = {name: other for name, other in self._catalog.collections.items() if other.id != entry.id}
        self.catalog = replace(self._catalog, collections=left)

    def add_space(self, entry: CollectionEntry, space: Space) -> None:
        pending = self.pending(entry)
        pending.spaces[space.id] = SpaceCounts()
        grown = self._catalog.with_collection(replace(entry, spaces={**entry.spaces, space.name: space}))
        self.catalog = replace(grown, next_space=space.id + 1)

    def drop_space(self, entry: CollectionEntry, space: Space, *, heir: int | None = None) -> None:
        """Remove a space with what belongs to it; references in records go when these are next written.

        Relevance filters go to the space `heir`, if there is one: their judgements are worth more than their state.
        Joint spaces whose rows are made from it go, too.
        """
        for joint in entry.joints:
            if space.id in (joint.old, joint.new):
                entry = self.drop_joint(entry, joint)
        pending = self.pending(entry)
        self._drop_space_data(space)
        pending.spaces.pop(space.id, None)
        for index in entry.indexes:
            if index.space == space.id:
                drop_parts(self.tx, index.parts)
        left = {name: other for name, other in entry.spaces.items() if other.id != space.id}
        indexes = tuple(index for index in entry.indexes if index.space != space.id)
        gone = {each.set for each in entry.transforms if space.id in (each.source, each.target)}
        kept = tuple(replace(each, space=heir or 0) if each.space == space.id else each for each in entry.filters)
        gone |= {each.set for each in kept if not each.space}
        gone |= {number for each in entry.corrections if each.space == space.id for number in each.sets}
        for number in gone:
            drop_blobs(self.tx, number)
        transforms = tuple(each for each in entry.transforms if each.set not in gone)
        filters = tuple(each for each in kept if each.set not in gone)
        corrections = tuple(each for each in entry.corrections if each.set not in gone)
        declined = entry.declined - {space.id}
        joints = tuple(each for each in entry.joints if each.space != space.id)
        self.catalog = self._catalog.with_collection(
            replace(
                entry,
                spaces=left,
                indexes=indexes,
                declined=declined,
                transforms=transforms,
                filters=filters,
                corrections=corrections,
                joints=joints,
            )
        )

    def drop_joint(self, entry: CollectionEntry, joint: JointEntry) -> CollectionEntry:
        """Remove a joint space; return the collection without it."""
        space = next(each for each in entry.spaces.values() if each.id == joint.space)
        self.drop_space(entry, space)
        self.note(f"{entry.name}: drop joint space {space.name}")
        return self._catalog.collections[entry.name]

    def _drop_space_data(self, space: Space) -> None:
        drop_vectors(self.tx, space)
        self._deaths.pop(space.id, None)
        self.tx.delete("meta", profile_key(space))

    # --- records ---

    def take_rows(self, pending: Pending, count: int) -> int:
        """Hand out `count` new rows; return the first."""
        first = pending.next_row
        pending.next_row += count
        pending.live += count
        if pending.entry.joints:
            pending.touched.update(dict.fromkeys(range(first, first + count)))
        return first

    def put_ids(self, places: Sequence[bytes], rows: Sequence[int]) -> None:
        """Point new ids, given by their keys in the table, at their rows."""
        self.dirty = True
        self.tx.put_all("ids", places, prefixed(b"", rows))

    def put_records(self, places: Sequence[bytes], values: Sequence[bytes]) -> None:
        """Store sealed records under their keys."""
        self.dirty = True
        self.tx.put_all("records", places, values)

    def remember(self, pending: Pending, row: int, value: bytes) -> None:
        """Keep a record's stored bytes from before this commit, if anyone may still want to read them."""
        self.dirty = True
        if pending.entry.joints:
            pending.touched.setdefault(row, value)
        if row >= pending.before.next_row or row in pending.changed:
            return
        if not self.keeps_history:
            self._overwrote = True
        else:
            pending.changed.add(row)
            pending.cost += write_image(self.tx, pending.entry.id, row, self.seq, value)

    def read(self, pending: Pending, row: int) -> tuple[bytes, StoredRecord]:
        """Return a record's stored bytes and what they say."""
        value = stored_bytes(self.tx, pending.entry.id, row)
        return value, decode_record(record_key(pending.entry.id, row), value)

    def delete_records(self, pending: Pending, rows: Sequence[int], keys: Sequence[bytes] | None = None) -> None:
        """Delete records, their ids and their vectors; `keys` are the typed ids that led to the rows, if any did."""
        deaths: dict[int, list[int]] = {}
        for place, row in enumerate(rows):
            value, record = self.read(pending, row)
            if keys is not None:
                require_id(record, keys[place], row)
            self.remember(pending, row, value)
            self.tx.delete("records", record_key(pending.entry.id, row))
            self.tx.delete("ids", id_place(pending.entry.id, record.key))
            for space, ordinal in record.refs.items():
                deaths.setdefault(space, []).append(ordinal)
        for space, ordinals in deaths.items():
            self.kill(pending, space, ordinals)
        pending.live -= len(rows)
        pending.delta -= self.columns(pending).forget(list(rows))

    def columns(self, pending: Pending) -> ColumnWriter:
        number = pending.entry.id
        return ColumnWriter(
            self.tx,
            number,
            self.version,
            self._chunks,
            self._take_chunk,
            lambda rows: read_metadatas(self.tx, number, rows),
        )

    def _take_chunk(self) -> int:
        self._next_chunk += 1
        return self._next_chunk - 1

    # --- vectors ---

    def append_vectors(
        self,
        pending: Pending,
        space: Space,
        vectors: npt.NDArray[Any],
        rows: Numbers,
        scales: npt.NDArray[np.float32],
        errors: npt.NDArray[np.float64] = _NO_ERRORS,
    ) -> int:
        """Append the vectors of `rows` as they are stored; return the ordinal of the first.

        `errors` are those that storing them made, where the space rounds.
        """
        self.dirty = True
        counts = pending.spaces[space.id]
        writer = self.vector_writer(space, counts)
        tail_start = writer.append(
            vectors, rows, scales, next_ordinal=counts.next_ordinal, tail_start=counts.tail_start
        )
        first = counts.next_ordinal
        pending.spaces[space.id] = replace(
            counts, next_ordinal=first + len(rows), live=counts.live + len(rows), tail_start=tail_start
        ).with_loss(errors)
        if pending.entry.joints:
            pending.appended.append(Appended(space.id, first, vectors))
        return first

    def vector_writer(self, space: Space, counts: SpaceCounts) -> VectorWriter:
        return VectorWriter(self.tx, space, self._take_block, counts.live + counts.dead)

    def _take_block(self) -> int:
        self._next_block += 1
        return self._next_block - 1

    def take_set(self) -> int:
        """Hand out the number of a new set of blobs."""
        return self._take_block()

    def kill(self, pending: Pending, space: int, ordinals: Sequence[int]) -> None:
        """Mark vectors dead; those of a dropped space are gone already."""
        counts = pending.spaces.get(space)
        if counts is None or not ordinals:
            return
        self.dirty = True
        self._deaths.setdefault(space, []).extend(ordinals)
        pending.spaces[space] = replace(counts, live=counts.live - len(ordinals), dead=counts.dead + len(ordinals))
        width = next((row_bytes(known) for known in pending.entry.spaces.values() if known.id == space), 0)
        pending.cost += len(ordinals) * width

    # --- tags ---

    def add_tag(self, name: str, seq: int) -> None:
        if self._overwrote:
            raise TransactionError(
                f"tag {name!r} comes too late: this transaction has changed records of which no history is kept",
                hint="Tag before the first write of the transaction, or open with a retention.",
            )
        self.catalog = replace(self._catalog, tags={**self._catalog.tags, name: Tag(seq, time.time())})
        self.note(f"tag {name!r} at {seq}")

    def remove_tag(self, name: str) -> None:
        left = {other: tag for other, tag in self._catalog.tags.items() if other != name}
        self.catalog = replace(self._catalog, tags=left)
        self.note(f"untag {name!r}")

    # --- profiles: opaque values of the engine, one a space ---

    def put_profile(self, space: Space, value: Any) -> None:
        self.dirty = True
        key = profile_key(space)
        self.tx.put("meta", key, pack_sealed(key, value))

    def flush(self) -> None:
        """Put pending counts, deaths and names where a reader of this transaction finds them."""
        self._put_deaths()
        for number, pending in self._pending.items():
            write_collection(self.tx, number, pending.state(self.version))
        if self._catalog_changed:
            write_catalog(self.tx, self._catalog)

    # --- the end of the commit ---

    def finish(self) -> int:
        """Write counts, history, log and counters; return the seq."""
        visit("write.applied")
        self._put_deaths()
        for number, pending in self._pending.items():
            if self.keeps_history or pending.changed:  # even if the tag that asked for images went in this commit
                write_change(self.tx, number, self.seq, pending.before, sorted(pending.changed), pending.cost)
            write_collection(self.tx, number, pending.state(self.version))
        self._put_log()
        if self._catalog_changed:
            write_catalog(self.tx, self._catalog)
        grown = sum(pending.cost for pending in self._pending.values()) - self._forgotten
        self._put_counters(self.seq, max(0, self.counters.history_bytes + grown))
        self._advance_horizon()
        return self.seq

    def _put_deaths(self) -> None:
        """Store the deaths gathered since the last time, each space's at once: a transaction may kill one by one."""
        deaths, self._deaths = self._deaths, {}
        for space, ordinals in deaths.items():
            write_deaths(self.tx, space, self.seq, np.array(sorted(ordinals), np.uint64))

    def next_commit(self) -> None:
        """Begin another commit in the same transaction (group commit)."""
        self._begin(self.counters, self._catalog)

    def finish_maintenance(self) -> None:
        """Write counts and counters of work that users do not see: no seq, no log."""
        for number, pending in self._pending.items():
            write_collection(self.tx, number, pending.state(self.version))
        if self._catalog_changed:
            write_catalog(self.tx, self._catalog)
        self._put_counters(self.counters.seq, self.counters.history_bytes)

    def _put_log(self) -> None:
        key = u64(self.seq)
        more = [f"and {self._noted - _LOG_NOTES} more"] if self._noted > _LOG_NOTES else []
        entry = [time.time(), sorted(self._pending), self._notes + more]
        self.tx.put("log", key, pack_sealed(key, entry), append=True)

    def _put_counters(self, seq: int, history_bytes: int) -> None:
        self.counters = Counters(
            self.version, seq, self.counters.horizon, self._next_block, self._next_chunk, history_bytes
        )
        write_counters(self.tx, self.counters)

    # --- forgetting ---

    def _advance_horizon(self) -> None:
        if self.keeps_history:
            self.forget_until(self._target_horizon(), _STEPS)
        else:  # this commit left no history, so nothing before it can be read any more
            self.forget_until(self.seq)
        self._trim_log()

    def _target_horizon(self) -> int:
        """Return how far history may be forgotten: not past a tag, nor past what the window or its budget keeps."""
        limit = min((tag.seq for tag in self._catalog.tags.values()), default=self.seq)
        if self.retention <= 0:
            return limit
        cutoff = time.time() - self.retention
        taken = self.counters.history_bytes
        over = taken > HISTORY_FLOOR and taken > self._data_bytes() // 2
        horizon = self.counters.horizon
        while horizon < limit and horizon - self.counters.horizon < _STEPS:
            entry = read_log(self.tx, horizon + 1)
            if entry is not None and entry[0] > cutoff and not over:
                break
            horizon += 1
        return horizon

    def _data_bytes(self) -> int:
        pages = sum(
            stat["leaf_pages"] + stat["overflow_pages"]
            for stat in map(self.tx.entries, ("records", "blocks", "tail", "ids"))
        )
        return pages * int(self.tx.entries("meta")["psize"])

    def forget_until(self, target: int, steps: int | None = None) -> None:
        """Move the horizon up to `target` and drop the history before it."""
        horizon, freed = self.counters.horizon, 0
        first = horizon
        while horizon < target and (steps is None or horizon - first < steps):
            horizon += 1
            entry = read_log(self.tx, horizon)
            for number in entry[1] if entry is not None else ():
                freed += forget_commit(self.tx, number, horizon)
        if horizon > first:
            self.counters = replace(
                self.counters, horizon=horizon, history_bytes=max(0, self.counters.history_bytes - freed)
            )
            write_counters(self.tx, self.counters)
            visit("history.purged")

    def _trim_log(self) -> None:
        keep = min(self.counters.horizon, self.seq - LOG_ENTRIES)
        if keep > 0:
            self.tx.delete_range("log", b"", u64(keep), limit=_STEPS)

    # --- maintenance of one space ---

    def seal_tail(self, pending: Pending, space: Space) -> bool:
        """Move the tail into blocks; True if there was one."""
        counts = pending.spaces[space.id]
        if counts.next_ordinal == counts.tail_start:
            return False
        writer = self.vector_writer(space, counts)
        start = writer.seal_tail(next_ordinal=counts.next_ordinal, tail_start=counts.tail_start)
        pending.spaces[space.id] = replace(counts, tail_start=start)
        return True

    def settle(self, pending: Pending, space: Space, *, threshold: float, most: int | None = None) -> bool:
        """Fold old deaths together and rewrite what holds more than a share of vectors that died for good.

        Parameters
        ----------
        threshold : float
            Dead share from which a segment is rewritten; with `most`, what rewriting must give back of old blocks.
        most : int, optional
            Bytes of new blocks at most: bounds the work, and the room that old and new blocks take together. None
            rewrites whole segments, neighbours together, into large blocks.
        """
        old = [ordinals for seq, ordinals in read_deaths(self.tx, space.id) if seq <= self.counters.horizon]
        if not old:
            return False
        final = np.unique(np.concatenate(old))
        segments = read_segments(self.tx, space.id)
        writer = self.vector_writer(space, pending.spaces[space.id])
        if most is None:
            removed = self._repack_segments(writer, segments, final, threshold)
        else:
            removed = writer.repack_best(segments, final, threshold, most)
        if not len(removed) and len(old) < _MANY_DEATHS:
            return False
        settle_deaths(self.tx, space.id, self.counters.horizon, removed)
        counts = pending.spaces[space.id]
        pending.spaces[space.id] = replace(counts, dead=counts.dead - len(removed), epoch=counts.epoch + 1)
        return True

    @staticmethod
    def _repack_segments(writer: VectorWriter, segments: list[Segment], final: Numbers, threshold: float) -> Numbers:
        chosen = [segment for segment in segments if len(dead_in(segment.blocks, final)) > threshold * segment.rows]
        for run in _neighbours(segments, chosen):
            writer.repack(run, final)
        return joined([dead_in(segment.blocks, final) for segment in chosen])

    def release_spare(self, space: Space, wanted: int | None = None) -> bool:
        """Delete spare blocks of a space, `wanted` bytes or all, for the next repacking; True if there were any."""
        return release(self.tx, space.id, wanted)

    def merge_segments(self, pending: Pending, space: Space) -> bool:
        """Join small directory entries."""
        counts = pending.spaces[space.id]
        if not self.vector_writer(space, counts).merge_small():
            return False
        pending.spaces[space.id] = replace(counts, epoch=counts.epoch + 1)
        return True


def _neighbours(segments: Sequence[Any], chosen: Sequence[Any]) -> list[list[Any]]:
    """Group the chosen segments into runs without a gap between them, so that order survives and blocks fill up."""
    wanted = {segment.base for segment in chosen}
    runs: list[list[Any]] = []
    open_run = False
    for segment in segments:
        if segment.base in wanted:
            if not open_run:
                runs.append([])
            runs[-1].append(segment)
        open_run = segment.base in wanted
    return runs


def read_log(tx: Tx, seq: int) -> tuple[float, list[int], list[str]] | None:
    """Return (time, collections, changes) of a commit, None where the log does not reach."""
    key = u64(seq)
    value = tx.get("log", key)
    return None if value is None else _log_entry(key, value)


def _log_entry(key: bytes, value: Any) -> tuple[float, list[int], list[str]]:
    plain = unpack_sealed(key, value, "log entry")
    try:
        when, collections, changes = plain
        numbers = list(stored_numbers(collections, "log entry"))
        if max(numbers, default=0) >> 32:
            raise ValueError("no collection has such a number")
        return float(when), numbers, [str(change) for change in changes]
    except (TypeError, ValueError) as error:
        raise CorruptionError("a log entry has a wrong shape", what="log") from error


def read_whole_log(tx: Tx) -> list[tuple[int, float, list[str]]]:
    """Return (seq, time, changes) of every commit in the log, oldest first."""
    return [
        (read_u64(key), when, changes)
        for key, value in tx.range("log", b"")
        for when, _, changes in [_log_entry(key, value)]
    ]
