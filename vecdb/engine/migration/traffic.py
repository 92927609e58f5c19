"""Which records bridged searches return: counted in memory, added to the migration with its next batch.

Only searches of the process that migrates are counted, and only what a bridge answered: a record that was answered by
its native vector has it already. Memory is bounded: of many records those with the most hits are kept.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from vecdb.engine.migration.census import Census
from vecdb.engine.view import CollectionView
from vecdb.registry import PluginRegistry
from vecdb.storage.idkeys import id_keys
from vecdb.storage.migrations import StoredMigration
from vecdb.types import Hits, Id

MOST: Final = 65_536


class Traffic:
    """Counts hits of one collection; threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hits: Counter[Id] = Counter()

    def note(self, answers: Sequence[Hits]) -> None:
        """Count the hits that a bridge answered."""
        found = [hit.id for hits in answers for hit in hits if hit.origin != "native"]
        with self._lock:
            self._hits.update(found)
            if len(self._hits) > MOST:
                self._hits = Counter(dict(self._hits.most_common(MOST // 2)))

    def drain(self) -> dict[Id, int]:
        """Return what was counted since the last time."""
        with self._lock:
            found, self._hits = self._hits, Counter()
        return dict(found)


def by_row(view: CollectionView, hits: Mapping[Id, int]) -> dict[int, int]:
    """Return hits by the rows of the records; those that were deleted since are left out."""
    rows = view.find_all(id_keys(list(hits)))
    return {row: count for row, count in zip(rows, hits.values(), strict=True) if row is not None}


def traffic(
    view: CollectionView, migration: StoredMigration, census: Census, registry: PluginRegistry
) -> npt.NDArray[np.int64]:
    """Return how often each record was among the hits of a bridged search."""
    counts = np.zeros(view.next_row, np.int64)
    for row, count in migration.traffic:
        if row < view.next_row:
            counts[row] = count
    return counts[census.rows]
