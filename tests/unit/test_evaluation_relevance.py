"""Measures of judged candidates against plain oracles and known distributions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.evaluation.pools import JudgedPool, drawn, measurer
from vecdb.evaluation.relevance import (
    Consistency,
    Curve,
    brier_skill,
    calibration_error,
    equal_mass_bins,
    opis_cuts,
    pr_auc,
    precision_at,
)


@st.composite
def judged(draw):
    count = draw(st.integers(2, 30))
    values = np.array(draw(st.lists(st.integers(0, 6), min_size=count, max_size=count)), np.float32) / 7
    labels = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    labels[draw(st.integers(0, count - 1))] = True
    weights = np.array(draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)), float)
    return values, labels, weights


def points(values, labels):
    """Precision and recall at each distinct value, the plain way."""
    for cut in sorted(set(values.tolist()), reverse=True):
        kept = values >= cut
        yield cut, labels[kept].mean(), labels[kept].sum() / labels.sum()


@given(judged())
def test_average_precision_is_the_sum_over_thresholds(given_):
    values, labels, _ = given_
    area, before = 0.0, 0.0
    for _, precision, recall in points(values, labels):
        area, before = area + precision * (recall - before), recall
    assert pr_auc(values, labels) == pytest.approx(area)


@given(judged(), st.sampled_from([0.1, 0.5, 0.95, 1.0]))
def test_precision_at_a_recall_is_that_of_the_highest_threshold_with_it(given_, recall):
    values, labels, _ = given_
    precision, cut = next((p, c) for c, p, r in points(values, labels) if r >= recall - 1e-12)
    assert precision_at(values, labels, recall) == pytest.approx(precision)
    assert Curve(values, labels).at_recall(recall)[1] == pytest.approx(cut)


@given(judged())
def test_a_weight_is_so_many_copies(given_):
    values, labels, weights = given_
    many = np.repeat(np.arange(len(values)), weights.astype(int))
    if not labels[many].any():
        return
    assert pr_auc(values, labels, weights) == pytest.approx(pr_auc(values[many], labels[many]))
    assert precision_at(values, labels, 0.95, weights) == pytest.approx(precision_at(values[many], labels[many]))
    one, other = brier_skill(values, labels, weights), brier_skill(values[many], labels[many])
    assert one == pytest.approx(other, nan_ok=True)


@given(judged())
def test_a_rising_map_changes_no_order(given_):
    values, labels, _ = given_
    assert pr_auc(np.exp(3 * values.astype(float)), labels) == pytest.approx(pr_auc(values, labels))


def test_a_perfect_order_has_area_one_and_random_values_the_base_rate():
    labels = np.arange(1000) < 100
    assert pr_auc(-np.arange(1000.0), labels) == 1.0
    assert pr_auc(np.zeros(1000), labels) == pytest.approx(0.1)
    labels = np.arange(50_000) < 5_000
    assert pr_auc(np.random.default_rng(0).random(50_000), labels) == pytest.approx(0.1, abs=0.01)


def test_bins_hold_equal_mass_and_equal_values_together():
    values = np.random.default_rng(1).random(1500)
    assert set(np.bincount(equal_mass_bins(values, 15)).tolist()) == {100}
    assert len(set(equal_mass_bins(np.repeat([0.1, 0.9], 50), 15).tolist())) == 2


def test_true_probabilities_are_calibrated_and_shifted_ones_are_off_by_the_shift():
    rng = np.random.default_rng(2)
    truth = rng.uniform(0.2, 0.7, 60_000)
    labels = rng.random(60_000) < truth
    assert calibration_error(truth, labels) < 0.01
    assert calibration_error(truth + 0.2, labels) == pytest.approx(0.2, abs=0.01)
    assert brier_skill(np.full(60_000, labels.mean()), labels) == pytest.approx(0.0, abs=1e-9)
    variance = truth.var() / (labels.mean() * (1 - labels.mean()))
    assert brier_skill(truth, labels) == pytest.approx(variance, abs=0.01)


def utility(values, labels, cut):
    kept, out = (values[labels] >= cut).mean(), (values[~labels] < cut).mean()
    return 2 * kept * out / max(kept + out, 1e-12)


def test_consistency_is_the_variance_of_utilities_between_groups():
    rng = np.random.default_rng(3)
    values, labels, owners = rng.random(400), rng.random(400) < 0.3, np.repeat(np.arange(20), 20)
    groups = np.arange(20) % 4
    cuts = np.linspace(0.1, 0.9, 7)
    table = np.array(
        [[utility(values[groups[owners] == g], labels[groups[owners] == g], cut) for cut in cuts] for g in range(4)]
    )
    found = Consistency(values, labels, owners, groups, cuts)
    assert found() == pytest.approx(((table - table.mean(0)) ** 2).mean())
    weights = rng.integers(0, 3, 20).astype(float)
    some = np.repeat(np.arange(400), weights[owners].astype(int))
    table = np.array(
        [
            [utility(values[some][groups[owners[some]] == g], labels[some][groups[owners[some]] == g], c) for c in cuts]
            for g in range(4)
        ]
    )
    assert found(weights) == pytest.approx(((table - table.mean(0)) ** 2).mean())


def test_groups_that_agree_are_consistent_and_one_group_says_nothing():
    values, labels = np.tile([0.9, 0.1, 0.2], 10), np.tile([True, False, False], 10)
    owners = np.repeat(np.arange(10), 3)
    cuts = opis_cuts(values, labels)
    assert Consistency(values, labels, owners, np.arange(10), cuts)() == 0.0
    assert np.isnan(Consistency(values, labels, owners, np.zeros(10, np.int64), cuts)())


def pool(queries=40, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.zeros((queries, 12), bool)
    labels[np.arange(queries), rng.integers(0, 12, queries)] = True
    scores = -np.sort(-(0.5 * labels + rng.random((queries, 12))), axis=1).astype(np.float32)
    clusters = np.arange(queries) // 2
    return JudgedPool(scores, labels, np.ones((queries, 12), bool), clusters, clusters)


def test_resamples_are_the_same_for_both_sides_of_a_comparison():
    some = pool()
    one = drawn(measurer(some, some.scores, 0.7), some.clusters, resamples=20)
    other = drawn(measurer(some, 2 * some.scores), some.clusters, resamples=20)
    for name in ("pr_auc", "precision_at_95", "opis"):
        estimate = one.minus(other).estimates()[name]
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.0, 0.0, 0.0))
    for name, estimate in one.estimates().items():
        assert estimate.low <= estimate.high or np.isnan(estimate.low), name


@settings(max_examples=10)
@given(st.integers(0, 50))
def test_what_is_kept_is_counted(seed):
    some = pool(seed=seed)
    value = measurer(some, some.scores, 0.7)(None)
    kept = some.scores >= np.float32(0.7)
    assert value["kept"] == pytest.approx(kept.mean())
    assert value["recall"] == pytest.approx(kept[some.labels].mean())
