"""The parts of an index that this process can use: found in the registry, loaded from their blobs, remembered.

What cannot be used is never fatal: a type that is not installed, a stored form of another version, damaged blobs. The
vectors of such an index are scanned, and the note that says why goes into the plan, the statistics and the log.
What is loaded belongs to one registry and one opening of the file, and goes when the catalog stops naming it or the
registry is forgotten; whoever still searches it keeps it alive.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

from vecdb.contracts.index import Index
from vecdb.engine import border
from vecdb.engine.blobstore import StoredBlobs
from vecdb.engine.recall import EXACT, Choice, choose_effort, curves_for
from vecdb.engine.view import CollectionView
from vecdb.engine.views import PartView, find_places
from vecdb.errors import CorruptionError, PluginContractError, PluginError, UnknownNameError, VecdbError
from vecdb.registry import PluginRegistry, Provided
from vecdb.storage.indexes import IndexEntry, IndexPart
from vecdb.storage.measured import StoredCurve
from vecdb.storage.snapshot import State
from vecdb.storage.spaces import SpaceView
from vecdb.types import Space

log = logging.getLogger("vecdb")


@dataclass(frozen=True, slots=True)
class LoadedPart:
    """A part that answers searches."""

    provided: Provided
    entry: IndexEntry
    part: IndexPart
    index: Index
    memory: _Memory = field(repr=False, compare=False)
    mapped: bool = False
    """Whether it follows addresses into the map of the file, so that it is gone with that."""

    @property
    def exact(self) -> bool:
        return bool(self.provided.thing.capabilities.exact)

    def spoil(self, error: CorruptionError) -> str:
        """Forget this part, which a search found damaged: it is scanned until it is rebuilt; return the note on it."""
        log.warning("index %r cannot be used: %s", self.entry.kind, error)
        note = _damage(self.entry, error)
        self.memory.parts[self.part.set] = (self.part, note)
        self.memory.known, self.memory.chosen = (-1, -1), {}
        return note


@dataclass(frozen=True, slots=True)
class Usable:
    """The parts of one index that can be used, and why others cannot."""

    entry: IndexEntry | None = None
    parts: tuple[LoadedPart, ...] = ()
    notes: tuple[str, ...] = ()
    choices: dict[tuple[int, float, int], Choice] = field(default_factory=dict, compare=False)
    """What was chosen for a part's set, a recall and a k."""
    routes: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    """Short ways through these parts (`engine.routes`), gone with them."""

    def choose(self, part: LoadedPart, recall: float, k: int) -> Choice:
        """Return the effort at which a part finds k neighbours with a recall; `SCAN` where that is not known."""
        wanted = part.part.set, recall, k
        choice = self.choices.get(wanted)
        if choice is None:
            choice = self.choices[wanted] = choose_effort(self.curves(part), recall, k) if not part.exact else EXACT
        return choice

    def curves(self, part: LoadedPart) -> tuple[StoredCurve, ...]:
        """Return what is known of a part's recall by effort."""
        two_kinds = bool(part.provided.thing.capabilities.part_from)
        return curves_for(self.entry or part.entry, part.part, two_kinds=two_kinds)

    @property
    def covered(self) -> int:
        return sum(each.part.count for each in self.parts)


NOTHING = Usable()


@dataclass(slots=True)
class _Memory:
    """What one registry's plugins have loaded of the indexes of one file."""

    known: tuple[int, int] = (-1, -1)
    """Version of the file, and changes of the registry, that `chosen` is right for."""
    chosen: dict[int, Usable] = field(default_factory=dict)
    """By space."""
    parts: dict[int, tuple[IndexPart, LoadedPart | str]] = field(default_factory=dict)
    """By set of blobs."""
    said: set[int] = field(default_factory=set)
    lock: threading.RLock = field(default_factory=threading.RLock)
    """Held, under a lease, while a plugin loads a part, which it does once."""


class _Memories:
    """The memories of one opening of a file, by registry: gone with it."""

    def __init__(self) -> None:
        self.of: weakref.WeakKeyDictionary[PluginRegistry, _Memory] = weakref.WeakKeyDictionary()

    def keep(self, sets: Container[int]) -> None:
        """Let go of parts that the catalog no longer names."""
        for memory in list(self.of.values()):
            memory.known, memory.chosen = (-1, -1), {}
            for number in [number for number in memory.parts if number not in sets]:
                memory.parts.pop(number, None)

    def unmap(self) -> None:
        """Let go of parts that read what is mapped: the file is mapped anew."""
        for memory in list(self.of.values()):
            memory.known, memory.chosen = (-1, -1), {}
            for number, (_, loaded) in list(memory.parts.items()):
                if isinstance(loaded, LoadedPart) and loaded.mapped:
                    memory.parts.pop(number, None)


def _memory(state: State, registry: PluginRegistry) -> _Memory:
    memories: _Memories = state.loaded_indexes.get("loaded") or state.loaded_indexes.setdefault("loaded", _Memories())
    found = memories.of.get(registry)
    return memories.of.setdefault(registry, _Memory()) if found is None else found


def choose(view: CollectionView, space: Space, registry: PluginRegistry) -> Usable:
    """Return the index of `space` that covers most vectors, the newest of several, loaded as far as it can be."""
    if not view.entry.indexes:
        return NOTHING
    state = view.snapshot.state
    memory = _memory(state, registry)
    now = state.counters.version, registry.changes
    if memory.known == now:
        usable = memory.chosen.get(space.id)
        if usable is not None:
            return usable
    elif memory.known[0] <= now[0]:  # else this is a reader of an older commit
        memory.known, memory.chosen = now, {}
    usable = _best(view, space, registry)
    if memory.known == now:
        memory.chosen[space.id] = usable
    return usable


def still_chosen(state: State, registry: PluginRegistry, space: int) -> Usable | None:
    """Return what `choose` has chosen for a space at this state; None if it has to choose anew."""
    memory = _memory(state, registry)
    return memory.chosen.get(space) if memory.known == (state.counters.version, registry.changes) else None


def chosen_by(state: State, registry: PluginRegistry) -> dict[int, Usable]:
    """Return where `still_chosen` looks: what is chosen anew is kept in another one."""
    return _memory(state, registry).chosen


def _best(view: CollectionView, space: Space, registry: PluginRegistry) -> Usable:
    entries = [entry for entry in view.entry.indexes if entry.space == space.id]
    if not entries:
        return NOTHING
    space_view = view.space(space)
    offered = [load_all(view, space_view, entry, registry) for entry in entries]
    best = max(offered, key=lambda each: (each.covered, each.entry.id if each.entry else 0))
    return Usable(best.entry, best.parts, tuple(note for each in offered for note in each.notes))


def load_all(view: CollectionView, space_view: SpaceView, entry: IndexEntry, registry: PluginRegistry) -> Usable:
    """Return the parts of an index that can be used, and notes on those that cannot."""
    try:
        provided = registry.find("index type", entry.kind)
    except (UnknownNameError, PluginError) as error:
        return Usable(entry, (), (_unavailable(view, entry, error, registry),))
    parts, notes = [], []
    for part in entry.parts:
        found = load_part(view, space_view, entry, part, provided, registry)
        if isinstance(found, str):
            notes.append(found)
        else:
            parts.append(found)
    return Usable(entry, tuple(parts), tuple(notes))


def _unavailable(view: CollectionView, entry: IndexEntry, error: VecdbError, registry: PluginRegistry) -> str:
    why = "no plugin that is loaded here provides it" if isinstance(error, UnknownNameError) else error.message
    note = f"index {entry.kind!r} is unavailable: {why}{_owner(entry)}"
    said = _memory(view.snapshot.state, registry).said
    if entry.id not in said:
        said.add(entry.id)
        log.warning("collection %r: %s; its vectors are scanned", view.entry.name, note)
    return note


def _owner(entry: IndexEntry) -> str:
    return f" (it was built by {entry.owner})" if entry.owner else ""


def load_part(
    view: CollectionView,
    space_view: SpaceView,
    entry: IndexEntry,
    part: IndexPart,
    provided: Provided,
    registry: PluginRegistry,
) -> LoadedPart | str:
    """Return a loaded part, or why it cannot be used; both are remembered."""
    memory = _memory(view.snapshot.state, registry)
    known = memory.parts.get(part.set)
    if known is not None and known[0] == part:
        return known[1]
    with memory.lock:
        known = memory.parts.get(part.set)
        if known is None or known[0] != part:
            known = memory.parts[part.set] = (part, _load(view, space_view, entry, part, provided, memory))
        return known[1]


def _load(
    view: CollectionView,
    space_view: SpaceView,
    entry: IndexEntry,
    part: IndexPart,
    provided: Provided,
    memory: _Memory,
) -> LoadedPart | str:
    if part.version != provided.thing.version:
        return (
            f"index {entry.kind!r} was stored by version {part.version} of its type, "
            f"{provided.owner} has version {provided.thing.version}; optimize() rebuilds it"
        )
    try:
        places = find_places(view, space_view, part)
        with PartView(view, space_view, part, places) as covered:
            blobs = StoredBlobs(view.tx, part)
            index = border.load(provided, blobs, covered, entry.params)
    except (CorruptionError, PluginContractError) as error:
        log.warning("index %r of collection %r cannot be used: %s", entry.kind, view.entry.name, error)
        if isinstance(error, CorruptionError):
            return _damage(entry, error)
        return f"index {entry.kind!r} cannot be used: {error.message}; optimize() rebuilds it"
    return LoadedPart(provided, entry, part, index, memory, blobs.mapped)


def _damage(entry: IndexEntry, error: CorruptionError) -> str:
    return f"index {entry.kind!r} is damaged: {error.message}; optimize() rebuilds it"
