"""The best groups of records, by a metadata field: each group by its best hit, and so many hits of each.

Candidates are asked for until there are `k` groups with their `per_group` hits or nothing is left: groups that are full
answer no more, so one that holds most of the collection costs one question more, not a longer list. Invariant: with
an exact search, what is returned is what cutting the whole ranking into groups would give.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.engine import search
from vecdb.engine.exploring.fields import Field, field_of
from vecdb.engine.exploring.picking import Ask, Chosen, as_hits, joined, lean, rows_of
from vecdb.engine.search import SearchRequest
from vecdb.engine.view import CollectionView, Selection
from vecdb.explored import Group
from vecdb.types import HitColumns, Hits

Rows = npt.NDArray[np.int64]

_MORE: Final = 4
"""Candidates asked for at first, for each hit that is wanted."""
_LEAST: Final = 50


@dataclass(slots=True)
class _Pool:
    """The candidates of one query so far, best first within each question, and who is in which group.

    Attributes
    ----------
    order : list of int
        Numbers of the groups, in the order of their best hits; complete up to the first `k`.
    members : dict of int to list of int
        Places of the hits of each group.
    """

    k: int
    per_group: int
    parts: list[HitColumns] = field(default_factory=list)
    order: list[int] = field(default_factory=list)
    members: dict[int, list[int]] = field(default_factory=dict)
    seen: list[Rows] = field(default_factory=list)
    count: int = 0

    def add(self, columns: HitColumns, rows: Rows, numbers: npt.NDArray[np.int32]) -> None:
        for place, number in enumerate(numbers.tolist(), self.count):
            if number not in self.members:
                self.members[number] = []
                self.order.append(number)
            self.members[number].append(place)
        self.parts.append(columns)
        self.seen.append(rows)
        self.count += len(rows)

    @property
    def chosen(self) -> list[int]:
        return self.order[: self.k]

    def open(self) -> bool:
        """Whether more candidates could change the answer."""
        return len(self.order) < self.k or any(len(self.members[g]) < self.per_group for g in self.chosen)

    def remaining(self, known: Field, before: Selection | None, next_row: int) -> Selection:
        """Return the records that may still matter: of groups that are not full, not seen yet."""
        rows = np.arange(next_row, dtype=np.uint64) if before is None else before.rows
        numbers = known.numbers[rows.astype(np.int64)]
        if len(self.order) < self.k:
            full = [g for g in self.order if len(self.members[g]) >= self.per_group]
            kept = ~np.isin(numbers, full)
        else:
            kept = np.isin(numbers, [g for g in self.chosen if len(self.members[g]) < self.per_group])
        kept &= ~np.isin(rows, np.concatenate(self.seen).astype(np.uint64))
        return Selection(rows[kept], () if before is None else before.decoded)


def grouped(
    view: CollectionView, request: SearchRequest, path: str, per_group: int, ask: Ask, *, steady: bool
) -> list[Hits]:
    """Return the hits of the best groups of each query.

    Parameters
    ----------
    request : SearchRequest
        `k` and `offset` count groups.
    path : str
    per_group : int
    ask : callable
    steady : bool
        Whether the score of a record is the same whichever others may answer, so that groups that are full can be left
        out of the next question; otherwise ever longer lists are asked for.
    """
    known = field_of(view, path)
    wanted = max(_LEAST, _MORE * (request.k + request.offset) * per_group)
    rule = _Rule(known, wanted, per_group, steady)
    found = []
    for place, candidates in enumerate(ask(lean(request, wanted))):
        pool = _Pool(request.k + request.offset, per_group)
        _take(view, pool, candidates, known)
        alone = lean(request._replace(queries=request.queries[place : place + 1], explain=False), wanted)
        pool, asked, late = _complete(view, alone, pool, rule, ask, full=len(candidates) == wanted)
        facts = {"group_by": path, "questions": asked + 1}
        found.append(as_hits(view, request, candidates, _chosen(pool, request.offset, known, facts, late)))
    return found


@dataclass(frozen=True, slots=True)
class _Rule:
    known: Field
    wanted: int
    per_group: int
    steady: bool


def _take(view: CollectionView, pool: _Pool, candidates: Hits, known: Field) -> None:
    rows = rows_of(view, candidates.ids)
    pool.add(candidates.columns, rows, known.numbers[rows])


def _complete(
    view: CollectionView, request: SearchRequest, pool: _Pool, rule: _Rule, ask: Ask, *, full: bool
) -> tuple[_Pool, int, str | None]:
    """Ask until the groups are full or nothing is left; return the pool, how often, and why it is not complete."""
    asked, wanted = 0, rule.wanted
    while full and pool.open():
        if request.deadline is not None and time.monotonic() > request.deadline:
            return pool, asked, "the time-out was reached before every group was full"
        if rule.steady:
            rest = pool.remaining(rule.known, search.selected(view, request), view.next_row)
            if not len(rest.rows):
                break
            [candidates] = ask(request._replace(selection=rest, known_as=None))
        else:
            wanted *= _MORE
            pool = _Pool(pool.k, pool.per_group)
            [candidates] = ask(request._replace(k=wanted))
        _take(view, pool, candidates, rule.known)
        asked, full = asked + 1, len(candidates) == wanted
    return pool, asked, None


def _chosen(pool: _Pool, offset: int, known: Field, facts: dict[str, Any], reason: str | None) -> Chosen:
    columns = joined(pool.parts)
    groups = [(number, pool.members[number][: pool.per_group]) for number in pool.chosen[offset:]]
    shown = columns.take([place for _, places in groups for place in places])
    told = tuple(
        Group(known.values[number], tuple(columns.ids[place] for place in places)) for number, places in groups
    )
    return Chosen(shown, {**facts, "groups": len(groups)}, told, reason)
