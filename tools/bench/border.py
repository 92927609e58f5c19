"""What the border to index plugins costs: `flat`, a registered index type, against the scan that it calls.

`flat` reads the same blocks with the same kernels. The border proper is what a call through it (`border.search`, which
lends the view, calls the plugin and checks what came back) takes longer than `exact.search` on the blocks. A whole
search through an index also finds the part and scores its candidates again: `through flat` beside ``exact=True``.
"""

from __future__ import annotations

from itertools import cycle
from statistics import median
from typing import Any

import vecdb
from tools.bench import data
from tools.bench.measure import Bench, Outcome, Row, Timing, Work, alternate, at_most, duration
from vecdb import exact
from vecdb.engine import border
from vecdb.engine.parts import choose
from vecdb.engine.scanorder import scan_order
from vecdb.engine.view import CollectionView
from vecdb.engine.views import PartView, find_places

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
        with collection._view() as view:  # what lies under the facade
            works = _works(collection, view, vectors, calls)
            timings = alternate(works, bench.repetitions(41), warm=3)
    _report(outcome, f"{vectors.name} {vectors.shape}", timings, calls, count)


def _works(collection: vecdb.Collection, view: CollectionView, vectors: data.Vectors, calls: int) -> dict[str, Work]:
    queries = cycle(vectors.queries)
    space_view = view.space(collection.spaces["m"])
    blocks = scan_order(view, space_view)
    [part] = choose(view, collection.spaces["m"], collection.database.plugins).parts
    places = find_places(view, space_view, part.part)

    def across(query: Any) -> Any:
        with PartView(view, space_view, part.part, places) as lent:
            return border.search(
                part.provided, part.index, query[None], K, allowed=None, matches=lent.count, effort=None, view=lent
            )

    def times(one: Any) -> Work:
        return lambda: [one(next(queries)) for _ in range(calls)]

    return {
        "border.search": times(across),
        "exact.search": times(lambda query: exact.search(blocks, query[None], K)),
        "through flat": times(lambda query: collection.search(query, k=K, include=())),
        "exact=True": times(lambda query: collection.search(query, k=K, include=(), exact=True)),
    }


def _report(outcome: Outcome, case: str, timings: dict[str, Timing], calls: int, count: int) -> None:
    for own, plain in (("border.search", "exact.search"), ("through flat", "exact=True")):
        for name in (own, plain):
            timing = timings[name]
            each = Timing(tuple(wall / calls for wall in timing.wall), tuple(cpu / calls for cpu in timing.cpu))
            bar = at_most(SHARE) if name == "border.search" and count == SIZES[1] else None
            outcome.add(duration(case, name, each, ratio=timing.over(timings[plain]), against=plain, bar=bar))
        pairs = zip(timings[own].wall, timings[plain].wall, strict=True)
        extra = max(0.0, median(1e6 * (longer - shorter) / calls for longer, shorter in pairs))
        bar = at_most(1.0) if own == "border.search" and count == SIZES[0] else None
        against = f"{PER_CALL:g} us"
        outcome.add(Row(case, f"{own} less {plain}", extra, "us", ratio=extra / PER_CALL, against=against, bar=bar))


if __name__ == "__main__":
    from tools.bench.run import main

    main(["border"])
