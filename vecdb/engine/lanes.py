"""The commonest search asked again: one vector, the same wishes, nothing committed since.

What a first search of the kind settled (arguments, condition, space, index, effort) holds for as long as the state of
the file, the plugins and the index are the same, so the next one begins with its vector. Invariant: an answer is the
one that the long way gives, bit for bit; whatever is not quite so goes the long way, which also reports what is wrong.
Lanes are kept with the state, and are gone with it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from weakref import WeakKeyDictionary, ref

import numpy as np
import numpy.typing as npt

from vecdb.arrays import is_plain_query
from vecdb.engine import indexed, search
from vecdb.engine.parts import Usable, chosen_by, still_chosen
from vecdb.engine.remembering import known_as
from vecdb.engine.routes import Route, known_route
from vecdb.engine.scanning import scan
from vecdb.engine.scanorder import scan_order, verify
from vecdb.engine.view import CollectionView
from vecdb.kernels import loader
from vecdb.lazy import LazyModule
from vecdb.storage.snapshot import Snapshot
from vecdb.storage.spaces import SpaceView
from vecdb.types import HitColumns, Hits, Space

if TYPE_CHECKING:
    from vecdb.blocks import VectorBlocks
    from vecdb.engine.bridge import answer as bridged
    from vecdb.engine.bridge.classes import VectorClass
    from vecdb.engine.guard import Guard, Warner
    from vecdb.registry import PluginRegistry
    from vecdb.storage.snapshot import State
    from vecdb.storage.state import CollectionEntry
else:  # collections of one model do without
    bridged = LazyModule("vecdb.engine.bridge.answer")

__all__ = ["Wish", "answer", "keep", "wish"]

F32 = npt.NDArray[np.float32]
Found = tuple[npt.NDArray[np.int64], F32]

_MOST: Final = 64
"""Lanes of a state."""


class Wish(NamedTuple):
    """What a lane is for: a collection, and arguments of the search."""

    collection: int
    space: str | None
    k: int
    exact: bool
    recall: float | None
    effort: int | None
    include: tuple[str, ...]
    where: str | None


_TEXTS: Final = {str}
_NUMBERS: Final = (float, int)


def are_usual(offset: object, prior: object, *given: tuple[object, ...]) -> bool:
    """Whether what a lane cannot have is None, and two numbers are zero; an offset of 0.0 or False is not usual."""
    if type(offset) is not int or offset or type(prior) not in _NUMBERS or prior:
        return False
    for some in given:
        for each in some:
            if each is not None:
                return False
    return True


def wish(collection: int, asked: tuple[Any, ...], where: Any) -> Wish | None:
    """Return what a search is remembered by, None if it is not: values of other types go the long way.

    Parameters
    ----------
    collection : int
        Its number.
    asked : tuple
        Of the arguments space, k, exact, recall, effort and include.
    where
        As in `Collection.search`.
    """
    space, k, exact, recall, effort, include = asked
    if type(k) is not int or type(exact) is not bool or type(include) is not tuple:
        return None
    if include and not set(map(type, include)) <= _TEXTS:
        return None
    if not (space is None or type(space) is str) or not (recall is None or type(recall) is float):
        return None
    if not (effort is None or type(effort) is int):
        return None
    text = None if where is None else known_as(where)
    if text is None and where is not None:
        return None
    return Wish(collection, space, k, exact, recall, effort, include, text)


Find = Callable[[CollectionView, F32], "Found | None"]
Note = Callable[[int, F32], None]


class _Lane(NamedTuple):
    """What was settled.

    Attributes
    ----------
    asked : Space
        Of the query.
    changes : int
        Of the registry: a plugin that came or went may know another way.
    usables : tuple of (dict, int, Usable)
        The indexes that are asked: where they are kept as long as they are chosen, and by the number of their space.
    columns : callable
        ``columns(view, queries, note)``: the hits of one query, None if it has to go the long way.
    quick : _Quick or None
        Where no more than ids and scores of one index's answer are wanted.
    """

    entry: CollectionEntry
    asked: Space
    registry: PluginRegistry
    changes: int
    usables: tuple[tuple[Any, int, Usable], ...]
    warn: Warner | None
    columns: Callable[[CollectionView, F32, Note], HitColumns | None]
    quick: _Quick | None


class _Quick(NamedTuple):
    """An answer of one index, of which ids and scores are wanted; `nearest`, `space`, `origin` as in `HitColumns`."""

    route: Route
    space_view: SpaceView
    nearest: float
    space: str
    origin: str

    def columns(self, snapshot: Snapshot, collection: int, queries: F32) -> HitColumns | None:
        """Return the hits of one query, None while not everything was proved and prepared, or if that fails."""
        route, space_view, nearest, space, origin = self
        ask = route.ask
        if ask is None or not space_view.all_sound:
            return None
        found = route.quickly(ask, queries)
        if found is None:
            return None
        ids = snapshot.id_list(collection, space_view.row_list(snapshot.tx, found[0]))
        return HitColumns(ids, found[1], nearest, space, None, None, None, origin)


class _Own(dict[Wish, _Lane]):
    """The lanes of one opened database at one state."""

    __slots__ = ("__weakref__", "state")

    def __init__(self, state: State) -> None:
        super().__init__()
        self.state = ref(state)


_Lanes = WeakKeyDictionary["Guard", _Own]
"""By the guard of an opened database: with that, lanes are let go of, and with them its plugins."""


def keep(
    view: CollectionView,
    guard: Guard,
    wished: Wish,
    request: search.SearchRequest,
    *,
    warn: Warner | None,
    registry: PluginRegistry,
) -> None:
    """Remember what a search that was just answered has settled, if the next one can begin with its vector."""
    if view.is_past or not loader.loaded():
        return
    made = _through(view, request, registry) if view.entry.transforms else _direct(view, request, registry)
    if made is None:
        return
    derived = view.snapshot.state.derived
    known: _Lanes = derived["lanes"] if "lanes" in derived else derived.setdefault("lanes", WeakKeyDictionary())
    lanes = known.get(guard)
    if lanes is None:
        lanes = known.setdefault(guard, _Own(view.snapshot.state))
    guard.lanes = ref(lanes)  # quicker to ask for than what holds them
    if len(lanes) >= _MOST:
        lanes.clear()
    usables = tuple((chosen_by(view.snapshot.state, registry), *each) for each in made[0])
    quick = _quick(made[1], request)
    lanes[wished] = _Lane(view.entry, request.space, registry, registry.changes, usables, warn, made[1], quick)


def _quick(columns: Any, request: search.SearchRequest) -> _Quick | None:
    """Return what is left to do where the query is not mapped, and nothing but ids and scores is wanted."""
    if columns.func is not _of_one or request.include:
        return None
    shown, space_view, find, way = columns.args
    if way is not None or find.func is not _by_route:
        return None
    nearest = 1.0 if shown.space.metric == "cosine" else 0.0
    return _Quick(find.args[1], space_view, nearest, shown.space.name, shown.origin)


_Made = tuple[tuple[tuple[int, "Usable"], ...], Callable[[CollectionView, F32, Note], "HitColumns | None"]]


def _direct(view: CollectionView, request: search.SearchRequest, registry: PluginRegistry) -> _Made | None:
    """Return how the vectors of the query's own space answer."""
    found = _seeker(view, request, registry)
    if found is None:
        return None
    usables, space_view, find = found
    return usables, partial(_of_one, request, space_view, find, None)


def _through(view: CollectionView, request: search.SearchRequest, registry: PluginRegistry) -> _Made | None:
    """Return how vectors answer, of which some may be reached through transforms."""
    known = bridged.alone(view, request, registry)
    if known is None:
        return _mixed(view, request, registry)
    way, allowed = known
    found = _seeker(view, request._replace(space=way.space, allowed=allowed), registry)
    if found is None:
        return None
    usables, space_view, find = found
    shown = request._replace(space=way.space, origin=way.origin)
    return usables, partial(_of_one, shown, space_view, find, None if way.direct else way)


def _mixed(view: CollectionView, request: search.SearchRequest, registry: PluginRegistry) -> _Made | None:
    several = bridged.several(view, request, registry)
    if several is None or any(way.fold is not None for way, _ in several.parts):
        return None
    usables: list[tuple[int, Usable]] = []
    finds = []
    for (way, allowed), deep in zip(several.parts, several.depths(request.k), strict=True):
        found = _seeker(view, request._replace(space=way.space, allowed=allowed, k=deep), registry)
        if found is None:
            return None
        usables += found[0]
        finds.append((way, found[2]))
    return tuple(usables), partial(_of_several, request, several, tuple(finds), registry)


def _of_one(
    request: search.SearchRequest,
    space_view: SpaceView,
    find: Find,
    way: VectorClass | None,
    view: CollectionView,
    queries: F32,
    note: Note,
) -> HitColumns | None:
    mapped = queries if way is None else way.levels(queries)[-1]
    found = find(view, mapped)
    if found is None:
        return None
    if way is not None:
        note(way.space.id, mapped)
    if request.include:
        return search.columns(view, space_view, request, [found])[0]
    return search.bare_columns(view, space_view, request, *found)


def _of_several(
    request: search.SearchRequest,
    several: bridged.Several,
    finds: tuple[tuple[VectorClass, Find], ...],
    registry: PluginRegistry,
    view: CollectionView,
    queries: F32,
    note: Note,
) -> HitColumns | None:
    answers = []
    for way, find in finds:
        levels = way.levels(queries)
        found = find(view, levels[-1])
        if found is None:
            return None
        answers.append((levels, found))
    for (way, _), (levels, _) in zip(finds, answers, strict=True):
        if way.walks:
            note(way.space.id, levels[-1])
    asked = request._replace(queries=queries)
    return bridged.columns_of(view, asked, [several.merging(view, asked, registry, note).of_found(answers)])[0]


def _seeker(
    view: CollectionView, request: search.SearchRequest, registry: PluginRegistry
) -> tuple[tuple[tuple[int, Usable], ...], SpaceView, Find] | None:
    """Return what finds the best of the vectors of one space, and by which index."""
    space_view = view.space(request.space)
    allowed = search.allowed_for(view, space_view, request) if request.allowed is None else request.allowed
    by_index = view.entry.indexes and not request.exact
    usable = still_chosen(view.snapshot.state, registry, request.space.id) if by_index else None
    find = _finder(view, space_view, request, allowed, usable)
    if find is None:
        return None
    return () if usable is None else ((request.space.id, usable),), space_view, find


def _finder(
    view: CollectionView,
    space_view: SpaceView,
    request: search.SearchRequest,
    allowed: search.Allowed,
    usable: Usable | None,
) -> Find | None:
    if allowed.parts is None or not allowed.count:
        return None
    if usable is not None and usable.parts:
        asked = (min(request.k, allowed.count), request.effort, request.recall)
        route = known_route(usable, allowed.parts, asked)
        if route is not None:
            return partial(_by_route, space_view, route)
        if not _is_scanned(view, space_view, request, allowed, usable):
            return None
    elif usable is None and view.entry.indexes and not request.exact:
        return None
    verify(view, space_view, allowed.mask, allowed.count)
    blocks = scan_order(view, space_view)
    return partial(_by_scan, blocks, min(request.k, allowed.count), allowed, request.threads)


def _is_scanned(
    view: CollectionView,
    space_view: SpaceView,
    request: search.SearchRequest,
    allowed: search.Allowed,
    usable: Usable,
) -> bool:
    """Whether a condition leaves so little that an index is not asked."""
    question = search.question_of(view, space_view, request, allowed, min(request.k, allowed.count))
    return indexed.scans_all(question, usable)


def _by_route(space_view: SpaceView, route: Route, view: CollectionView, queries: F32) -> Found | None:
    return route.answer(view, space_view, queries)


def _by_scan(
    blocks: VectorBlocks, k: int, allowed: search.Allowed, threads: int, view: CollectionView, queries: F32
) -> Found | None:
    found, _ = scan(blocks, queries, k, allowed=allowed.mask, matches=allowed.count, threads=threads)
    return found[0]


def answer(
    snapshot: Snapshot, guard: Guard, wished: Wish, query: npt.NDArray[Any], note: Callable[[int, F32], None]
) -> Hits | None:
    """Return the hits of one query, None if there is no lane for it at this state."""
    lanes: _Own | None = guard.lanes()
    lane = lanes.get(wished) if lanes is not None and lanes.state() is snapshot.state else None
    if lane is None or not loader.ready():
        return None
    entry, space, registry, changes, usables, warn, find, quick = lane
    if registry.changes != changes or query.shape != (space.dim,) or not is_plain_query(query):
        return None
    for chosen, number, usable in usables:
        if chosen.get(number) is not usable:
            return None
    queries = query.reshape(1, -1)
    queries.flags.writeable = False  # a view of its own: nobody who is asked may change what the caller gave
    columns = None if quick is None else quick.columns(snapshot, entry.id, queries)
    if columns is None:
        columns = find(CollectionView(snapshot, entry), queries, note)
    if columns is None:
        return None
    note(space.id, queries)
    said = () if warn is None else partial(_said, warn, queries.copy())
    return Hits(columns, seq=snapshot.seq, warnings=said)


def _said(warn: Warner, queries: F32) -> tuple[str, ...]:
    said = warn(queries)[0]
    return () if said is None else (said,)
