"""What the border to index plugins costs: `flat`, a registered index type, against the scan that it calls.

`flat` reads the same blocks with the same kernels, so what a search through it takes longer than one with
``exact=True`` is the border: finding the part, lending the view, checking the answer, scoring the candidates again.
`exact.search` on the blocks, without collection, records and hits, is shown beside them.
"""

from __future__ import annotations

from itertools import cycle
from statistics import median
from typing import Any

import vecdb
from tools.bench import data
from tools.bench.measure import Bench, Outcome, Row, Timing, Work, alternate, at_most, duration
from vecdb import exact
from vecdb.engine.search import scan_order

SIZES = (1_000, 36_000)
PER_CALL = 10.0
"""Microseconds that the border may cost a call at the smaller size."""
SHARE = 1.05
"""How many times as long as the scan a search may take at the larger one."""
K = 10


def run(bench: Bench) -> Outcome:
    """Measure both sizes."""
    vecdb.warmup()
    outcome = Outcome()
    for count in SIZES:
        _measure(bench, count, outcome)
    outcome.notes.append(f"k = {K}, include=(), one thread, one query a call; kernels loaded, pages in memory.")
    return outcome


def _measure(bench: Bench, count: int, outcome: Outcome) -> None:
    vectors = data.documents(bench.shared, full=count, quick=count // 10, is_quick=bench.quick)
    path = data.store(bench.folder / f"border-{count}.vecdb", vectors.rows)
    calls = bench.size(200 if count == SIZES[0] else 10, 3)
    with vecdb.open(path) as db:
        collection = db.collection("docs")
        collection.create_index("m", "flat")
        with collection._view() as view:  # the blocks under the facade, for the scan without it
            blocks = scan_order(view, view.space(collection.spaces["m"]))
            works = _works(collection, blocks, vectors, calls)
            timings = alternate(works, bench.repetitions(41), warm=3)
    _report(outcome, f"{vectors.name} {vectors.shape}", timings, calls, count)


def _works(collection: vecdb.Collection, blocks: Any, vectors: data.Vectors, calls: int) -> dict[str, Work]:
    queries = cycle(vectors.queries)

    def times(one: Any) -> Work:
        return lambda: [one(next(queries)) for _ in range(calls)]

    return {
        "through flat": times(lambda query: collection.search(query, k=K, include=())),
        "exact=True": times(lambda query: collection.search(query, k=K, include=(), exact=True)),
        "exact.search": times(lambda query: exact.search(blocks, query[None], K)),
    }


def _report(outcome: Outcome, case: str, timings: dict[str, Timing], calls: int, count: int) -> None:
    scan, border = timings["exact=True"], timings["through flat"]
    for name, timing in timings.items():
        each = Timing(tuple(wall / calls for wall in timing.wall), tuple(cpu / calls for cpu in timing.cpu))
        bar = at_most(SHARE) if name == "through flat" and count == SIZES[1] else None
        outcome.add(duration(case, name, each, ratio=timing.over(scan), against="exact=True", bar=bar))
    extra = median(1e6 * (own - plain) / calls for own, plain in zip(border.wall, scan.wall, strict=True))
    bar = at_most(1.0) if count == SIZES[0] else None
    ratio = max(extra, 0.0) / PER_CALL
    outcome.add(Row(case, "border, a call", max(extra, 0.0), "us", ratio=ratio, against=f"{PER_CALL:g} us", bar=bar))


if __name__ == "__main__":
    from tools.bench.run import main

    main(["border"])
