"""Rules of exploring by themselves, without a database: votes, spreads, shares and labels against plain loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vecdb.engine.exploring.fields import key_of
from vecdb.engine.exploring.mixture import choose, clusters, deal, shares
from vecdb.engine.exploring.mmr import choose as choose_unlike
from vecdb.engine.exploring.rocchio import combine
from vecdb.engine.exploring.votes import brier, share, vote, weights_of
from vecdb.errors import ParameterError
from vecdb.storage.columns import MISSING

METRICS = ("cosine", "dot", "l2")
SMALL = st.floats(-8, 8, width=32)
LABELS = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.0, 1.0, 2.5, "a", "1", "True"])


def rows_of(n, d=4, seed=0):
    return np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)


# --- votes ------------------------------------------------------------------------------------------------


@given(st.lists(SMALL, max_size=20), st.sampled_from([0.25, 4.0]), st.sampled_from([-8.0, 0.0, 16.0]))
def test_weights_depend_neither_on_unit_nor_on_origin(scores, unit, origin):
    ranked = np.sort(np.array(scores, np.float32))[::-1]
    found = weights_of(ranked, "distance")
    assert len(found) == len(scores) and ((found >= 0) & (found <= 1)).all()
    assert (np.diff(found) <= 0).all()
    if len(set(ranked.tolist())) > 1:
        assert (found[0], found[-1]) == (1.0, 0.0)
    else:
        assert (found == 1).all()
    if len(ranked) and np.ptp(ranked) > 1e-2:
        moved = weights_of((ranked * np.float32(unit) + np.float32(origin)).astype(np.float32), "distance")
        assert moved == pytest.approx(found, abs=1e-2)
    assert (weights_of(ranked, "uniform") == 1).all()


@given(st.lists(st.tuples(LABELS.filter(lambda label: label is not None), st.integers(0, 8)), min_size=1, max_size=12))
def test_a_vote_counts_every_neighbour_once_and_ties_go_to_the_nearer(pairs):
    labels, weights = [label for label, _ in pairs], np.array([weight for _, weight in pairs], np.float64)
    weights[0] = max(weights[0], 1.0)  # the nearest always weighs
    told = vote(list(range(len(pairs))), labels, weights)
    counts = {}
    for label, weight in zip(labels, weights.tolist(), strict=True):
        counts[repr(key_of(float(label) if type(label) is int else label))] = (
            counts.get(repr(key_of(float(label) if type(label) is int else label)), 0.0) + weight
        )
    best = max(counts.values())
    expected = next(name for name, weight in counts.items() if weight == best)  # dicts keep the order of first sight
    assert repr(key_of(float(told.label) if type(told.label) is int else told.label)) == expected
    assert told.probability == pytest.approx(best / weights.sum())
    assert sum(part for _, part in told.probabilities) == pytest.approx(1)
    assert len(told.probabilities) == len(counts) and told.neighbours == tuple(range(len(pairs)))


def test_nobody_votes_for_nothing():
    told = vote([], [], np.empty(0))
    assert (told.label, told.probability, told.probabilities, told.neighbours) == (None, 0.0, (), ())
    assert brier(told, "a") == 1.0


@pytest.mark.parametrize("truth", ["a", "b", "c"])
def test_the_score_of_brier_is_the_squared_error_over_all_labels(truth):
    told = vote([1, 2, 3, 4], ["a", "b", "a", "a"], np.ones(4))
    shares_ = {"a": 0.75, "b": 0.25, "c": 0.0}
    assert brier(told, truth) == pytest.approx(sum((part - (name == truth)) ** 2 for name, part in shares_.items()))


@given(st.integers(1, 2_000), st.data())
def test_the_interval_of_a_share_holds_it_even_at_its_ends(trials, data):
    """Rounding used to put the lower end of no hit at 1e-17, above the share itself."""
    hits = data.draw(st.sampled_from([0, 1, trials - 1, trials]) | st.integers(0, trials))
    found = share(hits, trials)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.value == hits / trials and found.low < found.high
    mirrored = share(trials - hits, trials)
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - found.high, 1 - found.low), abs=1e-12)


def test_a_share_of_nothing_is_not_known():
    found = share(0, 0)
    assert found.trials == 0 and all(math.isnan(each) for each in (found.value, found.low, found.high))


# --- labels -----------------------------------------------------------------------------------------------


@given(LABELS, LABELS)
def test_equal_keys_are_equal_values_and_true_is_not_one(one, other):
    numbers = all(type(each) in (int, float) for each in (one, other))
    same = one == other if numbers else type(one) is type(other) and one == other
    assert (key_of(one) == key_of(other)) is same


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (None, MISSING, True),
        (math.nan, float("nan"), True),
        ([1, 2], [1.0, 2.0], True),
        ([1, 2], [2, 1], False),
        ([1], 1, False),
        ([], {}, False),
        ([True], [1], False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": {"b": [1]}}, {"a": {"b": [1.0]}}, True),
        ({"a": None}, {}, False),
        ("s", ["s"], False),
    ],
)
def test_lists_and_dicts_are_equal_as_a_whole(one, other, same):
    assert (key_of(one) == key_of(other)) is same
    assert not same or hash(key_of(one)) == hash(key_of(other))


# --- one query of several ---------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", METRICS)
@given(
    rows=arrays(np.float32, (5, 3), elements=st.sampled_from([0.5, 1.0, -2.0, 3.0])),
    weights=st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=2, max_size=2),
    against=st.sampled_from([0.0, -0.25]),
)
def test_a_combined_query_is_the_formula_written_out(metric, rows, weights, against):
    parts = [(weights[0], rows[:1]), (weights[1], rows[1:4]), (against, rows[4:])]
    total = sum(weight for weight, _ in parts)
    if total <= 0:
        with pytest.raises(ParameterError) as caught:
            combine(metric, parts)
        assert caught.value.name == "weights" and caught.value.hint
        return
    wide = rows.astype(np.float64)
    if metric == "cosine":
        wide = np.stack([row / math.sqrt(sum(each * each for each in row.tolist())) for row in wide])
    wanted = [
        (weights[0] * wide[0, c] + weights[1] * (wide[1, c] + wide[2, c] + wide[3, c]) / 3 + against * wide[4, c])
        / total
        for c in range(3)
    ]
    found = combine(metric, parts)
    assert found.dtype == np.float32 and found.tolist() == pytest.approx(wanted, rel=1e-5, abs=1e-6)


def test_groups_that_are_empty_do_not_count_and_nothing_is_refused():
    rows = rows_of(2)
    assert np.array_equal(combine("l2", [(1.0, rows), (5.0, rows[:0])]), combine("l2", [(1.0, rows)]))
    for parts in ([], [(1.0, rows[:0])], [(0.0, rows)], [(1.0, rows), (-1.0, rows)], [(1.0, rows), (-2.0, rows)]):
        with pytest.raises(ParameterError):
            combine("dot", parts)


# --- unlike each other ------------------------------------------------------------------------------------


def plain_unlike(metric, scores, rows, k, trade):
    """Carbonell and Goldstein's rule, one candidate after the other."""

    def alike(one, other):
        one, other = one.astype(np.float64), other.astype(np.float64)
        if metric == "l2":
            return -float(np.linalg.norm(one - other))
        scale = np.linalg.norm(one) * np.linalg.norm(other) if metric == "cosine" else 1.0
        return float(one @ other) / scale

    chosen = []
    while len(chosen) < min(k, len(scores)):
        values = {
            place: trade * float(scores[place])
            - (1 - trade) * max((alike(rows[place], rows[other]) for other in chosen), default=0.0)
            for place in range(len(scores))
            if place not in chosen
        }
        chosen.append(max(values, key=lambda place: (values[place], -place)))
    return chosen


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("trade", [0.0, 0.3, 0.9])
def test_hits_unlike_each_other_are_chosen_one_by_one(metric, trade):
    for seed in range(5):
        rows = rows_of(14, seed=seed)
        scores = np.sort(np.random.default_rng([seed, 1]).random(14).astype(np.float32))[::-1].copy()
        for k in (1, 6, 14, 30):
            found = choose_unlike(scores, rows, metric, k, trade)
            assert found == plain_unlike(metric, scores, rows, k, trade)


def test_no_candidates_and_candidates_that_are_all_alike():
    assert choose_unlike(np.empty(0, np.float32), np.empty((0, 4), np.float32), "dot", 5, 0.5) == []
    same = np.ones((4, 3), np.float32)
    assert choose_unlike(np.ones(4, np.float32), same, "cosine", 4, 0.5) == [0, 1, 2, 3]
    assert choose(np.empty(0, np.float32), np.empty((0, 4), np.float32), 5, 3, 0.0) == []
    assert choose(np.ones(4, np.float32), same, 2, 3, 0.5) == [0, 1] and set(clusters(same, 3).tolist()) == {0}


# --- shares of a list -------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(0, 40), st.floats(0, 1))
def test_shares_are_the_quotas_to_the_next_whole_where_there_is_room(sizes, k, smoothing):
    total, room = sum(sizes), np.full(len(sizes), k, np.int64)
    found = shares(np.array(sizes), k, smoothing, room).tolist()
    assert sum(found) == k
    for size, part in zip(sizes, found, strict=True):
        assert abs(part - k * ((1 - smoothing) * size / total + smoothing / len(sizes))) < 1 + 1e-6


@given(st.lists(st.lists(st.integers(0, 9), max_size=6, unique=True), min_size=1, max_size=4), st.integers(1, 15))
def test_dealt_lists_hold_every_record_that_there_is_room_for_once(lists, k):
    sizes = np.arange(1, len(lists) + 1)
    found = deal(lists, sizes, k, 0.5)
    rows = [lists[number][place] for number, place in found]
    everything = set(itertools.chain.from_iterable(lists))
    assert len(rows) == len(set(rows)) == min(k, len(everything)) and set(rows) <= everything
    assert found == deal(lists, sizes, k, 0.5)


@given(st.integers(1, 25), st.integers(1, 6), st.integers(0, 99))
def test_clusters_are_numbered_by_their_first_rows_and_none_is_empty(n, count, seed):
    owner = clusters(rows_of(n, seed=seed), count)
    assert len(owner) == n and owner[0] == 0
    firsts = [int(np.flatnonzero(owner == each)[0]) for each in range(int(owner.max()) + 1)]
    assert firsts == sorted(firsts) and len(firsts) <= min(count, n)
    assert np.array_equal(owner, clusters(rows_of(n, seed=seed) * np.float32(4.0), count))
