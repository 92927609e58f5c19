"""The case of `test_twins` for the search of a graph: both layouts, with and without rows that are not allowed."""

from __future__ import annotations

import numpy as np

from tests.kernels.oracle import cut
from vecdb.contracts.rows import MappedRows
from vecdb.indexes import codes
from vecdb.indexes.graph_layout import StoredGraph, link_rows, make_records
from vecdb.kernels.graph_search import scratch_words

N, Q, R = 150, 2, 32


def frozen(array):
    array = np.ascontiguousarray(array)
    array.setflags(write=False)
    return array


def setting(metric, dtype, dim, seed=0, degree=R):
    """Vectors as they are stored, their blocks, and a graph of random links; some numbers lead nowhere."""
    rng = np.random.default_rng(seed)
    stored = (rng.standard_normal((N, dim)) + 0.3).astype(dtype)
    rows = stored.astype(np.float32)
    book = codes.make_book(metric, rows, N, seed)
    made, signs = codes.encode(book, rows)
    records = make_records(signs, made.factors, made.cells)
    neighbours = rng.integers(0, N, (N, degree)).astype(np.int32)
    neighbours[rng.random((N, degree)) < 0.7] = -1
    neighbours[:, 3] = 0
    foreign = rng.choice(np.array([-7, N, 2**31 - 1], "<i4"), N)
    graphs = []
    for layout in ("compact", "fast"):
        links = link_rows(neighbours, records, book.width, layout).copy()
        links[:, 12:16] = foreign[:, None].view(np.uint8)
        held = MappedRows.of(records), MappedRows.of(links)
        graphs.append(StoredGraph(book, *held, np.array([5, 70], np.int32), degree, layout, 10, None))
    neighbours[:, 3] = foreign
    return rows, cut(metric, stored, rng), graphs, neighbours, (book, made, signs)


def distances(metric, rows, queries, coded):
    """Estimated and exact distances, each (q, n); the estimates from components rounded as the table has them."""
    book, made, signs = coded
    asked = codes.prepare_queries(book, queries)
    turned = codes.rotated_queries(book, asked.turned)
    steps = np.abs(turned).max(axis=1, keepdims=True) / np.float32(31)
    sums = (np.rint(turned / steps) * steps) @ (2.0 * signs - 1).T
    scores = asked.bases[:, made.cells] + asked.bends[:, None] * made.factors[0] + made.factors[1] * sums
    wide, asked_wide = rows.astype(np.float64), queries.astype(np.float64)
    exact = asked_wide @ wide.T
    if metric == "cosine":
        exact /= np.linalg.norm(wide, axis=1)
    if metric == "l2":
        exact = -((asked_wide[:, None] - wide[None]) ** 2).sum(axis=2)
    return -scores, -exact


def ask(kernel, graph, blocks, queries, k, effort, allowed, places, room=4_000):
    """Ask a kernel; `allowed` is a mask, or the rows that are listed."""
    plan = graph.plan.copy()
    plan[12], plan[13] = blocks.half, effort
    positions, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    trails = np.zeros((len(queries), room), np.int64)
    met = 0 if allowed is None else N
    scratch = np.zeros(
        scratch_words(graph.book.width, len(graph.book.centres), graph.degree, k, effort, met), np.uint64
    )
    mask = np.empty(0, np.bool_) if allowed is None else allowed
    there = np.empty(0, np.int64) if places is None else places
    given = (frozen(array) for array in (graph.anchors, graph.book.signs, blocks.scan_table, there, graph.maps, mask))
    kernel(queries, *given, frozen(plan), scratch, positions, scores, trails)
    return positions, scores, trails


def search_graph(kernel, twin, metric, dtype):
    for dim, degree, efforts in ((19, R, (1, 7, N)), (1_100, 2 * R, (9,))):
        rows, blocks, graphs, neighbours, coded = setting(metric, dtype, dim, degree=degree)
        queries = frozen(np.random.default_rng(3).standard_normal((Q, dim)).astype(np.float32))
        estimates, exact = distances(metric, rows, queries, coded)
        masks = [None, *(frozen(np.random.default_rng(4).random(N) < share) for share in (0.5, 0.06, 0.0))]
        for allowed in masks:
            for effort in efforts:
                expected = [
                    twin(one, other, neighbours, graphs[0].entries, allowed, effort)
                    for one, other in zip(estimates, exact, strict=True)
                ]
                for graph in graphs:
                    check(ask(kernel, graph, blocks, queries, 6, effort, allowed, None), expected, exact, allowed)


def search_listed(kernel, twin, metric, dtype):
    for dim, degree, efforts in ((19, R, (1, 7, N)), (1_100, 2 * R, (9,))):
        rows, blocks, graphs, _, coded = setting(metric, dtype, dim, degree=degree)
        rng = np.random.default_rng(3)
        queries = frozen(rng.standard_normal((Q, dim)).astype(np.float32))
        estimates, exact = distances(metric, rows, queries, coded)
        foreign = np.array([-1, N, 2**40, -(2**40)])
        for listed in (np.arange(N), np.array([5]), np.empty(0, np.int64), rng.permutation(N)[:20]):
            for effort in efforts:
                expected = [twin(*each, listed, effort) for each in zip(estimates, exact, strict=True)]
                given = frozen(rng.permutation(np.concatenate([listed, foreign])) if len(listed) > 1 else listed)
                for graph in graphs:
                    check(ask(kernel, graph, blocks, queries, 6, effort, given, None), expected, exact, None)


def check(found, expected, exact, allowed):
    positions, scores, trails = found
    for row, wanted in enumerate(expected):
        held = min(6, len(wanted))
        assert positions[row, :held].tolist() == wanted[:6]
        assert (positions[row, held:] == -1).all() and (scores[row, held:] == -np.inf).all()
        np.testing.assert_allclose(-scores[row, :held], exact[row, wanted[:6]], rtol=1e-4, atol=1e-4)
        told = trails[row, 1 : trails[row, 0] + 1]
        assert sorted((told[told & 1 == 1] >> 1).tolist()) == sorted(wanted)
        if allowed is None:
            assert (told & 1 == 1).all()
