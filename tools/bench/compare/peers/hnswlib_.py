"""hnswlib: HNSW with vectors inside, one file. Filters are Python callbacks; inserts rewrite the file to be durable."""

from __future__ import annotations

from typing import Any

import numpy as np

from tools.bench.compare.peers.base import Attributes, Ids, Peer, Setting, Variant
from tools.bench.compare.sets import F32, Condition, K

DISTRIBUTIONS = ("hnswlib",)


class Hnswlib(Peer):
    """Inner products of unit rows."""

    _index: Any
    _filter: Any = None

    def build(self, rows: F32, attributes: Attributes) -> None:
        import hnswlib

        index = hnswlib.Index("ip", rows.shape[1])
        index.init_index(len(rows), M=self.params["m"], ef_construction=self.params["ef_construction"], random_seed=1)
        index.add_items(rows, np.arange(len(rows)), num_threads=self.threads)
        index.save_index(str(self.folder / "a.hnsw"))

    def open(self, dim: int) -> None:
        import hnswlib

        self._index = hnswlib.Index("ip", dim)
        self._index.load_index(str(self.folder / "a.hnsw"))
        self._index.set_num_threads(self.threads)

    def aim(self, setting: Setting) -> None:
        self._index.set_ef(setting)

    def one(self, query: F32) -> Ids:
        return self._index.knn_query(query, K, filter=self._filter)[0][0]

    def many(self, queries: F32) -> Any:
        return self._index.knn_query(queries, K, filter=self._filter)[0]

    def only(self, condition: Condition | None, attributes: Attributes) -> None:
        if condition is None:
            self._filter = None
            return
        allowed = (attributes[condition.attribute] < condition.below).tolist()
        self._filter = allowed.__getitem__

    def insert(self, first: int, rows: F32, attributes: Attributes) -> None:
        needed = self._index.get_current_count() + len(rows)
        if needed > self._index.get_max_elements():
            self._index.resize_index(needed + 10_000)
        self._index.add_items(rows, np.arange(first, first + len(rows)), num_threads=self.threads)
        self._index.save_index(str(self.folder / "a.hnsw"))


PEER = Hnswlib
VARIANTS = (
    Variant(
        "m16",
        settings=(10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384),
        build={"m": 16, "ef_construction": 200},
        filtered=(16, 32, 64, 128, 256),
    ),
)
