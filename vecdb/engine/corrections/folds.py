"""The numbers of rows that are mapped on the fly: the bank asks them as queries do, through the fold.

Scores are those of the fold in float64, in chunks of rows; they are computed anew by each process, and kept while it
runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vecdb.corrections import csls_of
from vecdb.engine.corrections.stored import Loaded
from vecdb.engine.corrections.tables import Compute, owned, vectors_at
from vecdb.engine.pairing import directed
from vecdb.engine.view import CollectionView
from vecdb.storage.spaces import SpaceView

if TYPE_CHECKING:
    from vecdb.engine.bridge.classes import VectorClass

F32 = npt.NDArray[np.float32]

_CHUNK = 512


def by_fold(view: CollectionView, space_view: SpaceView, loaded: Loaded, each: VectorClass) -> Compute:
    """Return what computes the csls bias of rows that ``each.fold`` scores."""
    fold = each.fold
    assert fold is not None  # the caller has looked
    asked = [fold.ask(query) for query in each.levels(loaded.banks.queries)[-1]]
    pulled = np.stack([one.vector for one in asked]).astype(np.float64).T

    def chunk(positions: npt.NDArray[np.int64]) -> F32:
        vectors, owners = vectors_at(view, space_view, positions)
        lines, products = fold.rows(vectors), directed(vectors, fold.stored).astype(np.float64) @ pulled
        table = np.stack([fold.scores(one, products[:, place], lines) for place, one in enumerate(asked)], axis=1)
        own = owned(view, owners, loaded.own)
        table[own.rows, own.members] = -np.inf
        return csls_of(table, int(loaded.params["neighbours"]))

    def compute(positions: npt.NDArray[np.int64]) -> F32:
        starts = range(0, len(positions), _CHUNK)
        return np.concatenate([np.empty((0, 1), np.float32), *(chunk(positions[at : at + _CHUNK]) for at in starts)])

    return compute
