"""The short way of a search: what does not depend on the query is decided once for a state of a space.

One query, without a condition or with one that is remembered, over vectors that one part of an index covers, goes to
that part and from there to one compiled call that checks what was nominated and ranks it canonically. It is
`engine.indexed` with the decisions remembered, never another answer: whatever is not quite so, or goes wrong on the
way, is left to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import numpy.typing as npt

from vecdb.blocks import VectorBlocks
from vecdb.contracts.index import Prepared, PreparingIndex
from vecdb.engine import indexed
from vecdb.engine.border import MOST_COMPILED, guarded, prepared_arrays, read_only, refuse_prepared, sound_arrays
from vecdb.engine.parts import LoadedPart, Usable
from vecdb.engine.recall import SCAN
from vecdb.engine.view import CollectionView
from vecdb.engine.views import PartView, Places, find_places
from vecdb.errors import CorruptionError
from vecdb.kernels import loader
from vecdb.storage.spaces import SpaceView

if TYPE_CHECKING:
    from vecdb.kernels.canonical import Ranker

__all__ = ["Route", "find_route", "known_route"]

Bools = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int64]
Found = tuple[Positions, npt.NDArray[np.float32]]

_MOST: Final = 64
"""Routes that are remembered of a state."""
_OFTEN: Final = 8
_SMALL: Final = 1 << 28
"""After so many queries over vectors of no more bytes than that, all of them are proved at once."""


@dataclass(slots=True)
class Route:
    """Where a query of a state goes, and with what.

    Attributes
    ----------
    usable : Usable
        The index as it was found; another one means that this route is over.
    blocks : VectorBlocks
    part : LoadedPart
        Covers every vector that may be returned.
    places : Places
    allowed : ndarray of bool or None
        Which of the part's positions are living vectors; None: all.
    k : int
    effort : int or None
    rank : callable
        Checks and ranks what comes back; also whether that is enough.
    answered : int
        Queries while not all vectors were proved; threads may count over each other, which does no harm.
    ask : callable or None
        What the index has prepared for these wishes, once everything that it may read was proved.
    """

    usable: Usable
    blocks: VectorBlocks
    part: LoadedPart
    places: Places
    allowed: Bools | None
    k: int
    effort: int | None
    rank: Ranker
    answered: int = 0
    ask: Prepared | None = None

    def answer(self, view: CollectionView, space_view: SpaceView, queries: npt.NDArray[np.float32]) -> Found | None:
        """Return (positions, canonical scores) of one query, best first; None if it has to go the long way."""
        if self.ask is not None and space_view.all_sound:
            return self.quickly(self.ask, read_only(queries))
        answer = self._nominated(view, space_view, read_only(queries))
        if answer is None:
            return None
        nominated, said = answer
        if nominated.shape[1] > MOST_COMPILED or not (
            space_view.all_sound or self._prove(view, space_view, nominated[0])
        ):
            return None
        found = self.rank(queries, nominated, said)
        return None if found is None else (found[0][: self.k], found[1][: self.k])

    def quickly(self, ask: Prepared, queries: npt.NDArray[np.float32]) -> Found | None:
        """Return what `answer` does for one query, read-only, by what was prepared once everything had been proved."""
        provided = self.part.provided
        try:
            answer = ask(queries)
        except CorruptionError:
            return None  # as below
        except Exception:
            with guarded(provided, "search"):
                raise
        nominated, said = prepared_arrays(provided, answer)
        if nominated.shape[1] > MOST_COMPILED:
            return None
        found = self.rank(queries, nominated, said)
        if found is None:
            refuse_prepared(provided, nominated, said, self.part.part.count, self.allowed)
            return None
        return found if len(found[0]) <= self.k else (found[0][: self.k], found[1][: self.k])

    def _nominated(self, view: CollectionView, space_view: SpaceView, asked: npt.NDArray[np.float32]) -> Found | None:
        """Return what the index nominates, of the right dtypes and shapes; None if something is damaged."""
        part = self.part
        try:
            with PartView(view, space_view, part.part, self.places) as shown:
                answer = part.index.search(asked, self.k, allowed=self.allowed, effort=self.effort, view=shown)
                if space_view.all_sound and part.provided.thing.capabilities.prepares:
                    index = cast("PreparingIndex", part.index)
                    self.ask = index.prepare(self.k, allowed=self.allowed, effort=self.effort, view=shown)
        except CorruptionError:
            return None  # the long way meets it again, and says what is damaged
        except Exception:
            with guarded(part.provided, "search"):
                raise
        return sound_arrays(part.provided, answer, 1)

    def _prove(self, view: CollectionView, space_view: SpaceView, nominated: Positions) -> bool:
        """Compare what is to be scored with its checksums, sooner or later all vectors; False if it is impossible."""
        self.answered += 1
        if self.answered > _OFTEN and self.part.part.count * self.blocks.row_bytes <= _SMALL:
            space_view.verify_all(view.tx)
            return True
        kept = nominated[nominated >= 0]
        if len(kept) and int(kept.max()) >= self.part.part.count:
            return False
        there = self.places.of(kept)
        if len(there) and int(there.min()) < 0:
            return False
        space_view.verify_positions(view.tx, there)
        return True


def find_route(
    question: indexed.Question, usable: Usable, remembered: dict[Any, Any], *, asked: tuple[Any, ...]
) -> Route | None:
    """Return the route of a question about the newest state whose mask is remembered, None if there is no short one.

    Parameters
    ----------
    remembered : dict
        Of the state. Routes are kept with the index, which is let go when it is dropped, by this and `asked`, all of
        the question that decides.
    """
    if not loader.loaded():
        return None
    routes, wanted = usable.routes, (id(remembered), *asked)
    known: tuple[dict[Any, Any], Route | None] | None = routes.get(wanted)
    if known is not None and known[0] is remembered:
        return known[1]
    if len(routes) >= _MOST:
        routes.clear()
    route = _plan(question, usable)
    routes[wanted] = (remembered, route)
    return route


def known_route(usable: Usable, remembered: dict[Any, Any], asked: tuple[Any, ...]) -> Route | None:
    """Return what `find_route` has found for such a question; None, too, if it was not asked."""
    known: tuple[dict[Any, Any], Route | None] | None = usable.routes.get((id(remembered), *asked))
    return known[1] if known is not None and known[0] is remembered else None


def _plan(question: indexed.Question, usable: Usable) -> Route | None:
    """Decide as `indexed` would."""
    if len(usable.parts) != 1:
        return None
    part = usable.parts[0]
    places = find_places(question.view, question.space_view, part.part)
    allowed, matches = indexed.allowed_in(question, part, places)
    count = part.part.count
    choice = indexed.effort_for(question, usable, part, matches / count)
    able = part.provided.thing.capabilities
    if choice is SCAN or matches != question.count or (allowed is not None and not able.filtered):
        return None
    if indexed.how_many(part, question, count, matches, choice.effort, restricted=allowed is not None) != question.k:
        return None
    shown = None if allowed is None else read_only(allowed)
    from vecdb.kernels import canonical  # numba is loaded by now, never by importing this module

    plan = canonical.ranking_plan(question.blocks, count, places.first, min(question.k, matches))
    rank = canonical.ranker(question.blocks, plan, places.table, allowed)
    return Route(usable, question.blocks, part, places, shown, question.k, choice.effort, rank)
