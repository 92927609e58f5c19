"""Graphs by overlapping leaves: their form, quality, sameness, bounds, and what makes building them hard."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.graphs import (
    HARD,
    METRICS,
    built,
    check_form,
    check_order,
    gaussian,
    geometry,
    islands,
    recall,
    view_of,
)
from vecdb.errors import CancelledError
from vecdb.indexes.graph_build import Graph, build_graph, unreachable
from vecdb.indexes.graph_lists import Tuning
from vecdb.indexes.graph_partition import Shape
from vecdb.kernels import reference

SMALL = Tuning(shape=Shape(least=10, wanted=40, most=90, fans=(3, 2), leaders=16), near=8)
"""Leaves so small that a few hundred rows are divided several times."""


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", HARD)
def test_hard_sets_give_sound_graphs(name, metric):
    rows = HARD[name](900)
    graph = built(view_of(rows, metric), tuning=SMALL)
    check_form(graph, rows, metric)
    check_order(graph, rows, metric)
    assert unreachable(graph).tolist() == []


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("degree", [2, 64])
def test_reachable_whatever_the_degree(name, degree):
    rows = HARD[name](500)
    check_form(built(view_of(rows), degree=degree, tuning=SMALL), rows, "l2")


@pytest.mark.parametrize("name", HARD)
def test_reachable_along_a_single_edge(name):
    rows = HARD[name](90)
    check_form(built(view_of(rows), degree=1, tuning=SMALL), rows, "l2")


@pytest.mark.parametrize("count", [1, 2, 3, 10, 31, 32, 33, 64, 200])
@pytest.mark.parametrize("dim", [1, 15, 16, 17, 130])
def test_few_rows_and_all_widths(count, dim):
    rows = gaussian(count, dim)
    for metric in METRICS:
        graph = built(view_of(rows, metric), degree=32)
        check_form(graph, rows, metric)
        check_order(graph, rows, metric)
        if count <= 11 and dim > 1:  # of one coordinate, rows are equal under cosine
            assert ((graph.neighbours >= 0).sum(axis=1) == count - 1).all()


@pytest.mark.parametrize("dim", [1_024, 4_096])
def test_wide_rows(dim):
    rows = gaussian(150, dim)
    check_form(built(view_of(rows, "cosine"), tuning=SMALL), rows, "cosine")


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 250),
    dim=st.integers(1, 20),
    degree=st.integers(1, 40),
    metric=st.sampled_from(METRICS),
    levels=st.integers(1, 6),
    dtype=st.sampled_from(["float32", "float16"]),
    seed=st.integers(0, 2**40),
)
def test_any_rows_give_a_sound_graph(count, dim, degree, metric, levels, dtype, seed):
    """Few levels a coordinate: many rows are equal, opposite, or zero."""
    rng = np.random.default_rng(seed)
    rows = (rng.integers(0, levels, (count, dim)) - 1).astype(np.float32)
    graph = built(view_of(rows, metric, dtype=dtype), degree=degree, seed=seed, tuning=SMALL)
    check_form(graph, rows, metric)


@pytest.mark.parametrize("metric", METRICS)
def test_few_rows_are_pruned_like_an_oracle_does(metric):
    """One leaf, all rows candidates of each: what remains is the pruned lists with their reverses, pruned."""
    rows = gaussian(40, 8, seed=3)
    if metric == "dot":
        rows[0] *= 1.5  # the longest row; the others are far from it, so the additional coordinate is exact enough
    degree, tuning = 6, Tuning(shape=Shape(fans=(1, 1)), near=39, alpha=1.2, considered=96)
    graph = built(view_of(rows, metric), degree=degree, tuning=tuning)
    wide = geometry(rows, metric)
    everybody = list(range(40))
    forward = [reference.prune_rows(wide, row, everybody, 1.44, True, 96, degree) for row in everybody]
    for row in everybody:
        offered = forward[row] + [other for other in everybody if row in forward[other]]
        expected = reference.prune_rows(wide, row, offered, 1.44, False, 96, degree)
        assert graph.neighbours[row].tolist() == expected + [-1] * (degree - len(expected))


@pytest.mark.parametrize("metric", METRICS)
def test_a_search_finds_what_is_near(metric):
    rows, queries = gaussian(2_500, 16), gaussian(60, 16, seed=9)
    graph = built(view_of(rows, metric), degree=32)
    assert recall(graph, rows, queries, metric, effort=100) > 0.97


@pytest.mark.parametrize("noise", [0.0, 1e-4])
def test_copies_and_near_copies_crowd_nobody_out(noise):
    """A hundred rows of each kind, so that the nearest of each are all of its own kind."""
    rng = np.random.default_rng(0)
    kinds = gaussian(60, 12)
    rows = kinds[rng.integers(0, 60, 3_000)] + (noise * rng.standard_normal((3_000, 12))).astype(np.float32)
    graph = built(view_of(rows), degree=32, tuning=SMALL)
    check_form(graph, rows, "l2")
    queries = kinds + np.float32(0.2) * gaussian(60, 12, seed=4)
    if noise:
        assert recall(graph, rows, queries, "l2", effort=250) > 0.8


def test_a_search_finds_its_island():
    """Each query is answered from the cluster it belongs to, though nothing lies between clusters."""
    everything = islands(2_560, number=128)
    asked = np.random.default_rng(0).permutation(2_560)[:60]
    rows = np.delete(everything, asked, axis=0)
    graph = built(view_of(rows, "l2"), degree=32, tuning=SMALL)
    assert recall(graph, rows, everything[asked], "l2", effort=100) > 0.8


@pytest.mark.parametrize("metric", METRICS)
def test_the_graph_does_not_depend_on_the_threads(metric):
    rows = islands(1_500, number=9, apart=3.0)
    one = built(view_of(rows, metric), tuning=SMALL)
    for threads in (2, 5):
        other = built(view_of(rows, metric), threads=threads, tuning=SMALL)
        assert other.neighbours.tobytes() == one.neighbours.tobytes()
        assert other.entries.tobytes() == one.entries.tobytes()
    assert built(view_of(rows, metric), seed=2, tuning=SMALL).neighbours.tobytes() != one.neighbours.tobytes()


@pytest.mark.parametrize("options", [{"scattered": True}, {"dtype": "float16"}, {"spoil": True}])
def test_how_rows_lie_does_not_matter(options):
    rows = gaussian(400).astype(np.float16).astype(np.float32)
    plain = built(view_of(rows, "cosine"), tuning=SMALL)
    other = built(view_of(rows, "cosine", **options), tuning=SMALL)
    same = (plain.neighbours == other.neighbours).mean()
    assert same == 1.0 if "dtype" not in options else same > 0.99  # float16 rows have other rounded lengths


@pytest.mark.parametrize("factor", [1e-20, 1e-6, 1e6, 1e14])
def test_scale_does_not_matter(factor):
    rows = gaussian(400)
    plain = built(view_of(rows), tuning=SMALL)
    scaled = built(view_of(rows * np.float32(factor)), tuning=SMALL)
    assert (plain.neighbours == scaled.neighbours).mean() > 0.99


def test_far_from_the_origin_neighbours_are_still_neighbours():
    rows = gaussian(600, 8)
    away = built(view_of(rows + np.float32(4_096)), tuning=SMALL)
    moved = (rows + np.float32(4_096)).astype(np.float64)
    squares = ((moved[:, None] - moved[None]) ** 2).sum(axis=2)
    np.fill_diagonal(squares, np.inf)
    assert (away.neighbours[:, 0] == squares.argmin(axis=1)).mean() > 0.9


def test_rows_may_be_left_out():
    rows = gaussian(500)
    left_out = np.sort(np.random.default_rng(0).permutation(500)[:50])
    graph = built(view_of(rows), left_out=left_out, tuning=SMALL)
    check_form(graph, rows, "l2", linked=set(range(500)) - set(left_out.tolist()))
    assert unreachable(graph).tolist() == left_out.tolist()


def test_rows_left_out_change_nothing_else():
    rows = gaussian(300)
    padded = np.concatenate([rows, gaussian(20, seed=5)])
    graph = built(view_of(rows), tuning=SMALL)
    other = built(view_of(padded), left_out=np.arange(300, 320), tuning=SMALL)
    assert (other.neighbours[:300] == graph.neighbours).all() and (other.entries == graph.entries).all()


def test_unreachable_tells_what_nobody_leads_to():
    graph = Graph(np.array([[1, -1], [2, 0], [0, 1], [0, 4], [3, -1]], np.int32), np.array([2], np.int32))
    assert unreachable(graph).tolist() == [3, 4]
    assert unreachable(Graph(graph.neighbours, np.array([0, 4], np.int32))).tolist() == []


def test_progress_grows_to_its_total():
    told = []
    rows = gaussian(900)
    for threads in (1, 3):
        told.clear()
        build_graph(
            view_of(rows),
            degree=8,
            seed=0,
            progress=lambda done, total: told.append((done, total)),
            cancel=lambda: False,
            threads=threads,
            tuning=SMALL,
        )
        totals = {total for _, total in told}
        assert len(totals) == 1 and told[-1] == (max(totals), max(totals))
        assert [done for done, _ in told] == sorted(done for done, _ in told) and len(told) > 3


@pytest.mark.parametrize("threads", [1, 3])
def test_a_build_can_be_cancelled_at_any_step(threads):
    steps = 0
    while True:
        asked = 0

        def cancel(limit=steps):
            nonlocal asked
            asked += 1
            return asked > limit

        try:
            build_graph(
                view_of(gaussian(300)),
                degree=8,
                seed=0,
                progress=lambda done, total: None,
                cancel=cancel,
                threads=threads,
                tuning=SMALL,
            )
            break
        except CancelledError:
            steps += 1
    assert steps > 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("vecdb-graph")]


def test_memory_stays_bounded():
    """Beside the vectors: candidates, lists and the graph, 4 bytes an entry, and blocks of the size of a leaf."""
    count, dim, degree = 6_000, 64, 32
    view = view_of(gaussian(count, dim))
    built(view_of(gaussian(300)))  # what is imported and compiled does not count
    with view.in_place():  # this view copies its rows when it lends them; the engine's does not
        pass
    tracemalloc.start()
    try:
        built(view, degree=degree)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    tuning = Tuning()
    lists = count * 4 * (tuning.shape.slots * tuning.near + 4 * degree + 40)
    blocks = 3 * tuning.shape.most * (dim + 16) * 4
    lent = 2 * count * dim * 4
    assert peak < 1.2 * (lists + blocks + lent)
