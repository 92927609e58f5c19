"""zvec: HNSW over int8 codes, refined with the raw rows; an inverted index for each attribute."""

from __future__ import annotations

from typing import Any

from tools.bench.compare.peers.base import Attributes, Ids, Peer, Setting, Variant, pieces
from tools.bench.compare.sets import F32, Condition, K

DISTRIBUTIONS = ("zvec",)


class Zvec(Peer):
    """A setting is ef."""

    is_store = True
    _docs: Any
    _ef: int = 64
    _filter: str | None = None

    def store(self, rows: F32, attributes: Attributes) -> None:
        import zvec

        self._ready()
        how = zvec.HnswIndexParam(
            metric_type=zvec.MetricType.IP, m=16, ef_construction=200, quantize_type=zvec.QuantizeType.INT8
        )
        vectors = zvec.VectorSchema("v", zvec.DataType.VECTOR_FP32, rows.shape[1], index_param=how)
        fields = [
            zvec.FieldSchema(
                name, zvec.DataType.INT64, index_param=zvec.InvertIndexParam(enable_range_optimization=True)
            )
            for name in attributes
        ]
        schema = zvec.CollectionSchema(name="docs", fields=fields, vectors=vectors)
        self._docs = zvec.create_and_open(str(self.folder / "docs"), schema)
        for first, part in pieces(rows, 1_000):
            self.insert(first, part, attributes)
        self._docs.flush()

    def build(self, rows: F32, attributes: Attributes) -> None:
        import zvec

        self._docs.optimize(zvec.OptimizeOption(concurrency=self.threads))
        self._docs.flush()

    def open(self, dim: int) -> None:
        import zvec

        self._ready()
        self._docs = zvec.open(str(self.folder / "docs"))

    def aim(self, setting: Setting) -> None:
        self._ef = setting

    def one(self, query: F32) -> Ids:
        import zvec

        how = zvec.HnswQueryParam(ef=self._ef, is_using_refiner=True)
        found = self._docs.query(zvec.Query(field_name="v", vector=query, param=how), topk=K, filter=self._filter)
        return [int(each.id) for each in found]

    def only(self, condition: Condition | None, attributes: Attributes) -> None:
        self._filter = None if condition is None else condition.name

    def insert(self, first: int, rows: F32, attributes: Attributes) -> None:
        import zvec

        def fields(place: int) -> dict[str, int]:
            return {name: int(values[place % len(values)]) for name, values in attributes.items()}

        self._docs.insert(
            [zvec.Doc(str(first + at), vectors={"v": row}, fields=fields(first + at)) for at, row in enumerate(rows)]
        )
        self._docs.flush()

    def _ready(self) -> None:
        import zvec

        zvec.init(query_threads=self.threads, optimize_threads=self.threads, log_level=zvec.LogLevel.ERROR)


PEER = Zvec
VARIANTS = (Variant("hnsw-int8", settings=(10, 16, 24, 32, 48, 64, 96, 128, 192, 256), filtered=(16, 32, 64, 128)),)
