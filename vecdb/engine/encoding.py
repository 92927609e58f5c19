"""Codes of what a commit seals, stored by that commit, so that every sealed vector is covered as soon as it is there.

Only the newest few small parts are touched: what a commit may spend on codes is bounded, and larger parts are merged in
upkeep. Whatever fails here leaves the commit as it was; its vectors are scanned.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from vecdb.engine import border
from vecdb.engine.parts import LoadedPart, load_part
from vecdb.engine.view import CollectionView
from vecdb.engine.views import BuildView
from vecdb.engine.workshop import Built, Held, sealed_from
from vecdb.errors import CancelledError, CorruptionError, PluginError, UnknownNameError
from vecdb.registry import PluginRegistry
from vecdb.storage.indexes import IndexEntry, IndexPart, find_index
from vecdb.storage.indexstore import put_index
from vecdb.storage.snapshot import Reader, Snapshot, State, entry_by_number
from vecdb.storage.spaces import SpaceView
from vecdb.storage.state import CollectionEntry
from vecdb.storage.writetx import Pending, WriteTx

MAX_SMALL: Final = 8
"""Encoded parts behind each other from which a commit encodes the last of them again, with what it seals, as one."""
MOST_ANEW: Final = 4_096
"""Vectors that a commit encodes a second time at most: a tenth of a second."""
log = logging.getLogger("vecdb")


def encoders_of(reader: Reader, entry: CollectionEntry, registry: PluginRegistry) -> list[LoadedPart]:
    """Return a loaded part of each index of a collection whose type encodes what a commit seals."""
    if not entry.indexes:
        return []
    with reader.snapshot() as snapshot:
        known = snapshot.state.catalog.collections.get(entry.name)
        if known is None or known.id != entry.id:
            return []
        return _encoders(CollectionView(snapshot, known), registry)


def _encoders(view: CollectionView, registry: PluginRegistry) -> list[LoadedPart]:
    found = []
    for index in view.entry.indexes:
        try:
            provided = registry.find("index type", index.kind)
        except (UnknownNameError, PluginError):
            continue  # its vectors are scanned, and say so
        if provided.thing.capabilities.encodes_segments and index.parts:
            space = next(space for space in view.entry.spaces.values() if space.id == index.space)
            part = load_part(view, view.space(space), index, style_of(index), provided, registry)
            if isinstance(part, LoadedPart):
                found.append(part)
    return found


def encode_sealed(write: WriteTx, collection: tuple[int, str], able: Sequence[LoadedPart], reader: Reader) -> None:
    """Store codes of what this commit sealed; what a plugin fails to encode is scanned, and logged."""
    for part in able:
        entry = entry_by_number(write.catalog, *collection)
        index = find_index(entry.indexes, part.entry.id)
        if index is None or part.part not in index.parts or not _sealed_more(write.pending(entry), index):
            continue
        write.flush()
        snapshot = Snapshot(write.tx, State(write.tx, write.counters, reader.private_caches(), None))
        try:
            encoded = _encode(snapshot, entry, part, index)
        except (PluginError, CancelledError, CorruptionError) as error:
            log.warning(
                "index %r of collection %r has no codes of seq %d: %s", index.kind, entry.name, write.seq, error
            )
            continue
        if encoded is not None:
            kept, built = encoded
            put_index(write, entry.name, replace(index, parts=(*kept, built.store(write, part.provided))))


def _sealed_more(pending: Pending, index: IndexEntry) -> bool:
    """Whether this commit sealed vectors; what an earlier one left uncovered alone is left to `upkeep`."""
    before, counts = pending.before.spaces.get(index.space), pending.spaces.get(index.space)
    return counts is not None and counts.tail_start > max(index.stop, before.tail_start if before is not None else 0)


def _encode(
    snapshot: Snapshot, entry: CollectionEntry, part: LoadedPart, index: IndexEntry
) -> tuple[list[IndexPart], Built] | None:
    """Return the parts that are kept, and the one behind them; only reads, so that a failure changes nothing."""
    space = next(space for space in entry.spaces.values() if space.id == index.space)
    view = CollectionView(snapshot, snapshot.entry(*collection_key(entry)))
    kept = _kept(index)
    space_view = view.space(space)
    work = sealed_from(view, space_view, index.parts[kept].first if kept < len(index.parts) else index.stop)
    if not len(work.ordinals):
        return None
    watched = BuildView(lambda: Held(snapshot), collection_key(entry), space, work.ordinals)
    parts = [each for each in index.parts[:kept] if not each.coded or _holds_any(view, space_view, each)]
    return parts, Built(work, border.encode_segment(part.provided, part.index, watched), coded=True)


def _holds_any(view: CollectionView, space_view: SpaceView, part: IndexPart) -> bool:
    """Whether a vector of a part is still in the file: while vectors are replaced, parts run empty between upkeeps."""
    return space_view.count_before(view.tx, part.first) < space_view.count_before(view.tx, part.stop)


def _kept(index: IndexEntry) -> int:
    """Return how many parts stay as they are: once there are many small ones, the last are encoded anew as one."""
    coded = 0
    while coded < len(index.parts) and index.parts[-1 - coded].coded:
        coded += 1
    if coded < MAX_SMALL:
        return len(index.parts)
    anew = 0
    kept = len(index.parts)
    while coded and anew + index.parts[kept - 1].count <= MOST_ANEW:
        kept -= 1
        coded -= 1
        anew += index.parts[kept].count
    return kept


def style_of(index: IndexEntry) -> IndexPart:
    """Return the part in whose style codes are made: the last that was built, as those of codes only follow it."""
    built = [part for part in index.parts if not part.coded]
    return built[-1] if built else index.parts[-1]


def collection_key(entry: CollectionEntry) -> tuple[int, str]:
    return entry.id, entry.name
