"""Chroma, embedded: HNSW and SQLite; ef is a setting of the collection."""

from __future__ import annotations

from typing import Any

import numpy as np

from tools.bench.compare.peers.base import Attributes, Ids, Peer, Setting, Variant, pieces
from tools.bench.compare.sets import F32, Condition, K

DISTRIBUTIONS = ("chromadb",)


class Chroma(Peer):
    """A setting is ef_search, which a collection reads when it is opened."""

    is_store = True
    _docs: Any
    _any: Any
    _setting: Setting = None
    _where: dict[str, Any] | None = None

    def store(self, rows: F32, attributes: Attributes) -> None:
        """Write nothing yet: records and graph are written together."""

    def build(self, rows: F32, attributes: Attributes) -> None:
        hnsw = {
            "space": "ip",
            "max_neighbors": 16,
            "ef_construction": 200,
            "ef_search": 100,
            "num_threads": self.threads,
        }
        self._docs = self._client().create_collection("docs", embedding_function=None, configuration={"hnsw": hnsw})
        for first, part in pieces(rows, 5_000):
            self.insert(first, part, attributes)

    def open(self, dim: int) -> None:
        self._docs = self._client().get_collection("docs", embedding_function=None)
        self._setting = self._docs.configuration["hnsw"]["ef_search"]
        self._any = np.eye(1, dim, dtype=np.float32)

    def aim(self, setting: Setting) -> None:
        if setting == self._setting:
            return
        from chromadb.api.client import SharedSystemClient

        self._docs.modify(configuration={"hnsw": {"ef_search": setting}})
        SharedSystemClient.clear_system_cache()  # else the open graph goes on as before
        self._docs = self._client().get_collection("docs", embedding_function=None)
        self._setting = setting
        self._docs.query(query_embeddings=self._any, n_results=K, include=[])  # loads the graph

    def one(self, query: F32) -> Ids:
        return [int(each) for each in self._ask(query[None])[0]]

    def many(self, queries: F32) -> Any:
        return [[int(each) for each in ids] for ids in self._ask(queries)]

    def only(self, condition: Condition | None, attributes: Attributes) -> None:
        self._where = None if condition is None else {condition.attribute: {"$lt": condition.below}}

    def insert(self, first: int, rows: F32, attributes: Attributes) -> None:
        size = len(next(iter(attributes.values())))
        places = range(first, first + len(rows))
        described = [{name: int(values[place % size]) for name, values in attributes.items()} for place in places]
        self._docs.add(ids=[str(place) for place in places], embeddings=rows, metadatas=described)

    def _ask(self, queries: F32) -> Any:
        return self._docs.query(query_embeddings=queries, n_results=K, where=self._where, include=[])["ids"]

    def _client(self) -> Any:
        import chromadb
        from chromadb.config import Settings

        return chromadb.PersistentClient(str(self.folder), settings=Settings(anonymized_telemetry=False))


PEER = Chroma
VARIANTS = (Variant("hnsw", settings=(16, 32, 64, 128, 256), filtered=(32, 128), slow=True),)
