"""The built-in kinds of relevance filter, each by what it promises: on problems whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.contracts import RelevanceData
from vecdb.errors import CorruptionError, FitError
from vecdb.evaluation.relevance import calibration_error
from vecdb.relevance.adapter import AdapterType
from vecdb.relevance.background import BackgroundType, pareto_tail
from vecdb.relevance.conformal import ConformalType, risk_threshold
from vecdb.relevance.curves import METHODS, fit_curve, load_curve, logistic, pav
from vecdb.relevance.lists import list_features
from vecdb.relevance.mapnet import FAMILIES, Scale, Task, _slopes, mapped, outputs_of
from vecdb.relevance.outlier import Centre, Lines, Neighbours, OutlierType
from vecdb.relevance.pool import Keep, chosen_threshold, in_order
from vecdb.relevance.scored import GapType, ThresholdType, gap_cuts
from vecdb.testing import planted
from vecdb.types import Space


def settled(kind, **changes):
    return {name: param.default for name, param in kind.parameters.items()} | changes


def fitted(kind, data, **changes):
    return kind.fit(data, settled(kind, **changes))


# --- curves -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_curves_find_the_probabilities_that_made_the_labels(method):
    rng = np.random.default_rng(0)
    scores = rng.normal(0.4, 0.2, 40_000)
    truth = 1 / (1 + np.exp(-(9 * scores - 4)))
    labels = rng.random(len(scores)) < truth
    curve = fit_curve(method, scores, labels)
    asked = np.linspace(0.1, 0.8, 50)
    off = np.abs(curve(asked) - 1 / (1 + np.exp(-(9 * asked - 4))))
    assert off.max() < (0.02 if method == "platt" else 0.06)
    assert calibration_error(curve(scores), labels) < 0.01


@pytest.mark.parametrize("method", METHODS)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_curves_never_fall_stay_inside_and_are_stored_whole(method, data):
    count = data.draw(st.integers(4, 40))
    scores = np.array(data.draw(st.lists(st.integers(-5, 5), min_size=count, max_size=count)), float) / 3
    labels = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    labels[:2] = [True, False]
    curve = fit_curve(method, scores, labels)
    asked = np.linspace(-4, 4, 101)
    said = curve(asked)
    assert (np.diff(said) >= -1e-12).all() and (said > 0).all() and (said < 1).all()
    assert np.array_equal(load_curve(curve.state())(asked), said)
    turned = np.random.default_rng(0).permutation(count)
    np.testing.assert_allclose(fit_curve(method, scores[turned], labels[turned])(asked), said, atol=1e-6)


def test_curves_that_no_fit_has_made_are_refused():
    for state in (
        {"method": "platt", "numbers": np.array([-1.0, 0.0])},
        {"method": "beta", "numbers": np.array([1.0, 0.0, 1.0, 1.0, 0.0])},
        {"method": "isotonic", "numbers": np.array([0.0, 1.0, 0.9, 0.1])},
        {"method": "isotonic", "numbers": np.array([0.0, 1.0, 0.1])},
        {"method": "other", "numbers": np.array([1.0, 0.0])},
    ):
        with pytest.raises(CorruptionError):
            load_curve(state)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4)), min_size=1, max_size=25))
def test_pooled_blocks_are_the_least_squares_rising_fit(pairs):
    values, mass = (np.array(each, float) for each in zip(*pairs, strict=True))
    starts = pav(values, mass)
    means = np.add.reduceat(values * mass, starts) / np.add.reduceat(mass, starts)
    assert (np.diff(means) > 0).all()
    for place in range(len(values)):  # the min-max formula (Barlow et al., 1972)
        block = means[np.searchsorted(starts, place, side="right") - 1]
        lower = [
            min(np.average(values[a:b], weights=mass[a:b]) for b in range(place + 1, len(values) + 1))
            for a in range(place + 1)
        ]
        assert block == pytest.approx(max(lower))


# --- thresholds -------------------------------------------------------------------------------------------


def test_thresholds_are_those_that_were_asked_for():
    values = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], np.float32)
    labels = np.array([True, True, False, True, False, False])
    assert chosen_threshold(values, labels, Keep("recall", 0.6)) == pytest.approx(0.8)
    assert chosen_threshold(values, labels, Keep("recall", 1.0)) == pytest.approx(0.6)
    assert chosen_threshold(values, labels, Keep("precision", 1.0)) == pytest.approx(0.8)
    assert chosen_threshold(values, labels, Keep("f1", 0.0)) == pytest.approx(0.6)


def test_parts_keep_groups_whole_and_the_order():
    data = planted.judged(queries=30)
    one, two, three = in_order(data, 0.5, 0.3, 0.2)
    assert (one.astype(int) + two + three == 1).all()
    assert [part.sum() for part in (one, two, three)] == [15, 9, 6]
    for part in (one, two, three):
        assert len(set(data.groups[part]) & set(data.groups[~part])) == 0
    assert one[:15].all()


def test_a_raw_threshold_keeps_what_scores_as_much():
    data = planted.judged()
    made = fitted(ThresholdType(), data, by="recall", level=0.9)
    used = ~data.ignore & (data.labels >= 0)
    kept = data.scores[used] >= np.float32(made.cut)
    assert kept[data.labels[used] == 1].mean() >= 0.9
    said = made.relevance(data.scores, None, None, count=1)[used]
    assert ((said >= np.float32(made.threshold)) == kept).all()


def test_the_largest_gap_cuts():
    scores = np.array([[0.9, 0.85, 0.5, 0.45], [0.9, 0.1, 0.0, -np.inf], [0.3, -np.inf, -np.inf, -np.inf]], np.float32)
    assert gap_cuts(scores, 10, 0.0).tolist() == [np.float32(0.85), np.float32(0.9), -np.inf]
    assert gap_cuts(scores, 10, 0.5).tolist() == [-np.inf, np.float32(0.9), -np.inf]
    assert fitted(GapType(), planted.judged()).threshold > 0


# --- conformal --------------------------------------------------------------------------------------------


def risk(cut, scores, owners):
    return np.mean([np.mean(scores[owners == owner] < cut) for owner in np.unique(owners)])


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 20)), min_size=25, max_size=60), st.sampled_from([0.1, 0.3])
)
def test_the_conformal_threshold_is_the_highest_score_within_the_bound(pairs, alpha):
    owners, scores = (np.array(each) for each in zip(*pairs, strict=True))
    queries = len(np.unique(owners))
    if queries < 1 / alpha - 1:
        with pytest.raises(FitError):
            risk_threshold(scores.astype(float), owners, alpha)
        return
    cut = risk_threshold(scores.astype(float), owners, alpha)
    bound = [queries / (queries + 1) * risk(c, scores, owners) + 1 / (queries + 1) for c in np.unique(scores)]
    allowed = [c for c, each in zip(np.unique(scores), bound, strict=True) if each <= alpha + 1e-12]
    assert cut == max(allowed)


def test_conformal_risk_is_controlled_over_many_draws():
    """Mean loss over fresh queries, over repeated calibrations, is at most alpha, and not far below."""
    rng = np.random.default_rng(1)
    losses = []
    for _ in range(400):
        owners = np.repeat(np.arange(60), 2)
        cut = risk_threshold(rng.normal(size=120), owners, 0.2)
        losses.append(np.mean(rng.normal(size=2000) < cut))
    assert 0.17 < np.mean(losses) <= 0.2 + 2 * np.std(losses) / 20


def test_conformal_counts_what_no_pool_holds_only_where_it_is_asked_to():
    data = planted.judged(queries=90)
    low = np.array([(query, -1.0) for query in range(0, 90, 3)], np.float32)
    missed = replace(data, missed=planted.read_only(low))
    kind = ConformalType()
    assert fitted(kind, missed, of="pool").cut == fitted(kind, data, of="pool").cut
    assert fitted(kind, missed, of="all").cut < fitted(kind, data, of="all").cut


def test_conformal_decides_by_the_score_to_the_last_bit():
    data = planted.judged(queries=90)
    made = fitted(ConformalType(), data)
    cut = np.float32(made.cut)
    near = np.array([[np.nextafter(cut, np.float32(9)), cut, np.nextafter(cut, np.float32(-9))]], np.float32)
    said = made.relevance(near, None, None, count=1)[0]
    assert (said >= np.float32(made.threshold)).tolist() == [True, True, False]


# --- the adapter ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_the_slopes_of_the_network_are_those_of_its_loss(family):
    rng = np.random.default_rng(4)
    task = Task(
        rng.normal(size=(7, 3)), rng.uniform(0.1, 0.9, (7, 5)), (rng.random((7, 5)) < 0.4) * 1.0, rng.random((7, 5))
    )
    scale = Scale(0.0, 1.0, 2.0, -1.0)
    shapes = [(3, 4), (4,), (4, outputs_of(family)), (outputs_of(family),)]
    params = [0.3 * rng.normal(size=shape) for shape in shapes]

    def loss(given_):
        into, shift, out, level = given_
        z = mapped(family, scale, np.tanh(task.inputs @ into + shift) @ out + level, task.scores)
        return (task.weights * (np.logaddexp(0, z) - task.labels * z)).sum() / task.weights.sum()

    for place, slope in enumerate(_slopes(family, scale, task, params)):
        for spot in np.ndindex(*shapes[place]):
            up, down = ([each.copy() for each in params] for _ in range(2))
            up[place][spot] += 1e-5
            down[place][spot] -= 1e-5
            assert slope[spot] == pytest.approx((loss(up) - loss(down)) / 2e-5, abs=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_maps_rise_whatever_the_network_says(family):
    rng = np.random.default_rng(5)
    scores = np.sort(rng.normal(size=(50, 30)), axis=1)
    z = mapped(family, Scale(-1.0, 1.5, 3.0, 0.2), 20 * rng.normal(size=(50, outputs_of(family))), scores)
    assert (np.diff(z, axis=1) >= 0).all()


def shifted_queries(count=400, seed=6):
    """Two kinds of query, told apart by their first coordinate; what is relevant scores 0.3 less for one of them."""
    rng = np.random.default_rng(seed)
    kind = rng.random(count) < 0.5
    queries = planted.unit(np.column_stack([np.where(kind, 2.0, -2.0), rng.normal(size=(count, 5))]))
    labels = np.zeros((count, 12), bool)
    labels[:, 0] = True
    base = np.where(labels, 0.8, 0.55) - np.where(kind, 0.3, 0.0)[:, None]
    exact = base + 0.05 * rng.normal(size=base.shape)
    order = np.argsort(-exact, axis=1)
    scores, labels = np.take_along_axis(exact, order, 1), np.take_along_axis(labels, order, 1)
    return RelevanceData(
        Space("m", 6, id=1),
        planted.read_only(queries),
        planted.read_only(scores.astype(np.float32)),
        planted.read_only(np.ones(scores.shape, np.uint64)),
        planted.read_only(np.zeros(scores.shape, bool)),
        1_000,
        np.random.default_rng(seed),
        labels=planted.read_only(labels.astype(np.int8)),
        missed=planted.read_only(np.zeros((0, 2), np.float32)),
    )


@pytest.mark.parametrize("reads", ["query", "scores", "both"])
def test_the_adapter_learns_that_a_score_means_another_thing_for_each_kind_of_query(reads):
    from vecdb.evaluation.relevance import pr_auc
    from vecdb.relevance.scored import CalibratedType

    fit, fresh = shifted_queries(), shifted_queries(seed=7)
    labels = fresh.labels == 1
    made = fitted(AdapterType(), fit, reads=reads, networks=2)
    ours = pr_auc(made.relevance(fresh.scores, fresh.queries, None, count=1)[labels >= 0], labels[labels >= 0])
    plain = fitted(CalibratedType(), fit).relevance(fresh.scores, None, None, count=1)
    assert ours > pr_auc(plain.ravel(), labels.ravel()) + 0.2
    assert ours > 0.9
    said = made.relevance(fresh.scores, fresh.queries, None, count=1)
    assert calibration_error(said.ravel(), labels.ravel()) < 0.05


def test_features_of_lists_move_and_stretch_with_the_scores():
    scores = np.random.default_rng(8).random((20, 15)).astype(np.float32)
    plain, other = list_features(scores), list_features(2 * scores + 3)
    ends = [0, 3, 4]
    np.testing.assert_allclose(other[:, ends], 2 * plain[:, ends] + 3, rtol=1e-5)
    np.testing.assert_allclose(other[:, [1, 2, 5, 6]], 2 * plain[:, [1, 2, 5, 6]], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(list_features(scores[:, ::-1]), plain)
    assert not list_features(np.full((2, 3), -np.inf)).any()


# --- the background ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [0.0, 0.2, 0.4])
def test_tails_of_pareto_samples_are_found(shape):
    rng = np.random.default_rng(9)
    uniform = rng.random((40, 20_000))
    sample = -np.log(uniform) if shape == 0 else (uniform**-shape - 1) / shape
    tail = pareto_tail(sample, 0.1)
    assert tail.shape.mean() == pytest.approx(shape, abs=0.05)
    far = np.full((40, 1), -np.log(1e-4) if shape == 0 else (1e-4**-shape - 1) / shape)
    assert np.exp(np.log(tail.above(far)).mean()) == pytest.approx(1e-4, rel=0.25)
    middle = np.full((40, 1), np.median(sample))
    np.testing.assert_allclose(tail.above(middle), 0.5, atol=0.02)


def test_light_tails_are_taken_for_exponential_ones_so_that_scores_never_tie():
    sample = np.random.default_rng(10).random((5, 2_000))  # uniform: the true shape is -1
    tail = pareto_tail(sample, 0.1)
    assert not tail.shape.any()
    beyond = tail.above(np.tile([1.0, 1.2, 1.5], (5, 1)))
    assert (np.diff(beyond, axis=1) < 0).all() and (beyond > 0).all()


def test_the_best_of_random_records_is_never_taken_for_more_than_chance():
    """Of the best of N random scores a share p at most is judged as unlikely as p; shapes below 0 are held at 0."""
    rng = np.random.default_rng(11)
    sample = rng.exponential(size=(2_000, 1_000))
    best = rng.exponential(size=(2_000, 5_000)).max(1)[:, None]
    share = np.exp(-5_000 * pareto_tail(sample, 0.1).above(best))[:, 0]
    assert (np.quantile(share, [0.1, 0.5, 0.9]) <= [0.12, 0.52, 0.92]).all()
    assert np.median(share) > 0.3


def test_a_background_without_labels_keeps_what_stands_out():
    data = planted.judged(queries=60)
    made = fitted(BackgroundType(), replace(data, labels=None))
    far = np.array([[9.0, -0.9]], np.float32)
    said = made.relevance(far, data.queries[:1], None, count=10_000)[0]
    assert said[0] > 0.999 and said[1] < 1e-3
    with pytest.raises(FitError):
        fitted(BackgroundType(), replace(data, sample=planted.read_only(data.sample[:20])))


# --- outliers ---------------------------------------------------------------------------------------------


def test_mahalanobis_is_the_distance_in_units_of_the_covariance():
    rng = np.random.default_rng(12)
    mix = rng.normal(size=(5, 5))
    rows = rng.normal(size=(40_000, 5)) @ mix + 3.0
    centre = Centre.of(rows)
    asked = rng.normal(size=(50, 5)) @ mix + 3.0
    away = asked - 3.0
    exact = np.sqrt(np.einsum("ij,jk,ik->i", away, np.linalg.inv(mix.T @ mix), away))
    np.testing.assert_allclose(centre(asked), exact, rtol=0.05)


def test_few_rows_are_shrunk_so_that_every_direction_has_a_width():
    rows = np.random.default_rng(13).normal(size=(10, 40))
    assert np.isfinite(Centre.of(rows)(rows)).all()
    assert Centre.of(rows)(10 * rows).min() > Centre.of(rows)(rows).max()


def test_neighbours_and_lines_are_the_plain_formulas():
    rng = np.random.default_rng(14)
    rows, asked = rng.normal(size=(30, 4)).astype(np.float32), rng.normal(size=(6, 4))
    near = np.sort(np.linalg.norm(asked[:, None] - rows[None], axis=2), axis=1)[:, :3].mean(1)
    np.testing.assert_allclose(Neighbours(rows, 3)(asked), near, rtol=1e-6)
    lines = Lines.of(rows.astype(float), 50, np.random.default_rng(0))
    places = rows @ lines.lines
    median = np.median(places, axis=0)
    spread = 1.4826 * np.median(np.abs(places - median), axis=0)
    np.testing.assert_allclose(lines(asked), (np.abs(asked @ lines.lines - median) / spread).max(1), rtol=1e-5)


def queries_like(count, seed, shift=0.0, width=8):
    rng = np.random.default_rng(seed)
    return planted.unit(rng.normal(size=(count, width)) + np.eye(width)[0] * (2.0 + shift))


@pytest.mark.parametrize("method", ["knn", "mahalanobis", "projection"])
def test_ordinary_queries_are_accepted_as_often_as_promised_and_others_are_not(method):
    width = 8
    base = planted.judged(queries=900, candidates=3, width=width)
    data = replace(base, queries=planted.read_only(queries_like(900, 1)), labels=None, groups=None)
    made = fitted(OutlierType(), data, method=method)
    scores = np.zeros((2_000, 1), np.float32)
    ordinary = made.relevance(scores, queries_like(2_000, 2), None, count=1) >= np.float32(made.threshold)
    foreign = made.relevance(scores, -queries_like(2_000, 3), None, count=1) >= np.float32(made.threshold)
    assert ordinary.mean() == pytest.approx(0.95, abs=0.035)
    assert foreign.mean() < (0.5 if method == "projection" else 0.2)


def test_p_values_of_ordinary_queries_are_uniform():
    base = planted.judged(queries=600, candidates=2)
    made = fitted(OutlierType(), replace(base, queries=planted.read_only(queries_like(600, 4)), groups=None))
    p = made.p_values(queries_like(4_000, 5))
    assert np.quantile(p, [0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9], abs=0.08)


def test_a_handful_of_queries_knows_no_outliers():
    with pytest.raises(FitError) as caught:
        fitted(OutlierType(), planted.judged(queries=20))
    assert (caught.value.pairs, caught.value.needed) == (20, 34)


def test_the_logistic_function_neither_overflows_nor_is_ever_sure():
    said = logistic(np.array([-1e9, 0.0, 1e9]))
    assert 0 < said[0] < 1e-6 and said[1] == 0.5 and 1 - 1e-6 < said[2] < 1
