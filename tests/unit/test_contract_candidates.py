"""`Candidates.ordered`: what a library found, in the order that the index contract asks for."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vecdb.contracts import Candidates

SCORES = st.sampled_from([-np.inf, -3.0, -1.5, 0.0, 0.25, 0.5, 4.0])
FOUND = st.lists(st.tuples(st.integers(-2, 30), SCORES), min_size=1, max_size=12)


def plainly(row):
    """The same by sorting tuples."""
    there = sorted((-score, position) for position, score in row if position >= 0)
    answer = [(position, -score) for score, position in there]
    return answer + [(-1, -np.inf)] * (len(row) - len(answer))


@given(st.lists(FOUND, min_size=1, max_size=4))
def test_rows_are_sorted_by_score_then_position_with_nothing_behind_the_last(rows):
    width = min(map(len, rows))
    rows = [row[:width] for row in rows]
    positions = [[position for position, _ in row] for row in rows]
    scores = [[score for _, score in row] for row in rows]
    found = Candidates.ordered(positions, scores)
    assert found.positions.dtype == np.int64 and found.scores.dtype == np.float32
    for row, places, values in zip(rows, found.positions.tolist(), found.scores.tolist(), strict=True):
        assert list(zip(places, values, strict=True)) == plainly(row)


def test_what_it_is_given_stays_as_it_is():
    positions, scores = np.array([[3, -1, 1]]), np.array([[0.5, 9.0, 0.5]], np.float32)
    found = Candidates.ordered(positions, scores)
    assert found.positions.tolist() == [[1, 3, -1]]
    assert positions.tolist() == [[3, -1, 1]] and scores.tolist() == [[0.5, 9.0, 0.5]]


def test_no_columns_and_no_rows_are_fine():
    assert Candidates.ordered(np.empty((3, 0)), np.empty((3, 0))).positions.shape == (3, 0)
    assert Candidates.ordered(np.empty((0, 4)), np.empty((0, 4))).scores.shape == (0, 4)


@given(st.lists(FOUND, min_size=1, max_size=4))
def test_what_is_in_order_stays_as_it_is(rows):
    width = min(map(len, rows))
    first = Candidates.ordered(
        [[position for position, _ in row[:width]] for row in rows],
        [[score for _, score in row[:width]] for row in rows],
    )
    again = Candidates.ordered(*first)
    assert np.array_equal(first.positions, again.positions) and np.array_equal(first.scores, again.scores)
    assert not np.shares_memory(first.positions, again.positions)


def test_equal_scores_are_not_in_order_unless_their_positions_are():
    assert Candidates.ordered([[9, 2]], [[1.0, 1.0]]).positions.tolist() == [[2, 9]]
    assert Candidates.ordered([[9, 2], [1, 5]], [[1.0, 0.5], [0.5, 1.0]]).positions.tolist() == [[9, 2], [5, 1]]
