"""Who has a vector where: the records of a migration at one commit, by arrays, and which of them wait for a vector.

Nothing of it is stored. What a migration still has to do is read off the spaces themselves, so it cannot disagree with
them, whoever wrote meanwhile and whenever the process died.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.contracts.backfill import noise_of
from vecdb.engine.view import CollectionView
from vecdb.storage.migrations import StoredMigration
from vecdb.types import Space

Numbers = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]
_CANARY_SALT = 0x5EED_CA7A
"""Makes the choice of the canary independent of the noise that policies see."""


@dataclass(frozen=True, slots=True)
class Census:
    """The records with a vector in the source space, by the ordinal of that vector, and those without one.

    Attributes
    ----------
    ordinals, rows : ndarray of uint64, shape (n,)
        Of the vectors in the source space, and the records that they belong to; ordinals ascend.
    positions : ndarray of int64, shape (n,)
        Where the vectors lie in the view of their space.
    pending : ndarray of bool, shape (n,)
        Whether the record has no vector in the target space.
    known : ndarray of bool, shape (n,)
        Whether it had one before the migration began.
    canary : ndarray of bool, shape (n,)
        Whether it belongs to the random sample that is embedded first.
    noise : ndarray of float64, shape (n,)
    only_new : ndarray of uint64
        Rows of records with a vector in the target space and none in the source space.
    """

    ordinals: Numbers
    rows: Numbers
    positions: npt.NDArray[np.int64]
    pending: Bools
    known: Bools
    canary: Bools
    noise: npt.NDArray[np.float64]
    only_new: Numbers


def take_census(view: CollectionView, migration: StoredMigration) -> Census:
    """Look who has a vector where."""
    source, target = space_numbered(view, migration.source), space_numbered(view, migration.target)
    positions, ordinals, rows = _living(view, source)
    _, new_ordinals, new_rows = _living(view, target)
    has_new = _marked(view, new_rows)
    before = _marked(view, new_rows[new_ordinals < np.uint64(migration.target_next)])
    has_old = _marked(view, rows)
    lot = noise_of(ordinals, migration.seed ^ _CANARY_SALT)
    return Census(
        ordinals,
        rows,
        positions,
        ~has_new[rows],
        before[rows],
        (lot < migration.canary) & (ordinals < np.uint64(migration.source_next)),
        noise_of(ordinals, migration.seed),
        new_rows[~has_old[new_rows]],
    )


def space_numbered(view: CollectionView, number: int) -> Space:
    """Return the space with this number, whatever it is called now."""
    return next(space for space in view.entry.spaces.values() if space.id == number)


def _living(view: CollectionView, space: Space) -> tuple[npt.NDArray[np.int64], Numbers, Numbers]:
    """Return positions, ordinals and record rows of the live vectors of a space."""
    space_view = view.space(space)
    hidden = view.hidden(space_view)
    positions = np.arange(len(space_view), dtype=np.int64)
    if hidden is not None:
        positions = positions[~hidden]
    return positions, space_view.ordinals_at(view.tx, positions), space_view.rows_at(view.tx, positions)


def _marked(view: CollectionView, rows: npt.NDArray[Any]) -> Bools:
    mask = np.zeros(view.next_row, np.bool_)
    mask[rows] = True
    return mask
