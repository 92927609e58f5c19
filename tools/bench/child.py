"""The process of one benchmark, started by tools/bench/run.py, which sets the environment before numpy loads."""

from __future__ import annotations

import argparse
import importlib
import json
import time
from pathlib import Path

from tools.bench import machine
from tools.bench.data import shared_folder
from tools.bench.measure import Bench, Outcome

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Run the benchmark and write what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    options = parser.parse_args()
    facts = machine.facts(options.work)
    began = time.perf_counter()
    bench = Bench(options.quick, options.work, shared_folder(ROOT), options.rounds)
    outcome: Outcome = importlib.import_module(f"tools.bench.{options.name}").run(bench)
    found = outcome.to_json() | {"seconds": time.perf_counter() - began, "machine": facts}
    options.out.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
