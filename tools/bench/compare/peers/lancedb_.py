"""LanceDB: a scan, and lists of product codes refined with the raw rows; filters are applied before the search."""

from __future__ import annotations

from typing import Any

import numpy as np

from tools.bench.compare.peers.base import Attributes, Ids, Peer, Setting, Variant
from tools.bench.compare.sets import F32, Condition, K

DISTRIBUTIONS = ("lancedb", "pyarrow")


class LanceDB(Peer):
    """A setting is [nprobes, refine_factor]; None scans."""

    is_store = True
    _table: Any
    _setting: Setting = None
    _where: str | None = None

    def store(self, rows: F32, attributes: Attributes) -> None:
        import lancedb

        lancedb.connect(str(self.folder)).create_table("docs", self._arrow(0, rows, attributes))

    def build(self, rows: F32, attributes: Attributes) -> None:
        if not self.params.get("index"):
            return
        import lancedb
        from lancedb.index import IvfPq

        table = lancedb.connect(str(self.folder)).open_table("docs")
        lists = round(len(rows) ** 0.5)
        table.create_index("vector", config=IvfPq("dot", num_partitions=lists, num_sub_vectors=rows.shape[1] // 8))
        for name in attributes:
            table.create_scalar_index(name)

    def open(self, dim: int) -> None:
        import lancedb

        self._table = lancedb.connect(str(self.folder)).open_table("docs")

    def aim(self, setting: Setting) -> None:
        self._setting = setting

    def one(self, query: F32) -> Ids:
        search = self._table.search(query, vector_column_name="vector").distance_type("dot").limit(K).select(["id"])
        if self._setting is None:
            search = search.bypass_vector_index()
        else:
            search = search.nprobes(self._setting[0]).refine_factor(self._setting[1])
        if self._where is not None:
            search = search.where(self._where, prefilter=True)
        return search.to_arrow()["id"].to_numpy()  # type: ignore[no-any-return]

    def only(self, condition: Condition | None, attributes: Attributes) -> None:
        self._where = None if condition is None else condition.name

    def insert(self, first: int, rows: F32, attributes: Attributes) -> None:
        self._table.add(self._arrow(first, rows, attributes))

    def _arrow(self, first: int, rows: F32, attributes: Attributes) -> Any:
        import pyarrow as pa

        ids = np.arange(first, first + len(rows))
        flat = pa.array(np.ascontiguousarray(rows).reshape(-1))
        columns = {"id": pa.array(ids), "vector": pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])}
        return pa.table(columns | {name: pa.array(values[ids % len(values)]) for name, values in attributes.items()})


PEER = LanceDB
VARIANTS = (
    Variant("flat", slow=True),
    Variant(
        "ivf-pq",
        settings=([8, 4], [16, 8], [32, 16], [64, 16], [128, 32]),
        build={"index": True},
        filtered=([16, 8], [64, 16]),
        slow=True,
    ),
)
