"""Stored relevance filters of a collection: put into the catalog, dropped, loaded once, described, proven.

What cannot be used is never fatal: a kind that is not installed, a state of another version or a damaged one make a
filter unavailable, with the reason; only searches that name it fail. Invariant: a state is given to a plugin only after
its digest was compared. Bytes: docs/explanation/storage-design.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from vecdb.contracts.relevance import RelevanceFilter
from vecdb.contracts.state import state_digest
from vecdb.engine.loaded import find_named, memory_of
from vecdb.engine.relevance import border
from vecdb.engine.relevance.basis import basis_of, mismatch
from vecdb.engine.view import CollectionView
from vecdb.errors import (
    CorruptionError,
    ExistsError,
    ParameterError,
    PluginError,
    PluginMissingError,
    StaleError,
    StateError,
    UnknownNameError,
    VecdbError,
)
from vecdb.registry import PluginRegistry, Provided
from vecdb.storage.blobs import stored_bytes_of
from vecdb.storage.format import pack
from vecdb.storage.relevance import FilterEntry, read_filter_queries, read_filter_state, read_judgements
from vecdb.storage.relevancestore import FilterBlobs, remove_filters, store_filter
from vecdb.storage.snapshot import Snapshot, entry_by_number
from vecdb.storage.state import CollectionEntry
from vecdb.storage.tx import Tx
from vecdb.storage.writetx import WriteTx
from vecdb.types import Space
from vecdb.verdicts import FilterInfo

Collection = tuple[int, str]

MAX_FACTS: Final = 16_384
"""Bytes of parameters and report of one filter: the catalog is read by every commit."""
MAX_FILTERS: Final = 1_000
"""Of one collection."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedFilter:
    """A stored filter that can judge."""

    entry: FilterEntry
    provided: Provided
    filter: RelevanceFilter
    space: Space


# --- storing ----------------------------------------------------------------------------------------------


def put_filter(
    collection: Collection, space: Space, entry: FilterEntry, blobs: FilterBlobs, *, replaces: int | None = None
) -> Callable[[WriteTx], FilterEntry]:
    """Return the operation that stores a filter, everything that can be refused having been refused.

    Parameters
    ----------
    collection : tuple of int and str
    space : Space
    entry : FilterEntry
        Without the number of its set.
    blobs : FilterBlobs
    replaces : int, optional
        The set of the filter of the same name that it is the next revision of; default: the name is new.

    The operation raises `ExistsError` if the name is taken, and `StateError` if the space, or the filter that it
    replaces, is no longer there.
    """
    size = len(pack([dict(entry.params), dict(entry.report)]))
    if size > MAX_FACTS:
        raise ParameterError(
            f"parameters and report of a relevance filter take {size} bytes, expected at most {MAX_FACTS}",
            name="params",
            got=size,
            allowed=f"at most {MAX_FACTS} bytes",
        )

    def operation(write: WriteTx) -> FilterEntry:
        current = entry_by_number(write.catalog, *collection)
        if space.id not in {known.id for known in current.spaces.values()}:
            raise StateError(f"space {space.name!r} was dropped while its relevance filter was fitted")
        _refuse_taken(current, entry.name, replaces)
        stored = store_filter(write, current.name, entry, blobs)
        write.note(f"{current.name}: store relevance filter {stored.name}")
        return stored

    return operation


def _refuse_taken(current: CollectionEntry, name: str, replaces: int | None) -> None:
    known = {each.name: each.set for each in current.filters}
    if replaces is not None and known.get(name) != replaces:
        raise StateError(f"relevance filter {name!r} was changed or dropped while it was fitted again")
    if replaces is None:
        refuse_name(current, name)
        if len(known) >= MAX_FILTERS:
            raise ParameterError(
                f"collection {current.name!r} has {MAX_FILTERS} relevance filters already",
                name="name",
                got=name,
                allowed=f"at most {MAX_FILTERS} relevance filters",
            )


def correction_named(entry: CollectionEntry, space: Space, name: object) -> int:
    """Return the set of the score correction of this name.

    Raises
    ------
    UnknownNameError
        There is none of this name in the space.
    """
    known = {each.name: each.set for each in entry.corrections if each.space == space.id}
    if not isinstance(name, str) or name not in known:
        raise UnknownNameError(
            f"space {space.name!r} of collection {entry.name!r} has no correction {name!r}; it has {list(known)}",
            kind="correction",
            name=str(name),
            available=list(known),
        )
    return known[name]


def refuse_name(entry: CollectionEntry, name: str) -> None:
    """Refuse a name that a filter has already.

    Raises
    ------
    ExistsError
    """
    if name in {each.name for each in entry.filters}:
        raise ExistsError(
            f"collection {entry.name!r} has a relevance filter {name!r}",
            hint="Fit it again with refit_relevance(), drop it with drop_relevance(), or choose another name.",
            kind="relevance filter",
            name=name,
        )


def drop_filter(collection: Collection, name: object) -> Callable[[WriteTx], None]:
    """Return the operation that removes a filter and what it stored; its kind need not be installed."""

    def operation(write: WriteTx) -> None:
        entry = entry_by_number(write.catalog, *collection)
        remove_filters(write, entry.name, [find_filter(entry, name)])
        write.note(f"{entry.name}: drop relevance filter {name}")

    return operation


def find_filter(entry: CollectionEntry, name: object) -> FilterEntry:
    """Return a stored filter by name; UnknownNameError if there is none."""
    return find_named(entry.filters, entry.name, "relevance filter", name)


# --- loading ----------------------------------------------------------------------------------------------


def load_filter(
    snapshot: Snapshot, collection: CollectionEntry, entry: FilterEntry, registry: PluginRegistry
) -> LoadedFilter:
    """Return a stored filter that can judge; it is read and proven once in an opening of the file.

    Raises
    ------
    PluginMissingError
        No plugin that is loaded here provides its kind.
    StaleError
        It was stored by another version of its kind.
    CorruptionError
        What is stored is damaged.
    """
    provided = provided_for(entry, registry)
    memory = memory_of(snapshot.state, "relevance")
    known: LoadedFilter | None = memory.loaded.get(entry.set)
    if known is not None and known.provided.thing is provided.thing and known.entry == entry:
        return known
    made = _load(snapshot.tx, collection, entry, provided)
    memory.loaded[entry.set] = made
    return made


def provided_for(entry: FilterEntry, registry: PluginRegistry) -> Provided:
    """Return the kind of a stored filter.

    Raises
    ------
    PluginMissingError, StaleError
    """
    try:
        provided = registry.find("relevance filter", entry.kind)
    except (UnknownNameError, PluginError) as error:
        why = error.message if isinstance(error, PluginError) else "no plugin that is loaded here provides it"
        raise PluginMissingError(
            f"relevance filter {entry.name!r} of kind {entry.kind!r} is unavailable: {why}",
            hint=f"Install what provided it ({entry.owner}), or drop it." if entry.owner else None,
            kind="relevance filter",
            name=entry.kind,
        ) from error
    if entry.version != int(provided.thing.version):
        raise stale(
            entry,
            f"it was stored by version {entry.version} of kind {entry.kind!r}, {provided.owner} has version "
            f"{provided.thing.version}",
        )
    return provided


def stale(entry: FilterEntry, reason: str) -> StaleError:
    """Return the error for a filter that does not fit what it is asked of."""
    return StaleError(
        f"relevance filter {entry.name!r} is stale: {reason}",
        hint="Fit it again with refit_relevance(), or search with allow_stale=True.",
        name=entry.name,
        reason=reason,
    )


def _load(tx: Tx, collection: CollectionEntry, entry: FilterEntry, provided: Provided) -> LoadedFilter:
    state = read_filter_state(tx, entry)
    if state_digest(state) != entry.digest:
        raise CorruptionError(
            f"the state of relevance filter {entry.name!r} is not the one that was stored",
            hint="Fit it again.",
            what="relevance filter",
            where=entry.name,
        )
    space = next(space for space in collection.spaces.values() if space.id == entry.space)
    return LoadedFilter(entry, provided, border.load(provided, state), space)


# --- for people -------------------------------------------------------------------------------------------


def describe(view: CollectionView, registry: PluginRegistry) -> tuple[FilterInfo, ...]:
    """Return what `Collection.relevance_filters` shows."""
    return tuple(info_of(view, each, registry) for each in view.entry.filters)


def info_of(view: CollectionView, entry: FilterEntry, registry: PluginRegistry) -> FilterInfo:
    """Return one filter as people see it."""
    spaces = {space.id: space for space in view.entry.spaces.values()}
    known = {each.set: each.name for each in view.entry.corrections}
    stale_for, available, reason, threshold = _standing(view, spaces[entry.space], entry, registry)
    return FilterInfo(
        name=entry.name,
        space=spaces[entry.space].name,
        kind=entry.kind,
        params=dict(entry.params),
        threshold=threshold,
        revision=entry.revision,
        seed=entry.seed,
        pool=entry.pool,
        queries=entry.queries,
        positives=entry.positives,
        missed=entry.missed,
        correction=known.get(entry.correction, "(dropped)") if entry.correction else None,
        report=dict(entry.report),
        stale=stale_for,
        available=available,
        reason=reason,
        created=entry.created,
        provided_by=entry.owner,
        bytes=stored_bytes_of(entry.lines),
    )


def _standing(
    view: CollectionView, space: Space, entry: FilterEntry, registry: PluginRegistry
) -> tuple[bool, bool, str | None, float | None]:
    """Return whether a filter is stale, whether it can be used at all, why, and its threshold."""
    try:
        loaded = load_filter(view.snapshot, view.entry, entry, registry)
    except StaleError as error:
        return True, False, error.message, None
    except VecdbError as error:
        return False, False, error.message, None
    able: Any = loaded.provided.thing.capabilities
    if entry.correction and entry.correction not in {each.set for each in view.entry.corrections}:
        return True, True, "the correction that it was fitted with was dropped", loaded.filter.threshold
    reason = mismatch(view.entry, space, entry.basis, basis_of(view, space, registry), able)
    return reason is not None, True, reason, loaded.filter.threshold


def problems(tx: Tx, collection: CollectionEntry, entry: FilterEntry, registry: PluginRegistry | None) -> Iterator[str]:
    """Yield what is wrong with a stored filter, for `check`; without a registry its kind is not asked."""
    if entry.space not in {space.id for space in collection.spaces.values()}:
        yield "belongs to a space that is not there"
        return
    read_filter_queries(tx, entry)
    read_judgements(tx, entry)
    if state_digest(read_filter_state(tx, entry)) != entry.digest:
        yield "does not hold the state that was stored"
    elif registry is not None:
        try:
            provided = provided_for(entry, registry)
        except VecdbError:
            return  # what is not installed, or of another version, cannot be asked
        try:
            _load(tx, collection, entry, provided)
        except VecdbError as error:
            yield f"cannot be loaded: {error.message}"


def renewed(entry: FilterEntry, **changes: Any) -> FilterEntry:
    """Return the entry of the next revision of a filter."""
    return replace(entry, set=0, lines=(), revision=entry.revision + 1, **changes)
