"""Run comparisons, show them, write them into the documentation.

    python -m tools.bench.compare list
    python -m tools.bench.compare run [--set NAME ...] [--peer PEER[:VARIANT] ...] [--phase NAME ...] [--run NAME]
    python -m tools.bench.compare bars [--run NAME]
    python -m tools.bench.compare show [--set NAME ...]
    python -m tools.bench.compare write

Everything found, and everything built, is kept under --store (VECDB_BENCH_STORE, else ~/.cache/vecdb-bench), and a run
that was interrupted goes on under the same --run. `bars` is a run of what the bars of the documentation need: vecdb's
own indexes and the peers they are held against, on two sets; about a quarter of an hour once the peers are built. How
to read the figures: docs/explanation/performance.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tools.bench.compare import runs, sets
from tools.bench.compare.child import ROOT, Worker, WorkerError
from tools.bench.compare.peers import MODULES, adapter, names
from tools.bench.compare.record import Key, Record
from tools.bench.compare.turn import Turn
from tools.bench.data import shared_folder

_RIVALS = ["vecdb", "hnswlib", "faiss:hnsw16", "qdrant-edge", "rabitqlib"]
BARS: Sequence[Mapping[str, Any]] = (
    {"sets": ["mini6"], "peers": _RIVALS, "phases": ["build", "curve"], "rounds": 4},
    {"sets": ["gen100k"], "peers": _RIVALS, "phases": ["build", "curve"], "rounds": 4},
    {"sets": ["mini6"], "peers": _RIVALS, "phases": ["filter"], "rounds": 2},
    {"sets": ["mini6"], "peers": ["vecdb", "hnswlib", "sqlite-vec"], "phases": ["build", "cold"], "rounds": 7},
    {
        "sets": ["mini6"],
        "peers": ["vecdb:exact", "vecdb:graph-fast", "vecdb:graph-compact", "sqlite-vec", "lancedb:flat"],
        "phases": ["build", "insert"],
        "rounds": 3,
    },
)
"""The steps of `bars`, each as options of a run; the most important ones first."""


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("do", choices=("list", "run", "bars", "show", "write"))
    command.add_argument("--set", nargs="+", choices=sorted(sets.SOURCES), default=["mini6"], dest="sets")
    command.add_argument("--peer", nargs="+", default=list(MODULES), metavar="PEER[:VARIANT]", dest="peers")
    command.add_argument("--phase", nargs="+", choices=list(runs.PHASES), default=["build", "curve"], dest="phases")
    command.add_argument("--rounds", type=int, default=5)
    command.add_argument("--run", default=datetime.now(UTC).strftime("%Y%m%d-%H%M%S"), metavar="NAME")
    command.add_argument("--store", type=Path, default=_store())
    command.add_argument("--lock", type=Path, help="a file to flock while measuring, where others measure too")
    command.add_argument("--slice", type=float, default=120.0, help="seconds to hold it at a time (default 120)")
    command.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="what all threads are")
    command.add_argument("--build-threads", type=int, default=1, help="of builds (default 1; large sets may have more)")
    command.add_argument("--python", nargs="+", default=[], metavar="PEER=PATH", help="interpreters of peers")
    return command


def _store() -> Path:
    return Path(os.environ.get("VECDB_BENCH_STORE") or Path.home() / ".cache" / "vecdb-bench")


def entries(options: argparse.Namespace, name: str, work: Path) -> Iterator[runs.Entry]:
    """Yield what takes part in a set; a peer that is not installed is recorded with the reason."""
    interpreters = dict(each.split("=", 1) for each in options.python)
    wanted = [each.partition(":")[::2] for each in options.peers]
    for peer in MODULES:
        chosen = [variant for variant in adapter(peer).VARIANTS if _wants(wanted, peer, variant.name)]
        if not chosen:
            continue
        interpreter = interpreters.get(peer, sys.executable)
        version, reason = probe(peer, interpreter, work / "probe.log")
        for variant in chosen:
            record = Record(options.store, Key(name, peer, variant.name, version, variant.build))
            if reason:
                record.found["absent"] = reason
                record.save()
                print(f"  {peer}: {reason}")
            else:
                yield runs.Entry(record, variant, interpreter)


def _wants(wanted: Sequence[tuple[str, str]], peer: str, variant: str) -> bool:
    return any(name == peer and which in ("", variant) for name, which in wanted)


def probe(peer: str, interpreter: str, log: Path) -> tuple[str, str]:
    """Return the version of a peer's library, or why there is none."""
    worker = Worker(peer, 1, log, interpreter)
    try:
        return str(worker.call("probe", limit=60.0)["version"]), ""
    except WorkerError as error:
        return "", str(error)
    finally:
        worker.close()


def _say(text: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S}{text}", flush=True)


def measure(options: argparse.Namespace) -> None:
    """Measure every set that was asked for."""
    print(f"run {options.run}", flush=True)
    options.store.mkdir(parents=True, exist_ok=True)
    with Turn(options.lock, options.slice) as turn, tempfile.TemporaryDirectory(dir=options.store) as folder:
        for name in options.sets:
            print(name, flush=True)
            vectors = sets.prepare(name, options.store / "sets", shared_folder(ROOT))
            plan = runs.Plan(
                run=options.run,
                vectors=vectors,
                entries=list(entries(options, name, Path(folder))),
                rounds=options.rounds,
                turn=turn,
                work=Path(folder),
                threads=options.threads,
                build_threads=options.build_threads,
                say=_say,
            )
            for phase in options.phases:
                runs.PHASES[phase](plan)


def main(given: Sequence[str] | None = None) -> None:
    """Do what the command line asks for."""
    options = parser().parse_args(given)
    if options.do == "list":
        for name, source in sets.SOURCES.items():
            print(f"set   {name}: {source.about}")
        for peer, variant in names():
            print(f"index {peer}:{variant}")
    elif options.do == "bars":
        for step in BARS:
            measure(argparse.Namespace(**vars(options) | step))
    elif options.do == "run":
        unknown = {each.partition(":")[0] for each in options.peers} - set(MODULES)
        if unknown:
            raise SystemExit(f"there is no peer {', '.join(sorted(unknown))}; there are {', '.join(MODULES)}")
        measure(options)
    else:
        from tools.bench.compare import page

        print(page.text(options.store, options.sets)) if options.do == "show" else page.write(options.store)


if __name__ == "__main__":
    main()
