"""Curves of recall by effort: bounds that hold as often as they say, and efforts that reach what is asked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecdb.contracts import EffortCurve
from vecdb.contracts.effort import curve_problems, lower_bounds


def curve(efforts=(10, 20, 40), recalls=(0.5, 0.8, 0.99), queries=1_000, deviations=None, k=10):
    spread = None if deviations is None else np.array(deviations, np.float64)
    return EffortCurve(np.array(efforts, np.int64), np.array(recalls, np.float64), queries, k, spread)


def test_a_sound_curve_has_no_problems():
    assert list(curve_problems(curve())) == []
    assert list(curve_problems(curve(deviations=(0.1, 0.1, 0.0)))) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (None, "NoneType, expected EffortCurve"),
        (curve(queries=0), "queries is 0"),
        (curve(queries=True), "queries is True"),
        (curve(k=0), "k is 0"),
        (curve(k=10.0), "k is 10.0"),
        (curve(efforts=(10, 10, 20)), "do not ascend"),
        (curve(efforts=(0, 10, 20)), "do not ascend"),
        (curve(efforts=(), recalls=()), "0 points"),
        (curve(efforts=range(1, 300), recalls=[0.5] * 299), "299 points"),
        (curve(recalls=(0.5, 0.8)), r"\[2, 3\] points"),
        (curve(recalls=(0.5, 0.8, 1.1)), "outside 0 to 1"),
        (curve(recalls=(0.5, 0.8, float("nan"))), "outside 0 to 1"),
        (curve(deviations=(0.5, 0.8, -0.1)), "deviations holds a value outside"),
        (curve(deviations=(0.5, 0.8)), r"\[2, 3\] points"),
        (EffortCurve([1, 2], np.ones(2), 10), "efforts is list"),
        (EffortCurve(np.array([1, 2], np.int32), np.ones(2), 10), "efforts is int32"),
        (EffortCurve(np.array([1, 2]), np.ones((2, 1)), 10), r"recalls is float64 of shape \(2, 1\)"),
    ],
)
def test_what_is_wrong_is_named(wrong, words):
    import re

    found = list(curve_problems(wrong))
    assert found and re.search(words, "; ".join(found))


@given(
    recall=st.floats(0.0, 1.0),
    queries=st.integers(1, 100_000),
    deviation=st.none() | st.floats(0.0, 0.5),
)
def test_a_lower_bound_is_below_the_mean_and_never_below_nothing(recall, queries, deviation):
    recalls = np.array([recall])
    bound = lower_bounds(recalls, queries, None if deviation is None else np.array([deviation]))[0]
    assert 0.0 <= bound <= recall + 1e-12


@given(recall=st.floats(0.0, 1.0), queries=st.integers(1, 10_000))
def test_more_queries_and_known_deviations_make_it_tighter(recall, queries):
    recalls = np.array([recall])
    plain = lower_bounds(recalls, queries)
    assert lower_bounds(recalls, queries * 4) >= plain - 1e-12
    assert lower_bounds(recalls, queries, np.array([0.0])) >= plain


@pytest.mark.parametrize("wanted", [0.9, 0.97, 0.995])
def test_a_bound_holds_as_often_as_it_says(wanted):
    """Queries that find ten of ten, or rarely some less: means of 500 of them, against the mean of all."""
    rng = np.random.default_rng(7)
    everything = 1 - rng.binomial(10, rng.beta(0.15, 0.15 * wanted / (1 - wanted), 400_000)) / 10
    drawn = everything[rng.integers(0, len(everything), (2_000, 500))]
    for deviations in (None, drawn.std(axis=1)):
        held = lower_bounds(drawn.mean(axis=1), 500, deviations) <= everything.mean()
        assert held.mean() >= 0.94


def test_the_smallest_effort_that_reaches_a_recall():
    known = curve(queries=10**9)
    assert known.effort_for(0.4) == 10
    assert known.effort_for(0.8) == 20 or known.effort_for(0.8) == 21
    assert 20 < known.effort_for(0.9) < 40
    assert known.effort_for(0.989) == 40
    assert known.effort_for(0.995) is None


def test_few_queries_promise_less():
    assert curve(queries=20).effort_for(0.98) is None
    assert curve(queries=20).effort_for(0.6) > curve(queries=2_000).effort_for(0.6)


def test_a_curve_that_dips_counts_from_behind_the_dip():
    dipping = curve(efforts=(10, 20, 40, 80), recalls=(0.95, 0.7, 0.9, 0.99), queries=10**9)
    assert 40 < dipping.effort_for(0.92) <= 80
    assert dipping.effort_for(0.6) == 10


@given(
    recalls=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12),
    wanted=st.floats(0.0, 1.0),
    queries=st.integers(10, 5_000),
)
def test_an_effort_that_is_named_reaches_the_recall(recalls, wanted, queries):
    efforts = np.cumsum(np.arange(1, len(recalls) + 1)) * 8
    known = curve(efforts, np.sort(recalls), queries)
    effort = known.effort_for(wanted)
    if effort is None:
        assert known.lower_bounds()[-1] < wanted
    else:
        assert efforts[0] <= effort <= efforts[-1]
        reached = np.interp(np.log(effort), np.log(efforts), known.lower_bounds())
        assert reached >= wanted - 1e-9 or effort == efforts[0]


def test_what_an_effort_is_expected_to_find():
    known = curve()
    assert known.recall_at(1) == 0.5
    assert known.recall_at(20) == pytest.approx(0.8)
    assert 0.8 < known.recall_at(30) < 0.99
    assert known.recall_at(10**6) == 0.99
