"""What building an index costs in memory: less than one and a half times the vectors, in both layouts of the graph.

Anonymous memory is what a process asks for itself, LMDB's unwritten pages included; the mapped pages of the file are
the system's cache. The records are written by one process, and each index is built by one of its own, so that the peak
is that of the build.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import vecdb
from tools.bench import data
from tools.bench.measure import Bench, Outcome, Row, at_most
from tools.bench.memory import Peak

BAR = at_most(1.5)
LAYOUTS = ("compact", "fast")
DIM = 384
_PIECE = 25_000


def run(bench: Bench) -> Outcome:
    """Write the records, then build each layout."""
    outcome = Outcome()
    count = bench.size(500_000, 400)
    store = bench.folder / "built.vecdb"
    child("write", store, count, DIM)
    for layout in LAYOUTS:
        report(outcome, layout, count, child(layout, store, count, DIM))
    outcome.notes.append(
        "Anonymous memory of the whole process while `create_index` builds and stores a graph, sampled every 2 ms; "
        "synthetic rows, all threads. The file's mapped pages are not in it."
    )
    return outcome


def child(work: str, store: Path, count: int, dim: int) -> dict[str, Any]:
    """Do one of the steps in a process of its own: ``write``, or build one of the layouts."""
    command = [sys.executable, "-c", "from tools.bench.building import main; main()", work, str(store)]
    done = subprocess.run([*command, str(count), str(dim)], check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def write_rows(store: Path, count: int, dim: int) -> dict[str, int]:
    """Write records into a new store, sealed."""
    with vecdb.open(store, "x", automatic=False, durability="bulk") as db:
        collection = db.create_collection("docs")
        collection.add_space("m", dim=dim)
        for start in range(0, count, _PIECE):
            some = min(_PIECE, count - start)
            rows = data.synthetic(some, dim, queries=0, seed=start).rows
            collection.upsert(list(range(start, start + some)), {"m": rows}, trust=True)
        collection.optimize()
    return {"rows": count}


def build(store: Path, layout: str) -> dict[str, int]:
    """Build a graph over a store; return memory, and how much of it is the index."""
    vecdb.warmup()
    with vecdb.open(store, automatic=False) as db:
        collection = db.collection("docs")
        for index in collection.indexes:
            collection.drop_index("m", index.kind)
        with Peak() as peak:
            made = collection.create_index("m", "graph", layout=layout)
        return {"highest": peak.highest, "before": peak.before, "index": made.bytes, "rows": len(collection)}


def main() -> None:
    """Run one step: what to do, the store, rows and dimensions."""
    work, store, count, dim = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    print(json.dumps(write_rows(store, count, dim) if work == "write" else build(store, work)))


def report(outcome: Outcome, layout: str, count: int, found: dict[str, Any]) -> None:
    """Add the rows of one layout."""
    if found["rows"] != count:
        raise ValueError(f"an index was built over {found['rows']} rows of {count}")
    raw = 4 * DIM * count
    case = f"graph, {layout}, over {count:,} x {DIM} ({raw / 2**20:,.0f} MiB)"
    more: dict[str, Any] = {"ratio": found["highest"] / raw, "against": "the vectors", "bar": BAR}
    outcome.add(Row(case, "anonymous memory, at most", found["highest"] / 2**20, "MiB", **more))
    outcome.add(Row(case, "added by the build", (found["highest"] - found["before"]) / 2**20, "MiB"))
    outcome.add(Row(case, "index", found["index"] / 2**20, "MiB"))


if __name__ == "__main__":
    from tools.bench.run import main as start

    start(["building"])
