"""rabitqlib's SymphonyQG: a graph whose nodes hold their neighbours' codes. Static, no filter, no insert."""

from __future__ import annotations

from typing import Any

import numpy as np

from tools.bench.compare.peers.base import Attributes, Ids, Peer, Setting, Variant
from tools.bench.compare.sets import F32, K

DISTRIBUTIONS = ("rabitqlib",)


class Symphony(Peer):
    """Squared distances of unit rows; a setting is ef."""

    _index: Any
    _ef: int = 10

    def build(self, rows: F32, attributes: Attributes) -> None:
        import rabitqlib

        index = rabitqlib.SymqgIndex(rows.shape[1], self.params["degree"], metric="l2")
        index.build(np.ascontiguousarray(rows), self.params["ef_construction"], num_threads=self.threads)
        index.save(str(self.folder / "a.symqg"))

    def open(self, dim: int) -> None:
        import rabitqlib

        self._index = rabitqlib.SymqgIndex.load(str(self.folder / "a.symqg"))

    def aim(self, setting: Setting) -> None:
        self._ef = setting

    def one(self, query: F32) -> Ids:
        return self._index.search(query[None], K, self._ef, num_threads=1)[0][0]  # type: ignore[no-any-return]

    def many(self, queries: F32) -> Any:
        return self._index.search(queries, K, self._ef, num_threads=self.threads)[0]


PEER = Symphony
VARIANTS = (
    Variant(
        "symqg32",
        settings=(10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512),
        build={"degree": 32, "ef_construction": 200},
    ),
)
