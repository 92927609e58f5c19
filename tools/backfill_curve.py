"""How much does the order of a backfill matter? Measures the curve of each policy on real models, against `random`.

A collection holds old vectors, and new ones of some records, on which a bridge is fitted; then a migration embeds it in
the order of a policy. After each step the new model's queries are answered over the mixed store, and the mean
reciprocal rank of the known answers is noted. The figure of merit is the mean of the curve over the steps (the area
under it). Pairs, canary and noise are drawn anew for each seed; differences to `random` are paired by query and
resampled with whole queries.

Usage: python tools/backfill_curve.py FOLDER OLD NEW [--docs N] [--queries FROM:TO] [--seeds N] [--policies A,B]
FOLDER holds docs and queries as described in tests/data (NAME.docs.*.npy, NAME.queries.*.npy, queries.jsonl.gz).
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import vecdb

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
DEPTH = 100
"""Answers below this rank count as not found."""


def load(folder: Path, name: str) -> F32:
    """Return vectors of unit length."""
    found = next(path for kind in ("f16", "i8") if (path := folder / f"{name}.{kind}.npy").exists())
    rows = np.load(found).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def answers_of(folder: Path, first: int, last: int) -> tuple[list[int], list[int]]:
    """Return the numbers of the queries in a range that have an answer, and the answers."""
    with gzip.open(folder / "queries.jsonl.gz", "rt", encoding="utf-8") as lines:
        known = [json.loads(line) for line in lines]
    chosen = [each for each in known if first <= each["qid"] < last and each["rel"] >= 0]
    return [each["qid"] for each in chosen], [each["rel"] for each in chosen]


class Case:
    """One pair of models, cut to some documents with all answers among them."""

    def __init__(self, options: argparse.Namespace) -> None:
        folder = Path(options.folder)
        first, last = map(int, options.queries.split(":"))
        qids, rel = answers_of(folder, first, last)
        old, new = (load(folder, f"{name}.docs") for name in (options.old, options.new))
        others = np.setdiff1d(np.random.default_rng(0).permutation(len(old))[: options.docs], rel)
        rows = np.concatenate([np.unique(rel), others])[: max(options.docs, len(set(rel)))]
        place = {row: at for at, row in enumerate(rows.tolist())}
        self.old, self.new = old[rows], new[rows]
        self.asked = load(folder, f"{options.new}.queries")[qids]
        self.rel = [place[each] for each in rel]
        self.pairs = options.pairs

    def curve(self, policy: str, seed: int, steps: int) -> F64:
        """Return the reciprocal rank of each query after each step, shape (steps + 1, queries)."""
        with (
            tempfile.TemporaryDirectory() as folder,
            vecdb.open(Path(folder) / "a.vecdb", durability="relaxed", automatic=False) as db,
        ):
            return np.stack(list(self._points(db, policy, seed, steps)))

    def _points(self, db: vecdb.Database, policy: str, seed: int, steps: int) -> Iterator[F64]:
        count = len(self.old)
        docs = db.create_collection("docs")
        docs.add_space("old", dim=self.old.shape[1])
        docs.add_space("new", dim=self.new.shape[1])
        docs.upsert(range(count), {"old": self.old}, texts=[str(place) for place in range(count)], trust=True)
        pairs = np.sort(np.random.default_rng(seed).choice(count, self.pairs, replace=False))
        ids = pairs.tolist()
        docs.set_vectors("new", ids, self.new[pairs], trust=True)
        docs.fit_transform("new", "old", "ridge", pairs=ids, seed=seed)
        m = docs.migrate("old", "new", self.embed, policy, 512, seed=seed, trust=True)
        yield self.ranks(docs)
        for step in range(1, steps + 1):
            m.run(max(0, round(step * (count - len(ids)) / steps) - m.status().done))
            yield self.ranks(docs)

    def embed(self, texts: list[str]) -> F32:
        return self.new[[int(text) for text in texts]]

    def ranks(self, docs: vecdb.Collection) -> F64:
        """Return 1 / rank of each query's known answer, 0 where it is not among the first."""
        found = docs.search(self.asked, k=DEPTH, space="new", include=())
        places = [{id: place for place, id in enumerate(hits.ids)} for hits in found]
        pairs = zip(places, self.rel, strict=True)
        return np.array([1.0 / (1 + each[rel]) if rel in each else 0.0 for each, rel in pairs])


def interval(differences: F64, seed: int = 0) -> tuple[float, float, float]:
    """Return the mean and its 95 % interval, resampled with whole queries; shape (seeds, queries)."""
    by_query = differences.mean(axis=0)
    rng = np.random.default_rng(seed)
    drawn = by_query[rng.integers(0, len(by_query), (2_000, len(by_query)))].mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(by_query.mean()), float(low), float(high)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code is always 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("folder", "old", "new"):
        parser.add_argument(name)
    parser.add_argument("--docs", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=1_000)
    parser.add_argument("--queries", default="1400:2000", help="numbers FROM:TO; those of the test are read once")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--policies", default="random,novelty")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    case = Case(options)
    found: dict[str, Any] = {}
    for policy in options.policies.split(","):
        found[policy] = np.stack([case.curve(policy, seed, options.steps) for seed in range(options.seeds)])
    report = {name: summary(curves, found["random"]) for name, curves in found.items()}
    print(json.dumps(report) if options.json else "\n".join(lines(report, options)))
    return 0


def summary(curves: F64, control: F64) -> dict[str, Any]:
    """Return the mean curve, its area, and the difference of areas to the control."""
    area, low, high = interval((curves - control).mean(axis=1))
    return {"curve": curves.mean(axis=(0, 2)).tolist(), "area": float(curves.mean()), "gain": [area, low, high]}


def lines(report: dict[str, Any], options: argparse.Namespace) -> Iterator[str]:
    """Yield the report as a table."""
    yield f"{options.old} -> {options.new}: MRR of new queries by the share embedded, mean of {options.seeds} seeds"
    for name, each in report.items():
        points = " ".join(f"{value:.3f}" for value in each["curve"])
        gain, low, high = each["gain"]
        yield f"{name:12} {points}  area {each['area']:.4f}  against random {gain:+.4f} [{low:+.4f}, {high:+.4f}]"


if __name__ == "__main__":
    sys.exit(main())
