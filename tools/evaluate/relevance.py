"""Measure every kind of relevance filter with every model of a folder, and on queries of another domain.

Usage: python -m tools.evaluate.relevance FOLDER [--other FOLDER] [--model NAME ...] [--out FILE] [--write-docs PAGE]

Every model is kept in FILE when it is done, and is not measured again: a run that was stopped goes on there.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tools.evaluate.corpus import Corpus, load_corpus
from tools.evaluate.filterpage import markdown
from tools.evaluate.filters import measured_model, rejection
from tools.evaluate.report import write_page
from vecdb import PluginRegistry


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    options = _parser().parse_args(arguments)
    document: dict[str, Any] = {"runs": {}}
    if options.out is not None and options.out.exists():
        document = json.loads(options.out.read_text(encoding="utf-8"))
    corpus, registry = load_corpus(options.folder), PluginRegistry(entry_points=False)
    run = document["runs"].setdefault(corpus.name, {"models": {}, "foreign": {}})
    models = options.model or list(corpus.models)
    for name in models:
        if name not in run["models"]:
            run["models"][name] = measured_model(corpus, name, registry, _say)
            _keep(document, options.out)
    if options.other is not None:
        other = load_corpus(options.other)
        for home, away in ((corpus, other), (other, corpus)):
            _both(run["foreign"], home, away, [name for name in models if name in other.models], registry)
        _keep(document, options.out)
    print(markdown(document))
    if options.write_docs is not None:
        write_page(options.write_docs, "relevance", markdown(document))
    return 0


def _both(found: dict[str, Any], home: Corpus, away: Corpus, models: list[str], registry: PluginRegistry) -> None:
    for name in models:
        key = f"{home.name}:{away.name}:{name}"
        if key not in found:
            found[key] = rejection(home, away, name, registry)
            _say(f"{key}: {found[key][-1]['rejected']['value']:.3f}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.evaluate.relevance", description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--other", type=Path, metavar="FOLDER", help="of another domain, whose queries are to be rejected"
    )
    parser.add_argument("--model", action="append", default=[], metavar="NAME", help="default: all")
    parser.add_argument("--out", type=Path, help="file to keep the numbers in")
    parser.add_argument("--write-docs", type=Path, metavar="PAGE", help="put the tables into a page")
    return parser


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def _keep(document: dict[str, Any], out: Path | None) -> None:
    if out is not None:
        out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
