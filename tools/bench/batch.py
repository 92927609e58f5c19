"""A hundred exact queries in one call against the matrix product that they need."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np

import vecdb
from tools.bench import data
from tools.bench.measure import Bench, Outcome, Work, alternate, at_least, missing, rate
from vecdb import exact
from vecdb.engine.search import scan_order

BAR = at_least(0.8)
FAISS_BAR = at_least(4)
K = 10


def run(bench: Bench) -> Outcome:
    """Measure every data set."""
    vecdb.warmup()
    outcome = Outcome()
    for vectors in _cases(bench):
        _measure(bench, vectors, outcome)
    outcome.notes.append(
        f"k = {K}, include=(), the best k of every query included; the product alone finds no best rows. "
        "`np.matmul(..., out=)` writes into memory that is there already, which the plain call has to ask for."
    )
    return outcome


def _cases(bench: Bench) -> Iterator[data.Vectors]:
    yield data.synthetic(bench.size(100_000, 3000))
    if bench.shared is not None and not bench.quick:
        yield data.real(bench.shared)


def _measure(bench: Bench, vectors: data.Vectors, outcome: Outcome) -> None:
    path = data.store(bench.folder / f"{vectors.name}.vecdb", vectors.rows)
    queries = vectors.queries
    case = f"{vectors.name} {vectors.shape}, cosine, {len(queries)} queries"
    with vecdb.open(path, threads=1) as db:
        collection = db.collection("docs")
        with collection._view() as view:
            blocks = scan_order(view, view.space(collection.spaces["m"]))
            works: dict[str, Work] = {
                "np.matmul": lambda: np.matmul(queries, vectors.rows.T),
                "Collection.search": lambda: collection.search(queries, k=K, include=(), exact=True),
                "exact.search": lambda: exact.search(blocks, queries, K, path="numba"),
                "np.matmul(..., out=)": _product_in_place(vectors),
            }
            works |= _faiss(vectors)
            timings = alternate(works, bench.repetitions(15), warm=2)
    product = timings["np.matmul"]
    for name, timing in timings.items():
        more: dict[str, Any] = {}
        if name != "np.matmul":
            more = {"ratio": product.over(timing), "against": "np.matmul"}
        if name == "Collection.search":
            more["bar"] = BAR
        outcome.add(rate(case, name, timing, len(queries), "queries/s", **more))
    _against_faiss(outcome, case, timings, len(queries))
    path.unlink()


def _product_in_place(vectors: data.Vectors) -> Work:
    out = np.empty((len(vectors.queries), len(vectors.rows)), np.float32)
    return lambda: np.matmul(vectors.queries, vectors.rows.T, out=out)


def _faiss(vectors: data.Vectors) -> dict[str, Work]:
    if importlib.util.find_spec("faiss") is None:
        return {}
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatIP(vectors.rows.shape[1])
    index.add(vectors.rows)
    return {"faiss IndexFlatIP": lambda: index.search(vectors.queries, K)}


def _against_faiss(outcome: Outcome, case: str, timings: dict[str, Any], count: int) -> None:
    if "faiss IndexFlatIP" not in timings:
        outcome.add(missing(case, "faiss IndexFlatIP", "faiss-cpu is not installed"))
        return
    own = timings["Collection.search"]
    ratio = timings["faiss IndexFlatIP"].over(own)
    more = {"ratio": ratio, "against": "faiss IndexFlatIP", "bar": FAISS_BAR}
    outcome.add(rate(case, "Collection.search", own, count, "queries/s", **more))


if __name__ == "__main__":
    from tools.bench.run import main

    main(["batch"])
