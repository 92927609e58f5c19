"""The parts of an index that this process can use: found in the registry, loaded from their blobs, remembered.

What cannot be used is never fatal: a type that is not installed, a stored form of another version, damaged blobs. The
vectors of such an index are scanned, and the note that says why goes into the plan, the statistics and the log.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from typing import Any

from vecdb.contracts.index import Index
from vecdb.engine import border
from vecdb.engine.blobstore import StoredBlobs
from vecdb.engine.view import CollectionView
from vecdb.engine.views import PartView, find_places
from vecdb.errors import CorruptionError, PluginError, UnknownNameError, VecdbError
from vecdb.registry import PluginRegistry, Provided
from vecdb.storage.indexes import IndexEntry, IndexPart
from vecdb.storage.spaces import SpaceView
from vecdb.types import Space

log = logging.getLogger("vecdb")
_loading = threading.RLock()


@dataclass(frozen=True, slots=True)
class LoadedPart:
    """A part that answers searches."""

    provided: Provided
    entry: IndexEntry
    part: IndexPart
    index: Index


@dataclass(frozen=True, slots=True)
class Usable:
    """The parts of one index that can be used, and why others cannot."""

    entry: IndexEntry | None = None
    parts: tuple[LoadedPart, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def covered(self) -> int:
        return sum(each.part.count for each in self.parts)


NOTHING = Usable()


@dataclass(slots=True)
class _Chosen:
    """What `choose` found for one version of the catalog."""

    indexes: tuple[IndexEntry, ...]
    usable: Usable
    registry: PluginRegistry = field(repr=False)


def reset_after_fork() -> None:
    """Forget a lock that another thread of the parent may have held."""
    global _loading
    _loading = threading.RLock()


def choose(view: CollectionView, space: Space, registry: PluginRegistry) -> Usable:
    """Return the index of `space` that covers most vectors, the newest of several, loaded as far as it can be."""
    indexes = view.entry.indexes
    if not indexes:
        return NOTHING
    memory = view.snapshot.state.loaded_indexes
    known = memory.get(("chosen", space.id))
    if known is not None and known.indexes is indexes and known.registry is registry:
        usable: Usable = known.usable
        return usable
    space_view = view.space(space)
    offered = [load_all(view, space_view, entry, registry) for entry in indexes if entry.space == space.id]
    best = max(offered, key=lambda each: (each.covered, each.entry.id if each.entry else 0), default=NOTHING)
    notes = tuple(note for each in offered for note in each.notes)
    usable = Usable(best.entry, best.parts, notes)
    memory["chosen", space.id] = _Chosen(indexes, usable, registry)
    return usable


def load_all(view: CollectionView, space_view: SpaceView, entry: IndexEntry, registry: PluginRegistry) -> Usable:
    """Return the parts of an index that can be used, and notes on those that cannot."""
    try:
        provided = registry.find("index type", entry.kind)
    except (UnknownNameError, PluginError) as error:
        return Usable(entry, (), (_unavailable(view, entry, error),))
    parts, notes = [], []
    for part in entry.parts:
        found = load_part(view, space_view, entry, part, provided)
        if isinstance(found, str):
            notes.append(found)
        else:
            parts.append(found)
    return Usable(entry, tuple(parts), tuple(notes))


def _unavailable(view: CollectionView, entry: IndexEntry, error: VecdbError) -> str:
    why = "no plugin that is loaded here provides it" if isinstance(error, UnknownNameError) else error.message
    note = f"index {entry.kind!r} is unavailable: {why}{_owner(entry)}"
    memory = view.snapshot.state.loaded_indexes
    if memory.setdefault(("said", entry.id), note) is note:
        log.warning("collection %r: %s; its vectors are scanned", view.entry.name, note)
    return note


def _owner(entry: IndexEntry) -> str:
    return f" (it was built by {entry.owner})" if entry.owner else ""


def load_part(
    view: CollectionView, space_view: SpaceView, entry: IndexEntry, part: IndexPart, provided: Provided
) -> LoadedPart | str:
    """Return a loaded part, or why it cannot be used; both are remembered until the file is opened anew."""
    memory = view.snapshot.state.loaded_indexes
    key: Any = (part.set, id(provided.thing))
    found: LoadedPart | str | None = memory.get(key)
    if found is not None:
        return found
    with _loading:
        if key not in memory:
            memory[key] = _load(view, space_view, entry, part, provided)
            _forget_others(view, memory)
        loaded: LoadedPart | str = memory[key]
        return loaded


def _load(
    view: CollectionView, space_view: SpaceView, entry: IndexEntry, part: IndexPart, provided: Provided
) -> LoadedPart | str:
    if part.version != provided.thing.version:
        return (
            f"index {entry.kind!r} was stored by version {part.version} of its type, "
            f"{provided.owner} has version {provided.thing.version}; optimize() rebuilds it"
        )
    try:
        places = find_places(view.tx, space_view, part)
        blobs = StoredBlobs(view.tx, part)
        index = border.load(provided, blobs, PartView(view, space_view, part, places), entry.params)
    except CorruptionError as error:
        log.warning("index %r of collection %r is damaged: %s", entry.kind, view.entry.name, error)
        return f"index {entry.kind!r} is damaged: {error.message}; optimize() rebuilds it"
    return LoadedPart(provided, entry, part, index)


def _forget_others(view: CollectionView, memory: dict[Any, Any]) -> None:
    """Let go of parts that the catalog no longer names; whoever still searches one keeps it alive."""
    named = {
        part.set
        for entry in view.snapshot.state.catalog.collections.values()
        for index in entry.indexes
        for part in index.parts
    }
    for key in [key for key in memory if isinstance(key[0], int) and key[0] not in named]:
        del memory[key]
