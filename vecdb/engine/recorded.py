"""Queries that searches have asked, a bounded sample of each space: what `optimize` measures recall on besides vectors.

Kept in the memory of this process only, per opened database, and gone with it: queries may say more about a person than
records do, so nothing of them is written to the file. Noting one costs a copy, and nothing where recording is off.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from vecdb.engine.recall import RECORDED_FROM

F32 = npt.NDArray[np.float32]

MOST: Final = 1_024
"""Queries kept of a space; later ones take the places of random earlier ones, so old habits fade."""
MOST_BYTES: Final = 4 << 20
MOST_OF_A_BATCH: Final = 64
_STRIDE: Final = 619
"""Odd, and so prime to the power of two that `MOST` is: places are visited in an order that looks random."""


class Recorder:
    """The recorded queries of one opened database; threads may share it.

    Parameters
    ----------
    on : bool
        Whether anything is recorded.
    """

    def __init__(self, *, on: bool) -> None:
        self.on = on
        self._kept: dict[int, list[F32]] = {}
        self._seen: dict[int, int] = {}

    def note(self, space: int, queries: F32) -> None:
        """Keep copies of queries, shape (q, dim); of a large batch, some."""
        if not self.on:
            return
        kept = self._kept.get(space)
        if kept is None:
            kept = self._kept.setdefault(space, [])
        count = len(queries)
        if count == 1 and len(kept) == MOST:  # the commonest, and it is felt
            return self._replace(space, kept, queries[0])
        for query in queries if count <= MOST_OF_A_BATCH else queries[:: -(-count // MOST_OF_A_BATCH)]:
            known = len(kept)
            if known < MOST and known * query.nbytes < MOST_BYTES:
                kept.append(query.copy())
            else:
                self._replace(space, kept, query)

    def _replace(self, space: int, kept: list[F32], query: F32) -> None:
        """Keep a query in the place of another; threads may overwrite each other's, which loses one query only."""
        seen = self._seen[space] = self._seen.get(space, 0) + 1
        kept[seen * _STRIDE % len(kept)][:] = query

    def queries(self, space: int) -> F32 | None:
        """Return what was recorded, shape (q, dim); None while that are fewer than `RECORDED_FROM`."""
        kept = list(self._kept.get(space, ()))
        return np.stack(kept) if len(kept) >= RECORDED_FROM else None

    def forget(self, space: int | None = None) -> None:
        """Drop what was recorded of a space, or of all."""
        if space is None:
            self._kept.clear()
        else:
            self._kept.pop(space, None)
