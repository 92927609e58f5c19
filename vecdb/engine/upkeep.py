"""Bringing indexes up to date: what is taken in, merged, built anew and measured, one commit for each step.

`due` decides from counts alone; the rules are in docs/explanation/storage-design.md. A step builds without any lock
and then stores, if the index is still what it started from. One index that fails does not keep the others waiting.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.contracts.index import IndexCapabilities
from vecdb.contracts.params import settle_stored
from vecdb.engine import border, measuring
from vecdb.engine.blobstore import StoredBlobs
from vecdb.engine.encoding import style_of
from vecdb.engine.parts import LoadedPart, load_part
from vecdb.engine.recall import RECORDED_FROM, curves_for
from vecdb.engine.view import CollectionView
from vecdb.engine.views import BuildView, PartView, find_entry, find_places
from vecdb.engine.workshop import (
    Built,
    Read,
    Work,
    Workshop,
    build_from,
    encode_from,
    measure,
    owner_of,
    sealed_from,
    staged,
    steady,
)
from vecdb.errors import (
    CancelledError,
    CollectionMissingError,
    PluginError,
    SpaceMissingError,
    UnknownNameError,
)
from vecdb.registry import Provided
from vecdb.storage.indexes import IndexEntry, IndexPart, find_index, part_ordinals
from vecdb.storage.indexstore import put_index
from vecdb.storage.measured import Measured
from vecdb.storage.snapshot import Snapshot
from vecdb.storage.spaces import SpaceView
from vecdb.storage.writetx import WriteTx
from vecdb.types import Space

MAX_PARTS: Final = 3
"""Built parts of an index; a search asks each of them."""
MAX_CODED: Final = 8
GROW_FROM: Final = 1_024
"""Uncovered vectors from which a part of their own is made; fewer are scanned."""
GROW_SHARE: Final = 0.02
PART_SHARE: Final = 0.1
"""Of two kinds of parts, one is built once a tenth of the largest waits for it."""
MERGE_SHARE: Final = 0.5
"""Parts are merged with the one before them once they have half of its vectors."""
DEAD_SHARE: Final = 0.3
"""Dead share of an index from which it is built anew."""
log = logging.getLogger("vecdb")


@dataclass(frozen=True, slots=True)
class Condition:
    """What upkeep wants to know of an index."""

    broken: bool
    dead_share: float
    uncovered: int


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done next: parts from number `kept` on give way to one that is built, grown or encoded.

    Attributes
    ----------
    how : {"build", "grow", "encode"}
    kept : int
    """

    how: str
    kept: int


# --- deciding ---------------------------------------------------------------------------------------------


def due(able: IndexCapabilities, parts: Sequence[IndexPart], condition: Condition) -> Step | None:
    """Return the next step of an index, None if it is as it should be."""
    if not parts or condition.broken or condition.dead_share > DEAD_SHARE:
        return Step("build", 0)
    if able.encodes_segments:
        return _due_of_codes(able, parts, condition.uncovered)
    if condition.uncovered and able.add:
        return Step("grow", len(parts) - 1)
    enough = condition.uncovered >= max(GROW_FROM, GROW_SHARE * max(part.count for part in parts))
    if len(parts) > MAX_PARTS or (enough and len(parts) == MAX_PARTS):
        return Step("build", 0)
    return Step("build", len(parts)) if enough else None


def _due_of_codes(able: IndexCapabilities, parts: Sequence[IndexPart], uncovered: int) -> Step | None:
    built = next((place for place, part in enumerate(parts) if part.coded), len(parts))
    coded = sum(part.count for part in parts[built:])
    if not built:
        return Step("build", 0)
    largest = max(part.count for part in parts[:built])
    if able.part_from:
        if coded + uncovered >= max(able.part_from, PART_SHARE * largest):
            return _due_of_built(able, parts[:built], coded + uncovered)
    elif coded + uncovered > sum(part.count for part in parts[:built]) and coded + uncovered >= GROW_FROM:
        return Step("build", 0)  # what the codes share was made for half of the vectors
    if uncovered >= GROW_FROM or len(parts) - built > MAX_CODED:
        return Step("encode", _merged_from(parts, built, uncovered))
    return None


def _due_of_built(able: IndexCapabilities, built: Sequence[IndexPart], waiting: int) -> Step:
    """Return how vectors come into a built part: the last grows, or there is one more, or the last are merged."""
    if able.add and waiting <= built[-1].count:
        return Step("grow", len(built) - 1)
    kept = len(built)
    while kept and waiting >= MERGE_SHARE * built[kept - 1].count:
        kept -= 1
        waiting += built[kept].count
    return Step("build", min(kept, MAX_PARTS - 1))


def _merged_from(parts: Sequence[IndexPart], built: int, count: int) -> int:
    """Return from which part on codes are made anew: no larger part before smaller ones, and not too many."""
    kept = len(parts)
    while kept > built and (parts[kept - 1].count <= 2 * count or kept - built >= MAX_CODED):
        kept -= 1
        count += parts[kept].count
    return kept


# --- doing ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    """An index whose type is available."""

    space: Space
    provided: Provided
    index: IndexEntry


def upkeep(shop: Workshop) -> int:
    """Bring every index of a collection up to date; return how many had something to do.

    An index whose type is not available is left as it is.

    Raises
    ------
    PluginError, StorageError
        What the first index that failed raised, once the others are done.
    CancelledError
    """
    with shop.read() as snapshot:
        entry = find_entry(snapshot, shop.collection)
    if entry is None:
        return 0
    useful, failed = 0, None
    for index in entry.indexes:
        try:
            provided = shop.registry.find("index type", index.kind)
        except (UnknownNameError, PluginError) as error:
            log.warning("index %r of collection %r is left as it is: %s", index.kind, entry.name, error)
            continue
        space = next(space for space in entry.spaces.values() if space.id == index.space)
        try:
            useful += _bring_up(shop, _Found(space, provided, index))
        except (CollectionMissingError, SpaceMissingError) as error:  # dropped meanwhile, and the index with it
            log.info("%s", error)
        except PluginError as error:
            log.warning("upkeep of index %r of collection %r failed: %s", index.kind, entry.name, error)
            failed = failed or error
    if failed is not None:
        raise failed
    return useful


def _bring_up(shop: Workshop, found: _Found) -> bool:
    """Take steps until none is due, and measure what was not; return whether there was something to do."""
    useful, taken = False, set[Step]()
    while True:
        if shop.is_cancelled():
            raise CancelledError("optimize was cancelled; the steps that were done stay done")
        index = steady(shop, lambda read, found=found: _take_step(shop, read, found, taken))  # type: ignore[misc]
        if index is None:
            break
        useful, found = True, replace(found, index=index)
    return _measure_parts(shop, found) or useful


def _take_step(shop: Workshop, read: Read, found: _Found, taken: set[Step]) -> IndexEntry | None:
    """Do what is due and return the index as it is then; None if nothing is, or somebody else was quicker.

    A step that is still due after it was taken did not help, as where a plugin cannot load what it has built.
    """
    with read() as snapshot:
        view = _unchanged(snapshot, shop, found.index)
        if view is None:
            return None
        condition = _condition(shop, view, view.space(found.space), found)
    parts = found.index.parts
    step = due(found.provided.thing.capabilities, parts, condition)
    if step is None or step in taken:
        return None
    first = parts[step.kept].first if step.kept < len(parts) else found.index.stop
    if step.how == "grow":
        built = _grow(shop, read, found, parts[step.kept])
    elif step.how == "encode":
        built = _encode(shop, read, found, first)
    else:
        first = first if step.kept else 0
        built = build_from(shop, read, found.space, found.provided, found.index, first)
    if built is None and (step.how == "grow" or step.kept == len(parts)):
        return None
    taken.add(step)
    return _replace(shop, found, built, step.kept)


def _unchanged(snapshot: Snapshot, shop: Workshop, index: IndexEntry) -> CollectionView | None:
    """Return the collection if its index is still what it was: blobs of parts that were replaced are gone."""
    entry = find_entry(snapshot, shop.collection)
    same = entry is not None and find_index(entry.indexes, index.id) == index
    return CollectionView(snapshot, entry) if entry is not None and same else None


def _condition(shop: Workshop, view: CollectionView, space_view: SpaceView, found: _Found) -> Condition:
    count, living = 0, 0
    dead = space_view.dead(view.tx)
    for part in found.index.parts:
        if isinstance(load_part(view, space_view, found.index, part, found.provided, shop.registry), str):
            return Condition(True, 0.0, 0)
        table = find_places(view, space_view, part).of(np.arange(part.count, dtype=np.int64))
        there = table[table >= 0]
        count += part.count
        living += len(there) - (0 if dead is None else int(np.count_nonzero(dead[there])))
    uncovered = sealed_from(view, space_view, found.index.stop)
    return Condition(False, 1.0 - living / count if count else 0.0, len(uncovered.ordinals))


def _replace(shop: Workshop, found: _Found, built: Built | None, kept: int) -> IndexEntry | None:
    """Store a new part behind those kept, unless somebody else changed the index meanwhile; return the index then.

    Parts that commits encoded meanwhile stay where the new one does not cover their vectors.
    """
    known = found.index.parts
    stored: list[IndexEntry] = []

    def store(write: WriteTx) -> bool:
        stored.clear()
        entry = next((one for one in write.catalog.collections.values() if one.id == shop.collection[0]), None)
        current = None if entry is None else find_index(entry.indexes, found.index.id)
        if entry is None or current is None or current.parts[: len(known)] != known:
            return False
        new = () if ready is None else (ready.store(write, found.provided),)
        parts = (*known[:kept], *new)
        behind = [part for part in current.parts[len(known) :] if part.first >= (parts[-1].stop if parts else 0)]
        params = current.params
        if not kept:  # nothing is left that was built with others
            params = settle_stored(found.provided.name, found.provided.thing.parameters, params)
        stored.append(replace(current, params=params, parts=(*parts, *behind), owner=owner_of(found.provided)))
        put_index(write, entry.name, stored[0])
        return True

    with staged(shop, built) as ready:
        return stored[0] if shop.maintain(store) else None


def _encode(shop: Workshop, read: Read, found: _Found, first: int) -> Built | None:
    with read() as snapshot:
        view = _unchanged(snapshot, shop, found.index)
        if view is None:
            return None
        style = load_part(
            view, view.space(found.space), found.index, style_of(found.index), found.provided, shop.registry
        )
    if not isinstance(style, LoadedPart):
        return None
    return encode_from(shop, read, found.space, found.provided, style.index, first)


def _grow(shop: Workshop, read: Read, found: _Found, last: IndexPart) -> Built | None:
    """Let a part take in what was sealed since, and forget what died; None if somebody else was quicker."""
    with read() as snapshot:
        view = _unchanged(snapshot, shop, found.index)
        if view is None:
            return None
        space_view = view.space(found.space)
        places = find_places(view, space_view, last)
        with PartView(view, space_view, last, places) as covered:
            index = border.load(found.provided, StoredBlobs(view.tx, last), covered, found.index.params)
        new = sealed_from(view, space_view, last.stop)
        known = part_ordinals(view.tx, last)
        gone = _gone(view, space_view, places.of(np.arange(last.count, dtype=np.int64)))
    ordinals = np.concatenate([known, new.ordinals])
    whole = BuildView(read, shop.collection, found.space, ordinals, known=last.count)
    if found.provided.thing.capabilities.remove and len(gone):
        border.remove(found.provided, index, gone)
    border.add(found.provided, index, whole, last.count, progress=shop.tell, cancel=shop.is_cancelled)
    whole.confirm()
    measured = measure(shop, read, found.space, found.provided, found.index, index, ordinals)
    return Built(
        Work(ordinals, last.first, new.stop), border.dump(found.provided, index), coded=last.coded, measured=measured
    )


def _gone(view: CollectionView, space_view: SpaceView, table: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the positions that no search may return any more: not even one of the oldest commit that is kept."""
    dead = space_view.dead_as_of(view.tx, view.snapshot.state.counters.horizon)
    lost = table < 0
    if dead is not None:
        lost |= dead[table]
    return np.flatnonzero(lost)


# --- measuring what was not ---------------------------------------------------------------------------------


def _measure_parts(shop: Workshop, found: _Found) -> bool:
    """Measure parts of which nothing is known, or not what recorded queries find; store it with the catalog."""
    measured: dict[int, Measured] = {}
    recorded = shop.recorded(found.space.id)
    for part in found.index.parts:
        if needs_measuring(found.provided, found.index, part, 0 if recorded is None else len(recorded)):
            if shop.is_cancelled():
                raise CancelledError("optimize was cancelled; the steps that were done stay done")
            known = steady(shop, lambda read, part=part: _measure(shop, read, found, part))  # type: ignore[misc]
            if known is not None and known.curves:
                measured[part.set] = known
    if not measured:
        return False

    def store(write: WriteTx) -> bool:
        entry = next((one for one in write.catalog.collections.values() if one.id == shop.collection[0]), None)
        current = None if entry is None else find_index(entry.indexes, found.index.id)
        if entry is None or current is None:
            return False
        parts = tuple(replace(part, measured=measured.get(part.set, part.measured)) for part in current.parts)
        if parts == current.parts:
            return False
        put_index(write, entry.name, replace(current, parts=parts))
        return True

    return shop.maintain(store)


def needs_measuring(provided: Provided, index: IndexEntry, part: IndexPart, recorded: int) -> bool:
    """Whether a part is worth measuring: nothing is known of it, or far more queries are recorded than were then."""
    able: Any = provided.thing.capabilities
    if able.exact or part.count < measuring.MEASURE_FROM:
        return False
    if not part.measured.curves:
        return not curves_for(index, part, two_kinds=bool(able.part_from))
    return recorded >= RECORDED_FROM and recorded >= 4 * part.measured.recorded


def _measure(shop: Workshop, read: Read, found: _Found, part: IndexPart) -> Measured | None:
    with read() as snapshot:
        view = _unchanged(snapshot, shop, found.index)
        if view is None:
            return None
        loaded = load_part(view, view.space(found.space), found.index, part, found.provided, shop.registry)
        ordinals = part_ordinals(view.tx, part)
    if not isinstance(loaded, LoadedPart):
        return None
    return measure(shop, read, found.space, found.provided, found.index, loaded.index, ordinals)
