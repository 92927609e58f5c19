"""Linking rows into a graph: they are found, nothing else is lost, and what is gone does no harm."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.graphs import METRICS, built, check_form, check_order, gaussian, geometry, recall, view_of
from vecdb.errors import CancelledError
from vecdb.indexes.graph_build import unreachable
from vecdb.indexes.graph_link import link
from vecdb.indexes.graph_lists import Tuning
from vecdb.indexes.graph_partition import Shape
from vecdb.testing.memory import MemoryView

SMALL = Tuning(shape=Shape(least=10, wanted=40, most=90, fans=(3, 2), leaders=16), near=8)


def joined(graph, view, rows, candidates, threads=1, cancel=lambda: False, progress=lambda done, total: None):
    return link(graph, view, rows, candidates, seed=3, progress=progress, cancel=cancel, threads=threads, tuning=SMALL)


def nearest_linked(rows, new, old, metric, most=20):
    wide = geometry(rows, metric)
    squares = ((wide[new][:, None] - wide[old][None]) ** 2).sum(axis=2)
    return old[np.argsort(squares, axis=1)[:, :most]]


@pytest.mark.parametrize("metric", METRICS)
def test_rows_left_out_are_linked_later(metric):
    rows, queries = gaussian(1_200, 10), gaussian(50, 10, seed=8)
    order = np.random.default_rng(0).permutation(1_200)
    new, old = np.sort(order[:120]), np.sort(order[120:])
    view = view_of(rows, metric)
    graph = built(view, left_out=new, tuning=SMALL)
    before = graph.neighbours.copy()
    whole = joined(graph, view, new, nearest_linked(rows, new, old, metric))
    check_form(whole, rows, metric)
    check_order(whole, rows, metric)
    assert (graph.neighbours == before).all() and (whole.entries == graph.entries).all()
    assert (
        recall(whole, rows, queries, metric, 60) > recall(built(view, tuning=SMALL), rows, queries, metric, 60) - 0.03
    )


def test_a_view_may_grow():
    rows = gaussian(900, 10)
    graph = built(view_of(rows[:800]), tuning=SMALL)
    new, old = np.arange(800, 900), np.arange(800)
    whole = joined(graph, view_of(rows), new, nearest_linked(rows, new, old, "l2"))
    check_form(whole, rows, "l2")
    untouched = np.setdiff1d(old, whole.neighbours[new])
    assert (whole.neighbours[untouched] == graph.neighbours[untouched]).mean() > 0.99


def test_new_rows_of_a_place_of_their_own_hang_together():
    """A search finds candidates only among linked rows; those that came together are offered to each other."""
    near, far = gaussian(600, 6), gaussian(400, 6, seed=1) + np.float32(1e3)
    rows = np.concatenate([near, far])
    graph = built(view_of(near), tuning=SMALL)
    new = np.arange(600, 1_000)
    candidates = np.repeat(np.arange(10)[None], 400, axis=0)
    whole = joined(graph, view_of(rows), new, candidates)
    check_form(whole, rows, "l2")
    assert recall(whole, rows, far[:40] + np.float32(0.01), "l2", effort=60) > 0.9


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(2, 200),
    share=st.floats(0.02, 0.98),
    degree=st.integers(1, 20),
    levels=st.integers(1, 5),
    metric=st.sampled_from(METRICS),
    seed=st.integers(0, 2**30),
)
def test_any_rows_can_be_linked(count, share, degree, levels, metric, seed):
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, levels, (count, 4)).astype(np.float32)
    new = np.sort(rng.permutation(count)[: min(count - 1, max(1, int(share * count)))])
    old = np.setdiff1d(np.arange(count), new)
    view = view_of(rows, metric)
    graph = built(view, degree=degree, left_out=new, tuning=SMALL)
    candidates = np.where(rng.random((len(new), 5)) < 0.3, -1, rng.choice(old, (len(new), 5)))
    whole = joined(graph, view, new, candidates)
    check_form(whole, rows, metric)


@pytest.mark.parametrize("degree", [2, 16])
def test_rows_that_are_gone_stay_on_the_way(degree):
    rows = gaussian(500, 8)
    graph = built(view_of(rows[:400]), degree=degree, tuning=SMALL)
    gone = np.random.default_rng(0).permutation(400)[:150]
    view = MemoryView(rows, metric="l2", removed=gone.tolist())
    there = np.setdiff1d(np.arange(400), gone)
    new = np.arange(400, 500)
    candidates = np.concatenate([nearest_linked(rows, new, there, "l2", 10), np.tile(gone[:5], (100, 1))], axis=1)
    whole = joined(graph, view, new, candidates)
    check_form(whole, rows, "l2")
    assert not np.isin(whole.neighbours[new], gone).all(axis=1).any()


def test_all_known_rows_may_be_gone():
    rows = gaussian(60, 8)
    graph = built(view_of(rows[:40]), degree=4, tuning=SMALL)
    view = MemoryView(rows, metric="cosine", removed=range(40))
    whole = joined(graph, view, np.arange(40, 60), np.full((20, 3), -1))
    check_form(whole, rows, "cosine")


def test_nothing_to_link_changes_nothing():
    rows = gaussian(100)
    graph = built(view_of(rows), tuning=SMALL)
    told = []
    none = np.empty(0, np.int64)
    whole = joined(graph, view_of(rows), none, np.empty((0, 4), np.int64), progress=lambda *done: told.append(done))
    assert whole.neighbours.tobytes() == graph.neighbours.tobytes() and told[-1][0] == told[-1][1]


def test_linking_does_not_depend_on_the_threads():
    rows = gaussian(3_000, 10)
    view, new = view_of(rows), np.arange(2_000, 3_000)
    graph = built(view, left_out=new, tuning=SMALL)
    candidates = nearest_linked(rows, new, np.arange(2_000), "l2")
    one, two = (joined(graph, view, new, candidates, threads) for threads in (1, 4))
    assert one.neighbours.tobytes() == two.neighbours.tobytes()
    assert unreachable(one).size == 0


def test_linking_can_be_cancelled():
    rows = gaussian(300)
    view, new = view_of(rows), np.arange(250, 300)
    graph = built(view, left_out=new, tuning=SMALL)
    with pytest.raises(CancelledError):
        joined(graph, view, new, np.zeros((50, 1), np.int64), cancel=lambda: True)
