"""The truth that a graph is measured against: the ten best among the rows that stay, however they come in pieces."""

from __future__ import annotations

import numpy as np
import pytest

from vecdb.indexes import graph_gauge
from vecdb.indexes.graph_gauge import true_neighbours
from vecdb.testing import datasets
from vecdb.testing.memory import MemoryView
from vecdb.types import METRICS


def wanted(metric, rows, left_out):
    scores = datasets.oracle_scores(metric, rows[left_out], rows)
    scores[:, left_out] = -np.inf
    return scores


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("piece", "few"), [(4_096, 64), (64, 64), (64, 3), (7, 64), (1, 64), (300, 0)])
def test_true_neighbours_do_not_depend_on_the_pieces(monkeypatch, metric, piece, few):
    monkeypatch.setattr(graph_gauge, "_PIECE", piece)
    monkeypatch.setattr(graph_gauge, "_FEW", few)
    rows = datasets.gaussian(300, 12, 1)
    left_out = np.arange(0, 300, 20)
    view = MemoryView(rows, metric=metric)
    places, scores = true_neighbours(view, view.gather(left_out), left_out)
    truth = wanted(metric, rows, left_out)
    for query in range(len(left_out)):
        best = np.argsort(-truth[query], kind="stable")[:10]
        assert set(places[query].tolist()) == set(best.tolist())
        order = np.argsort(-scores[query])
        assert (np.diff(truth[query][places[query][order]]) <= 1e-6).all()


@pytest.mark.parametrize("order", ["ascending", "descending"])
def test_rows_that_get_nearer_all_the_time_are_all_looked_at(monkeypatch, order):
    """Every piece holds better rows than all before it, or none of the later ones holds any."""
    monkeypatch.setattr(graph_gauge, "_PIECE", 50)
    lengths = np.linspace(1, 9, 400, dtype=np.float32)
    rows = np.outer(lengths if order == "ascending" else lengths[::-1], np.ones(4, np.float32)).astype(np.float32)
    view = MemoryView(rows, metric="dot")
    left_out = np.array([200, 201])
    places, _ = true_neighbours(view, view.gather(left_out), left_out)
    best = set(range(390, 400)) if order == "ascending" else set(range(10))
    assert [set(row) for row in places.tolist()] == [best, best]


def test_fewer_rows_than_neighbours_leave_places_empty():
    rows = datasets.gaussian(7, 5, 2)
    view = MemoryView(rows, metric="l2")
    left_out = np.array([0, 6])
    places, scores = true_neighbours(view, view.gather(left_out), left_out)
    assert (np.isfinite(scores).sum(axis=1) == 5).all()
    assert [sorted(row) for row in places.tolist()] == [[-1] * 5 + [1, 2, 3, 4, 5]] * 2


def test_many_equal_rows_are_ten_of_them():
    rows = np.ones((500, 6), np.float32)
    view = MemoryView(rows, metric="cosine")
    left_out = np.arange(0, 500, 50)
    places, _ = true_neighbours(view, view.gather(left_out), left_out)
    assert all(len(set(row)) == 10 and not set(row) & set(left_out.tolist()) for row in places.tolist())
