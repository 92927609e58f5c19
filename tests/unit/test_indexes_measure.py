"""Effort by measure: true neighbours, ranks, the rule that follows and the curve it leads to, on paper and on data."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.contracts.effort import EffortCurve
from vecdb.indexes import measure
from vecdb.indexes.measure import Rule, Truth
from vecdb.indexes.samples import spread_positions
from vecdb.testing import datasets

METRICS = ("cosine", "dot", "l2")


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("piece", [7, 100, 1_000])
def test_true_neighbours_are_those_of_the_oracle_without_the_vector_itself(metric, piece):
    rows = datasets.gaussian(300, 12, 1)
    places = np.array([0, 17, 150, 299])
    truth = Truth(metric, rows[places], places)
    for start in range(0, 300, piece):
        truth.see(start, rows[start : start + piece])
    scores = datasets.oracle_scores(metric, rows[places], rows)
    scores[np.arange(4), places] = -np.inf
    for row in range(4):
        assert set(truth.positions[row].tolist()) == set(datasets.best(scores[row], 10).tolist())


def test_few_vectors_have_few_neighbours_and_no_questions_no_answers():
    rows = datasets.gaussian(4, 3, 1)
    truth = Truth("l2", rows[:1], np.array([0]))
    truth.see(0, rows)
    assert sorted(truth.positions[0].tolist()) == [-1] * 7 + [1, 2, 3]
    nothing = Truth("l2", rows[:0], np.empty(0, np.int64))
    nothing.see(0, rows)
    assert nothing.positions.shape == (0, 10)
    assert measure.measure_curve(nothing.positions, nothing.positions, Rule((), ()), 4) is None
    assert measure.measure_rule(nothing.positions, nothing.positions) == Rule((), ())


def test_ranks_leave_the_vector_itself_out_and_stop_at_what_was_found():
    truth = Truth("dot", np.zeros((1, 2), np.float32), np.array([5]))
    truth.positions = np.array([[7, 2, 9, -1, 8, 3, 1, 0, 4, 6]])
    found = np.array([[7, 5, 9, 3, -1]])
    assert measure.ranks_of(found, truth)[0].tolist() == [1, 6, 2, -1, 6, 3, 6, 6, 6, 6]
    assert (measure.ranks_of(np.array([[5]]), truth)[0] == [2, 2, 2, -1, 2, 2, 2, 2, 2, 2]).all()


def test_rows_before_are_those_of_nearer_lists():
    truth = Truth("dot", np.zeros((2, 2), np.float32), np.array([0, 1]))
    truth.positions = np.tile(np.array([0, 1, 2, 3, 4, -1, -1, -1, -1, -1]), (2, 1))
    nearness = np.array([[1.0, 3.0, 3.0], [5.0, 4.0, 9.0]], np.float32)
    sizes = np.array([10, 20, 40])
    found = measure.rows_before(nearness, sizes, np.array([0, 1, 2, 2, 1]), truth)
    assert found[:, :5].tolist() == [[60, 0, 20, 20, 0], [40, 50, 0, 0, 50]]


points = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 60)), max_size=6)


@settings(max_examples=200)
@given(points, st.integers(1, 300))
def test_a_rule_rises_asks_for_enough_and_ends_with_everything(steps, count):
    efforts, rows, effort, row = [], [], 0, 0
    for up, more in steps:
        effort += up
        row = max(row + more, effort)
        efforts.append(effort)
        rows.append(row)
    rule = Rule(tuple(efforts), tuple(rows))
    asked = [rule.rows_for(each, count) for each in range(1, count + 1)]
    assert all(later >= earlier for earlier, later in pairwise(asked))
    assert all(looked >= each for each, looked in enumerate(asked, 1))
    assert asked[-1] >= count
    for at, each in enumerate(efforts):
        if each <= count:
            assert asked[each - 1] == rows[at]


def noise(seed, queries=50):
    rng = np.random.default_rng(seed)
    ranks = np.ceil(rng.lognormal(2.5, 0.8, (queries, 10))).astype(np.int64)
    before = np.floor(rng.lognormal(5, 1.2, (queries, 10))).astype(np.int64)
    return np.minimum(ranks, measure.MOST + 1), np.minimum(before, 9_000)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1_000))
def test_the_rule_reaches_each_share_and_the_curve_says_what_the_rule_finds(seed):
    ranks, before = noise(seed)
    rule = measure.measure_rule(ranks, before)
    assert list(rule.efforts) == sorted(set(rule.efforts)) and list(rule.rows) == sorted(rule.rows)
    found = [((ranks <= effort) & (before < rows)).mean() for effort, rows in zip(rule.efforts, rule.rows, strict=True)]
    assert found == sorted(found) and found[-1] >= 0.97
    curve = measure.measure_curve(ranks, before, rule, 10_000)
    assert (np.diff(curve.recalls) >= 0).all() and curve.queries == 50 and curve.k == 10
    for effort, recall in zip(curve.efforts.tolist(), curve.recalls, strict=True):
        assert recall == pytest.approx(((ranks <= effort) & (before < rule.rows_for(effort, 10_000))).mean())
    wanted = measure.default_effort(curve, 10_000)
    assert wanted >= measure.LEAST
    assert curve.recall_at(wanted) >= min(measure.WANTED, curve.recalls[-1]) - 1e-9


def test_less_work_is_not_to_be_had_for_the_same_share():
    ranks, before = noise(3, 500)
    rule = measure.measure_rule(ranks, before)
    place = int(np.argmin([abs(((ranks <= e) & (before < w)).mean() - 0.95) for e, w in _both(rule)]))
    effort, rows = rule.efforts[place], rule.rows[place]
    share, work = ((ranks <= effort) & (before < rows)).mean(), 200 * effort + rows
    for other in (12, 16, 24, 32, 48, 64, 96, 128):
        for looked in range(200, 9_000, 200):
            if ((ranks <= other) & (before < looked)).mean() >= share:
                assert 200 * other + looked >= 0.75 * work  # within what its grid of efforts can tell apart


def _both(rule):
    return zip(rule.efforts, rule.rows, strict=True)


def test_the_default_is_the_most_there_is_where_nothing_was_measured_or_nothing_is_enough():
    ranks, before = noise(4)
    ranks[:, 0] = measure.MOST + 1
    curve = measure.measure_curve(ranks, before, measure.measure_rule(ranks, before), 10_000)
    assert curve.recalls[-1] < 0.99 and measure.default_effort(curve, 10_000) == curve.efforts[-1]
    assert measure.default_effort(None, 300) == 300 and measure.default_effort(None, 10**6) == measure.MOST


def test_a_curve_of_searches_counts_what_they_found():
    truth = Truth("dot", np.zeros((2, 2), np.float32), np.array([90, 91]))
    truth.positions = np.array([[*range(10)], [0, 1, 2, 3, -1, -1, -1, -1, -1, -1]])
    curve = EffortCurve(np.array([10, 20]), np.zeros(2), 2)
    answers = {10: [[90, 0, 1, -1], [50, 51, 52, -1]], 20: [[*range(10)], [91, 3, 2, 1, 0, 5, 6, 7, -1, -1]]}
    found = measure.searched_curve(curve, truth, lambda effort: np.array(answers[effort]))
    assert found.recalls.tolist() == [0.1, 1.0] and found.deviations.tolist() == [0.1, 0.0]
    assert found.efforts.tolist() == [10, 20] and (found.queries, found.k) == (2, 10)


@pytest.mark.parametrize(("count", "most"), [(1, 1), (1, 9), (9, 9), (10, 3), (1_000, 64), (3, 2)])
def test_positions_are_spread_from_the_first_to_the_last(count, most):
    found = spread_positions(count, most)
    assert len(found) == min(count, most) and found[0] == 0 and (most == 1 or found[-1] == count - 1)
    assert (np.diff(found) > 0).all() and (len(found) < 3 or np.ptp(np.diff(found)) <= 1)
