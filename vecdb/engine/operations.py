"""Writes as operations that a commit can run, and run again: upsert, insert, set_vectors, set_metadata, delete.

Each first reads everything it needs and raises its conflicts, and only then changes anything: an operation that raised
has changed nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.engine.batch import Batch, SpaceBatch
from vecdb.engine.guard import Review
from vecdb.engine.view import CollectionView
from vecdb.engine.where import Condition
from vecdb.errors import ConflictError, ParameterError, RecordExistsError, RecordMissingError, SpaceMissingError
from vecdb.storage.format import StoredRecord, consecutive_refs, encode_records, pack_body, pack_refs
from vecdb.storage.joints import joint_of
from vecdb.storage.migrations import active_migration
from vecdb.storage.records import find_rows, id_places, record_keys, require_id, rows_at
from vecdb.storage.snapshot import Reader, Snapshot, State, entry_by_number
from vecdb.storage.writetx import Pending, WriteTx
from vecdb.types import Id, WriteResult


@dataclass(frozen=True, slots=True)
class WriteRules:
    """How a batch meets what is stored.

    Attributes
    ----------
    merge : bool
        Keep of an existing record what the batch does not give; otherwise the record is replaced.
    new, existing : bool
        Whether ids that are not stored yet, or already are, are acceptable.
    versions : tuple or None
        Expected version of each record: 0 for "must not exist", None for "any".
    verb : str
        For the commit log.
    """

    merge: bool = False
    new: bool = True
    existing: bool = True
    versions: tuple[int | None, ...] | None = None
    verb: str = "upsert"
    replace_metadata: bool = False


@dataclass(slots=True)
class _Old:
    """A stored record that the batch changes."""

    place: int
    row: int
    value: bytes
    record: StoredRecord


def write_batch(
    collection: tuple[int, str], batch: Batch, rules: WriteRules, reviews: Sequence[Review]
) -> Callable[[WriteTx], WriteResult]:
    """Return the operation that writes `batch` into a collection, given by number and name."""

    def operation(write: WriteTx) -> WriteResult:
        pending = write.pending(entry_by_number(write.catalog, *collection))
        _check_spaces(pending, batch)
        places = id_places(pending.entry.id, batch.keys)
        rows = rows_at(write.tx, places)
        _check_presence(batch, rows, rules, collection[1])
        old = [_old(write, pending, batch, place, row) for place, row in enumerate(rows) if row is not None]
        _check_versions(batch, old, rules)
        contents = _contents(batch, old, rules)
        return _Application(write, pending, batch, rules, places, rows, old, contents).run(reviews)

    return operation


def _check_spaces(pending: Pending, batch: Batch) -> None:
    """The spaces were looked up before the lock was held: see that they are still there."""
    known = {space.id for space in pending.entry.spaces.values()}
    for part in batch.vectors:
        if pending.entry.joints and joint_of(pending.entry.joints, part.space.id) is not None:
            raise ParameterError(
                f"space {part.space.name!r} of collection {pending.entry.name!r} is a joint space: its rows are made "
                "from the vectors of other spaces",
                hint="Write the vectors of those; their commit changes the row.",
                name="vectors",
                got=part.space.name,
            )
        if part.space.id not in known:
            raise SpaceMissingError(
                f"space {part.space.name!r} was dropped from collection {pending.entry.name!r} meanwhile",
                name=part.space.name,
                available=list(pending.entry.spaces),
            )


def _check_presence(batch: Batch, rows: Sequence[int | None], rules: WriteRules, collection: str) -> None:
    if not rules.existing:
        there = [batch.ids[place] for place, row in enumerate(rows) if row is not None]
        if there:
            raise RecordExistsError(
                f"{len(there)} of {len(rows)} ids are already in collection {collection!r}, the first is {there[0]!r}",
                hint="Use upsert to replace records.",
                kind="record",
                name=str(there[0]),
                ids=there,
                collection=collection,
            )
    if not rules.new:
        absent = [batch.ids[place] for place, row in enumerate(rows) if row is None]
        if absent:
            raise missing_records(absent, len(rows), collection)


def missing_records(absent: Sequence[Id], count: int, collection: str) -> RecordMissingError:
    """Return the error for ids that are not stored."""
    return RecordMissingError(
        f"{len(absent)} of {count} ids are not in collection {collection!r}, the first is {absent[0]!r}",
        hint="`1` and '1' are two ids; get(..., missing_ok=True) returns None for unknown ones.",
        ids=list(absent),
        collection=collection,
    )


def _check_versions(batch: Batch, old: Sequence[_Old], rules: WriteRules) -> None:
    if rules.versions is None:
        return
    found = {item.place: item.record.version for item in old}
    for place, expected in enumerate(rules.versions):
        if expected is not None and found.get(place, 0) != expected:
            raise ConflictError(
                f"record {batch.ids[place]!r} has version {found.get(place, 0)}, expected {expected}",
                hint="Read it again and decide anew (version 0 means: not there).",
                id=batch.ids[place],
                expected=expected,
                found=found.get(place, 0),
            )


def _old(write: WriteTx, pending: Pending, batch: Batch, place: int, row: int) -> _Old:
    value, record = write.read(pending, row)
    require_id(record, batch.keys[place], row)
    return _Old(place, row, value, record)


@dataclass(frozen=True, slots=True)
class _Contents:
    """What the records will carry: packed, and the metadata where they may have changed (None: unchanged)."""

    bodies: list[bytes]
    metadatas: list[Mapping[str, Any] | None]


def _contents(batch: Batch, old: Sequence[_Old], rules: WriteRules) -> _Contents:
    given: Sequence[Mapping[str, Any]] = batch.metadatas if batch.metadatas is not None else ({},) * len(batch)
    found = _Contents(list(batch.bodies), list(given))
    if rules.merge:
        for item in old:
            found.bodies[item.place], found.metadatas[item.place] = _merged(batch, item, rules)
    return found


def _merged(batch: Batch, item: _Old, rules: WriteRules) -> tuple[bytes, Mapping[str, Any] | None]:
    """Return what a record carries once the batch is merged into it; None for a text keeps the one that is stored."""
    metadata = batch.metadatas[item.place] if batch.metadatas is not None else None
    text = batch.texts[item.place] if batch.texts is not None else None
    if text is None and (metadata is None or not (metadata or rules.replace_metadata)):
        return item.record.body, None
    old_metadata, old_text = item.record.content()
    given = metadata if metadata is not None else {}
    merged = given if rules.replace_metadata else {**old_metadata, **given}
    return pack_body(merged, text if text is not None else old_text, item.place), merged


@dataclass(slots=True)
class _Application:
    """The half of a write that changes things; nothing in it may fail for the caller's reasons."""

    write: WriteTx
    pending: Pending
    batch: Batch
    rules: WriteRules
    places: list[bytes]
    """Where the ids stand in their table."""
    found: Sequence[int | None]
    old: list[_Old]
    contents: _Contents

    def run(self, reviews: Sequence[Review]) -> WriteResult:
        write, pending, batch = self.write, self.pending, self.batch
        for review in reviews:
            review.apply(write, pending)
        rows = self._rows()
        for item in self.old:
            write.remember(pending, item.row, item.value)
        self._put_records(rows, self._refs(rows))
        self._put_columns(rows)
        write.note(f"{pending.entry.name}: {self.rules.verb} {len(batch)}")
        new = len(rows) - len(self.old)
        return WriteResult(write.seq, new, len(self.old), 0, sum(review.unverified for review in reviews))

    def _rows(self) -> list[int]:
        """Hand out rows to what is new, and point its ids at them."""
        new = range(len(self.found)) if not self.old else [at for at, row in enumerate(self.found) if row is None]
        first = self.write.take_rows(self.pending, len(new))
        taken = range(first, first + len(new))
        if not self.old:
            self.write.put_ids(self.places, taken)
            return list(taken)
        self.write.put_ids([self.places[at] for at in new], taken)
        rows = [row if row is not None else 0 for row in self.found]
        for at, row in zip(new, taken, strict=True):
            rows[at] = row
        return rows

    def _refs(self, rows: Sequence[int]) -> list[bytes]:
        """Append the vectors; return each record's references, packed, and kill the vectors they replace."""
        numbers = np.array(rows, np.uint64)
        firsts = [(part.space.id, self._append(part, numbers)) for part in self.batch.vectors]
        if not self.old and all(len(part.places) == len(rows) for part in self.batch.vectors):
            return consecutive_refs(firsts, len(rows))
        refs: list[dict[int, int]] = [{} for _ in rows]
        for part, (space, first) in zip(self.batch.vectors, firsts, strict=True):
            for offset, place in enumerate(part.places.tolist()):
                refs[place][space] = first + offset
        self._replace(refs)
        return list(map(pack_refs, refs))

    def _replace(self, refs: list[dict[int, int]]) -> None:
        """Take over the references that stay, and kill the vectors of those that do not."""
        dead: dict[int, list[int]] = {}
        models = self._models() if self.rules.merge and self.batch.texts is not None else None
        for item in self.old:
            stale = _stale(item, refs[item.place], models, self.batch)
            for space, ordinal in item.record.refs.items():
                if space not in self.pending.spaces:  # dropped since the record was written
                    continue
                if self.rules.merge and space not in refs[item.place] and space != stale:
                    refs[item.place][space] = ordinal
                else:
                    dead.setdefault(space, []).append(ordinal)
        for space, ordinals in dead.items():
            self.write.kill(self.pending, space, ordinals)

    def _models(self) -> tuple[int, int] | None:
        """Return the spaces between which the collection is being migrated."""
        active = active_migration(self.write.tx, self.pending.entry.id)
        return None if active is None else (active.source, active.target)

    def _append(self, part: SpaceBatch, rows: npt.NDArray[np.uint64]) -> int:
        rows = rows[part.places]
        return self.write.append_vectors(self.pending, part.space, part.stored, rows, part.scales, part.errors)

    def _put_records(self, rows: Sequence[int], refs: Sequence[bytes]) -> None:
        versions = [1] * len(rows)
        for item in self.old:
            versions[item.place] = item.record.version + 1
        places = record_keys(self.pending.entry.id, rows)
        self.write.put_records(places, encode_records(places, versions, refs, self.batch.keys, self.contents.bodies))

    def _put_columns(self, rows: Sequence[int]) -> None:
        metadatas = self.contents.metadatas
        touched = [row for row, metadata in zip(rows, metadatas, strict=True) if metadata is not None]
        if not touched:
            return
        changed = [item.row for item in self.old if metadatas[item.place] is not None]
        written = [metadata for metadata in metadatas if metadata is not None]
        columns = self.write.columns(self.pending)
        self.pending.delta = columns.write(touched, written, changed, self.pending.delta)


def _stale(item: _Old, given: Mapping[int, int], models: tuple[int, int] | None, batch: Batch) -> int | None:
    """Return the space whose vector a merge must not keep.

    While a collection is migrated, a record that gets another text and a vector of one of the two models has a vector
    of the old text in the other: kept, it would be taken for the one that the migration is to make, or to restore.
    """
    text = None if batch.texts is None else batch.texts[item.place]
    if models is None or text is None or (models[0] in given) == (models[1] in given):
        return None
    if item.record.content()[1] == text:
        return None
    return models[1] if models[0] in given else models[0]


def delete_ids(
    collection: tuple[int, str], ids: Sequence[Id], keys: Sequence[bytes], *, missing_ok: bool
) -> Callable[[WriteTx], WriteResult]:
    """Return the operation that deletes records by id."""

    def operation(write: WriteTx) -> WriteResult:
        pending = write.pending(entry_by_number(write.catalog, *collection))
        rows = find_rows(write.tx, pending.entry.id, keys)
        absent = [ids[place] for place, row in enumerate(rows) if row is None]
        if absent and not missing_ok:
            raise missing_records(absent, len(rows), collection[1])
        found = [(row, key) for row, key in zip(rows, keys, strict=True) if row is not None]
        return _delete_rows(write, pending, [row for row, _ in found], [key for _, key in found])

    return operation


def delete_where(collection: tuple[int, str], condition: Condition, reader: Reader) -> Callable[[WriteTx], WriteResult]:
    """Return the operation that deletes the records that satisfy `condition` at the moment of the commit."""

    def operation(write: WriteTx) -> WriteResult:
        pending = write.pending(entry_by_number(write.catalog, *collection))
        write.flush()
        state = State(write.tx, write.counters, reader.private_caches(), None)
        selection = CollectionView(Snapshot(write.tx, state), pending.entry).select(condition)
        return _delete_rows(write, pending, [int(row) for row in selection.rows])

    return operation


def _delete_rows(
    write: WriteTx, pending: Pending, rows: Sequence[int], keys: Sequence[bytes] | None = None
) -> WriteResult:
    write.dirty = write.dirty or bool(rows)
    write.delete_records(pending, rows, keys)
    write.note(f"{pending.entry.name}: delete {len(rows)}")
    return WriteResult(write.seq, 0, 0, len(rows))


def rules_for(rules: WriteRules, if_version: object, batch: Batch) -> WriteRules:
    """Return `rules` with the expected versions of a batch."""
    if if_version is None:
        return rules
    values: list[Any] = list(if_version) if isinstance(if_version, Iterable) else [if_version] * len(batch)
    bad = [
        value
        for value in values
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0)
    ]
    if len(values) != len(batch) or bad:
        raise ParameterError(
            f"if_version has {len(values)} entries for {len(batch)} ids; each must be a version >= 0 or None",
            name="if_version",
            got=bad or len(values),
            allowed="an int >= 0, or one for each id",
        )
    return replace(rules, versions=tuple(None if value is None else int(value) for value in values))
