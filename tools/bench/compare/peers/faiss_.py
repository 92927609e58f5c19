"""faiss: flat, HNSW, and lists with 4-bit product codes or 1-bit codes, both refined with the raw rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from tools.bench.compare.peers.base import Attributes, Ids, Peer, Setting, Variant
from tools.bench.compare.sets import F32, Condition, K

DISTRIBUTIONS = ("faiss-cpu",)


class Faiss(Peer):
    """An index of `faiss.index_factory`; a setting is efSearch, or [nprobe, k_factor] of lists with refinement."""

    _index: Any
    _search: Any = None  # parameters of a search
    _allowed: Any = None
    _setting: Setting = None

    def build(self, rows: F32, attributes: Attributes) -> None:
        import faiss

        faiss.omp_set_num_threads(self.threads)
        index = faiss.index_factory(rows.shape[1], self.params["factory"].format(half=rows.shape[1] // 2))
        if "ef_construction" in self.params:
            index.hnsw.efConstruction = self.params["ef_construction"]
        rows = np.ascontiguousarray(rows)
        index.train(rows)
        index.add(rows)
        faiss.write_index(index, str(self.folder / "a.faiss"))

    def open(self, dim: int) -> None:
        import faiss

        faiss.omp_set_num_threads(self.threads)
        self._index = faiss.read_index(str(self.folder / "a.faiss"))

    def aim(self, setting: Setting) -> None:
        self._setting = setting
        self._search = self._parameters()

    def one(self, query: F32) -> Ids:
        return self._index.search(query[None], K, params=self._search)[1][0]

    def many(self, queries: F32) -> Any:
        return self._index.search(queries, K, params=self._search)[1]

    def only(self, condition: Condition | None, attributes: Attributes) -> None:
        import faiss

        self._allowed = None
        if condition is not None:
            bits = np.packbits(attributes[condition.attribute] < condition.below, bitorder="little")
            self._allowed = faiss.IDSelectorBitmap(bits)
        self._search = self._parameters()

    def _parameters(self) -> Any:
        import faiss

        select = {} if self._allowed is None else {"sel": self._allowed}
        kind = self.params["kind"]
        if kind == "hnsw":
            return faiss.SearchParametersHNSW(efSearch=self._setting, **select)
        if kind == "flat":
            return faiss.SearchParameters(**select)
        if kind == "ivf":
            return faiss.SearchParametersIVF(nprobe=self._setting, **select)
        probes, factor = self._setting
        inner = faiss.SearchParametersIVF(nprobe=probes, **select)
        return faiss.IndexRefineSearchParameters(k_factor=factor, base_index_params=inner)


def _refined(nprobes: tuple[int, ...], factors: tuple[int, ...]) -> tuple[list[int], ...]:
    return tuple([probes, factor] for probes in nprobes for factor in factors)


PEER = Faiss
VARIANTS = (
    Variant("flat", build={"factory": "Flat", "kind": "flat"}, slow=True),
    Variant(
        "hnsw16",
        settings=(10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384),
        build={"factory": "HNSW16,Flat", "kind": "hnsw", "ef_construction": 200},
        filtered=(16, 32, 64, 128, 256),
    ),
    Variant(
        "ivfpqfs",
        settings=_refined((4, 8, 16, 32, 64, 128, 256), (4, 8)),
        build={"factory": "IVF256,PQ{half}x4fs,RFlat", "kind": "refined"},
        filtered=_refined((16, 64, 256), (4, 16)),
    ),
    Variant(
        "ivfrabitq",
        settings=_refined((8, 16, 32, 64, 128, 256), (4, 16)),
        build={"factory": "IVF256,RaBitQfs,RFlat", "kind": "refined"},
        filtered=_refined((16, 64, 256), (8, 16)),
    ),
)
