"""Run benchmarks and show what they found.

    python tools/bench/run.py [NAME ...] [--quick] [--out FILE.json] [--rounds N] [--blas-threads N] [--dir FOLDER]
    python tools/bench/run.py --write-docs FILE.json

Each benchmark runs in a process of its own, in an environment where BLAS chooses the processor's own kernels and one
thread. ``python -m tools.bench.NAME`` is the same for one. Results of several runs into the same file are joined by
name. What is measured and why: docs/explanation/performance.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:  # started by its path
    sys.path.insert(0, str(ROOT))

from tools.bench import report  # noqa: E402

NAMES = ("scan", "batch", "threads", "insert", "cold", "memory", "building", "upkeep", "border", "compare.plugins")
FORMAT = "vecdb-bench/1"
PAGE = ROOT / "docs" / "explanation" / "performance.md"


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(NAMES)} (default: all)")
    command.add_argument("--quick", action="store_true", help="tiny sizes: shows that all runs, measures nothing")
    command.add_argument("--out", type=Path, help="write JSON here; benchmarks that are in the file already stay")
    command.add_argument("--rounds", type=int, help="repetitions, instead of each benchmark's own number")
    command.add_argument("--blas-threads", type=int, default=1, help="threads of numpy's BLAS (default 1)")
    command.add_argument("--dir", type=Path, help="where the databases are written (default: a temporary folder)")
    command.add_argument("--write-docs", type=Path, metavar="FILE", help=f"write a run into {PAGE.relative_to(ROOT)}")
    return command


def run_one(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run a benchmark in a process of its own and return what it found and where."""
    from tools.bench.machine import environment

    with tempfile.TemporaryDirectory(prefix="vecdb-bench-", dir=options.dir) as folder:
        out = Path(folder) / "result.json"
        work = Path(folder) / "work"
        work.mkdir()
        command = [sys.executable, "-m", "tools.bench.child", name, str(work), str(out)]
        command += ["--quick"] if options.quick else []
        command += ["--rounds", str(options.rounds)] if options.rounds else []
        changed = environment(os.environ, root=ROOT, blas_threads=options.blas_threads)
        if subprocess.run(command, check=False, env=changed, cwd=folder).returncode:
            raise SystemExit(f"the benchmark {name} failed; what it said stands above")
        found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return found


def document_of(path: Path | None, *, quick: bool) -> dict[str, Any]:
    """Return the document to add to: what `path` holds of the same kind, else an empty one."""
    if path is not None and path.exists():
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if found.get("format") == FORMAT and found["quick"] == quick:
            return found
        raise SystemExit(f"{path} holds something else than results of this kind of run; give another file")
    return {"format": FORMAT, "quick": quick, "machine": None, "benchmarks": {}}


def main(given: Sequence[str] = ()) -> None:
    """Run what the command line asks for; `given` stands before it."""
    options = parser().parse_args([*given, *sys.argv[1:]])
    if options.write_docs is not None:
        report.write_docs(PAGE, json.loads(options.write_docs.read_text(encoding="utf-8")))
        print(f"wrote {PAGE}")
        return
    unknown = sorted(set(options.names) - set(NAMES))
    if unknown:
        raise SystemExit(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    document = document_of(options.out, quick=options.quick)
    for name in options.names or NAMES:
        found = run_one(name, options)
        document["machine"] = found.pop("machine")
        document["benchmarks"][name] = found
        document["benchmarks"] = {
            name: document["benchmarks"][name] for name in NAMES if name in document["benchmarks"]
        }
        print(report.text_report(name, found), flush=True)
        if options.out is not None:
            options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"\n{report.machine_line(document['machine'])}")


if __name__ == "__main__":
    main()
