"""Parts that kinds of relevance filter share, against plain loops; stored states of every kind, whole and damaged."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.errors import CancelledError, CorruptionError, FitError, NonFiniteError
from vecdb.relevance.adapter import AdapterType
from vecdb.relevance.background import BackgroundType
from vecdb.relevance.conformal import ConformalType, risk_threshold
from vecdb.relevance.lists import WIDTH, list_features
from vecdb.relevance.outlier import METHODS, OutlierType
from vecdb.relevance.pool import Keep, checked, chosen_threshold, in_order, judged_of
from vecdb.relevance.scored import CalibratedType, GapType, ThresholdType, gap_cuts, two_levels, where_there
from vecdb.testing import planted

KINDS = {
    "threshold": (ThresholdType(), {}),
    "gap": (GapType(), {}),
    "calibrated": (CalibratedType(), {}),
    "isotonic": (CalibratedType(), {"method": "isotonic"}),
    "conformal": (ConformalType(), {}),
    "background": (BackgroundType(), {}),
    "adapter": (AdapterType(), {"steps": 10, "networks": 2}),
    **{method: (OutlierType(), {"method": method, "lines": 20}) for method in METHODS},
}
TABLES = st.integers(1, 5).flatmap(
    lambda width: st.lists(
        st.lists(st.sampled_from([-math.inf, -1.0, 0.0, 0.25, 0.5, 0.5, 2.0]), min_size=width, max_size=width),
        min_size=1,
        max_size=6,
    )
)


def settled(kind, **changes):
    return {name: param.default for name, param in kind.parameters.items()} | changes


def pool(**changes):
    return replace(planted.judged(), rng=np.random.default_rng(0), **changes)


# --- the judged pool --------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [None, 3, 7, 50])
def test_judged_candidates_are_those_that_a_loop_finds(depth):
    data = pool()
    wanted = [
        (row, place, float(data.scores[row, place]), bool(data.labels[row, place]))
        for row in range(len(data.scores))
        for place in range(min(data.scores.shape[1], depth or 50))
        if not data.ignore[row, place] and data.labels[row, place] >= 0 and math.isfinite(data.scores[row, place])
    ]
    found = judged_of(data, depth=depth)
    assert (
        list(zip(*(each.tolist() for each in (found.rows, found.places, found.scores, found.labels)), strict=True))
        == wanted
    )
    some = np.arange(len(data.queries)) % 2 == 0
    assert found.of_queries(some).rows.tolist() == [row for row, *_ in wanted if row % 2 == 0]


def test_a_pool_with_too_little_on_either_side_is_refused_with_what_it_has():
    data = pool()
    for labels in (None, np.zeros_like(data.labels), np.ones_like(data.labels), np.full_like(data.labels, -1)):
        with pytest.raises(FitError) as caught:
            judged_of(replace(data, labels=labels))
        assert caught.value.pairs == 0 and caught.value.needed == 2 and caught.value.hint
    with pytest.raises(FitError):
        judged_of(replace(data, ignore=np.ones_like(data.ignore)))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_none_are_named_and_a_stop_is_heard(bad):
    scores = np.array(pool().scores)
    scores[4, 2] = bad
    with pytest.raises(NonFiniteError) as caught:
        checked(pool(scores=scores))
    assert (caught.value.row, caught.value.column) == (4, 2)
    with pytest.raises(CancelledError):
        checked(pool(cancel=lambda: True))
    assert (np.isneginf(pool().scores)).any() and checked(pool()).count == 10_000  # places behind the last are fine


@given(
    st.lists(st.tuples(st.sampled_from([0.1, 0.25, 0.5, 0.75, 1.0]), st.booleans()), min_size=2, max_size=25),
    st.sampled_from(["f1", "recall", "precision"]),
    st.sampled_from([0.5, 0.8, 0.95, 1.0]),
)
def test_a_threshold_is_the_one_that_trying_all_finds(pairs, by, level):
    said = np.array([value for value, _ in pairs], np.float32)
    labels = np.array([label for _, label in pairs])
    if not labels.any():
        return
    tried = []
    for cut in sorted({float(value) for value in said}, reverse=True):
        passed = said >= np.float32(cut)
        precision, recall = labels[passed].mean(), labels[passed].sum() / labels.sum()
        tried.append((cut, precision, recall, 2 * precision * recall / max(precision + recall, 1e-12)))
    if by == "recall":
        wanted = next(cut for cut, _, recall, _ in tried if recall >= level - 1e-12)
    elif by == "precision":
        enough = [cut for cut, precision, _, _ in tried if precision >= level]
        wanted = enough[-1] if enough else max(tried, key=lambda each: (each[1], each[0]))[0]
    else:
        best = max(f1 for *_, f1 in tried)
        wanted = next(cut for cut, *_, f1 in tried if f1 >= best - 1e-12)
    assert chosen_threshold(said, labels, Keep(by, level)) == pytest.approx(wanted)


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=40),
    st.lists(st.sampled_from([0.2, 0.3, 0.5]), min_size=1, max_size=3),
)
def test_parts_of_queries_are_all_of_them_once_with_groups_whole(groups, parts):
    data = pool(queries=np.zeros((len(groups), 8), np.float32), groups=np.array(groups))
    found = np.stack(in_order(data, *parts))
    assert (found.sum(0) == 1).all()
    part_of = found.argmax(0)
    first = {}
    for group, part in zip(groups, part_of.tolist(), strict=True):
        assert first.setdefault(group, part) == part
    assert list(first.values()) == sorted(first.values())  # in the order in which groups first appear


# --- what lists say ---------------------------------------------------------------------------------------


@given(TABLES)
def test_features_of_a_list_are_those_of_its_ten_best(table):
    found = list_features(np.array(table, np.float32))
    assert found.shape == (len(table), WIDTH)
    for row, features in zip(table, found.tolist(), strict=True):
        best = sorted((score for score in row if score > -math.inf), reverse=True)[:10]
        best += best[-1:] * (10 - len(best)) if best else [0.0] * 10
        rest = best[1:]
        mean = sum(rest) / 9
        spread = math.sqrt(sum((score - mean) ** 2 for score in rest) / 9)
        wanted = [best[0], best[0] - best[1], best[0] - best[2], mean, best[9], spread, best[0] - mean]
        assert features == pytest.approx(wanted, abs=1e-9)


def test_features_of_no_candidates_are_nothing():
    assert np.array_equal(list_features(np.empty((3, 0))), np.zeros((3, WIDTH)))
    assert list_features(np.empty((0, 4))).shape == (0, WIDTH)


@given(TABLES, st.integers(1, 6), st.sampled_from([0.0, 0.3, 1.0, 9.0]))
def test_a_list_is_cut_at_the_first_of_its_largest_gaps(table, first, least):
    found = gap_cuts(np.array(table, np.float32), first, least)
    for row, cut in zip(table, found.tolist(), strict=True):
        best = sorted((score for score in row if score > -math.inf), reverse=True)[: first + 1]
        gaps = [upper - lower for upper, lower in pairwise(best)]
        large = max(gaps, default=-1.0)
        assert cut == (best[gaps.index(large)] if gaps and large >= least else -math.inf)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=20))
def test_two_levels_are_probabilities_the_second_below_the_first(pairs):
    kept, labels = (np.array([pair[place] for pair in pairs], np.bool_) for place in (0, 1))
    above, below = two_levels(kept, labels)
    assert 0 <= below < above <= 1 and below <= above / 2 + 1e-7
    found = where_there(np.array([[1.0, -np.inf]], np.float32), np.array([[0.5, 0.5]]))
    assert found.dtype == np.float32 and found.tolist() == [[0.5, 0.0]]


@pytest.mark.parametrize(("alpha", "needed"), [(0.5, 1), (0.1, 9), (0.01, 99)])
def test_a_promise_takes_so_many_queries_and_not_one_fewer(alpha, needed):
    scores, owners = np.linspace(0.1, 0.9, needed), np.arange(needed)
    assert risk_threshold(scores, owners, alpha) == scores[0]
    if needed > 1:
        with pytest.raises(FitError) as caught:
            risk_threshold(scores[1:], owners[1:], alpha)
        assert (caught.value.pairs, caught.value.needed) == (needed - 1, needed)


# --- stored states ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted():
    return {name: kind.fit(pool(), settled(kind, **changes)) for name, (kind, changes) in KINDS.items()}


def said_by(kind, filter_):
    data = pool()
    scope = kind.capabilities.scope
    vectors = np.stack([data.vectors(row) for row in range(len(data.queries))]) if scope == "vectors" else None
    queries = None if scope == "score" else data.queries
    return filter_.relevance(np.array(data.scores), queries, vectors, count=data.count)


@pytest.mark.parametrize("name", KINDS)
def test_the_same_seed_fits_the_same_filter_and_its_state_is_all_of_it(fitted, name):
    kind, changes = KINDS[name]
    again, stored = kind.fit(pool(), settled(kind, **changes)), kind.load(fitted[name].state())
    said = said_by(kind, fitted[name])
    assert said.dtype == np.float32 and ((said >= 0) & (said <= 1)).all()
    assert (said[np.isneginf(pool().scores)] == 0).all()
    for other in (again, stored):
        assert np.array_equal(said_by(kind, other), said) and other.threshold == fitted[name].threshold


@pytest.mark.parametrize("name", KINDS)
def test_a_state_without_a_part_or_with_another_in_its_place_is_corruption(fitted, name):
    kind, _ = KINDS[name]
    sound = fitted[name].state()
    for key in sound:
        left = {other: value for other, value in sound.items() if other != key}
        for damaged in (left, *(left | {key: wrong} for wrong in (None, [], "?", np.zeros((1, 1, 1, 1))))):
            with pytest.raises(CorruptionError):
                kind.load(damaged)


@settings(max_examples=30)
@given(st.floats(allow_nan=True).filter(lambda value: not 0 < value <= 1))
def test_thresholds_and_levels_outside_of_probabilities_are_corruption(value):
    for kind, state in (
        (ThresholdType(), {"cut": 0.5, "above": value, "below": 0.0}),
        (GapType(), {"first": 3, "least": 0.0, "above": value, "below": 0.0}),
    ):
        with pytest.raises(CorruptionError):
            kind.load(state)
        with pytest.raises(CorruptionError):
            kind.load(state | {"above": 0.5, "below": 0.6})
