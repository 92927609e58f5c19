"""Keeping joint spaces up to date: in the commit that changes a vector, the row that is made from it changes, too.

Every operation that users see is followed by `follow`. What it wrote is known to the commit (`Pending.touched`), so
that a record whose vectors stayed costs a look. Invariant: behind a commit a record's joint row, if it has one, was
made from the vector that it has in the new space, else in the old one. A record without a row waits (its transform
could not be used here, or the space is being filled), and searches go the long way until none does.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vecdb.engine.batch import space_batch
from vecdb.engine.joint.rows import JointMaps, Side, maps_of
from vecdb.engine.transforms import load_transform
from vecdb.engine.view import CollectionView
from vecdb.engine.views import as_float32
from vecdb.errors import PluginError, StateError, StorageError
from vecdb.int8rows import dequantise
from vecdb.registry import PluginRegistry
from vecdb.storage.failpoints import visit
from vecdb.storage.format import StoredRecord, decode_record, encode_records, pack_refs
from vecdb.storage.joints import JointEntry
from vecdb.storage.records import record_key
from vecdb.storage.snapshot import Reader, Snapshot, State
from vecdb.storage.writetx import Pending, WriteTx
from vecdb.types import Space

F32 = npt.NDArray[np.float32]
log = logging.getLogger("vecdb")


@dataclass(frozen=True, slots=True)
class Follower:
    """What following needs of the opened file.

    Attributes
    ----------
    reader : Reader
    registry : PluginRegistry
    known : mapping of int to (str, JointMaps)
        Maps of joint spaces that were loaded, by the number of the space, with the digest of their transform: another
        file may have been put in the place of this one.
    """

    reader: Reader
    registry: PluginRegistry
    known: MutableMapping[int, tuple[str, JointMaps]]

    def view(self, write: WriteTx, pending: Pending) -> CollectionView:
        """Return a collection as the commit has left it so far."""
        write.flush()
        snapshot = Snapshot(write.tx, State(write.tx, write.counters, self.reader.private_caches(), None))
        return CollectionView(snapshot, pending.entry)

    def maps(self, write: WriteTx, pending: Pending, joint: JointEntry) -> JointMaps | None:
        """Return the maps of a joint space; None where its transform cannot be used here, which is logged."""
        digest = next((each.digest for each in pending.entry.transforms if each.set == joint.transform), "")
        known = self.known.get(joint.space)
        if known is not None and known[0] == digest:
            return known[1]
        try:
            found = load_maps(self.view(write, pending), joint, self.registry)
        except (PluginError, StateError, StorageError) as error:
            log.warning(
                "records of collection %r are left without a row in a joint space: %s", pending.entry.name, error
            )
            return None
        self.known[joint.space] = digest, found
        return found


def load_maps(view: CollectionView, joint: JointEntry, registry: PluginRegistry) -> JointMaps:
    """Return the maps of a joint space.

    Raises
    ------
    PluginMissingError, StateError, CorruptionError
        Its transform cannot be used here.
    """
    entry = next((each for each in view.entry.transforms if each.set == joint.transform), None)
    if entry is None:
        raise StateError(f"a joint space of collection {view.entry.name!r} has lost its transform")
    return maps_of(load_transform(view.snapshot, view.entry, entry, registry), joint)


def follow(write: WriteTx, pending: Pending, follower: Follower) -> None:
    """Bring the joint rows of what was written so far up to date."""
    touched, pending.touched = pending.touched, {}
    changed = [_Changed.of(write, pending, row, before) for row, before in touched.items()]
    for joint in pending.entry.joints:
        _follow(write, pending, joint, [each for each in changed if each is not None], follower)
    pending.appended.clear()
    pending.touched.clear()


class Source(NamedTuple):
    """The vector that a joint row is made from: a side, and its ordinal there."""

    side: Side
    ordinal: int


def source_of(joint: JointEntry, record: StoredRecord | None) -> Source | None:
    """Return what the joint row of a record is to be made from; None: it has neither vector."""
    refs = {} if record is None else record.refs
    if joint.new in refs:
        return Source("new", refs[joint.new])
    return Source("old", refs[joint.old]) if joint.old in refs else None


@dataclass(slots=True)
class _Changed:
    """A record that was written: what it says now, and what it said before, if it was there."""

    row: int
    now: StoredRecord
    before: StoredRecord | None

    @classmethod
    def of(cls, write: WriteTx, pending: Pending, row: int, before: bytes | None) -> _Changed | None:
        place = record_key(pending.entry.id, row)
        value = write.tx.get("records", place)
        if value is None:  # deleted, and its joint row with it
            return None
        return cls(row, decode_record(place, bytes(value)), None if before is None else decode_record(place, before))


def _follow(
    write: WriteTx, pending: Pending, joint: JointEntry, changed: Sequence[_Changed], follower: Follower
) -> None:
    stale, gone = [], []
    for each in changed:
        source, kept = source_of(joint, each.now), each.now.refs.get(joint.space)
        if kept is not None and source is not None and source == source_of(joint, each.before):
            continue
        if kept is not None:
            gone.append(kept)
        if kept is not None or source is not None:
            stale.append((each, source))
    if not stale:
        return
    write.kill(pending, joint.space, gone)
    maps = follower.maps(write, pending, joint)
    wanted = [source for _, source in stale]
    records = [each.now for each, _ in stale]
    rows = [each.row for each, _ in stale]
    refer(write, pending, joint, rows, records, append(write, pending, joint, rows, wanted, maps, follower))
    for each, _ in stale:
        each.now = decode_record(place := record_key(pending.entry.id, each.row), stored(write, place))
    visit("joint.followed")


def stored(write: WriteTx, place: bytes) -> bytes:
    """Return a record's bytes, which were written in this commit."""
    value = write.tx.get("records", place)
    assert value is not None
    return bytes(value)


def append(
    write: WriteTx,
    pending: Pending,
    joint: JointEntry,
    rows: Sequence[int],
    sources: Sequence[Source | None],
    maps: JointMaps | None,
    follower: Follower,
) -> list[int | None]:
    """Append joint rows; return the ordinal of each, None for a record that gets none."""
    places = [place for place, source in enumerate(sources) if source is not None]
    ordinals: list[int | None] = [None] * len(sources)
    if not places or maps is None:
        return ordinals
    found = [sources[place] for place in places]
    made = _made(write, pending, maps, [source for source in found if source is not None], follower)
    space = next(each for each in pending.entry.spaces.values() if each.id == joint.space)
    part = space_batch(space, made, len(made), False)
    owners = np.array([rows[place] for place in places], np.uint64)
    first = write.append_vectors(pending, space, part.stored, owners, part.scales, part.errors)
    for offset, place in enumerate(places):
        ordinals[place] = first + offset
    return ordinals


def refer(
    write: WriteTx,
    pending: Pending,
    joint: JointEntry,
    rows: Sequence[int],
    records: Sequence[StoredRecord],
    ordinals: Sequence[int | None],
) -> None:
    """Let records refer to their joint rows, and to no other; nothing else of them changes."""
    refs = []
    for record, ordinal in zip(records, ordinals, strict=True):
        others = {space: known for space, known in record.refs.items() if space != joint.space}
        refs.append(pack_refs(others if ordinal is None else {**others, joint.space: ordinal}))
    places = [record_key(pending.entry.id, row) for row in rows]
    versions = [record.version for record in records]
    keys, bodies = [record.key for record in records], [record.body for record in records]
    write.put_records(places, encode_records(places, versions, refs, keys, bodies))


def _made(write: WriteTx, pending: Pending, maps: JointMaps, sources: Sequence[Source], follower: Follower) -> F32:
    """Return the joint rows of vectors, in their order."""
    made = np.empty((len(sources), maps.dim), np.float32)
    for side, space in (("new", maps.new), ("old", maps.old)):
        places = [place for place, source in enumerate(sources) if source.side == side]
        if places:
            vectors = _vectors(write, pending, space, [sources[place].ordinal for place in places], follower)
            made[places] = maps.rows(vectors, "new" if side == "new" else "old")
    return made


def _vectors(write: WriteTx, pending: Pending, space: Space, ordinals: Sequence[int], follower: Follower) -> F32:
    """Return vectors of a space: those that this operation has appended from memory, others from the file."""
    found = np.empty((len(ordinals), space.dim), np.float32)
    asked = np.array(ordinals, np.uint64)
    left = np.ones(len(asked), np.bool_)
    for each in pending.appended:
        if each.space != space.id:
            continue
        here = left & (asked >= each.first) & (asked < each.first + len(each.vectors))
        some = each.vectors[(asked[here] - np.uint64(each.first)).astype(np.int64)]
        found[here] = dequantise(some, space.dim) if space.dtype == "int8" else as_float32(some)
        left &= ~here
    if left.any():
        view = follower.view(write, pending)
        found[left] = as_float32(view.space(space).vectors_of(view.tx, asked[left].tolist()))
    return found
