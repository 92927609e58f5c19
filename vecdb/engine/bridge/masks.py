"""Which vectors of a class may answer: those of living records that satisfy the condition and have no better vector.

A record that has vectors in several spaces is answered once, by the first class that has one. What depends on life
alone is remembered with the view of the space, as long as the spaces before it stay the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vecdb.engine import search
from vecdb.engine.view import CollectionView
from vecdb.storage.spaces import SpaceView

Bools = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.uint64]


def allowed(
    view: CollectionView,
    space_view: SpaceView,
    before: Sequence[SpaceView],
    chosen: Rows | None,
    without_row: int | None,
    decoded: tuple[str, ...] = (),
) -> search.Allowed:
    """Return the positions of a space that may answer.

    Parameters
    ----------
    before : sequence of SpaceView
        Spaces whose vectors go before.
    chosen : ndarray of uint64, or None
        Record rows, ascending, that a condition selects.
    without_row : int or None
        A record that is not its own answer.
    decoded : tuple of str
        What evaluating the condition had to decode.
    """
    found = _unanswered(view, space_view, [each for each in before if len(each)])
    mask = found.mask
    if chosen is not None:
        selected = search.positions_with(view, space_view, chosen)
        mask = selected if mask is None else mask & selected
    if without_row is not None:
        others = space_view.rows(view.tx) != np.uint64(without_row)
        mask = others if mask is None else mask & others
    if mask is found.mask:
        return found
    return search.Allowed(mask, 0 if mask is None else int(np.count_nonzero(mask)), decoded)


def _unanswered(view: CollectionView, space_view: SpaceView, before: Sequence[SpaceView]) -> search.Allowed:
    """Return the living vectors whose records have none in the spaces before."""
    alive = search.alive(view, space_view)
    if not before or not alive.count:
        return alive
    known = None if view.is_past else space_view.derived.get("unanswered")
    if (
        known is not None
        and len(known[0]) == len(before)
        and all(a is b for a, b in zip(known[0], before, strict=True))
    ):
        found: search.Allowed = known[1]
        return found
    taken = owned(view, before)
    rows = space_view.rows(view.tx)
    free = ~taken[np.minimum(rows, np.uint64(len(taken) - 1)).astype(np.int64)]
    mask = free if alive.mask is None else free & alive.mask
    count = int(np.count_nonzero(mask))
    made = alive if count == alive.count else search.Allowed(mask, count, parts={})
    if not view.is_past:
        space_view.derived["unanswered"] = (tuple(before), made)
    return made


def owned(view: CollectionView, spaces: Sequence[SpaceView]) -> Bools:
    """Return which record rows have a living vector in one of `spaces`; the last element stands for all behind."""
    taken = np.zeros(view.snapshot.counts(view.number).next_row + 1, np.bool_)
    for space_view in spaces:
        mask = search.alive(view, space_view).mask
        rows = space_view.rows(view.tx)
        taken[rows.astype(np.int64) if mask is None else rows[mask].astype(np.int64)] = True
    return taken
