"""One index over a joint space beside the two indexes of a half migrated store.

Usage: python -m tools.evaluate.jointindex FOLDER [--pair OLD:NEW] [--queries 300] [--first 2000] [--kinds graph,ivf]
           [--contraction clip]

Half the records, drawn at random, have new vectors alone, the others old ones, joined by `bt2` of 5,000 pairs. Printed
for each type of index: what share of the exact mixed answer's ten best either way finds, with default settings and with
`recall=0.95`, for queries of the new and of the old model; how long the joint way takes beside the other (medians of
paired runs); how many bytes; and how often a right answer that has an old vector alone is among the ten (cross-test),
by exact scans and by the joint index. The figures of docs/explanation/bridging.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import vecdb
from tools.evaluate.corpus import Corpus, load_corpus

F32 = npt.NDArray[np.float32]

PAIRS = 5_000
K = 10
ROUNDS = 5
SPACES = ("old", "new", "joint")


@dataclass(frozen=True, slots=True)
class Asked:
    """Queries of one model, and what is to be found for them.

    Attributes
    ----------
    space : str
    queries : list of ndarray
    truth : list of Hits
        The exact mixed answer.
    """

    space: str
    queries: list[F32]
    truth: list[Any]


def half_migrated(path: Path, old: F32, new: F32, contraction: str) -> vecdb.Database:
    """Return a store in which half the records have new vectors alone, with a joint transform."""
    db = vecdb.open(path, automatic=False)
    docs = db.create_collection("docs")
    docs.add_space("old", dim=old.shape[1])
    docs.add_space("new", dim=new.shape[1])
    order = np.random.default_rng(0).permutation(len(old))
    for space, rows, ids in (("new", new, order[: len(old) // 2]), ("old", old, order[len(old) // 2 :])):
        for start in range(0, len(ids), 4_096):
            part = np.sort(ids[start : start + 4_096])
            docs.upsert(part.tolist(), {space: rows[part]})
    params = {"contraction": contraction}
    docs.fit_transform("new", "old", "bt2", pairs=(new[:PAIRS], old[:PAIRS]), name="joint", params=params)
    return db


def old_bytes(docs: vecdb.Collection) -> list[bytes]:
    """Return every old vector as it is stored."""
    return [np.asarray(each.vectors["old"]).tobytes() for each in docs.scan(vectors="old") if each.vectors]


def asked_of(docs: vecdb.Collection, space: str, queries: F32) -> Asked:
    """Return queries with their exact mixed answers."""
    rows = [np.ascontiguousarray(query) for query in queries]
    return Asked(space, rows, [docs.search(query, K, space=space, exact=True, include=()) for query in rows])


def two_ways(docs: vecdb.Collection, space: str, **more: Any) -> tuple[Callable[[F32], Any], Callable[[F32], Any]]:
    """Return a search of the two indexes, and one of the joint index."""
    ask = partial(docs.search, k=K, space=space, include=(), **more)
    return ask, partial(ask, spaces=["joint"])


def found(asked: Asked, search: Callable[[F32], Any]) -> float:
    """Return what share of the exact answers a search finds."""
    shares = [
        len(set(search(query).ids) & set(hits.ids)) / K for query, hits in zip(asked.queries, asked.truth, strict=True)
    ]
    return float(np.mean(shares))


def timed(ways: Sequence[Callable[[F32], Any]], queries: Sequence[F32]) -> tuple[list[float], float]:
    """Return microseconds of each way, and how long the second takes beside the first: medians of paired rounds."""
    rounds = []
    for _ in range(ROUNDS):
        spent = []
        for way in ways:
            began = time.perf_counter()
            for query in queries:
                way(query)
            spent.append((time.perf_counter() - began) / len(queries) * 1e6)
        rounds.append(spent)
    return [statistics.median(each) for each in zip(*rounds, strict=True)], statistics.median(b / a for a, b in rounds)


def cross(docs: vecdb.Collection, corpus: Corpus, queries: F32, first: int, **more: Any) -> float:
    """Return how often the right answer is among the first ten of all records, where it has an old vector alone."""
    hits = []
    for place, query in enumerate(queries, first):
        judged = corpus.judged
        right = set(judged.rows[judged.starts[place] : judged.starts[place + 1]].tolist())
        told = docs.get(sorted(right))
        if all(record.spaces == ("old",) for record in told):
            hits.append(bool(right & set(docs.search(query, K, space="new", include=(), **more).ids)))
    return float(np.mean(hits))


def report(docs: vecdb.Collection, kind: str, asked: Sequence[Asked]) -> None:
    """Print what is found with indexes of one kind, and how quickly."""
    spent = {}
    for space in SPACES:
        began = time.perf_counter()
        docs.create_index(space, kind)
        spent[space] = time.perf_counter() - began
    print(f"{kind}: built in " + ", ".join(f"{space} {seconds:.1f} s" for space, seconds in spent.items()), flush=True)
    for wish in ({}, {"recall": 0.95}):
        for each in asked:
            ways = two_ways(docs, each.space, **wish)
            shares = [found(each, way) for way in ways]
            micros, ratio = timed(ways, each.queries[:100])
            print(
                f"  {wish or 'default'}, {each.space} queries: two indexes {shares[0]:.3f} in {micros[0]:.0f} us, "
                f"joint {shares[1]:.3f} in {micros[1]:.0f} us, joint / two {ratio:.2f}",
                flush=True,
            )
    for space in SPACES:
        docs.drop_index(space, kind)


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pair", default="mini6:e5s")
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--first", type=int, default=2_000)
    parser.add_argument("--kinds", default="rabitq,ivf,graph")
    parser.add_argument("--contraction", default="clip")
    options = parser.parse_args(arguments)
    corpus = load_corpus(options.folder)
    old, new = (corpus.model(name) for name in options.pair.split(":"))
    part, kinds = slice(options.first, options.first + options.queries), options.kinds.split(",")
    vecdb.warmup()
    with tempfile.TemporaryDirectory() as folder:
        db = half_migrated(Path(folder) / "a.vecdb", old.docs, new.docs, options.contraction)
        with db:
            docs = db.collection("docs")
            before = old_bytes(docs)
            made = docs.add_joint_space("joint", "joint")
            assert old_bytes(docs) == before
            stats = docs.stats()["spaces"]
            print(f"{options.pair}, {made.rows} rows of {made.dim} columns; bytes of vectors:", end=" ")
            print(", ".join(f"{space} {stats[space]['vector_bytes']:,}" for space in SPACES))
            asked = [asked_of(docs, "new", new.queries[part]), asked_of(docs, "old", old.queries[part])]
            for kind in kinds:
                report(docs, kind, asked)
            docs.create_index("joint", kinds[-1])
            ask = partial(cross, docs, corpus, new.queries[part], options.first)
            told = ask(exact=True), ask(spaces=["joint"])
            print(f"cross-test recall@{K}: by exact scans {told[0]:.3f}, by a joint {kinds[-1]} {told[1]:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
