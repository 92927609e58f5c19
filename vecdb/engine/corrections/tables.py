"""What a correction keeps of each row, by position: stored, remembered, and computed for rows that are new.

Invariant: every position of a space has its numbers before a score is corrected; there is no row that silently goes
without. What a row gets depends on its vector, the banks and the known answers, so a table that was stored, one that
grew row by row and one that was computed at once are the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vecdb.corrections import Banks, Own, columns_of
from vecdb.engine.corrections.stored import Loaded, Members
from vecdb.engine.view import CollectionView
from vecdb.engine.views import as_float32
from vecdb.storage.corrections import read_table
from vecdb.storage.records import find_rows
from vecdb.storage.spaces import SpaceView

F32 = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]

_CHUNK: Final = 8_192


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """What is kept of every position of a space, at one arrangement of its vectors.

    Attributes
    ----------
    epoch : int
        Of the space: positions are moved when it changes.
    ordinals : ndarray of uint64, shape (n,)
        Ascending.
    rows : ndarray of float32, shape (n, columns)
    """

    epoch: int
    ordinals: Numbers
    rows: F32


def table_of(view: CollectionView, space_view: SpaceView, loaded: Loaded, banks: Banks, key: str = "") -> Table:
    """Return the table of a space, completed for vectors that came since.

    Parameters
    ----------
    view, space_view
        Of the rows.
    loaded : Loaded
    banks : Banks
        Its banks as these rows are asked; its own, or images of it.
    key : str, optional
        How the banks got there; empty: they are the correction's own, whose table is stored.
    """
    place = "table", space_view.space.id, key
    known: Table | None = loaded.derived.get(place)
    if known is None and not key:
        known = Table(-1, *read_table(view.tx, loaded.entry))
    made = _completed(view, space_view, loaded, banks, known)
    loaded.derived[place] = made
    return made


def _completed(view: CollectionView, space_view: SpaceView, loaded: Loaded, banks: Banks, known: Table | None) -> Table:
    epoch, count = space_view.counts.epoch, len(space_view)
    if known is not None and known.epoch == epoch and len(known.rows) >= count:
        if len(known.rows) == count:
            return known
        return Table(epoch, known.ordinals[:count], known.rows[:count])  # a reader that began before the last writer
    first = len(known.rows) if known is not None and known.epoch == epoch else 0
    positions = np.arange(first, count, dtype=np.int64)
    ordinals = space_view.ordinals_at(view.tx, positions)
    rows = np.empty((len(positions), loaded.entry.columns), np.float32)
    missing = _fill(rows, ordinals, None if first else known)
    for start in range(0, len(missing), _CHUNK):
        places = missing[start : start + _CHUNK]
        rows[places] = computed(view, space_view, loaded, banks, positions[places])
    if not first or known is None:
        return Table(epoch, ordinals, rows)
    return Table(epoch, np.concatenate([known.ordinals, ordinals]), np.concatenate([known.rows, rows]))


def _fill(rows: F32, ordinals: Numbers, known: Table | None) -> Positions:
    """Copy what is known of these ordinals into `rows`; return the places of which nothing is."""
    if known is None or not len(known.ordinals):
        return np.arange(len(ordinals))
    found = np.minimum(np.searchsorted(known.ordinals, ordinals), len(known.ordinals) - 1)
    there = known.ordinals[found] == ordinals
    rows[there] = known.rows[found[there]]
    return np.flatnonzero(~there)


def computed(view: CollectionView, space_view: SpaceView, loaded: Loaded, banks: Banks, positions: Positions) -> F32:
    """Return what is kept of the rows at `positions`, computed from their vectors."""
    space_view.verify_positions(view.tx, positions)
    vectors = as_float32(space_view.gather(view.tx, positions))
    owners = space_view.rows_at(view.tx, positions)
    left_out = (owned(view, owners, loaded.own), owned(view, owners, loaded.own_gallery))
    return columns_of(loaded.kind, loaded.params, banks, vectors, *left_out)


def owned(view: CollectionView, owners: Numbers, members: Members) -> Own:
    """Return which of the rows, whose record rows are `owners`, are the own ones of which members of a bank."""
    if not members.keys:
        return Own.none()
    found = find_rows(view.tx, view.number, members.keys)
    numbers = np.array([-1 if row is None else row for row in found], np.int64)
    order = np.argsort(owners, kind="stable")
    wanted = np.maximum(numbers, 0).astype(np.uint64)
    places = np.minimum(np.searchsorted(owners, wanted, sorter=order), max(0, len(owners) - 1))
    there = (numbers >= 0) & (owners[order[places]] == wanted) if len(owners) else np.zeros(len(numbers), np.bool_)
    return Own(members.members[there], order[places[there]].astype(np.int64))
