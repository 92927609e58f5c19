"""ScaNN: a tree of partitions, 4-bit codes in registers, exact reordering."""

from __future__ import annotations

from typing import Any

import numpy as np

from tools.bench.compare.peers.base import Attributes, Ids, Peer, Setting, Variant
from tools.bench.compare.sets import F32, K

DISTRIBUTIONS = ("scann",)


class Scann(Peer):
    """A setting is [leaves to search, rows to reorder]."""

    _index: Any
    _leaves: int = 10
    _reorder: int = 40

    def build(self, rows: F32, attributes: Attributes) -> None:
        from scann import scann_ops_pybind

        leaves = round(len(rows) ** 0.5 * 2)
        builder = scann_ops_pybind.builder(np.ascontiguousarray(rows), K, "dot_product")
        builder = builder.set_n_training_threads(self.threads)
        tree = {"num_leaves": leaves, "num_leaves_to_search": 50, "training_sample_size": min(len(rows), 250_000)}
        index = builder.tree(**tree).score_ah(2, anisotropic_quantization_threshold=0.2).reorder(100).build()
        index.serialize(str(self.folder))

    def open(self, dim: int) -> None:
        from scann import scann_ops_pybind

        self._index = scann_ops_pybind.load_searcher(str(self.folder))
        self._index.set_num_threads(self.threads)

    def aim(self, setting: Setting) -> None:
        self._leaves, self._reorder = setting

    def one(self, query: F32) -> Ids:
        found = self._index.search(query, K, leaves_to_search=self._leaves, pre_reorder_num_neighbors=self._reorder)
        return found[0]  # type: ignore[no-any-return]

    def many(self, queries: F32) -> Any:
        ask = self._index.search_batched if self.threads == 1 else self._index.search_batched_parallel
        return ask(queries, K, leaves_to_search=self._leaves, pre_reorder_num_neighbors=self._reorder)[0]


PEER = Scann
VARIANTS = (
    Variant(
        "tree-ah",
        settings=tuple([leaves, rows] for leaves in (10, 20, 40, 80, 160, 320) for rows in (40, 120)),
    ),
)
