"""pynndescent: a pruned nearest-neighbour graph in numba; kept with pickle, no insert, no filter, no delete."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np

from tools.bench.compare.peers.base import Attributes, Ids, Peer, Setting, Variant
from tools.bench.compare.sets import F32, K

DISTRIBUTIONS = ("pynndescent",)


class Pynndescent(Peer):
    """A setting is epsilon."""

    _index: Any = None
    _epsilon: float = 0.1

    def build(self, rows: F32, attributes: Attributes) -> None:
        from pynndescent import NNDescent

        index = NNDescent(rows, metric="cosine", n_neighbors=30, random_state=1, n_jobs=self.threads)
        index.prepare()
        (self.folder / "a.pickle").write_bytes(pickle.dumps(index, protocol=5))

    def open(self, dim: int) -> None:
        self._index = pickle.loads((self.folder / "a.pickle").read_bytes())  # written by `build`

    def warm(self) -> None:
        """Compile the search, which every process does anew; a build counts what it compiles."""
        if self._index is not None:
            self._index.query(np.zeros((1, self._index.dim), np.float32), K)

    def aim(self, setting: Setting) -> None:
        self._epsilon = setting

    def one(self, query: F32) -> Ids:
        return self._index.query(query[None], K, epsilon=self._epsilon)[0][0]  # type: ignore[no-any-return]

    def many(self, queries: F32) -> Any:
        return self._index.query(queries, K, epsilon=self._epsilon)[0]


PEER = Pynndescent
VARIANTS = (Variant("nn30", settings=(0.0, 0.04, 0.08, 0.12, 0.16, 0.2, 0.24, 0.28, 0.32, 0.36, 0.4)),)
