"""Measure every kind of transform on every ordered pair of models of a folder.

Usage: python -m tools.evaluate FOLDER [--pair OLD:NEW ...] [--pairs 5000] [--seeds 1] [--queries first] [--kinds A,B]
       [--out FILE] [--write-docs PAGE]

Every arm is kept in FILE when it is done, and is not measured again: a run that was stopped goes on there.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import permutations
from pathlib import Path
from typing import Any

from tools.evaluate.corpus import load_corpus
from tools.evaluate.measure import Course, measured_pair
from tools.evaluate.report import markdown, write_page
from vecdb import PluginRegistry

HEADINGS = {"first": "", "none": ", no queries", "all": ", all training queries"}
"""What is added to the name of a run that fits on none, or on all, of the training queries."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    options = _parser().parse_args(arguments)
    corpus = load_corpus(options.folder)
    wanted = [tuple(each.split(":")) for each in options.pair] or list(permutations(corpus.models, 2))
    document: dict[str, Any] = {"runs": {}}
    if options.out is not None and options.out.exists():
        document = json.loads(options.out.read_text(encoding="utf-8"))
    course = Course(
        options.pairs,
        tuple(range(options.seeds)),
        options.queries,
        tuple(options.kinds.split(",")) if options.kinds else None,
    )
    heading = corpus.name + HEADINGS[options.queries]
    done = document["runs"].setdefault(heading, {})
    registry = PluginRegistry(entry_points=False)
    for old, new in wanted:
        found = done.setdefault(f"{old}:{new}", {})
        measured_pair(corpus, (old, new), registry, course, found, lambda words: _keep(document, options.out, words))
    print(markdown(document))
    if options.write_docs is not None:
        write_page(options.write_docs, "evaluation", markdown(document))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.evaluate", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pair", action="append", default=[], metavar="OLD:NEW", help="of models; default: all")
    parser.add_argument("--pairs", type=int, default=5_000, help="of documents to fit on, at most")
    parser.add_argument("--seeds", type=int, default=1, help="draws of the pairs")
    parser.add_argument(
        "--queries", choices=HEADINGS, default="first", help="training queries to fit on: none, the first 800, all"
    )
    parser.add_argument("--kinds", help="names, with commas between them; default: all")
    parser.add_argument("--out", type=Path, help="file to keep the numbers in")
    parser.add_argument("--write-docs", type=Path, metavar="PAGE", help="put the tables into a page")
    return parser


def _keep(document: dict[str, Any], out: Path | None, words: str) -> None:
    """Say what was measured, and keep the numbers so far."""
    print(words, file=sys.stderr, flush=True)
    if out is not None:
        out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
