"""Making, growing and dropping indexes: reading under short leases, building without a lock, one commit at the end.

A part is built from what is sealed at one commit; what is written meanwhile is scanned until the next `upkeep`. The
commit that stores a part checks that the index is still what the build started from, and leaves it alone otherwise.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from vecdb.contracts.params import settle_params
from vecdb.engine import border
from vecdb.engine.blobstore import StoredBlobs
from vecdb.engine.names import check_count
from vecdb.engine.parts import LoadedPart, Usable, load_all, load_part
from vecdb.engine.view import CollectionView
from vecdb.engine.views import BuildView, PartView, VectorsMovedError, find_entry, find_places
from vecdb.errors import (
    CancelledError,
    CollectionMissingError,
    CorruptionError,
    ExistsError,
    ParameterError,
    PluginError,
    SpaceMissingError,
    StateError,
    UnknownNameError,
)
from vecdb.registry import PluginRegistry, Provided
from vecdb.storage.blobs import BlobData, stored_bytes_of
from vecdb.storage.indexes import IndexEntry, IndexPart, find_index, part_ordinals
from vecdb.storage.indexstore import put_index, remove_index, store_part
from vecdb.storage.snapshot import Reader, Snapshot, State, entry_by_number, find_space
from vecdb.storage.spaces import SpaceView
from vecdb.storage.state import CollectionEntry
from vecdb.storage.writetx import Pending, WriteTx
from vecdb.types import CancelCheck, IndexInfo, Progress, Space

Numbers = npt.NDArray[np.uint64]
R = TypeVar("R")
Blobs = list[BlobData]

MAX_PARTS: Final = 3
GROW_FROM: Final = 1_024
"""Uncovered vectors from which a part of their own is built; fewer are scanned."""
GROW_SHARE: Final = 0.02
MAX_ENCODED: Final = 64
DEAD_SHARE: Final = 0.3
"""Dead share of an index from which it is built anew."""
log = logging.getLogger("vecdb")


@dataclass(frozen=True, slots=True)
class Workshop:
    """What building needs of the database.

    Attributes
    ----------
    read : callable
        Opens a snapshot of the newest commit.
    write : callable
        Runs an operation in a commit that users see.
    maintain : callable
        Runs one in a commit that they do not see; it says whether there was something to do.
    """

    read: Callable[[], AbstractContextManager[Snapshot]]
    write: Callable[[Callable[[WriteTx], Any]], Any]
    maintain: Callable[[Callable[[WriteTx], bool]], bool]
    registry: PluginRegistry
    collection: tuple[int, str]
    progress: Progress | None = None
    cancel: CancelCheck | None = None

    def tell(self, done: int, total: int | None) -> None:
        if self.progress is not None:
            self.progress(done, total)

    def is_cancelled(self) -> bool:
        return self.cancel is not None and bool(self.cancel())


@dataclass(frozen=True, slots=True)
class _Work:
    """Vectors to be covered by one part."""

    ordinals: Numbers
    first: int
    stop: int


# --- making and dropping ----------------------------------------------------------------------------------


def create_index(shop: Workshop, space_name: str, kind: str, params: Mapping[str, Any], seed: int) -> int:
    """Build an index over what is sealed, and add it to the catalog with its first part in one commit.

    Returns
    -------
    int
        The number of the index.
    """
    seed = _check_seed(seed)
    with shop.read() as snapshot:
        entry = snapshot.entry(*shop.collection)
        space = find_space(entry, space_name)
        live = snapshot.counts(entry.id).spaces[space.id].live
    if kind == "auto":
        kind, params = _chosen(shop, space, live, params)
    provided = shop.registry.find("index type", kind)
    _check_suits(provided, space)
    settled = settle_params(f"index type {provided.name!r}", provided.thing.parameters, params)
    _refuse_second(entry, space, provided.name)
    made = IndexEntry(0, space.id, provided.name, settled, seed, _owner(provided))
    built = _build_all(shop, space, provided, made)

    def add(write: WriteTx) -> int:
        current = entry_by_number(write.catalog, *shop.collection)
        named = find_space(current, space_name)
        if named.id != space.id:
            raise StateError(f"space {space_name!r} was replaced while its index was built")
        _refuse_second(current, named, provided.name)
        number = write.catalog.next_index
        write.catalog = replace(write.catalog, next_index=number + 1)
        parts = () if built is None else (_store(write, provided, *built),)
        put_index(write, current.name, replace(made, id=number, parts=parts))
        write.note(f"{current.name}: create index {provided.name} of space {space_name}")
        return number

    number: int = shop.write(add)
    return number


def _check_seed(seed: object) -> int:
    if check_count("seed", seed, 0) >= 1 << 63:
        raise ParameterError(f"seed is {seed!r}, expected less than 2**63", name="seed", got=seed, allowed="< 2**63")
    return int(seed)  # type: ignore[call-overload, no-any-return]  # a count, by the check before


def _chosen(shop: Workshop, space: Space, live: int, params: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    answer = shop.registry.choose("vecdb_choose_index", space=space, count=live)
    if answer is None:
        return "flat", dict(params)
    if not isinstance(answer, tuple) or len(answer) != 2 or not isinstance(answer[1], Mapping):
        raise PluginError(
            f"a plugin answered vecdb_choose_index with {answer!r}, expected a kind and its parameters",
            hint="Name the kind of index instead of 'auto'.",
        )
    return answer[0], {**answer[1], **params}


def _check_suits(provided: Provided, space: Space) -> None:
    able = provided.thing.capabilities
    if space.metric not in able.metrics:
        raise ParameterError(
            f"index type {provided.name!r} knows {sorted(able.metrics)}, "
            f"space {space.name!r} has metric {space.metric!r}",
            name="kind",
            got=space.metric,
            allowed=sorted(able.metrics),
        )
    if able.max_dim is not None and space.dim > able.max_dim:
        raise ParameterError(
            f"index type {provided.name!r} takes at most {able.max_dim} dimensions, "
            f"space {space.name!r} has {space.dim}",
            name="kind",
            got=space.dim,
            allowed=f"at most {able.max_dim}",
        )


def _refuse_second(entry: CollectionEntry, space: Space, kind: str) -> None:
    if any(index.space == space.id and index.kind == kind for index in entry.indexes):
        raise ExistsError(
            f"space {space.name!r} of collection {entry.name!r} has an index {kind!r}",
            hint="Drop it first with drop_index(), or bring it up to date with optimize().",
            kind="index",
            name=kind,
        )


def _owner(provided: Provided) -> str:
    return f"{provided.distribution} {provided.version}" if provided.distribution else provided.plugin


def drop_index(collection: tuple[int, str], space_name: str, kind: str) -> Callable[[WriteTx], None]:
    """Return the operation that drops an index; its type need not be installed."""

    def operation(write: WriteTx) -> None:
        entry = entry_by_number(write.catalog, *collection)
        space = find_space(entry, space_name)
        for index in entry.indexes:
            if index.space == space.id and index.kind == kind:
                remove_index(write, entry.name, index)
                write.note(f"{entry.name}: drop index {kind} of space {space_name}")
                return
        known = [index.kind for index in entry.indexes if index.space == space.id]
        raise UnknownNameError(
            f"space {space_name!r} of collection {entry.name!r} has no index {kind!r}; it has {known}",
            kind="index",
            name=kind,
            available=known,
        )

    return operation


# --- building ---------------------------------------------------------------------------------------------


def _build_all(shop: Workshop, space: Space, provided: Provided, index: IndexEntry) -> tuple[_Work, Blobs] | None:
    """Build over everything sealed; None if there is nothing."""
    return _steady(shop, lambda read: _build_from(shop, read, space, provided, index, 0))


def _steady(shop: Workshop, work: Callable[[Callable[[], AbstractContextManager[Snapshot]]], R]) -> R:
    """Do `work` under short leases; if vectors were removed under it, again under one lease that keeps them."""
    try:
        return work(shop.read)
    except VectorsMovedError:
        log.info("vectors were removed during the build of an index; it begins again")
    with shop.read() as snapshot:
        return work(lambda: _Held(snapshot))


class _Held(AbstractContextManager[Snapshot]):
    """A snapshot that somebody else ends."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def __enter__(self) -> Snapshot:
        return self._snapshot

    def __exit__(self, *error: object) -> None:
        return None


def _build_from(
    shop: Workshop,
    read: Callable[[], AbstractContextManager[Snapshot]],
    space: Space,
    provided: Provided,
    index: IndexEntry,
    first: int,
) -> tuple[_Work, Blobs] | None:
    with read() as snapshot:
        entry = snapshot.entry(*shop.collection)
        _require_space(entry, space)
        view = CollectionView(snapshot, entry)
        work = _sealed_from(view, view.space(space), first)
    if not len(work.ordinals):
        return None
    watched = BuildView(read, shop.collection, space, work.ordinals)
    built = border.build(provided, watched, index.params, seed=index.seed, progress=shop.tell, cancel=shop.is_cancelled)
    watched.confirm()
    return work, border.dump(provided, built)


def _require_space(entry: CollectionEntry, space: Space) -> None:
    if all(known.id != space.id for known in entry.spaces.values()):
        raise SpaceMissingError(
            f"space {space.name!r} of collection {entry.name!r} was dropped while its index was built",
            name=space.name,
            available=list(entry.spaces),
        )


def _sealed_from(view: CollectionView, space_view: SpaceView, first: int) -> _Work:
    """Return the living sealed vectors from ordinal `first` on."""
    start = space_view.count_before(view.tx, first)
    positions = np.arange(start, space_view.sealed, dtype=np.int64)
    dead = space_view.dead(view.tx)
    if dead is not None:
        positions = positions[~dead[start : space_view.sealed]]
    ordinals = space_view.ordinals_at(view.tx, positions)
    return _Work(ordinals, first if first or not len(ordinals) else int(ordinals[0]), space_view.counts.tail_start)


def _store(write: WriteTx, provided: Provided, work: _Work, blobs: Blobs) -> IndexPart:
    return store_part(write, provided.thing.version, work.ordinals, work.first, work.stop, blobs)


# --- upkeep -----------------------------------------------------------------------------------------------


def upkeep(shop: Workshop) -> int:
    """Bring every index of a collection up to date; return how many had something to do.

    An index whose type is not available is left as it is.
    """
    with shop.read() as snapshot:
        entry = find_entry(snapshot, shop.collection)
    if entry is None:
        return 0
    useful = 0
    for index in entry.indexes:
        if shop.is_cancelled():
            raise CancelledError("optimize was cancelled; the indexes that were done stay done")
        try:
            provided = shop.registry.find("index type", index.kind)
        except (UnknownNameError, PluginError) as error:
            log.warning("index %r of collection %r is left as it is: %s", index.kind, entry.name, error)
            continue
        space = next(space for space in entry.spaces.values() if space.id == index.space)
        found = _Found(space, provided, index)
        try:
            change = _steady(shop, lambda read, found=found: _bring_up(shop, read, found))  # type: ignore[misc]
        except (CollectionMissingError, SpaceMissingError) as error:  # dropped meanwhile, and the index with it
            log.info("%s", error)
            continue
        useful += change is not None and _replace(shop, found, change)
    return useful


@dataclass(frozen=True, slots=True)
class _Found:
    """An index whose type is available."""

    space: Space
    provided: Provided
    index: IndexEntry


@dataclass(frozen=True, slots=True)
class _Change:
    """What is to become of an index: a new part, if there is one, behind those that are kept."""

    built: tuple[_Work, Blobs] | None
    kept: Sequence[IndexPart]


@dataclass(frozen=True, slots=True)
class _Condition:
    """What upkeep wants to know of an index."""

    broken: bool
    dead_share: float
    uncovered: int


def _bring_up(shop: Workshop, read: Callable[[], AbstractContextManager[Snapshot]], found: _Found) -> _Change | None:
    """Build what an index lacks; None if that is nothing, or somebody else changed the index meanwhile."""
    space, provided, index = found.space, found.provided, found.index
    with read() as snapshot:
        view = _unchanged(snapshot, shop, index)
        if view is None:
            return None
        condition = _condition(shop, view, view.space(space), found)
    able = provided.thing.capabilities
    most_parts = MAX_ENCODED if able.encodes_segments else MAX_PARTS
    due = condition.uncovered >= max(GROW_FROM, GROW_SHARE * max((part.count for part in index.parts), default=0))
    worn = condition.broken or condition.dead_share > DEAD_SHARE or len(index.parts) > most_parts
    if worn or (due and len(index.parts) >= most_parts and not able.add) or not index.parts:
        built = _build_from(shop, read, space, provided, index, 0)
        return _Change(built, ()) if built is not None or index.parts else None
    if condition.uncovered and able.add:
        grown = _grow(shop, read, found)
        return None if grown is None else _Change(grown, index.parts[:-1])
    if due:
        built = _build_from(shop, read, space, provided, index, index.stop)
        return None if built is None else _Change(built, index.parts)
    return None


def _unchanged(snapshot: Snapshot, shop: Workshop, index: IndexEntry) -> CollectionView | None:
    """Return the collection if its index is still what it was: blobs of parts that were replaced are gone."""
    entry = find_entry(snapshot, shop.collection)
    same = entry is not None and find_index(entry.indexes, index.id) == index
    return CollectionView(snapshot, entry) if entry is not None and same else None


def _condition(shop: Workshop, view: CollectionView, space_view: SpaceView, found: _Found) -> _Condition:
    broken, count, living = False, 0, 0
    dead = space_view.dead(view.tx)
    for part in found.index.parts:
        if isinstance(load_part(view, space_view, found.index, part, found.provided, shop.registry), str):
            return _Condition(True, 0.0, 0)
        table = find_places(view, space_view, part).of(np.arange(part.count, dtype=np.int64))
        there = table[table >= 0]
        count += part.count
        living += len(there) - (0 if dead is None else int(np.count_nonzero(dead[there])))
    uncovered = _sealed_from(view, space_view, found.index.stop)
    return _Condition(broken, 1.0 - living / count if count else 0.0, len(uncovered.ordinals))


def _replace(shop: Workshop, found: _Found, change: _Change) -> bool:
    """Store a new part behind those kept, unless somebody else changed the index meanwhile.

    Parts that commits encoded meanwhile stay where the new one does not cover their vectors.
    """
    known = found.index.parts

    def store(write: WriteTx) -> bool:
        entry = next((one for one in write.catalog.collections.values() if one.id == shop.collection[0]), None)
        current = None if entry is None else find_index(entry.indexes, found.index.id)
        if entry is None or current is None or current.parts[: len(known)] != known:
            return False
        new = () if change.built is None else (_store(write, found.provided, *change.built),)
        parts = (*change.kept, *new)
        behind = [part for part in current.parts[len(known) :] if part.first >= (parts[-1].stop if parts else 0)]
        put_index(write, entry.name, replace(current, parts=(*parts, *behind), owner=_owner(found.provided)))
        return True

    return shop.maintain(store)


def _grow(
    shop: Workshop, read: Callable[[], AbstractContextManager[Snapshot]], found: _Found
) -> tuple[_Work, Blobs] | None:
    """Let the last part take in what was sealed since, and forget what died; None if somebody else was quicker."""
    last = found.index.parts[-1]
    with read() as snapshot:
        view = _unchanged(snapshot, shop, found.index)
        if view is None:
            return None
        space_view = view.space(found.space)
        places = find_places(view, space_view, last)
        with PartView(view, space_view, last, places) as covered:
            index = border.load(found.provided, StoredBlobs(view.tx, last, own=True), covered, found.index.params)
        new = _sealed_from(view, space_view, last.stop)
        known = part_ordinals(view.tx, last)
        gone = _gone(view, space_view, places.of(np.arange(last.count, dtype=np.int64)))
    ordinals = np.concatenate([known, new.ordinals])
    whole = BuildView(read, shop.collection, found.space, ordinals, known=last.count)
    if found.provided.thing.capabilities.remove and len(gone):
        border.remove(found.provided, index, gone)
    border.add(found.provided, index, whole, last.count, progress=shop.tell, cancel=shop.is_cancelled)
    whole.confirm()
    return _Work(ordinals, last.first, new.stop), border.dump(found.provided, index)


def _gone(view: CollectionView, space_view: SpaceView, table: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the positions that no search may return any more: not even one of the oldest commit that is kept."""
    dead = space_view.dead_as_of(view.tx, view.snapshot.state.counters.horizon)
    lost = table < 0
    if dead is not None:
        lost |= dead[table]
    return np.flatnonzero(lost)


# --- in the commit that seals -----------------------------------------------------------------------------


def encoders(view: CollectionView, registry: PluginRegistry) -> list[LoadedPart]:
    """Return a loaded part of each index whose type encodes what a commit seals."""
    found = []
    for index in view.entry.indexes:
        try:
            provided = registry.find("index type", index.kind)
        except (UnknownNameError, PluginError):
            continue  # its vectors are scanned, and say so
        if provided.thing.capabilities.encodes_segments and index.parts:
            space = next(space for space in view.entry.spaces.values() if space.id == index.space)
            part = load_part(view, view.space(space), index, index.parts[-1], provided, registry)
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
            put_index(write, entry.name, replace(index, parts=(*index.parts, _store(write, part.provided, *encoded))))


def _sealed_more(pending: Pending, index: IndexEntry) -> bool:
    """Whether this commit sealed vectors; what an earlier one left uncovered alone is left to `upkeep`."""
    before, counts = pending.before.spaces.get(index.space), pending.spaces.get(index.space)
    return counts is not None and counts.tail_start > max(index.stop, before.tail_start if before is not None else 0)


def _encode(
    snapshot: Snapshot, entry: CollectionEntry, part: LoadedPart, index: IndexEntry
) -> tuple[_Work, Blobs] | None:
    """Only reads, so that whatever fails here leaves the commit as it was."""
    space = next(space for space in entry.spaces.values() if space.id == index.space)
    view = CollectionView(snapshot, snapshot.entry(*collection_key(entry)))
    work = _sealed_from(view, view.space(space), index.stop)
    if not len(work.ordinals):
        return None
    watched = BuildView(lambda: _Held(snapshot), collection_key(entry), space, work.ordinals)
    return work, border.encode_segment(part.provided, part.index, watched)


def collection_key(entry: CollectionEntry) -> tuple[int, str]:
    return entry.id, entry.name


# --- looking ----------------------------------------------------------------------------------------------


def describe(view: CollectionView, registry: PluginRegistry, number: int | None = None) -> list[IndexInfo]:
    """Return what `Collection.indexes` shows; with `number`, of that index alone."""
    return [_info(view, index, registry) for index in view.entry.indexes if number is None or index.id == number]


def _info(view: CollectionView, index: IndexEntry, registry: PluginRegistry) -> IndexInfo:
    space = next(space for space in view.entry.spaces.values() if space.id == index.space)
    space_view = view.space(space)
    usable = load_all(view, space_view, index, registry)
    facts, problem = _told(usable)
    return IndexInfo(
        space=space.name,
        kind=index.kind,
        params=dict(index.params),
        seed=index.seed,
        available=not usable.notes,
        reason=usable.notes[0] if usable.notes else problem,
        provided_by=usable.parts[0].provided.owner if usable.parts else index.owner,
        coverage=coverage(view, space_view, usable),
        parts=len(index.parts),
        bytes=sum(stored_bytes_of(part.blobs) for part in index.parts),
        stats=facts[0] if len(facts) == 1 else {"parts": str(facts)} if facts else {},
    )


def _told(usable: Usable) -> tuple[list[dict[str, int | float | str]], str | None]:
    """Return what the parts tell of themselves, and why they do not: an index can be used without that."""
    try:
        return [border.stats(part.provided, part.index) for part in usable.parts], None
    except PluginError as error:
        log.warning("%s", error)
        return [], error.message


def coverage(view: CollectionView, space_view: SpaceView, usable: Usable) -> float:
    """Return the share of the living vectors that the usable parts of an index cover."""
    live = space_view.counts.live
    if not live:
        return 1.0 if usable.entry is not None and not usable.notes else 0.0
    dead = space_view.dead(view.tx)
    covered = 0
    for each in usable.parts:
        table = find_places(view, space_view, each.part).of(np.arange(each.part.count, dtype=np.int64))
        there = table[table >= 0]
        covered += len(there) - (0 if dead is None else int(np.count_nonzero(dead[there])))
    return covered / live
