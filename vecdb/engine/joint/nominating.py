"""Candidates of both classes from one index: a joint space is asked once for each side that a class has records on.

What it names is scored as its own class scores, so that a score does not depend on the way; native ones are the bits of
a native search. A class whose records do not all have a row, or that is quicker scanned, is left to the usual ways.
Everything about one state of the file is remembered with the views of its spaces.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from vecdb import exact
from vecdb.engine import search
from vecdb.engine.bridge import folding, masks
from vecdb.engine.bridge.classes import VectorClass, memory_of
from vecdb.engine.joint.following import load_maps
from vecdb.engine.joint.making import waiting_in
from vecdb.engine.joint.rows import JointMaps, Side
from vecdb.engine.scanorder import scan_order
from vecdb.engine.view import CollectionView
from vecdb.registry import PluginRegistry
from vecdb.storage.joints import JointEntry
from vecdb.storage.spaces import SpaceView
from vecdb.types import Space

if TYPE_CHECKING:
    from vecdb.engine.bridge.answer import _Part

F32 = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Found = tuple[Positions, F32]

SMALL: Final = 1_024
"""A class of fewer vectors is scanned."""
SPARE: Final = 8
"""So many candidates more than twice the hits that a class needs: an index misses some of its own best, and the head of
each class's list decides where the other's hits come."""
ACROSS: Final = 100
"""So many more where rows are ordered by another map than scores are: by another transform, or an old query's over
records that have a new vector by now."""


@dataclass(frozen=True, slots=True, eq=False)
class Nominator:
    """A joint space that a search asks for candidates.

    Attributes
    ----------
    joint : JointEntry
    note : callable
        Told the number of the space and the queries that it was asked.
    """

    joint: JointEntry
    note: Callable[[int, F32], None]

    def finds(
        self, view: CollectionView, request: search.SearchRequest, part: _Part, wanted: int, registry: PluginRegistry
    ) -> bool:
        """Find the best of a class, and say whether that was done here.

        Parameters
        ----------
        part : _Part
            Gets what was found; its queries are mapped already.
        wanted : int
            How many of its best are needed.
        """
        each, count = part.each, part.allowed.count
        if each.space.id not in (self.joint.old, self.joint.new) or each.asked.id not in (
            self.joint.old,
            self.joint.new,
        ):
            return False
        if (
            request.exact
            or request.correction is not None
            or count <= max(SMALL, 4 * wanted)
            or not is_whole(view, self.joint)
        ):
            return False
        maps = _maps(view, self.joint, registry)
        given: Side = "new" if each.asked.id == self.joint.new else "old"
        rows = _Rows.of(view, self.joint)
        named: list[list[Positions]] = [[] for _ in request.queries]
        for side, share in rows.shares(view, each.space, part.allowed).items():
            asked = maps.asked(part.levels[0], given, side)
            self.note(self.joint.space, asked)
            aim = _Aim(side, share, min(share, wanted), self._depth(each, side, wanted))
            for place, positions in enumerate(rows.ask(view, request, part, asked, aim, registry)):
                named[place].append(positions)
        part.found = _scored(view, part, [np.concatenate(each) for each in named], wanted)
        return True

    def _depth(self, each: VectorClass, side: Side, wanted: int) -> int:
        """Return how many candidates of a side a class needs."""
        by = [walk.loaded.entry.set for walk in each.walks] or [loaded.entry.set for loaded, _ in each.gallery]
        ordered = each.space.id == (self.joint.new if side == "new" else self.joint.old)
        if ordered and (each.direct or by == [self.joint.transform]):
            return 2 * wanted + SPARE
        return 4 * wanted + ACROSS


class _Aim(NamedTuple):
    """What is wanted of one side: how many records of the class it has, are needed at least, and are asked for."""

    side: Side
    share: int
    least: int
    depth: int


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """The rows of a joint space at one state, and whose they are.

    Attributes
    ----------
    joint : JointEntry
    space_view : SpaceView
        Of the joint space.
    owned : ndarray of bool, shape (rows,)
        Which record rows have a living vector in the new space.
    is_new : ndarray of bool, shape (positions,)
        Which joint rows are made from new vectors.
    """

    joint: JointEntry
    space_view: SpaceView
    owned: Bools
    is_new: Bools
    known: dict[int, tuple[search.Allowed, dict[Side, int]]] = field(default_factory=dict)

    @classmethod
    def of(cls, view: CollectionView, joint: JointEntry) -> _Rows:
        mine, new = (view.space(_space(view, number)) for number in (joint.space, joint.new))
        known = None if view.is_past else mine.derived.get("joint rows")
        if known is not None and known[0] is new:
            found: _Rows = known[1]
            return found
        owned = masks.owned(view, [new])
        rows = mine.rows(view.tx)
        made = cls(joint, mine, owned, owned[np.minimum(rows, np.uint64(len(owned) - 1)).astype(np.int64)])
        if not view.is_past:
            mine.derived["joint rows"] = (new, made)
        return made

    def shares(self, view: CollectionView, space: Space, allowed: search.Allowed) -> dict[Side, int]:
        """Return how many of the vectors of a class that may answer have their joint row on which side."""
        if space.id == self.joint.new:
            return {"new": allowed.count}
        known = self.known.get(space.id)
        if known is not None and known[0] is allowed:
            return known[1]
        rows = view.space(space).rows(view.tx)
        both = int(
            np.count_nonzero(self.owned[(rows if allowed.mask is None else rows[allowed.mask]).astype(np.int64)])
        )
        shares: dict[Side, int] = {"old": allowed.count - both, "new": both}
        found = {side: share for side, share in shares.items() if share}
        self.known[space.id] = (allowed, found)
        return found

    def ask(
        self,
        view: CollectionView,
        request: search.SearchRequest,
        part: _Part,
        asked: F32,
        aim: _Aim,
        registry: PluginRegistry,
    ) -> list[Positions]:
        """Return the candidates of one side for each query: positions in the space of the class."""
        free = request.condition is None and request.selection is None and request.without_row is None
        if free:
            found = self._find(view, request, part, asked, search.alive(view, self.space_view), aim, registry)
        if not free or min(map(len, found)) < aim.least:
            allowed = self._allowed(view, part, aim.side)
            found = self._find(view, request, part, asked, allowed, aim, registry)
        places = _places(view, view.space(part.each.space))
        return [places[self.space_view.rows_at(view.tx, positions).astype(np.int64)] for positions in found]

    def _find(
        self,
        view: CollectionView,
        request: search.SearchRequest,
        part: _Part,
        asked: F32,
        allowed: search.Allowed,
        aim: _Aim,
        registry: PluginRegistry,
    ) -> list[Positions]:
        space = self.space_view.space
        wished = request._replace(space=space, queries=asked, condition=None, selection=None, known_as=None)
        found, cost, notes = search.find(view, self.space_view, wished, allowed, aim.depth, lambda: registry)
        if cost is not None:
            part.complete = part.complete and cost.complete
            part.facts = {**cost.facts(), "notes": notes, "nominated_by": space.name}
        wanted = aim.side == "new"
        return [positions[self.is_new[positions] == wanted] for positions, _ in found]

    def _allowed(self, view: CollectionView, part: _Part, side: Side) -> search.Allowed:
        """Return the joint rows of one side that belong to what a class may answer."""
        own, mask = view.space(part.each.space).rows(view.tx), part.allowed.mask
        chosen = np.zeros(len(self.owned), np.bool_)
        chosen[(own if mask is None else own[mask]).astype(np.int64)] = True
        rows = np.minimum(self.space_view.rows(view.tx), np.uint64(len(chosen) - 1)).astype(np.int64)
        found = chosen[rows] & (self.is_new == (side == "new"))
        alive = search.alive(view, self.space_view).mask
        found = found if alive is None else found & alive
        return search.Allowed(found, int(np.count_nonzero(found)), part.allowed.decoded)


def is_whole(view: CollectionView, joint: JointEntry) -> bool:
    """Whether every record with a vector in either space has its joint row at this state."""
    views = tuple(view.space(_space(view, number)) for number in (joint.space, joint.new, joint.old))
    known = None if view.is_past else views[0].derived.get("joint whole")
    if known is not None and known[0] is views[1] and known[1] is views[2]:
        return bool(known[2])
    found = waiting_in(view, joint) == 0
    if not view.is_past:
        views[0].derived["joint whole"] = (views[1], views[2], found)
    return found


def _maps(view: CollectionView, joint: JointEntry, registry: PluginRegistry) -> JointMaps:
    """Return the maps of a joint space, remembered with its view."""
    known = view.space(_space(view, joint.space)).derived
    found: tuple[int, JointMaps] | None = known.get("joint maps")
    if found is None or found[0] != registry.changes:
        found = known["joint maps"] = (registry.changes, load_maps(view, joint, registry))
    return found[1]


def _places(view: CollectionView, space_view: SpaceView) -> Positions:
    """Return the position of the living vector of each record row, -1 where there is none."""
    known: Positions | None = None if view.is_past else space_view.derived.get("places of rows")
    if known is not None:
        return known
    rows, mask = space_view.rows(view.tx), search.alive(view, space_view).mask
    positions = np.arange(len(rows), dtype=np.int64) if mask is None else np.flatnonzero(mask)
    made = np.full(int(rows.max(initial=0)) + 1, -1, np.int64)
    made[rows[positions].astype(np.int64)] = positions
    if not view.is_past:
        space_view.derived["places of rows"] = made
    return made


def _space(view: CollectionView, number: int) -> Space:
    return next(space for space in view.entry.spaces.values() if space.id == number)


def _scored(view: CollectionView, part: _Part, named: list[Positions], wanted: int) -> list[Found]:
    """Return the best of the candidates of each query by the scores of their class."""
    each, queries = part.each, part.levels[-1]
    space_view = view.space(each.space)
    if each.fold is None:
        space_view.verify_positions(view.tx, np.concatenate(named))
        return exact.rescore_each(scan_order(view, space_view), queries, named, wanted)
    table = memory_of(view).tables.of(view, space_view, each.fold)
    return [
        folding.best_of(view, space_view, each.fold, table, query, np.sort(places), wanted)
        for query, places in zip(queries, named, strict=True)
    ]
