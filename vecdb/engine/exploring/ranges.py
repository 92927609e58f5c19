"""Every record above a score, as a stream: exact, at one seq, in memory for one stretch of vectors.

Vectors are read in the order of their age, a few thousand at once and each stretch through a snapshot of its own, so a
long reading neither holds a transaction nor grows with what it finds. Where it stands is said by an ordinal, which
stays what it is when vectors are sealed or packed anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from vecdb import exact
from vecdb.engine import queries, reading, search
from vecdb.engine.exploring.picking import filled
from vecdb.engine.scanorder import scan_order
from vecdb.engine.search import SearchRequest
from vecdb.engine.view import CollectionView, Past
from vecdb.errors import ForkedError, ParameterError
from vecdb.storage.snapshot import Hold
from vecdb.types import Hit, HitColumns

if TYPE_CHECKING:
    from vecdb.engine.where import Condition

Rows = npt.NDArray[np.uint64]
Open = Callable[[int | str | None, Past | None], reading.OpenView]

STRETCH: Final = 8_192


@dataclass(slots=True)
class _Cursor:
    """Where a stream stands: the next ordinal, and the one it ends before."""

    next: int
    stop: int


def refuse_bridges(view: CollectionView, spaces: Any) -> None:
    """Refuse a stream over several spaces: what their scores are worth depends on the lists that they make.

    Raises
    ------
    ParameterError
    """
    if spaces not in (None, "native") or (spaces is None and view.entry.transforms):
        raise ParameterError(
            "a stream of all records above a score reads one space",
            hint="Pass limit= for the best of several spaces, or spaces='native'.",
            name="spaces",
            got=spaces,
            allowed="'native'",
        )


def stream(
    open_at: Open, as_of: int | str | None, settled: Callable[[CollectionView], SearchRequest], hold: Hold
) -> Iterator[Hit]:
    """Return an iterator over the hits that score at least ``min_score``, the oldest vector first.

    Parameters
    ----------
    open_at : callable
        Opens the state of one stretch.
    as_of : int or str or None
    settled : callable
        Makes the request, for one query, of the first view; errors are raised before the iterator is returned.
    hold : Hold
        Keeps the history that the iterator needs.
    """
    with open_at(as_of, None) as view:
        request = settled(view)
        seq = view.seq
        if view.is_past:
            reading.reach_back(hold, view)
        selection = search.selected(view, request)
        cursor = _Cursor(0, view.space(request.space).counts.next_ordinal)
    return _hits(open_at, seq, request, None if selection is None else selection.rows, cursor, hold)


def _hits(
    open_at: Open, seq: int, request: SearchRequest, rows: Rows | None, cursor: _Cursor, hold: Hold | None
) -> Iterator[Hit]:
    process, past = os.getpid(), Past(seq)
    while cursor.next < cursor.stop:
        with open_at(seq, past) as view:
            found = _stretch(view, request, rows, cursor).hits()
        if cursor.next >= cursor.stop:
            hold = None  # nothing is left to read: the history may go
        for hit in found:
            if os.getpid() != process:
                raise ForkedError(
                    "the iterator was made before a fork", hint="Search anew in the child.", what="iterator"
                )
            yield hit
    del hold


def _stretch(view: CollectionView, request: SearchRequest, rows: Rows | None, cursor: _Cursor) -> HitColumns:
    """Return the hits among the next vectors, and move the cursor behind them."""
    space_view = view.space(request.space)
    start = space_view.count_before(view.tx, cursor.next)
    end = min(start + STRETCH, space_view.count_before(view.tx, cursor.stop))
    places = np.arange(start, end, dtype=np.int64)
    cursor.next = cursor.stop if not len(places) else int(space_view.ordinals_at(view.tx, places[-1:])[0]) + 1
    hidden = view.hidden(space_view)
    if hidden is not None:
        places = places[~hidden[places]]
    owners = space_view.rows_at(view.tx, places)
    kept = np.ones(len(places), np.bool_) if rows is None else _among(owners, rows)
    if request.without_row is not None:
        kept &= owners != np.uint64(request.without_row)
    places, scores = _above(view, request, places[kept])
    owners_of = space_view.rows_at(view.tx, places).tolist()
    ids = view.ids(owners_of)
    nearest = 1.0 if request.space.metric == "cosine" else 0.0
    columns = HitColumns([ids[row] for row in owners_of], scores, nearest, request.space.name)
    return filled(view, request, columns)


def _among(owners: Rows, rows: Rows) -> npt.NDArray[np.bool_]:
    if not len(rows):
        return np.zeros(len(owners), np.bool_)
    places = np.minimum(np.searchsorted(rows, owners), len(rows) - 1)
    found: npt.NDArray[np.bool_] = rows[places] == owners
    return found


def _above(
    view: CollectionView, request: SearchRequest, places: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return which of some vectors score enough, by canonical scores, in the order of their positions."""
    space_view = view.space(request.space)
    if not len(places):
        return places, np.empty(0, np.float32)
    space_view.verify_positions(view.tx, places)
    found, scores = exact.rescore(scan_order(view, space_view), request.queries[0], places, len(places))
    enough = scores >= np.float32(-np.inf if request.min_score is None else request.min_score)
    order = np.argsort(found[enough])
    return found[enough][order], scores[enough][order]


def request_of(
    asked: queries.Asked, condition: Condition | None, min_score: float, include: frozenset[str]
) -> SearchRequest:
    """Return the request of a stream: one query.

    Raises
    ------
    ParameterError
    """
    if not asked.single:
        raise ParameterError(
            f"a stream of all records above a score takes one query, got {len(asked.matrix)}",
            hint="Pass limit=, or ask one after the other.",
            name="q",
            got=len(asked.matrix),
            allowed=1,
        )
    owned = asked.matrix.copy()  # it may be the caller's own, and the stream goes on after the call
    return SearchRequest(asked.space, owned, 1, condition, min_score=min_score, include=include, without_row=asked.row)
