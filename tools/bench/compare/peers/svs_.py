"""Intel's scalable-vs: a Vamana graph over float32 rows. Its compressed forms refuse processors of others."""

from __future__ import annotations

from typing import Any

import numpy as np

from tools.bench.compare.peers.base import Attributes, Ids, Peer, Setting, Variant
from tools.bench.compare.sets import F32, K

DISTRIBUTIONS = ("scalable-vs",)


class Svs(Peer):
    """Squared distances of unit rows; a setting is the size of the search window."""

    _index: Any

    def build(self, rows: F32, attributes: Attributes) -> None:
        import svs

        how = svs.VamanaBuildParameters(
            alpha=1.2, graph_max_degree=self.params["degree"], window_size=self.params["window"]
        )
        index = svs.Vamana.build(how, np.ascontiguousarray(rows), svs.DistanceType.L2, num_threads=self.threads)
        index.save(*(str(self.folder / name) for name in ("config", "graph", "data")))

    def open(self, dim: int) -> None:
        import svs

        parts = [str(self.folder / name) for name in ("config", "graph", "data")]
        loader = svs.VectorDataLoader(parts[2], svs.DataType.float32)
        graph = svs.GraphLoader(parts[1])
        self._index = svs.Vamana(parts[0], graph, loader, svs.DistanceType.L2, num_threads=self.threads)

    def aim(self, setting: Setting) -> None:
        self._index.search_window_size = setting

    def one(self, query: F32) -> Ids:
        return self._index.search(query[None], K)[0][0]  # type: ignore[no-any-return]

    def many(self, queries: F32) -> Any:
        return self._index.search(queries, K)[0]


PEER = Svs
VARIANTS = (
    Variant(
        "vamana32",
        settings=(10, 16, 24, 32, 48, 64, 96, 128, 192, 256),
        build={"degree": 32, "window": 128},
    ),
)
