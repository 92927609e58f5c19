"""Whether one index over a joint space could answer a store that holds old and new vectors.

Usage: python -m tools.evaluate.jointindex FOLDER [--pair OLD:NEW] [--queries 400]

Half the records have new vectors, half old ones, joined by `bt2`. Printed: how far down the one list of joint inner
products the best ten of the calibrated mixed answer lie, how large the joint vectors are, and what searching one graph
over them costs beside the mixed search over the two graphs that are there. The figures of docs/explanation/bridging.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import vecdb
from tools.evaluate.corpus import load_corpus
from vecdb.engine.pairing import directed
from vecdb.engine.transforms import load_transform

F32 = npt.NDArray[np.float32]

PAIRS = 5_000
TEST = 2_000


def stored(path: Path, old: F32, new: F32) -> vecdb.Database:
    """Return a half migrated store, with a graph over each half and a joint transform."""
    db = vecdb.open(path, automatic=False)
    docs = db.create_collection("docs")
    count, half = len(old), len(old) // 2
    docs.add_space("old", dim=old.shape[1])
    docs.add_space("new", dim=new.shape[1])
    for start in range(0, half, 4_096):
        part = slice(start, min(half, start + 4_096))
        docs.upsert(list(range(count))[part], {"new": new[part]})
    for start in range(half, count, 4_096):
        part = slice(start, min(count, start + 4_096))
        docs.upsert(list(range(count))[part], {"old": old[part]})
    docs.fit_transform("new", "old", "bt2", pairs=(new[:PAIRS], old[:PAIRS]), name="joint")
    for space in ("old", "new"):
        docs.create_index(space, "graph")
    return db


def joint_sides(docs: vecdb.Collection, old: F32, new: F32, queries: F32) -> tuple[F32, F32, npt.NDArray[np.float64]]:
    """Return joint vectors of all records and of queries, and what is added to the score of each record."""
    with docs._view() as view:
        loaded = load_transform(view.snapshot, view.entry, view.entry.transforms[0], docs.database.plugins)
    by_query, other = loaded.transform, loaded.transform.companion()
    form = by_query.affine()
    assert other is not None and form is not None
    half = len(old) // 2
    rows = np.concatenate([by_query.apply(new[:half]), other.apply(old[half:])])
    bias = np.zeros(len(rows))
    if form.row_bias is not None:
        bias[half:] = form.row_bias(old[half:])
    return rows.astype(np.float32), by_query.apply(queries).astype(np.float32), bias


def depths(docs: vecdb.Collection, queries: F32, rows: F32, asked: F32, bias: Any, scale: tuple[float, float]) -> Any:
    """Return, for each query, how many of the joint list hold 9 and 10 of the best ten of the mixed answer."""
    half, found = len(rows) // 2, []
    for query, joint in zip(queries, asked, strict=True):
        scores = rows @ joint + bias
        scores[half:] = scale[0] * scores[half:] + scale[1]
        wanted = [int(id) for id in docs.search(query, space="new", exact=True, include=()).ids]
        ranks = np.sort([int((scores > scores[id]).sum()) + 1 for id in wanted])
        found.append((ranks[8], ranks[9]))
    return np.array(found)


def static_scale(rows: F32, asked: F32, bias: Any) -> tuple[float, float]:
    """Return what brings old scores to the mean and deviation of new ones, once for all queries."""
    half = len(rows) // 2
    new = (rows[:half] @ asked.T).ravel()
    old = (rows[half:] @ asked.T + bias[half:, None]).ravel()
    factor = float(new.std() / old.std())
    return factor, float(new.mean() - factor * old.mean())


def timed(search: Callable[[F32], Any], queries: Sequence[F32]) -> float:
    """Return microseconds a query."""
    began = time.perf_counter()
    for query in queries:
        search(query)
    return (time.perf_counter() - began) / len(queries) * 1e6


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pair", default="mini6:e5s")
    parser.add_argument("--queries", type=int, default=400)
    options = parser.parse_args(arguments)
    corpus = load_corpus(options.folder)
    one, other = options.pair.split(":")
    old, new = corpus.model(one).docs, corpus.model(other).docs
    queries = np.ascontiguousarray(corpus.model(other).queries[TEST : TEST + options.queries])
    vecdb.warmup()
    with tempfile.TemporaryDirectory() as folder, stored(Path(folder) / "a.vecdb", old, new) as db:
        docs = db.collection("docs")
        rows, asked, bias = joint_sides(docs, directed(old, "cosine"), directed(new, "cosine"), queries)
        scale = static_scale(rows, asked[:50], bias)
        found = depths(docs, queries, rows, asked, bias, scale)
        nine, ten = (np.quantile(found[:, column], [0.5, 0.9, 0.99]).astype(int).tolist() for column in (0, 1))
        print(f"joint columns {rows.shape[1]}, stored {old.shape[1]} and {new.shape[1]}; copied {rows.nbytes:,} bytes")
        print(f"depth that holds 9 of 10, median, 90 %, 99 % of queries: {nine}; all 10: {ten}")
        half = len(rows) // 2
        wide = np.concatenate([rows[:half], scale[0] * rows[half:]])  # the scale belongs to the rows
        shift = np.concatenate([np.zeros(half), scale[0] * bias[half:] + scale[1]])[:, None]
        lists = db.create_collection("joint")
        lists.add_space("joint", dim=rows.shape[1] + 1, metric="dot")
        stacked = np.ascontiguousarray(np.hstack([wide, shift]), np.float32)
        for start in range(0, len(rows), 4_096):
            part = slice(start, start + 4_096)
            lists.upsert(list(range(len(rows)))[part], {"joint": stacked[part]}, trust=True)  # two models on purpose
        lists.create_index("joint", "graph")
        width = np.ones((len(asked), 1), np.float32)
        one_list = list(np.ascontiguousarray(np.hstack([asked, width]), np.float32))
        depth = max(10, nine[1])
        pairs = []
        for _ in range(9):
            mixed = timed(lambda query: docs.search(query, space="new", include=()), list(queries))
            short = timed(lambda query: lists.search(query, k=10, include=()), one_list)
            deep = timed(lambda query: lists.search(query, k=depth, include=()), one_list)
            pairs.append((short / mixed, deep / mixed))
        ratios = [statistics.median(each) for each in zip(*pairs, strict=True)]
        print(f"one joint graph beside the mixed search, k=10: {ratios[0]:.2f}, k={depth}: {ratios[1]:.2f}")
        told = lists.search(np.stack(one_list[:200]), k=10, exact=True).ids
        near = lists.search(np.stack(one_list[:200]), k=10).ids
        overlap = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(told, near, strict=True)])
        print(f"recall@10 of the joint graph by its own list: {overlap:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
