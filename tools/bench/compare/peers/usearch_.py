"""usearch: one graph, rows stored as float32, bfloat16 or int8; no rescoring, so narrow rows limit the recall."""

from __future__ import annotations

from typing import Any

import numpy as np

from tools.bench.compare.peers.base import Attributes, Ids, Peer, Setting, Variant
from tools.bench.compare.sets import F32, K

DISTRIBUTIONS = ("usearch",)


class Usearch(Peer):
    """A setting is expansion_search."""

    _index: Any

    def build(self, rows: F32, attributes: Attributes) -> None:
        from usearch.index import Index

        index = Index(ndim=rows.shape[1], metric="cos", dtype=self.params["dtype"], connectivity=16, expansion_add=128)
        index.add(np.arange(len(rows), dtype=np.uint64), rows, threads=self.threads)
        index.save(str(self.folder / "a.usearch"))

    def open(self, dim: int) -> None:
        from usearch.index import Index

        self._index = Index.restore(str(self.folder / "a.usearch"))

    def aim(self, setting: Setting) -> None:
        self._index.expansion_search = setting

    def one(self, query: F32) -> Ids:
        return self._index.search(query, K, threads=1).keys  # type: ignore[no-any-return]

    def many(self, queries: F32) -> Any:
        return self._index.search(queries, K, threads=self.threads).keys

    def insert(self, first: int, rows: F32, attributes: Attributes) -> None:
        self._index.add(np.arange(first, first + len(rows), dtype=np.uint64), rows, threads=self.threads)
        self._index.save(str(self.folder / "a.usearch"))


PEER = Usearch
_EFS = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
VARIANTS = (
    Variant("f32", settings=_EFS, build={"dtype": "f32"}),
    Variant("bf16", settings=_EFS, build={"dtype": "bf16"}),
    Variant("i8", settings=_EFS, build={"dtype": "i8"}),
)
