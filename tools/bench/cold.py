"""A new process: opening a store and answering the first query, and what the import costs.

Whole processes in turn, the pages of their files and all compiled files in memory. An import is timed inside its
process, around the statement.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

import vecdb
from tools.bench import data, peers
from tools.bench.measure import Bench, Outcome, Timing, alternate, at_most, duration, missing

FIRST_QUERY_BAR = at_most(1.5)
IMPORT_BAR = at_most(1.2)

_QUERY = "import sys\nimport numpy as np\nq = np.load(sys.argv[2])\n"
_ANSWER = "print(int(found))\n"
_SQLITE = (
    "db.enable_load_extension(True)\n"
    "db.load_extension(sqlite_vec.loadable_path())\n"
    "sql = 'SELECT id FROM v WHERE e MATCH ? AND k = 10'\n"
    "found = db.cursor().execute(sql, (q.tobytes(),)).fetchall()[0][0]\n"
)
SCRIPTS = {
    "vecdb": "import vecdb\n"
    "db = vecdb.open(sys.argv[1], 'r')\n"
    "found = db.collection('docs').search(q, k=10, include=()).ids[0]\n"
    "db.close()\n",
    "sqlite-vec": "import {driver}, sqlite_vec\ndb = {driver}.{connect}(sys.argv[1])\n" + _SQLITE,
    "hnswlib": "import hnswlib\n"
    "index = hnswlib.Index('cosine', len(q))\n"
    "index.load_index(sys.argv[1])\n"
    "index.set_ef(32)\n"
    "index.set_num_threads(1)\n"
    "found = index.knn_query(q, k=10)[0][0][0]\n",
    "numpy alone": "found = 0\n",
}
"""What each process does with the query `q` and the store whose path is its first argument."""
_IMPORT = "import time\nbegan = time.perf_counter()\nimport {}\nprint(time.perf_counter() - began)\n"


def run(bench: Bench) -> Outcome:
    """Measure the first query of a process, then imports."""
    outcome = Outcome()
    _first_query(bench, outcome)
    _imports(bench, outcome)
    return outcome


# --- the first query --------------------------------------------------------------------------------------


def _first_query(bench: Bench, outcome: Outcome) -> None:
    vectors = data.documents(bench.shared, full=36_172, quick=1000, is_quick=bench.quick)
    query = bench.folder / "query.npy"
    np.save(query, vectors.queries[0])
    absent = {name: reason for name, reason in peers.absences().items() if name in SCRIPTS}
    stores = {name: make(bench.folder, vectors.rows) for name, make in _STORES.items() if name not in absent}
    commands = {name: [_script(name), str(path), str(query)] for name, path in stores.items()}
    commands["numpy alone"] = [_script("numpy alone"), "", str(query)]
    answers = {name: _output(arguments) for name, arguments in commands.items()}
    works = {name: lambda arguments=arguments: _output(arguments) for name, arguments in commands.items()}
    timings = alternate(works, bench.repetitions(15))
    case = f"open + first query, {vectors.name} {vectors.shape}"
    _report_first(outcome, case, timings)
    outcome.add(*(missing(case, name, reason) for name, reason in absent.items()))
    exact = {answers[name] for name in ("vecdb", "sqlite-vec") if name in answers}
    agree = "agree" if len(exact) == 1 else "DIFFER"
    outcome.notes.append(
        "Whole processes from start to exit. Each loads the query with numpy, opens its store and prints the nearest "
        f"id; the exact answers {agree}. vecdb scans all rows, as sqlite-vec does; hnswlib loads its finished index "
        "into memory (ef 32)."
    )


def _report_first(outcome: Outcome, case: str, timings: dict[str, Timing]) -> None:
    rivals = {name: timing for name, timing in timings.items() if name in ("sqlite-vec", "hnswlib")}
    for name, timing in timings.items():
        if name != "vecdb":
            outcome.add(duration(case, name, timing))
            continue
        against = min(rivals, key=lambda rival: rivals[rival].seconds) if rivals else "numpy alone"
        bar = FIRST_QUERY_BAR if rivals else None
        outcome.add(duration(case, name, timing, ratio=timing.over(timings[against]), against=against, bar=bar))


def _script(name: str) -> str:
    driver = peers.sqlite_driver()
    connect = "Connection" if driver == "apsw" else "connect"
    return _QUERY + SCRIPTS[name].format(driver=driver, connect=connect) + _ANSWER


def _output(arguments: list[str]) -> str:
    found = subprocess.run([sys.executable, "-c", *arguments], check=True, capture_output=True, text=True)
    return found.stdout.strip()


def _vecdb_store(folder: Path, rows: data.F32) -> Path:
    vecdb.warmup()  # the cache of compiled kernels is warm, whether or not the process gets to use it
    return data.store(folder / "a.vecdb", rows)


def _sqlite_store(folder: Path, rows: data.F32) -> Path:
    place = folder / "sqlite"
    place.mkdir()
    store = peers.SqliteVec(place, rows.shape[1])
    store.add(0, rows, None)
    store.close()
    return place / "a.db"


def _hnswlib_store(folder: Path, rows: data.F32) -> Path:
    import hnswlib

    index = hnswlib.Index("cosine", rows.shape[1])
    index.init_index(len(rows), M=16, ef_construction=100)
    index.add_items(rows)
    index.save_index(str(folder / "a.hnsw"))
    return folder / "a.hnsw"


_STORES = {"vecdb": _vecdb_store, "sqlite-vec": _sqlite_store, "hnswlib": _hnswlib_store}


# --- imports ----------------------------------------------------------------------------------------------


def _imports(bench: Bench, outcome: Outcome) -> None:
    rounds = bench.repetitions(15)
    seconds: dict[str, list[float]] = {"numpy": [], "vecdb": []}
    for place in range(rounds + 1):  # the first round writes what Python compiles
        for name in sorted(seconds, reverse=bool(place % 2)):
            seconds[name].append(float(_output([_IMPORT.format(name)])))
    timings = {name: Timing(tuple(found[1:]), tuple(found[1:])) for name, found in seconds.items()}
    outcome.add(duration("import", "import numpy", timings["numpy"]))
    ratio = timings["vecdb"].over(timings["numpy"])
    more = {"ratio": ratio, "against": "import numpy", "bar": IMPORT_BAR}
    outcome.add(duration("import", "import vecdb", timings["vecdb"], **more))


if __name__ == "__main__":
    from tools.bench.run import main

    main(["cold"])
