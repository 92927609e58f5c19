"""One exact query against the machine's read bandwidth.

A query of the default kind reads every vector once, so the time to read as many bytes is its floor. The yardstick sums
as much memory in a compiled loop, in turn with the queries; `mapped blocks` sums the very blocks that the query reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from typing import Any

import numpy as np

import vecdb
from tools.bench import data
from tools.bench.measure import Bench, Outcome, Timing, Work, alternate, at_least, rate
from vecdb import exact
from vecdb.blocks import VectorBlocks
from vecdb.engine.search import scan_order

BAR = at_least(0.8)
K = 10


def run(bench: Bench) -> Outcome:
    """Measure every data set and metric."""
    vecdb.warmup()
    outcome = Outcome()
    for vectors, metric in _cases(bench):
        _measure(bench, vectors, metric, outcome)
    outcome.notes.append(f"k = {K}, include=(), one thread; kernels loaded, pages in memory.")
    return outcome


def _cases(bench: Bench) -> Iterator[tuple[data.Vectors, str]]:
    count = bench.size(100_000, 3000)
    yield data.synthetic(count), "cosine"
    yield data.synthetic(count, unit=False), "l2"
    if bench.shared is not None and not bench.quick:
        yield data.real(bench.shared), "cosine"


def _measure(bench: Bench, vectors: data.Vectors, metric: str, outcome: Outcome) -> None:
    path = data.store(bench.folder / f"{vectors.name}-{metric}.vecdb", vectors.rows, metric=metric)
    case = f"{vectors.name} {vectors.shape}, {metric}"
    with vecdb.open(path, threads=1) as db:
        collection = db.collection("docs")
        with collection._view() as view:  # the blocks under the facade, for the scan without it
            blocks = scan_order(view, view.space(collection.spaces["m"]))
            timings = alternate(_works(collection, blocks, vectors), bench.repetitions(40), warm=3)
    _report(outcome, case, timings, vectors.rows.nbytes)
    path.unlink()


def _works(collection: vecdb.Collection, blocks: VectorBlocks, vectors: data.Vectors) -> dict[str, Work]:
    from tools.bench.kernels import read

    memory = np.copy(vectors.rows)
    mapped = [np.asarray(matrix, np.float32) for matrix in blocks.matrices]  # they are float32: nothing is copied
    queries = cycle(vectors.queries)

    def direct() -> Any:
        return exact.search(blocks, next(queries)[None], K, path="numba")

    return {
        "memory": lambda: read([memory]),
        "Collection.search": lambda: collection.search(next(queries), k=K, include=(), exact=True),
        "exact.search": direct,
        "mapped blocks": lambda: read(mapped),
    }


def _report(outcome: Outcome, case: str, timings: dict[str, Timing], size: int) -> None:
    memory = timings["memory"]
    for name, timing in timings.items():
        amount, unit = size / 1e9, "GB/s"
        if name == "memory":
            outcome.add(rate(case, "read bandwidth", timing, amount, unit))
            continue
        bar = BAR if name == "Collection.search" else None
        label = "read bandwidth of the mapped blocks" if name == "mapped blocks" else name
        outcome.add(
            rate(case, label, timing, amount, unit, ratio=memory.over(timing), against="read bandwidth", bar=bar)
        )


if __name__ == "__main__":
    from tools.bench.run import main

    main(["scan"])
