"""What importing and searching cost in memory: bounded, whatever the size of the collection.

Anonymous memory is what a process asks for itself; the pages of the mapped file are the system's cache, which it takes
back when it needs the room. Peaks are those of processes of their own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

import vecdb
from tools.bench import data, machine
from tools.bench.measure import Bench, Outcome, Row, at_most

GROWTH_BAR = at_most(1.25)
COPY_BAR = at_most(0.25)
DIM = 384


def run(bench: Bench) -> Outcome:
    """Measure imports of n and of 4n rows, then a process that searches."""
    outcome = Outcome()
    few = bench.size(25_000, 200)
    peaks = {count: _import(bench, count) for count in (few, 4 * few)}
    for count, found in peaks.items():
        _report_import(outcome, count, found, peaks[few] if count != few else None)
    _report_search(outcome, 4 * few, _child("search", bench.folder / f"{4 * few}.vecdb"))
    outcome.notes.append(
        "Imported from .npy and .jsonl in batches of 8 MiB. `added` is the peak of anonymous memory (sampled every "
        "2 ms) over what the process had with everything imported and the database open; the mapped pages of the file "
        "are not in it. The search process answers 50 single queries and a batch of 100."
    )
    return outcome


# --- measured in processes of their own -------------------------------------------------------------------


class Peak:
    """The highest anonymous memory of this process during a block."""

    def __init__(self) -> None:
        self.before = machine.memory("RssAnon")
        self.highest = self.before
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.002):
            self.highest = max(self.highest, machine.memory("RssAnon"))

    def facts(self) -> dict[str, int]:
        """Return what the block added, and the peak of everything with the mapped file."""
        return {"added": max(1, self.highest - self.before), "peak": machine.memory("VmHWM")}


def import_rows(store: Path) -> dict[str, int]:
    """Import the files beside `store` into it; return memory and rows."""
    from vecdb.interchange import import_data

    source = store.with_suffix("")
    with vecdb.open(store, "x") as db:
        collection = db.create_collection("docs")
        collection.add_space("m", dim=DIM)
        with Peak() as peak:
            found = import_data(collection, f"{source}.jsonl", vectors={"m": f"{source}.npy"})
    return peak.facts() | {"rows": found.inserted}


def search_rows(store: Path) -> dict[str, int]:
    """Search `store` with numpy, then with compiled kernels; return memory and bytes of vectors."""
    queries = data.synthetic(1, DIM, queries=100).queries
    with vecdb.open(store, "r") as db:
        collection = db.collection("docs")
        vecdb.warmup()
        with Peak() as single:
            for query in queries[:50]:
                collection.search(query, include=(), exact=True)
        with Peak() as batch:
            collection.search(queries, include=(), exact=True)
        return {"single": single.facts()["added"], "batch": batch.facts()["added"], "rows": len(collection)}


def main() -> None:
    """Run one of the measured processes: import or search, and the store."""
    work = {"import": import_rows, "search": search_rows}[sys.argv[1]]
    print(json.dumps(work(Path(sys.argv[2]))))


# --- setting up and reporting -----------------------------------------------------------------------------


def _import(bench: Bench, count: int) -> dict[str, Any]:
    source = bench.folder / str(count)
    np.save(f"{source}.npy", data.synthetic(count, DIM).rows)
    with Path(f"{source}.jsonl").open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps({"id": place, **data.metadata(place)}) + "\n" for place in range(count))
    return _child("import", Path(f"{source}.vecdb"))


def _child(work: str, store: Path) -> dict[str, Any]:
    command = [sys.executable, "-c", "from tools.bench.memory import main; main()", work, str(store)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _report_import(outcome: Outcome, count: int, found: dict[str, Any], fewer: dict[str, Any] | None) -> None:
    if found["rows"] != count:
        raise ValueError(f"{found['rows']} rows of {count} were imported")
    case = f"import of {count:,} x {DIM} ({4 * DIM * count / 2**20:,.0f} MiB)"
    more: dict[str, Any] = {}
    if fewer is not None:
        against = f"a quarter of the rows ({fewer['added'] / 2**20:.1f} MiB)"
        more = {"ratio": found["added"] / fewer["added"], "against": against, "bar": GROWTH_BAR}
    outcome.add(Row(case, "anonymous memory added", found["added"] / 2**20, "MiB", **more))
    outcome.add(Row(case, "peak resident, mapped file included", found["peak"] / 2**20, "MiB"))


def _report_search(outcome: Outcome, count: int, found: dict[str, Any]) -> None:
    size = 4 * DIM * count
    case = f"search in {count:,} x {DIM} ({size / 2**20:,.0f} MiB)"
    for name in ("single", "batch"):
        more = {"ratio": found[name] / size, "against": "the vectors", "bar": COPY_BAR}
        outcome.add(Row(case, f"anonymous memory added, {name}", found[name] / 2**20, "MiB", **more))


if __name__ == "__main__":
    from tools.bench.run import main as start

    start(["memory"])
