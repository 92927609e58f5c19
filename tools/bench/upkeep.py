"""Does the file give space back: after deleting nine tenths, and during rewrites while others read."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from tools.bench import data
from tools.bench.measure import Bench, Outcome, Row, at_most

SHRUNK_BAR = at_most(0.15)
REWRITE_BAR = at_most(2)
READERS = 2
DIM = 384


def run(bench: Bench) -> Outcome:
    """Measure deletion, then rewrites with and without kept history."""
    outcome = Outcome()
    _deleted(bench, outcome)
    for retention in (0.0, 600.0):
        _rewritten(bench, retention, outcome)
    outcome.notes.append(
        f"Rewrites are single upserts of random records, each a durable commit, while {READERS} processes search all "
        "the time. Live data is the size of the file in the end after compact(keep='nothing'). With a retention of "
        "600 s, the default, all of the run's history is inside the window; it may take 64 MiB before it counts."
    )
    return outcome


def _deleted(bench: Bench, outcome: Outcome) -> None:
    count = bench.size(20_000, 500)
    path = data.store(bench.folder / "deleted.vecdb", data.synthetic(count, DIM).rows, describe=data.metadata)
    before = path.stat().st_size
    kept = set(np.random.default_rng(3).choice(count, count // 10, replace=False).tolist())
    with vecdb.open(path, retention=0) as db:
        collection = db.collection("docs")
        collection.delete([place for place in range(count) if place not in kept])
        deleted = path.stat().st_size
        db.compact(keep="nothing")
        if len(collection) != len(kept):
            raise ValueError(f"{len(collection)} records are left of {len(kept)}")
    case = f"delete 90 % of {count:,} x {DIM}, compact"
    against = "before"
    outcome.add(Row(case, "file before", before / 2**20, "MiB"))
    outcome.add(Row(case, "file after delete", deleted / 2**20, "MiB", ratio=deleted / before, against=against))
    after = path.stat().st_size
    more: dict[str, Any] = {"ratio": after / before, "against": against, "bar": SHRUNK_BAR}
    outcome.add(Row(case, "file after compact", after / 2**20, "MiB", **more))


def _rewritten(bench: Bench, retention: float, outcome: Outcome) -> None:
    count, rewrites = bench.size(20_000, 300), bench.size(10_000, 30)
    path = bench.folder / f"rewritten-{retention:.0f}.vecdb"
    vectors = data.synthetic(count, DIM).rows
    data.store(path, vectors, describe=data.metadata)
    largest = 0
    with vecdb.open(path, retention=retention) as db, reading(path) as reads:
        collection = db.collection("docs")
        rng = np.random.default_rng(4)
        for place in rng.integers(0, count, rewrites).tolist():
            collection.upsert(place, {"m": vectors[place]}, data.metadata(place + 1))
            largest = max(largest, path.stat().st_size)
    with vecdb.open(path) as db:
        live = db.compact(keep="nothing")["bytes_after"]
    case = f"{rewrites:,} rewrites of {count:,} x {DIM}, retention {retention:.0f} s, {reads.total} reads meanwhile"
    outcome.add(Row(case, "live data", live / 2**20, "MiB"))
    more: dict[str, Any] = {"ratio": largest / live, "against": "live data", "bar": REWRITE_BAR}
    outcome.add(Row(case, "largest file", largest / 2**20, "MiB", **more))


# --- readers in other processes ---------------------------------------------------------------------------


class Reads:
    """How many searches the readers finished."""

    total = 0


@contextmanager
def reading(path: Path) -> Iterator[Reads]:
    """Let processes search `path` during the block; afterwards the reads are counted."""
    command = [sys.executable, "-c", "from tools.bench.upkeep import read_until_told; read_until_told()", str(path)]
    readers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(READERS)
    ]
    reads = Reads()
    try:
        for reader in readers:
            assert reader.stdout is not None
            reader.stdout.readline()  # it has answered once
        yield reads
    finally:
        for reader in readers:
            reads.total += json.loads(reader.communicate("stop\n", timeout=60)[0])


def read_until_told() -> None:
    """Search the database named on the command line until a line arrives, and print how often."""
    import select
    import time

    query = data.synthetic(1, DIM, queries=1).queries[0]
    done = 0
    with vecdb.open(sys.argv[1], "r") as db:
        collection = db.collection("docs")
        while not done or not select.select([sys.stdin], [], [], 0)[0]:
            if len(collection.search(query, k=10)) != 10:
                raise ValueError("a search found fewer records than there are")
            done += 1
            if done == 1:
                print("reading", flush=True)
            time.sleep(0.01)  # a reader, not a load
    print(done)


if __name__ == "__main__":
    from tools.bench.run import main

    main(["upkeep"])
