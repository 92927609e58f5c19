"""What feedback, spreading and neighbours' votes do on real data: the tables of docs/how-to/explore.md.

Usage: python -m tools.evaluate.exploring FOLDER [--model NAME ...] [--part choose|report] [--labels]

``choose`` asks the queries that settings are chosen by, over a grid; ``report`` asks the test queries, with the
defaults. ``--labels`` measures votes and spreading of the sections instead.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import vecdb
from tools.evaluate.corpus import Corpus, load_corpus
from vecdb import MMR, Feedback, Mixture
from vecdb.evaluation.intervals import paired

Values = npt.NDArray[np.float64]

PARTS = {"choose": (800, 1_400), "report": (2_000, 4_000)}
"""Which queries; see docs/explanation/evaluation.md."""
NAMES = ("recall@10", "sources", "sections", "score")


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to search."""

    name: str
    options: dict[str, Any]


def arms(part: str) -> Iterator[Arm]:
    """Yield the ways to search, the plain one first."""
    yield Arm("plain", {})
    if part == "report":
        yield from _defaults()
        return
    for documents, mean in product((1, 3, 5, 10), (0.25, 0.75)):
        yield Arm(f"feedback {documents}, mean {mean}", {"feedback": Feedback(documents, 1.0, mean)})
    for trade, candidates in product((0.3, 0.5, 0.7, 0.9), (50, 100)):
        yield Arm(f"mmr {trade} of {candidates}", {"diversify": MMR(trade, candidates)})
    for clusters, candidates, smoothing in product((3, 5, 10), (50, 100), (0.0, 1.0)):
        wanted = {"diversify": Mixture(clusters, candidates, smoothing)}
        yield Arm(f"mixture {clusters} of {candidates}, smoothing {smoothing}", wanted)


def _defaults() -> Iterator[Arm]:
    yield Arm("`feedback=True`", {"feedback": True})
    yield Arm('`diversify="mmr"`', {"diversify": "mmr"})
    yield Arm("`MMR(trade=0.3)`", {"diversify": MMR(0.3)})
    yield Arm('`diversify="mixture"`', {"diversify": "mixture"})
    yield Arm("`Mixture(smoothing=1)`", {"diversify": Mixture(smoothing=1.0)})
    yield Arm('`group_by="source"`', {"group_by": "source"})
    yield Arm('`group_by="section"`', {"group_by": "section"})


def stored(corpus: Corpus, model: str, path: Path) -> vecdb.Database:
    """Return a database with the documents of a corpus as one model embeds them."""
    db = vecdb.open(path, automatic=False)
    vectors = corpus.model(model).docs
    docs = db.create_collection("docs")
    docs.add_space(model, dim=vectors.shape[1])
    metadata = [
        {"source": str(source), "section": int(section)}
        for source, section in zip(corpus.sources, corpus.classes.tolist(), strict=True)
    ]
    for start in range(0, len(vectors), 4_096):
        part = slice(start, start + 4_096)
        ids = list(range(len(vectors)))[part]
        docs.upsert(ids, {model: vectors[part]}, metadata=metadata[part])
    return db


def measured(corpus: Corpus, docs: vecdb.Collection, queries: Any, first: int, arm: Arm) -> Values:
    """Return the four measures of each query, shape (n, 4)."""
    rows = np.empty((len(queries), 4))
    for start in range(0, len(queries), 200):
        part = queries[start : start + 200]
        found = docs.search(part, k=10, exact=True, include=(), **arm.options)
        for place, hits in enumerate(found, start):
            own = slice(*corpus.judged.starts[first + place : first + place + 2])
            recall = bool(set(corpus.judged.rows[own].tolist()) & set(hits.ids))
            sources = {corpus.sources[id] for id in hits.ids}
            sections = {int(corpus.classes[id]) for id in hits.ids}
            rows[place] = recall, len(sources), len(sections), hits.scores.mean()
    return rows


def table(corpus: Corpus, model: str, part: str) -> Iterator[str]:
    """Yield the lines of a table: each measure, and the difference of recall from the plain search."""
    first, last = PARTS[part]
    queries = corpus.model(model).queries[first:last]
    answers = corpus.judged.rows[corpus.judged.starts[first:last]]
    groups = np.unique([str(corpus.sources[row]) for row in answers.tolist()], return_inverse=True)[1].astype(np.int64)
    yield f"| {model} | recall@10 | difference | sources | sections | mean score |"
    yield "|---|---|---|---|---|---|"
    with tempfile.TemporaryDirectory() as folder, stored(corpus, model, Path(folder) / "a.vecdb") as db:
        docs, plain = db.collection("docs"), None
        for arm in arms(part):
            rows = measured(corpus, docs, queries, first, arm)
            plain = rows if plain is None else plain
            difference = paired(rows[:, 0], plain[:, 0], groups)
            means = rows.mean(axis=0)
            told = "" if rows is plain else f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"
            yield (f"| {arm.name} | {means[0]:.3f} | {told} | {means[1]:.2f} | {means[2]:.2f} | {means[3]:.3f} |")


def labels(corpus: Corpus, model: str) -> Iterator[str]:
    """Yield the lines of a table of votes and of spreading, for the section of each document."""
    yield f"| {model}: the section of a document, among {len(set(corpus.classes.tolist()))} | right |"
    yield "|---|---|"
    with tempfile.TemporaryDirectory() as folder, stored(corpus, model, Path(folder) / "a.vecdb") as db:
        docs = db.collection("docs")
        for k, weights, apart in product((1, 10), ("distance", "uniform"), (None, "source")):
            found = docs.measure_classifier("section", k=k, weights=weights, apart=apart, sample=1_000)
            name = f"`classify`, k={k}, {weights}{'' if apart is None else ', sources apart'}"
            yield f"| {name} (Brier {found.brier:.3f}; most frequent {found.majority:.3f}) | {found.accuracy} |"
        known = np.random.default_rng(0).random(len(corpus.classes)) < 0.1
        hidden = np.flatnonzero(~known).tolist()
        docs.set_metadata(hidden, [{"section": None}] * len(hidden), merge=True)
        docs.create_index(model, "graph")
        some = hidden[:: len(hidden) // 1_000]
        for k in (1, 5, 10):
            told = docs.classify(like=some, field="section", k=k)
            right = np.mean([each.label == corpus.classes[id] for each, id in zip(told, some, strict=True)])
            yield f"| `classify`, k={k}, a tenth known | {right:.3f} of {len(some)} |"
        for k, alpha in product((10, 20), (0.5, 0.9, 0.99)):
            spread = docs.propagate_labels("section", k=k, alpha=alpha)
            right = np.mean([each.label == corpus.classes[int(each.id)] for each in spread])
            yield f"| `propagate_labels`, k={k}, alpha={alpha}, a tenth known ({len(spread)} proposals) | {right:.3f} |"


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", action="append")
    parser.add_argument("--part", choices=sorted(PARTS), default="report")
    parser.add_argument("--labels", action="store_true")
    options = parser.parse_args(arguments)
    corpus = load_corpus(options.folder)
    for model in options.model or corpus.models:
        lines = labels(corpus, model) if options.labels else table(corpus, model, options.part)
        for line in lines:
            print(line, flush=True)
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
