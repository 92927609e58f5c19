"""The cases of `test_twins` for the kernels that build a graph: all work on rows in the geometry of a graph."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from tests.kernels.oracle import cut
from vecdb.blocks import VectorBlocks
from vecdb.contracts.index import InPlace
from vecdb.indexes.graph_rows import rows_of
from vecdb.int8rows import dequantise, quantise
from vecdb.kernels import graph_load
from vecdb.kernels._tiles import TILE_COLUMNS, TILE_ROWS

N, D = 70, 19


def frozen(array):
    array = np.ascontiguousarray(array)
    array.setflags(write=False)
    return array


def geometry(metric, dtype, seed=0, gone=()):
    """Rows where they lie, and the same as float64 (n, wide) by the formula of each metric."""
    rng = np.random.default_rng(seed)
    stored = (rng.standard_normal((N, D)) + 0.5).astype(dtype)
    places = np.arange(N, dtype=np.int64)
    places[list(gone)] = -1
    rows = rows_of(InPlace(cut(metric, stored, rng), places, 0), N)
    for array in rows.head:
        array.setflags(write=False)
    wide = stored.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1)
    expected = np.zeros((N, rows.wide))
    if metric == "cosine":
        expected[:, :D] = wide / norms[:, None]
    elif metric == "dot":
        expected[:, :D] = wide / norms.max()
        expected[:, D] = np.sqrt(np.maximum(0, 1 - (norms / norms.max()) ** 2))
    else:
        expected[:, :D] = wide * 2.0 ** -np.ceil(np.log2(norms.max()))
    return rng, rows, expected


def random_graph(rng, degree=5):
    listed = np.stack([rng.choice(np.delete(np.arange(N), row), degree, replace=False) for row in range(N)])
    lengths = rng.integers(0, degree + 1, N)
    listed[np.arange(degree)[None, :] >= lengths[:, None]] = -1
    return frozen(listed.astype(np.int32))


def loaded(rows):
    out = np.empty((N, rows.wide), np.float32)
    graph_load.load_rows(*rows.head, frozen(np.arange(N, dtype=np.int32)), out)
    return out.astype(np.float64)


def load_rows(kernel, twin, metric, dtype):
    rng, rows, expected = geometry(metric, dtype)
    wanted = frozen(rng.integers(0, N, 30).astype(np.int32))
    out = np.full((30, rows.wide), np.nan, np.float32)
    kernel(*rows.head, wanted, out)
    # The additional coordinate of the longest rows is the root of a difference of nearly equal numbers.
    np.testing.assert_allclose(out, twin(expected, wanted), atol=1e-3 if metric == "dot" else 1e-6)
    plain = rng.standard_normal((N, D)).astype(np.float32)
    stored = quantise(plain)
    floats = rows_of(InPlace(cut(metric, dequantise(stored, D), rng), None, 0), N)
    codes = rows_of(InPlace(VectorBlocks.from_parts(metric, D, [stored[:30], stored[30:]]), None, 0), N)
    np.testing.assert_allclose(loaded(codes), loaded(floats), rtol=1e-6, atol=1e-3 if metric == "dot" else 1e-7)
    _, rows, expected = geometry(metric, dtype, gone=[3])
    kernel(*rows.head, frozen(np.array([3], np.int32)), out)
    assert not out[0].any()


def number_rows(kernel, twin, metric, dtype):
    rng, rows, _ = geometry(metric, dtype)
    wanted = frozen(rng.integers(0, N, 30).astype(np.int32))
    out = np.zeros(30, np.uint64)
    kernel(*rows.head, wanted, np.empty(rows.wide, np.float32), out)
    assert out.tolist() == twin(loaded(rows).astype(np.float32)[wanted])
    assert len(set(out.tolist())) == len(set(wanted.tolist()))


def nearest_leaders(kernel, twin, metric, dtype):
    rng, rows, _ = geometry(metric, dtype)
    exact = loaded(rows)
    for count, fan, leaders in ((1, 1, 1), (5, 2, 7), (N, 3, 33)):
        chosen = rng.permutation(N).astype(np.int32)
        asked, table = frozen(chosen[:count]), exact[chosen[:leaders]]
        centre = table.mean(axis=0)
        panels = -(-leaders // TILE_COLUMNS)
        moved = np.zeros((panels * TILE_COLUMNS, rows.wide), np.float32)
        moved[:leaders] = table - centre
        columns = frozen(moved.reshape(panels, TILE_COLUMNS, rows.wide).transpose(0, 2, 1))
        halves = np.full(panels * TILE_COLUMNS, np.inf, np.float32)
        halves[:leaders] = 0.5 * ((table - centre) ** 2).sum(axis=1)
        halves = frozen(halves.reshape(panels, TILE_COLUMNS))
        found = np.full((count, fan), -7, np.int32)
        tile, best = np.empty((TILE_ROWS + 1, TILE_COLUMNS), np.float32), np.empty((2 * TILE_ROWS, fan), np.float32)
        scratch = np.zeros((2 * TILE_ROWS, rows.wide), np.float32), tile, best
        kernel(*rows.head, asked, columns, frozen(centre.astype(np.float32)), halves, *scratch, found)
        expected = twin(exact[asked], table, fan)
        for row, (one, two) in enumerate(zip(found, expected, strict=True)):
            distances = ((table - exact[asked[row]]) ** 2).sum(axis=1)
            assert len(set(one.tolist())) == fan
            np.testing.assert_allclose(distances[one], distances[two], rtol=1e-4, atol=1e-5)


def leaf_neighbours(kernel, twin, metric, dtype):
    rng, rows, _ = geometry(metric, dtype)
    exact = loaded(rows)
    for sizes, most in (((1,), 3), ((2, 3, 4), 3), ((5, N, 31), 4), ((33, 64), 10)):
        leaves = [rng.permutation(N)[:size] for size in sizes]
        if len(sizes) == 3:
            leaves[1][-1] = leaves[1][0]  # a leaf may name a row twice
        members = frozen(np.concatenate(leaves).astype(np.int32))
        starts = frozen(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
        homes = frozen(rng.permutation(len(members) + 5)[: len(members)].astype(np.int32))
        candidates = np.full((len(members) + 5, most), -7, np.int32)
        block, panel = np.zeros((96, rows.wide), np.float32), np.empty((rows.wide, TILE_COLUMNS), np.float32)
        tile = np.empty((TILE_ROWS + 1, TILE_COLUMNS), np.float32)
        scratch = block, panel, tile, np.empty((3, 96), np.float32), np.empty((96, most), np.uint64)
        kernel(*rows.head, members, homes, starts, *scratch, candidates)
        for first, last in pairwise(starts):
            for place, expected in zip(range(first, last), twin(exact, members[first:last], most), strict=True):
                row = members[place]
                found = candidates[homes[place]]
                held = int((expected >= 0).sum())
                assert (found[held:] == -1).all() and row not in found[:held] and (found[:held] >= 0).all()
                distances = ((exact - exact[row]) ** 2).sum(axis=1)
                np.testing.assert_allclose(distances[found[:held]], distances[expected[:held]], rtol=1e-4, atol=2e-6)
        assert (np.delete(candidates, homes, axis=0) == -7).all()


def prune_rows(kernel, twin, metric, dtype):
    rng, rows, _ = geometry(metric, dtype, gone=[7])
    exact = loaded(rows)
    targets = frozen(rng.permutation(np.delete(np.arange(N), 7))[:20].astype(np.int32))
    sizes = rng.integers(0, 60, 20)
    starts = frozen(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
    candidates = rng.integers(-1, N, starts[-1]).astype(np.int32)
    candidates = frozen(np.where((rng.random(len(candidates)) < 0.2) & (candidates >= 0), -2 - candidates, candidates))
    for alpha, mark, considered, most in (
        (1.44, False, 60, 8),
        (1.44, True, 60, 8),
        (1.0, True, 10, 8),
        (1.0, True, 60, 1),
    ):
        out = np.full((20, most), -7, np.int32)
        scratch = (
            np.zeros((considered + 1, rows.wide), np.float32),
            np.empty(60, np.uint64),
            np.empty(considered + most + 240, np.int32),
        )
        kernel(*rows.head, targets, starts, candidates, np.float32(alpha), mark, *scratch, out)
        for place, target in enumerate(targets.tolist()):
            listed = [row for row in candidates[starts[place] : starts[place + 1]].tolist() if row not in (7, -9)]
            expected = twin(exact, target, listed, alpha, mark, considered, most)
            assert out[place].tolist() == expected + [-1] * (most - len(expected))


def spread(kernel, twin, metric, dtype):
    rng = np.random.default_rng(4)
    for degree in (1, 2, 5):
        neighbours = random_graph(rng, degree)
        start = rng.permutation(N)[:3].tolist()
        parents, queue = np.full(N, -2, np.int32), np.empty(N, np.int32)
        parents[start], queue[:3] = -1, start
        held = kernel(neighbours, parents, queue, 3)
        expected = twin(neighbours, start)
        assert set(queue[:held].tolist()) == expected == set(np.flatnonzero(parents != -2).tolist())
        for row in expected - set(start):
            assert row in neighbours[parents[row]]


def reverse_lists(kernel, twin, metric, dtype):
    rng = np.random.default_rng(4)
    neighbours = random_graph(rng).copy()
    neighbours[rng.random(neighbours.shape) < 0.2] = -9  # marked: not named
    rows = frozen(np.sort(rng.permutation(N)[:50]).astype(np.int32))
    listed = frozen(neighbours[rows])
    counts = np.bincount(listed[listed >= 0], minlength=N)
    ends = np.cumsum(counts)
    cursors, sources = ends - counts, np.full(counts.sum(), -7, np.int32)
    kernel(listed, rows, cursors, sources)
    expected = twin(listed, rows)
    assert cursors.tolist() == ends.tolist()
    for row in range(N):
        assert sources[ends[row] - counts[row] : ends[row]].tolist() == expected.get(row, [])


def walk(kernel, twin, metric, dtype):
    rng, rows, _ = geometry(metric, dtype)
    exact, neighbours = loaded(rows), random_graph(rng)
    entries, targets = frozen(rng.permutation(N)[:2].astype(np.int32)), frozen(np.arange(N, dtype=np.int32))
    for effort in (1, 6, 100):
        found = np.full((N, effort), -7, np.int32)
        scratch = np.zeros(N, np.uint32), np.empty(effort, np.uint64), np.zeros((2, rows.wide), np.float32)
        kernel(*rows.head, neighbours, entries, targets, *scratch, found)
        for target in range(N):
            expected = twin(exact, neighbours, entries, target, effort)
            assert found[target].tolist() == expected + [-1] * (effort - len(expected))


def insert_edge(kernel, twin, metric, dtype):
    rng, rows, _ = geometry(metric, dtype)
    exact = loaded(rows)
    for most in (1, 3, 6):
        for _ in range(30):
            host, row, *others = rng.permutation(N)[: most + 2].tolist()
            others = others[: int(rng.integers(0, most + 1))]
            others.sort(key=lambda other: ((exact[other] - exact[host]) ** 2).sum())
            children = {other for other in others if rng.random() < 0.6}
            neighbours, parents = np.full((N, most), -1, np.int32), np.full(N, -1, np.int32)
            neighbours[host, : len(others)] = others
            parents[list(children)] = host
            done = kernel(*rows.head, neighbours, frozen(parents), host, row, np.zeros((2, rows.wide), np.float32))
            expected = twin(exact, others, children, host, row, most)
            assert done == (expected is not None)
            held = others if expected is None else expected
            assert neighbours[host].tolist() == held + [-1] * (most - len(held))
