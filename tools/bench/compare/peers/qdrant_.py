"""Qdrant Edge: HNSW over int8 rows with rescoring, payload indexes, a write-ahead log; `flush` makes writes durable."""

from __future__ import annotations

from typing import Any

from tools.bench.compare.peers.base import Attributes, Ids, Peer, Setting, Variant, pieces
from tools.bench.compare.sets import F32, Condition, K

DISTRIBUTIONS = ("qdrant-edge-py",)
_BATCH = 1_000


class QdrantEdge(Peer):
    """A setting is hnsw_ef; twice k rows are rescored, since the best k of the codes alone end at a recall of 0.98."""

    is_store = True
    _shard: Any
    _ef: int = 64
    _filter: Any = None

    def store(self, rows: F32, attributes: Attributes) -> None:
        import qdrant_edge as q

        shard = q.EdgeShard.create(str(self.folder / "shard"), self._config(rows.shape[1]))
        for name in attributes:
            shard.update(q.UpdateOperation.create_field_index(name, q.PayloadSchemaType.Integer))
        for first, part in pieces(rows, _BATCH):
            shard.update(q.UpdateOperation.upsert_points(self._points(first, part, attributes)))
        shard.flush()
        shard.close()

    def build(self, rows: F32, attributes: Attributes) -> None:
        import qdrant_edge as q

        shard = q.EdgeShard.load(str(self.folder / "shard"))
        shard.optimize()
        shard.flush()
        shard.close()

    def open(self, dim: int) -> None:
        import qdrant_edge as q

        self._shard = q.EdgeShard.load(str(self.folder / "shard"))

    def aim(self, setting: Setting) -> None:
        self._ef = setting

    def one(self, query: F32) -> Ids:
        return [point.id for point in self._shard.query(self._request(query))]

    def many(self, queries: F32) -> Any:
        import qdrant_edge as q

        found = self._shard.query_batch(q.QueryBatchRequest([self._request(query) for query in queries]))
        return [[point.id for point in each] for each in found]

    def only(self, condition: Condition | None, attributes: Attributes) -> None:
        import qdrant_edge as q

        self._filter = None
        if condition is not None:
            below = q.RangeFloat(lt=float(condition.below))
            self._filter = q.Filter(must=[q.FieldCondition(condition.attribute, range=below)])

    def insert(self, first: int, rows: F32, attributes: Attributes) -> None:
        import qdrant_edge as q

        self._shard.update(q.UpdateOperation.upsert_points(self._points(first, rows, attributes)))
        self._shard.flush()

    def close(self) -> None:
        self._shard.close()

    def _config(self, dim: int) -> Any:
        import qdrant_edge as q

        hnsw = q.HnswIndexConfig(16, 100, 10, max_indexing_threads=self.threads)
        codes = q.ScalarQuantizationConfig(q.ScalarType.Int8, always_ram=True) if self.params["int8"] else None
        vectors = q.EdgeVectorParams(dim, q.Distance.Dot, hnsw_config=hnsw, quantization_config=codes)
        few = q.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=1)
        return q.EdgeConfig(vectors, hnsw_config=hnsw, optimizers=few, max_search_threads=self.threads)

    def _points(self, first: int, rows: F32, attributes: Attributes) -> list[Any]:
        import qdrant_edge as q

        def payload(place: int) -> dict[str, int]:
            return {name: int(values[place % len(values)]) for name, values in attributes.items()}

        return [q.Point(first + place, row.tolist(), payload(first + place)) for place, row in enumerate(rows)]

    def _request(self, query: F32) -> Any:
        import qdrant_edge as q

        codes = q.QuantizationSearchParams(rescore=True, oversampling=2.0) if self.params["int8"] else None
        params = q.SearchParams(hnsw_ef=self._ef, quantization=codes)
        return q.QueryRequest(K, query=q.Query.Nearest(query.tolist()), filter=self._filter, params=params)


PEER = QdrantEdge
VARIANTS = (
    Variant(
        "hnsw-int8",
        settings=(10, 16, 24, 32, 48, 64, 96, 128, 192, 256),
        build={"int8": True},
        filtered=(16, 32, 64, 128),
    ),
)
