"""Graph libraries through their plugins and on their own: the same rows, parameters and effort, one thread.

`library` is the bare call, `index type` the plugin's `search` over a view in memory, `Collection.search` all of it:
exact scores, ids, hits. Recall@10 is against the exact scan. The plugins are taken from plugins/, not installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from tools.bench import data
from tools.bench.measure import Bench, Outcome, Row, Work, alternate, at_least, missing, rate
from vecdb import PluginRegistry
from vecdb.contracts import settle_params
from vecdb.testing.memory import MemoryView

ROOT = Path(__file__).resolve().parents[3]
K = 10
EFFORT = 64
CALLS = 100
BAR = at_least(0.8)
Ask = Callable[[data.F32], Any]


def run(bench: Bench) -> Outcome:
    """Measure every library that is installed."""
    vecdb.warmup()
    outcome = Outcome()
    vectors = data.documents(bench.shared, full=10_000, quick=600, is_quick=bench.quick)
    rows = vectors.rows / np.linalg.norm(vectors.rows, axis=1, keepdims=True)
    queries = vectors.queries / np.linalg.norm(vectors.queries, axis=1, keepdims=True)
    vectors = data.Vectors(vectors.name, rows, queries)
    for library, (kind, bare) in LIBRARIES.items():
        case = f"{vectors.name} {vectors.shape}, {kind}"
        if importlib.util.find_spec(library) is None:
            outcome.add(missing(case, "library", f"{library} not installed"))
            continue
        _measure(bench, vectors, case, kind, bare(vectors.rows), outcome)
    outcome.notes.append(f"cosine, k = {K}, {EFFORT} candidates examined, one query a call, one thread.")
    return outcome


def _measure(bench: Bench, vectors: data.Vectors, case: str, kind: str, bare: Ask, outcome: Outcome) -> None:
    registry = PluginRegistry([_plugin(kind)], entry_points=False)
    with vecdb.open(bench.folder / f"{kind}.vecdb", "x", durability="relaxed", plugins=registry) as db:
        docs = data.fill(db, vectors.rows)
        docs.create_index("m", kind, seed=1)
        asks: dict[str, Ask] = {
            "library": bare,
            "index type": _type_alone(registry.find("index type", kind).thing, vectors.rows),
            "Collection.search": lambda query: docs.search(query, k=K, include=()).ids,
        }
        timings = alternate(_works(asks, vectors), bench.repetitions(21), warm=2)
        truth = [docs.search(query, k=K, exact=True, include=()).ids for query in vectors.queries]
        recall = {name: _recall([ask(query) for query in vectors.queries], truth) for name, ask in asks.items()}
    for name, timing in timings.items():
        more = {} if name == "library" else {"ratio": timings["library"].over(timing), "against": "library"}
        bar = BAR if name == "index type" else None
        outcome.add(rate(case, name, timing, CALLS, "queries/s", bar=bar, **more))
        outcome.add(Row(case, f"{name}, recall@10", recall[name], ""))


def _recall(found: list[Any], truth: list[Any]) -> float:
    return float(np.mean([len(set(a) & set(b)) / K for a, b in zip(found, truth, strict=True)]))


def _works(asks: dict[str, Ask], vectors: data.Vectors) -> dict[str, Work]:
    queries = cycle(vectors.queries)

    def times(ask: Ask) -> Work:
        return lambda: [ask(next(queries)) for _ in range(CALLS)]

    return {name: times(ask) for name, ask in asks.items()}


def _plugin(kind: str) -> Any:
    name = f"vecdb_{kind.split('.')[0]}"
    folder = str(ROOT / "plugins" / name.replace("_", "-") / "src")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


def _type_alone(thing: Any, rows: data.F32) -> Ask:
    view = MemoryView(rows, "cosine")
    params = settle_params(thing.name, thing.parameters, {})
    index = thing.build(view, params, seed=1, progress=lambda *_: None, cancel=lambda: False)
    return lambda query: index.search(query[None], K, allowed=None, effort=None, view=view).positions[0].tolist()


def _hnswlib(rows: data.F32) -> Ask:
    import hnswlib

    index = hnswlib.Index("cosine", rows.shape[1])
    index.init_index(len(rows), M=16, ef_construction=200, random_seed=1)
    index.add_items(rows, num_threads=1)
    index.set_ef(EFFORT)
    return lambda query: index.knn_query(query[None], K, num_threads=1)[0][0].tolist()


def _faiss(rows: data.F32) -> Ask:
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.index_factory(rows.shape[1], "HNSW32,Flat", faiss.METRIC_INNER_PRODUCT)
    index.add(rows)
    index.hnsw.efSearch = EFFORT
    return lambda query: index.search(query[None], K)[1][0].tolist()


def _usearch(rows: data.F32) -> Ask:
    from usearch.index import Index

    settings = {"connectivity": 16, "expansion_add": 128, "expansion_search": EFFORT}
    index = Index(ndim=rows.shape[1], metric="cos", dtype="f32", **settings)
    index.add(np.arange(len(rows), dtype=np.uint64), rows, threads=1)
    return lambda query: index.search(query[None], K, threads=1).keys.tolist()


LIBRARIES: dict[str, tuple[str, Callable[[data.F32], Ask]]] = {
    "hnswlib": ("hnswlib.hnsw", _hnswlib),
    "faiss": ("faiss.factory", _faiss),
    "usearch": ("usearch.hnsw", _usearch),
}
"""Module -> index type, and the bare library made ready to be asked."""


if __name__ == "__main__":
    from tools.bench.run import main

    main(["compare.plugins"])
