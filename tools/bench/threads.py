"""Single queries from one and from two threads of the user: the scan runs without the interpreter's lock.

How far two threads can go is measured too: two threads that read as much memory with nothing else to do.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

import vecdb
from tools.bench import data
from tools.bench.measure import Bench, Outcome, Work, alternate, rate


def run(bench: Bench) -> Outcome:
    """Measure a set larger than the processor's caches and one that fits into them."""
    vecdb.warmup()
    outcome = Outcome()
    for count, calls in ((bench.size(100_000, 3000), 8), (bench.size(5000, 1000), 200)):
        _measure(bench, data.synthetic(count), calls, outcome)
    outcome.notes.append("k = 10, include=(); each thread asks the same number of queries of one open database.")
    return outcome


def _measure(bench: Bench, vectors: data.Vectors, calls: int, outcome: Outcome) -> None:
    from tools.bench.kernels import read

    path = data.store(bench.folder / f"{len(vectors.rows)}.vecdb", vectors.rows)
    case = f"{vectors.name} {vectors.shape}, cosine"
    queries = cycle(vectors.queries)
    with vecdb.open(path) as db, ThreadPoolExecutor(2) as pool:
        collection = db.collection("docs")

        def search() -> object:
            return collection.search(next(queries), k=10, include=(), exact=True)

        works = {
            "search, 1 thread": _repeated(pool, search, calls, 1),
            "search, 2 threads": _repeated(pool, search, calls, 2),
            "read, 1 thread": _repeated(pool, lambda: read([vectors.rows]), calls, 1),
            "read, 2 threads": _repeated(pool, lambda: read([vectors.rows]), calls, 2),
        }
        timings = alternate(works, bench.repetitions(11))
    for name, timing in timings.items():
        kind, _, threads = name.partition(", ")
        count = int(threads[0])
        ratio = None if count == 1 else 2 * timings[f"{kind}, 1 thread"].over(timing)
        unit = "queries/s" if kind == "search" else "sets/s"
        against = "" if ratio is None else f"{kind}, 1 thread"
        outcome.add(rate(case, name, timing, calls * count, unit, ratio=ratio, against=against))
    path.unlink()


def _repeated(pool: ThreadPoolExecutor, work: Callable[[], object], calls: int, threads: int) -> Work:
    def loop() -> None:
        for _ in range(calls):
            work()

    def together() -> None:
        for future in [pool.submit(loop) for _ in range(threads)]:
            future.result()

    return together


if __name__ == "__main__":
    from tools.bench.run import main

    main(["threads"])
