"""Durable inserts into a store that already holds rows, in batches of 1, 100 and 10,000, against embedded peers."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

from tools.bench import data
from tools.bench.measure import Bench, Outcome, Timing, Work, alternate, at_least, missing, rate
from tools.bench.peers import TARGETS, InsertTarget, absences

BAR = at_least(1)
DIM = 384
THREADS = 8
GROUPED = f"vecdb, {THREADS} threads"


def run(bench: Bench) -> Outcome:
    """Measure each size of batch, without and with metadata."""
    outcome = Outcome()
    vectors = data.synthetic(bench.size(40_000, 1500), DIM).rows
    for rows, commits in ((1, bench.size(100, 3)), (100, bench.size(20, 2)), (bench.size(10_000, 300), 1)):
        for with_metadata in (False, True):
            _measure(bench, vectors, rows, commits, with_metadata, outcome)
    outcome.notes += [
        f"Each store holds {bench.size(20_000, 400):,} rows of {DIM} float32 before, and is synced by its own means "
        "at the end of each batch: vecdb durability full, sqlite-vec WAL with synchronous=FULL, LanceDB by add "
        "(which does not sync the files it writes). Ids are integers. vecdb's and sqlite-vec's are unique, and "
        "vecdb also checks the vectors against the space's model.",
        f"A round writes {bench.size(100, 3)} batches of one row, {bench.size(20, 2)} of 100, or one large one. "
        f"`{GROUPED}` writes as many single rows; threads of one process may share a commit.",
    ]
    return outcome


def _measure(bench: Bench, vectors: data.F32, rows: int, commits: int, with_metadata: bool, outcome: Outcome) -> None:
    case = f"{rows:,} rows a batch, {'small metadata' if with_metadata else 'ids and vectors'}"
    absent = {name: reason for name, reason in absences().items() if name in TARGETS}
    folder = bench.folder / f"{rows}-{with_metadata}"
    stores = {name: make(_empty(folder / name), DIM) for name, make in TARGETS.items() if name not in absent}
    held = bench.size(20_000, 400)
    try:
        for store in stores.values():
            for first in range(0, held, held // 2):
                _add(store, vectors, first, held // 2, with_metadata)
        works = {name: _writer(store, vectors, held, rows, commits, with_metadata) for name, store in stores.items()}
        if rows == 1:
            works[GROUPED] = _together(stores["vecdb"], vectors, commits, with_metadata)
        timings = alternate(works, bench.repetitions(7))
    finally:
        for store in stores.values():
            store.close()
    _report(outcome, case, timings, rows * commits)
    outcome.add(*(missing(case, name, reason) for name, reason in absent.items()))


def _empty(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _add(store: InsertTarget, vectors: data.F32, first: int, rows: int, with_metadata: bool) -> None:
    start = first % (len(vectors) - rows)
    described = [data.metadata(first + place) for place in range(rows)] if with_metadata else None
    store.add(first, vectors[start : start + rows], described)


def _writer(store: InsertTarget, vectors: data.F32, held: int, rows: int, commits: int, with_metadata: bool) -> Work:
    firsts: Iterator[int] = count(held, rows)

    def write() -> None:
        for _ in range(commits):
            _add(store, vectors, next(firsts), rows, with_metadata)

    return write


def _together(store: InsertTarget, vectors: data.F32, commits: int, with_metadata: bool) -> Work:
    """Return the writer of single rows by several threads at once; its ids are above everyone's."""
    firsts = count(1 << 40)

    def write(batches: int) -> None:
        for _ in range(batches):
            _add(store, vectors, next(firsts), 1, with_metadata)

    def all_threads() -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(write, [len(range(place, commits, THREADS)) for place in range(THREADS)]))

    return all_threads


def _report(outcome: Outcome, case: str, timings: dict[str, Timing], amount: int) -> None:
    own = [name for name in timings if name.startswith("vecdb")]
    peers = [name for name in timings if name not in own]
    for name in own:
        for peer in peers:
            more = {
                "ratio": timings[peer].over(timings[name]),
                "against": peer,
                "bar": BAR if name == "vecdb" else None,
            }
            outcome.add(rate(case, name, timings[name], amount, "rows/s", **more))
    for name in peers or own:
        outcome.add(rate(case, name, timings[name], amount, "rows/s"))


if __name__ == "__main__":
    from tools.bench.run import main

    main(["insert"])
