"""Recall with ties, curves, interpolation between settings, ratios within rounds, verdicts."""

import itertools
import math
from statistics import median

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tools.bench.compare import arithmetic as a
from tools.bench.compare.sets import tenth_best


def unit(rng, count, dim=8):
    rows = rng.standard_normal((count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# --- recall -----------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32), st.integers(0, 10))
def test_recall_is_the_share_of_the_true_ten(seed, kept):
    rng = np.random.default_rng(seed)
    rows, queries = unit(rng, 60), unit(rng, 5)
    order = np.argsort(-(queries.astype(np.float64) @ rows.astype(np.float64).T), axis=1)
    found = np.full((5, 10), -1, np.int64)
    found[:, :kept] = order[:, :kept]
    found[:, kept:] = order[:, 59 : 59 - (10 - kept) : -1] if kept < 10 else found[:, kept:]
    assert a.recall(found, rows, queries, tenth_best(rows, queries), 10) == pytest.approx(kept / 10)


def test_any_of_several_equal_rows_counts_and_none_counts_twice():
    rows = np.repeat(np.eye(2, 4, dtype=np.float32), 15, axis=0)
    queries = rows[:1]
    floors = tenth_best(rows, queries)
    assert a.recall(np.arange(5, 15)[None], rows, queries, floors, 10) == 1
    assert a.recall(np.full((1, 10), 3), rows, queries, floors, 10) == pytest.approx(0.1)
    assert a.recall(np.arange(15, 25)[None], rows, queries, floors, 10) == 0
    assert a.recall(np.full((1, 10), -1), rows, queries, floors, 10) == 0


def test_with_fewer_than_ten_rows_there_is_no_floor():
    rows = np.eye(3, dtype=np.float32)
    assert tenth_best(rows, rows).tolist() == [-math.inf] * 3


# --- curves -----------------------------------------------------------------------------------------------


def point(recall, *seconds, name=""):
    return a.Point(name or str(recall), recall, seconds, tuple(2 * each for each in seconds))


recalls = st.floats(0.5, 1.0)
times = st.floats(1e-5, 1e-1)
curves = st.lists(st.tuples(recalls, times), min_size=1, max_size=12).map(
    lambda pairs: [point(recall, seconds) for recall, seconds in pairs]
)


@given(curves)
def test_the_frontier_holds_what_nothing_beats(points):
    best = a.frontier(points)
    assert [each.recall for each in best] == sorted({each.recall for each in best})
    assert all(first.rate() > second.rate() for first, second in itertools.pairwise(best))
    for each in points:
        assert any(other.recall >= each.recall and other.rate() >= each.rate() for other in best)


@given(curves, recalls)
def test_a_rate_at_a_recall_lies_between_the_settings_around_it(points, target):
    place = a.bracket(points, target)
    if place is None:
        assert all(each.recall < target for each in points)
        return
    assert place.low.recall <= target <= place.high.recall or place.low is place.high
    assert place.high.recall >= target
    low, high = sorted((place.low.rate(), place.high.rate()))
    assert low * (1 - 1e-9) <= place.rate() <= high * (1 + 1e-9)


@given(curves, recalls, recalls)
def test_more_recall_is_never_faster(points, first, second):
    low, high = (a.bracket(points, target) for target in sorted((first, second)))
    assume(low is not None and high is not None)
    assert low.rate() >= high.rate() * (1 - 1e-9)


def test_interpolation_is_log_linear_and_round_by_round():
    place = a.bracket([point(0.9, 1e-4, 2e-4, 4e-4), point(1.0, 1e-2, 2e-2, 4e-2)], 0.95)
    assert place.share == pytest.approx(0.5)
    assert place.seconds("wall") == pytest.approx((1e-3, 2e-3, 4e-3))
    assert place.rate("wall") == pytest.approx(500) and place.rate("cpu") == pytest.approx(250)


def test_a_curve_above_the_target_starts_with_its_first_point():
    place = a.bracket([point(0.97, 1e-3), point(0.99, 2e-3)], 0.95)
    assert place.low is place.high and place.rate("wall") == pytest.approx(1000)


# --- ratios -----------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(times, times, st.floats(0.2, 5)), min_size=1, max_size=9))
def test_a_round_that_is_slow_for_everyone_changes_no_ratio(rounds):
    own, theirs, slow = zip(*rounds, strict=True)
    plain = a.rounds_ratio(own, theirs)
    slowed = a.rounds_ratio(*([x * s for x, s in zip(side, slow, strict=True)] for side in (own, theirs)))
    assert plain == pytest.approx(slowed)
    assert plain == pytest.approx(median(y / x for x, y in zip(own, theirs, strict=True)))


def test_ratios_come_from_the_last_run_that_both_were_part_of():
    fast, slow = [point(0.99, 1e-4)], [point(0.99, 4e-4)]
    own = {"1": fast, "2": slow}
    assert a.ratio_at(own, {"1": slow, "2": slow}, 0.95) == pytest.approx(1)
    assert a.ratio_at(own, {"1": slow}, 0.95) == pytest.approx(4)
    assert a.ratio_at(own, {"3": slow}, 0.95) is None
    assert a.ratio_at(own, {"2": slow}, 0.999) is None


def test_runs_apart_are_compared_through_an_anchor_of_both():
    own, theirs = {"2": [point(0.99, 1e-4)]}, {"1": [point(0.99, 1e-3)]}
    anchor = {"1": [point(0.99, 2e-3)], "2": [point(0.99, 1e-3)]}
    assert a.ratio_through(own, theirs, anchor, 0.95) == pytest.approx(10 / 2)
    assert a.ratio_through(own, theirs, {"2": anchor["2"]}, 0.95) is None
    both = theirs | {"2": [point(0.99, 3e-4)]}
    assert a.ratio_through(own, both, anchor, 0.95) == pytest.approx(3)


@pytest.mark.parametrize(
    ("ratio", "bar", "at_least", "text"),
    [
        (3.9, 3.0, True, "held"),
        (3.1, 3.0, True, "held, within noise"),
        (2.9, 3.0, True, "missed, within noise"),
        (2.0, 3.0, True, "missed"),
        (0.1, 0.25, False, "held"),
        (0.3, 0.25, False, "missed, within noise"),
        (0.5, 0.25, False, "missed"),
        (None, 0.25, False, "not measured"),
    ],
)
def test_verdicts_name_what_is_noise(ratio, bar, at_least, text):
    assert a.Verdict(ratio, bar, at_least).text == text


@given(st.floats(0.01, 100))
def test_noise_is_symmetric(ratio):
    assert a.same(ratio) == a.same(1 / ratio) == (1 / a.NOISE < ratio < a.NOISE)
