"""What the tests of graphs share: hard sets of vectors, plain truths about a graph, and a search in plain Python."""

from __future__ import annotations

import numpy as np

from vecdb.indexes.graph_build import build_graph
from vecdb.indexes.graph_work import Work
from vecdb.testing.memory import MemoryView

METRICS = ("cosine", "dot", "l2")


def gaussian(count, dim=12, seed=0):
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)


def islands(count, number=80, dim=12, seed=0, apart=1e4):
    """Clusters that are much farther from each other than wide, in the order of the clusters."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((number, dim)) * apart
    return (centres[np.sort(rng.integers(0, number, count))] + rng.standard_normal((count, dim))).astype(np.float32)


def crowd(count, dim=12, seed=0, share=0.9):
    """Mostly one and the same row."""
    rows = gaussian(count, dim, seed)
    rows[np.random.default_rng(seed + 1).random(count) < share] = rows[0]
    return rows


def nearly_equal(count, dim=12, seed=0):
    """One row, and noise in the last digits."""
    rng = np.random.default_rng(seed)
    return (gaussian(1, dim, seed) * (1 + 1e-7 * rng.standard_normal((count, dim)))).astype(np.float32)


def line(count, dim=3):
    """Sorted along a line: a chain of neighbours."""
    return (np.arange(count)[:, None] * np.ones(dim) + 1).astype(np.float32)


def spikes(count, dim=40, seed=0):
    """Rows of very different length: under dot a few are everybody's neighbour."""
    rng = np.random.default_rng(seed)
    return (gaussian(count, dim, seed) * rng.pareto(1.0, (count, 1))).astype(np.float32)


HARD = {
    "gaussian": gaussian,
    "islands": islands,
    "crowd": crowd,
    "nearly equal": nearly_equal,
    "line": line,
    "spikes": spikes,
    "all equal": lambda count: np.ones((count, 5), np.float32),
    "one coordinate": lambda count: gaussian(count, 1),
    "ordered": lambda count: gaussian(count)[np.argsort(gaussian(count)[:, 0])],
}


def built(view, degree=16, seed=1, threads=1, **options):
    return build_graph(
        view,
        degree=degree,
        seed=seed,
        progress=lambda done, total: None,
        cancel=lambda: False,
        threads=threads,
        **options,
    )


def quiet(threads=1):
    return Work(threads, lambda done, total: None, lambda: False, 1)


def view_of(rows, metric="l2", **options):
    return MemoryView(rows, metric=metric, block_rows=(700,), **options)


def geometry(rows, metric):
    """Rows whose squared distances order neighbours, float64."""
    wide = rows.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    if metric == "cosine":
        return wide / np.maximum(norms, 1e-300)
    if metric == "dot":
        return np.concatenate([wide, np.sqrt(np.maximum(0, norms.max() ** 2 - norms**2))], axis=1)
    return wide


def reached_from(neighbours, entries):
    seen, todo = set(entries.tolist()), list(entries.tolist())
    while todo:
        fresh = {other for other in neighbours[todo.pop()].tolist() if other >= 0} - seen
        seen |= fresh
        todo += fresh
    return seen


def check_form(graph, rows, metric, linked=None):
    """What the contract says of every graph."""
    count = len(rows)
    linked = set(range(count)) if linked is None else linked
    assert graph.neighbours.shape[0] == count and graph.neighbours.dtype == graph.entries.dtype == np.int32
    assert 1 <= len(graph.entries) <= 64 and len(set(graph.entries.tolist())) == len(graph.entries)
    assert set(graph.entries.tolist()) <= linked
    for row, listed in enumerate(graph.neighbours.tolist()):
        held = [other for other in listed if other >= 0]
        assert listed == held + [-1] * (len(listed) - len(held))
        assert len(set(held)) == len(held) and row not in held and set(held) <= linked
        assert row in linked or not held
    assert reached_from(graph.neighbours, graph.entries) == linked


def check_order(graph, rows, metric, slack=1e-5):
    """Neighbours stand nearest first, up to the rounding of float32."""
    wide = geometry(rows, metric)
    scale = np.linalg.norm(wide, axis=1).max()
    for row, listed in enumerate(graph.neighbours):
        distances = np.linalg.norm(wide[listed[listed >= 0]] - wide[row], axis=1) / scale
        assert (np.diff(distances) >= (-1e-3 if metric == "dot" else -slack)).all()


def recall(graph, rows, queries, metric, effort, k=10):
    """Share of the true ten that a best-first search finds, in plain numpy."""
    wide = geometry(np.concatenate([rows, queries]), metric)
    inside, asked = wide[: len(rows)], wide[len(rows) :].copy()
    if metric == "dot":
        asked[:, -1] = 0  # a query has no additional coordinate: its order is that of the products
    found = 0
    for query in asked:
        distances = ((inside - query) ** 2).sum(axis=1)
        seen = set(graph.entries.tolist())
        pool = sorted(seen, key=distances.__getitem__)[:effort]
        expanded: set[int] = set()
        while todo := [row for row in pool if row not in expanded]:
            expanded.add(todo[0])
            fresh = {other for other in graph.neighbours[todo[0]].tolist() if other >= 0} - seen
            seen |= fresh
            pool = sorted({*pool, *fresh}, key=distances.__getitem__)[:effort]
        found += len(set(pool[:k]) & set(np.argsort(distances, kind="stable")[:k].tolist()))
    return found / k / len(queries)
