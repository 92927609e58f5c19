"""Making and dropping indexes: built without a lock, added to the catalog with their first part in one commit.

Also which kind a space should have, for ``"auto"`` and for the automatic index of a space that has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from vecdb.contracts.params import settle_params
from vecdb.engine.names import check_count
from vecdb.engine.workshop import Workshop, build_all, owner_of, staged
from vecdb.errors import ExistsError, ParameterError, PluginError, StateError, UnknownNameError
from vecdb.registry import Provided
from vecdb.storage.indexes import IndexEntry
from vecdb.storage.indexstore import put_index, remove_index
from vecdb.storage.snapshot import entry_by_number, find_space
from vecdb.storage.state import CollectionEntry
from vecdb.storage.writetx import WriteTx
from vecdb.types import Space

AUTOMATIC_FROM: Final = 4_096
AUTOMATIC_COMPONENTS: Final = 1 << 21
"""So many vectors and components are scanned in some tenths of a millisecond; an index pays from there on."""
CODES_UP_TO: Final = 100_000
"""Vectors up to which a scan of codes, which needs no build, is the automatic choice; a graph above."""


def create_index(
    shop: Workshop,
    space_name: str,
    kind: str,
    params: Mapping[str, Any],
    seed: int,
    *,
    automatic: bool = False,
) -> int:
    """Build an index over what is sealed, and add it to the catalog with its first part in one commit.

    It takes the place of an automatic one. An automatic one itself is added in a commit that users do not see, unless
    they made or dropped an index meanwhile.

    Returns
    -------
    int
        The number of the index; 0 if an automatic one was not wanted any more.
    """
    seed = check_count("seed", seed, 0)
    with shop.read() as snapshot:
        entry = snapshot.entry(*shop.collection)
        space = find_space(entry, space_name)
        live = snapshot.counts(entry.id).spaces[space.id].live
    if kind == "auto":
        kind, params = choose_kind(shop, space, live, params) or ("flat", dict(params))
    provided = shop.registry.find("index type", kind)
    _check_suits(provided, space)
    settled = settle_params(f"index type {provided.name!r}", provided.thing.parameters, params)
    _refuse_second(entry, space, provided.name)
    made = IndexEntry(0, space.id, provided.name, settled, seed, owner_of(provided), automatic=automatic)
    built = build_all(shop, space, provided, made)

    numbers: list[int] = []

    def add(write: WriteTx) -> bool:
        numbers.clear()
        current = entry_by_number(write.catalog, *shop.collection)
        if automatic and not is_wanted(current, space.id, provided.name):
            return False
        named = find_space(current, space_name)
        if named.id != space.id:
            raise StateError(f"space {space_name!r} was replaced while its index was built")
        _refuse_second(current, named, provided.name)
        for index in [index for index in current.indexes if index.space == space.id and index.automatic]:
            remove_index(write, current.name, index)
        _decline(write, current.name, space.id, declined=False)
        numbers.append(write.catalog.next_index)
        write.catalog = replace(write.catalog, next_index=numbers[0] + 1)
        parts = () if ready is None else (ready.store(write, provided),)
        put_index(write, current.name, replace(made, id=numbers[0], parts=parts))
        write.note(f"{current.name}: create index {provided.name} of space {space_name}")
        return True

    with staged(shop, built) as ready:
        if automatic:
            shop.maintain(add)
        else:
            shop.write(add)
    return numbers[0] if numbers else 0


def is_wanted(entry: CollectionEntry, space: int, kind: str) -> bool:
    """Whether a space may get an automatic index of a kind: no other was made by hand, none was dropped."""
    mine = [index for index in entry.indexes if index.space == space]
    return space not in entry.declined and all(index.automatic and index.kind != kind for index in mine)


def _decline(write: WriteTx, collection: str, space: int, *, declined: bool) -> None:
    entry = write.catalog.collections[collection]
    spaces = entry.declined | {space} if declined else entry.declined - {space}
    if spaces != entry.declined:
        write.catalog = write.catalog.with_collection(replace(entry, declined=spaces))


def choose_kind(
    shop: Workshop, space: Space, live: int, params: Mapping[str, Any]
) -> tuple[str, dict[str, Any]] | None:
    """Return the kind of index that a space should have: plugins are asked first; None while scans are quick enough."""
    answer = shop.registry.choose("vecdb_choose_index", space=space, count=live)
    if answer is None:
        if live < AUTOMATIC_FROM or live * space.dim < AUTOMATIC_COMPONENTS:
            return None
        large = "ivf" if space.dtype == "int8" else "graph"  # a walk reads vectors where they lie, as floats
        return ("rabitq" if live <= CODES_UP_TO else large), dict(params)
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
    """Refuse an index of a kind that somebody made already; an automatic one gives way to it."""
    if any(index.space == space.id and index.kind == kind and not index.automatic for index in entry.indexes):
        raise ExistsError(
            f"space {space.name!r} of collection {entry.name!r} has an index {kind!r}",
            hint="Drop it first with drop_index(), or bring it up to date with optimize().",
            kind="index",
            name=kind,
        )


def drop_index(collection: tuple[int, str], space_name: str, kind: str) -> Callable[[WriteTx], None]:
    """Return the operation that drops an index; its type need not be installed."""

    def operation(write: WriteTx) -> None:
        entry = entry_by_number(write.catalog, *collection)
        space = find_space(entry, space_name)
        for index in entry.indexes:
            if index.space == space.id and index.kind == kind:
                remove_index(write, entry.name, index)
                _decline(write, entry.name, space.id, declined=True)
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
