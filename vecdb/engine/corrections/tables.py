"""What a correction keeps of each row, by position: stored, remembered, and computed for rows that are new.

Invariant: every position of a space has its numbers before a score is corrected; there is no row that silently goes
without. What a row gets depends on its vector, the banks and the known answers, so a table that was stored, one that
grew row by row and one that was computed at once are the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
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
Compute = Callable[[Positions], F32]

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


def table_of(view: CollectionView, space_view: SpaceView, loaded: Loaded, compute: Compute, key: str = "") -> Table:
    """Return the table of a space, completed for vectors that came since.

    Parameters
    ----------
    view, space_view
        Of the rows.
    loaded : Loaded
    compute : callable
        From positions to what is kept of them: `by_banks`, unless rows are mapped on the fly.
    key : str, optional
        How the banks got there; empty: they are the correction's own, whose table is stored.
    """
    place = "table", space_view.space.id, key
    known: Table | None = loaded.derived.get(place)
    if known is None and not key:
        known = Table(-1, *read_table(view.tx, loaded.entry))
    made = _completed(view, space_view, loaded, compute, known)
    if known is None or made.epoch != known.epoch or len(made.rows) > len(known.rows):
        loaded.derived[place] = made  # what a reader that began earlier needs less of is kept whole
    return made


def _completed(
    view: CollectionView, space_view: SpaceView, loaded: Loaded, compute: Compute, known: Table | None
) -> Table:
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
        rows[places] = compute(positions[places])
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


def by_banks(view: CollectionView, space_view: SpaceView, loaded: Loaded, banks: Banks) -> Compute:
    """Return what computes the rows of a space from their vectors; `banks` are asked in that space."""

    def compute(positions: Positions) -> F32:
        vectors, owners = vectors_at(view, space_view, positions)
        left_out = (owned(view, owners, loaded.own), owned(view, owners, loaded.own_gallery))
        return columns_of(loaded.kind, loaded.params, banks, vectors, *left_out)

    return compute


def vectors_at(view: CollectionView, space_view: SpaceView, positions: Positions) -> tuple[F32, Numbers]:
    """Return vectors by position, verified, float32, and the rows of the records that they belong to."""
    space_view.verify_positions(view.tx, positions)
    return as_float32(space_view.gather(view.tx, positions)), space_view.rows_at(view.tx, positions)


def owned(view: CollectionView, owners: Numbers, members: Members) -> Own:
    """Return which of the rows, whose record rows are `owners`, are the own ones of which members of a bank."""
    if not members.keys:
        return Own.none()
    found = find_rows(view.tx, view.number, members.keys)
    numbers = np.array([-1 if row is None else row for row in found], np.int64)
    order = np.argsort(owners, kind="stable")
    wanted, ascending = np.maximum(numbers, 0).astype(np.uint64), owners[order]
    first = np.searchsorted(ascending, wanted, side="left")
    # a record that was written again has several vectors here, all but one of them dead
    counts = np.where(numbers >= 0, np.searchsorted(ascending, wanted, side="right") - first, 0)
    within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    places = order[np.repeat(first, counts) + within]
    return Own(np.repeat(members.members, counts), places.astype(np.int64))
