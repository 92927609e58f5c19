"""`python -m vecdb.demo [PATH]`: the demonstration without the command line; with ``--writer`` its second process."""

from __future__ import annotations

import argparse

from vecdb.demo import run
from vecdb.demo.crash import write_until_killed


def main() -> int:
    """Run the demonstration, or be its writer; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m vecdb.demo", description="Show vecdb on real data.")
    parser.add_argument("path", nargs="?", help="file to create and keep (default: a temporary file)")
    parser.add_argument("--writer", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.writer:
        write_until_killed(options.path)
        return 0
    return 0 if run(options.path).ok else 1


if __name__ == "__main__":
    raise SystemExit(main())
