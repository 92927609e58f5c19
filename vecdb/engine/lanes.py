"""The commonest search asked again: one vector, the same wishes, nothing committed since.

What a first search of the kind settled (arguments, condition, space, index, effort) holds for as long as the state of
the file, the plugins and the index are the same, so the next one begins with its vector. Invariant: an answer is the
one that the long way gives, bit for bit; whatever is not quite so goes the long way, which also reports what is wrong.
Lanes are kept with the state, and are gone with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from vecdb.arrays import is_plain_query
from vecdb.engine import indexed, search
from vecdb.engine.parts import Usable, still_chosen
from vecdb.engine.remembering import known_as
from vecdb.engine.routes import Route, known_route
from vecdb.engine.scanning import scan
from vecdb.engine.scanorder import scan_order, verify
from vecdb.engine.view import CollectionView
from vecdb.kernels import loader
from vecdb.lazy import LazyModule
from vecdb.storage.snapshot import Snapshot
from vecdb.storage.spaces import SpaceView
from vecdb.types import Hits, Space

if TYPE_CHECKING:
    from vecdb.blocks import VectorBlocks
    from vecdb.engine.bridge import answer as bridged
    from vecdb.engine.bridge.classes import VectorClass
    from vecdb.engine.guard import Guard, Warner
    from vecdb.registry import PluginRegistry
    from vecdb.storage.state import CollectionEntry
else:  # collections of one model do without
    bridged = LazyModule("vecdb.engine.bridge.answer")

__all__ = ["Wish", "answer", "keep", "wish"]

F32 = npt.NDArray[np.float32]
Found = tuple[npt.NDArray[np.int64], F32]

_MOST: Final = 64
"""Lanes of a state."""


class Wish(NamedTuple):
    """What a lane is for; `of` is the guard of the opened database, the others are arguments of the search."""

    of: Guard
    collection: int
    space: str | None
    k: int
    exact: bool
    recall: float | None
    effort: int | None
    include: tuple[str, ...]
    where: str | None


_UNASKED: Final = {type(None)}
_FLAGS: Final = {int, bool, float}


def are_usual(given: tuple[object, ...], numbers: tuple[Any, ...]) -> bool:
    """Whether all arguments that a lane cannot have are as they are by default: None, and zero or false."""
    return set(map(type, given)) == _UNASKED and set(map(type, numbers)) <= _FLAGS and not any(numbers)


def wish(of: tuple[Guard, int], numbers: tuple[Any, ...], include: Sequence[str], where: Any) -> Wish | None:
    """Return what a search is remembered by, None if it is not: values of other types go the long way.

    Parameters
    ----------
    of : tuple
        The guard of the opened database, and the number of the collection.
    numbers : tuple
        Of the arguments space, k, exact, recall and effort.
    include, where
        As in `Collection.search`.
    """
    space, k, exact, recall, effort = numbers
    if type(k) is not int or type(exact) is not bool or type(include) is not tuple:
        return None
    if not (space is None or type(space) is str) or not (recall is None or type(recall) is float):
        return None
    if not (effort is None or type(effort) is int):
        return None
    text = None if where is None else known_as(where)
    return None if text is None and where is not None else Wish(*of, space, k, exact, recall, effort, include, text)


class _Lane(NamedTuple):
    """What was settled.

    Attributes
    ----------
    asked : Space
        Of the query.
    changes : int
        Of the registry: a plugin that came or went may know another way.
    way : VectorClass or None
        How the query gets to the vectors of `request.space`, if they are of another space.
    request : SearchRequest
        The first one; of its queries nothing is used.
    find : callable
        ``find(view, queries)``: positions and canonical scores of one query, None if it has to go the long way.
    """

    entry: CollectionEntry
    asked: Space
    changes: int
    way: VectorClass | None
    request: search.SearchRequest
    space_view: SpaceView
    registry: PluginRegistry
    usable: Usable | None
    warn: Warner | None
    find: Callable[[CollectionView, F32], Found | None]


def keep(
    view: CollectionView, wished: Wish, request: search.SearchRequest, warn: Warner | None, registry: PluginRegistry
) -> None:
    """Remember what a search that was just answered has settled, if the next one can begin with its vector."""
    if view.is_past or not loader.loaded():
        return
    asked, way = request.space, None
    if view.entry.transforms:
        known = bridged.alone(view, request, registry)
        if known is None:
            return
        way, allowed = known
        request = request._replace(space=way.space, allowed=allowed, origin=way.origin)
    space_view = view.space(request.space)
    allowed = search.allowed_for(view, space_view, request) if request.allowed is None else request.allowed
    by_index = view.entry.indexes and not request.exact
    usable = still_chosen(view.snapshot.state, registry, request.space.id) if by_index else None
    find = _finder(view, space_view, request, allowed, usable)
    if find is None:
        return
    lanes: dict[Wish, _Lane] = view.snapshot.state.derived.setdefault("lanes", {})
    if len(lanes) >= _MOST:
        lanes.clear()
    way = None if way is None or way.direct else way
    lanes[wished] = _Lane(view.entry, asked, registry.changes, way, request, space_view, registry, usable, warn, find)


def _finder(
    view: CollectionView,
    space_view: SpaceView,
    request: search.SearchRequest,
    allowed: search.Allowed,
    usable: Usable | None,
) -> Callable[[CollectionView, F32], Found | None] | None:
    if allowed.parts is None or not allowed.count:
        return None
    if usable is not None and usable.parts:
        asked = (min(request.k, allowed.count), request.effort, request.recall)
        route = known_route(usable, allowed.parts, asked)
        if route is not None:
            return partial(_by_route, space_view, route)
        if not _is_scanned(view, space_view, request, allowed, usable):
            return None
    elif view.entry.indexes and not request.exact:
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


def answer(snapshot: Snapshot, wished: Wish, query: npt.NDArray[Any], note: Callable[[int, F32], None]) -> Hits | None:
    """Return the hits of one query, None if there is no lane for it at this state."""
    lanes: dict[Wish, _Lane] | None = snapshot.state.derived.get("lanes")
    lane = None if lanes is None else lanes.get(wished)
    if lane is None or not loader.ready():
        return None
    entry, space, changes, way, request, space_view, registry, usable, warn, find = lane
    if registry.changes != changes:
        return None
    if usable is not None and still_chosen(snapshot.state, registry, request.space.id) is not usable:
        return None
    if query.shape != (space.dim,) or not is_plain_query(query):
        return None
    queries = query.reshape(1, space.dim)
    view = CollectionView(snapshot, entry)
    mapped = queries if way is None else way.levels(queries)[-1]
    found = find(view, mapped)
    if found is None:
        return None
    note(space.id, queries)
    if way is not None:
        note(way.space.id, mapped)
    columns = search.columns(view, space_view, request, [found])
    said = () if warn is None else partial(search.Warnings(warn, queries).of, 0)
    return Hits(columns[0], seq=view.seq, warnings=said)
