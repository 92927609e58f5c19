"""Groups, splits, intervals and hubness: what each promises, against plain oracles."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.errors import ArgumentError
from vecdb.evaluation import (
    Judged,
    csls_bias,
    joined,
    near_duplicates,
    occurrences,
    paired,
    predict_mean,
    predict_ratio,
    scores_between,
    skewness,
    split,
    top_k,
)

# --- groups -----------------------------------------------------------------------------------------------


def test_rows_that_are_nearly_the_same_are_one_group() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(40, 16))
    rows[7] = rows[2] + 0.01 * random.normal(size=16)
    rows[30] = rows[7] + 0.01
    groups = near_duplicates(rows)
    assert groups[2] == groups[7] == groups[30]
    assert len(np.unique(groups)) == 38
    assert groups.max() == 37


def test_rows_that_all_point_one_way_are_not_all_the_same() -> None:
    rows = 10.0 + np.random.default_rng(1).normal(size=(60, 8))
    assert len(np.unique(near_duplicates(rows))) > 50


def test_rows_must_be_near_in_every_space() -> None:
    random = np.random.default_rng(2)
    one, other = random.normal(size=(20, 8)), random.normal(size=(20, 12))
    one[5] = one[4]
    assert len(np.unique(near_duplicates(one))) == 19
    assert len(np.unique(near_duplicates(one, other))) == 20
    other[5] = other[4]
    assert len(np.unique(near_duplicates(one, other))) == 19


@pytest.mark.parametrize("count", [0, 1])
def test_no_row_and_one_row_have_groups(count: int) -> None:
    assert near_duplicates(np.ones((count, 3))).tolist() == [0] * count


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=25))
def test_joined_groups_split_neither(keys: list[tuple[int, int]]) -> None:
    one, other = [a for a, _ in keys], np.array([b for _, b in keys])
    groups = joined(one, other)
    for left, (a, b) in enumerate(keys):
        for right, (c, d) in enumerate(keys):
            if a == c or b == d:
                assert groups[left] == groups[right]
    edges = {(a, b) for a, b in keys}
    components = _components(edges)
    assert len(np.unique(groups)) == components


def _components(edges: set[tuple[int, int]]) -> int:
    """Return how many connected parts a two-sided graph has, by flooding."""
    left, count = set(edges), 0
    while left:
        flood = {left.pop()}
        while True:
            more = {each for each in left if any(each[0] == a or each[1] == b for a, b in flood)}
            if not more:
                break
            flood |= more
            left -= more
        count += 1
    return count


def test_a_key_that_is_not_known_joins_nobody() -> None:
    assert joined([None, "a", None, "a"]).tolist() == [0, 1, 2, 1]


# --- splits -----------------------------------------------------------------------------------------------

SHARES = {"fit": 0.5, "validation": 0.2, "test": 0.3}


@given(st.lists(st.integers(0, 30), min_size=1, max_size=80), st.integers(0, 9))
def test_no_group_is_in_two_parts(groups: list[int], seed: int) -> None:
    parts = split(groups, SHARES, seed=seed)
    owner = {groups[row]: name for name, rows in parts.items() for row in rows}
    assert all(owner[groups[row]] == name for name, rows in parts.items() for row in rows)
    assert sorted(row for rows in parts.values() for row in rows) == list(range(len(groups)))


def test_more_rows_do_not_move_those_that_were_there() -> None:
    small, large = split(range(100), SHARES), split(range(1_000), SHARES)
    for name in SHARES:
        assert small[name].tolist() == [row for row in large[name] if row < 100]


def test_shares_and_seeds_are_followed() -> None:
    parts = split(range(20_000), {"fit": 0.25, "test": 0.5})
    assert len(parts["fit"]) == pytest.approx(5_000, abs=300)
    assert len(parts["test"]) == pytest.approx(10_000, abs=300)
    other = split(range(20_000), {"fit": 0.25, "test": 0.5}, seed=1)
    assert len(np.intersect1d(parts["fit"], other["fit"])) == pytest.approx(1_250, abs=200)


@pytest.mark.parametrize("shares", [{}, {"fit": 0.0}, {"fit": 0.7, "test": 0.5}])
def test_shares_that_are_none_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ArgumentError):
        split([1, 2], shares)


# --- intervals --------------------------------------------------------------------------------------------


def test_a_paired_difference_is_surer_than_its_parts() -> None:
    random = np.random.default_rng(0)
    one = random.random(400)
    other = one - 0.05 + 0.01 * random.normal(size=400)
    found = paired(one, other, np.arange(400))
    assert found.value == pytest.approx(0.05, abs=0.002)
    assert 0.045 < found.low < found.value < found.high < 0.055
    assert found.queries == 400


def test_queries_without_answers_are_left_out() -> None:
    one, other = np.array([1.0, math.nan, 0.5, 0.0]), np.array([0.0, 0.0, math.nan, 0.0])
    assert paired(one, other, np.arange(4)).queries == 2
    assert paired(np.full(3, math.nan), other[:3], np.arange(3)).queries == 0
    assert math.isnan(predict_mean(np.full(3, math.nan), np.arange(3)).value)


def test_clusters_widen_intervals() -> None:
    values = np.repeat(np.random.default_rng(1).random(50), 10)
    alone, together = predict_mean(values, np.arange(500)), predict_mean(values, np.repeat(np.arange(50), 10))
    assert together.high - together.low > 2.0 * (alone.high - alone.low)


def test_fewer_new_queries_are_harder_to_predict() -> None:
    values, clusters = np.random.default_rng(2).random(300), np.arange(300)
    widths = [found.high - found.low for found in (predict_mean(values, clusters, new=n) for n in (10_000, 300, 30))]
    assert widths[1] / widths[0] == pytest.approx(math.sqrt(2.0), rel=0.05)
    assert widths[2] / widths[0] == pytest.approx(math.sqrt(11.0), rel=0.05)


def test_refits_that_differ_widen_a_prediction() -> None:
    random = np.random.default_rng(3)
    below = random.random(300) + 0.5
    alike = np.stack([below * 1.2] * 5)
    apart = np.stack([below * factor for factor in (1.0, 1.1, 1.2, 1.3, 1.4)])
    same, differing = (predict_ratio(above, below, np.arange(300)) for above in (alike, apart))
    assert same.value == pytest.approx(1.2) and differing.value == pytest.approx(1.2)
    assert same.low == pytest.approx(1.2, abs=0.01) and same.low < 1.2  # one query more could be answered otherwise
    assert differing.low < 1.0 < 1.4 < differing.high


def test_a_query_counts_in_the_splits_that_judged_it() -> None:
    nan = math.nan
    above = np.array([[1.0, 1.0, nan, nan], [nan, 0.5, 0.5, nan]])
    below = np.full((2, 4), 0.5)
    found = predict_ratio(above, below, np.arange(4))
    assert found.queries == 3
    assert found.value == pytest.approx((1.0 + 0.75 + 0.5) / 1.5)
    assert predict_mean(above, np.arange(4)).value == pytest.approx(0.75)
    assert predict_ratio(above[:1], below[:1], np.arange(4)).value == pytest.approx(2.0)


def test_many_clusters_are_resampled_alike() -> None:
    values = np.random.default_rng(8).random(9_000)
    found = predict_mean(values, np.arange(9_000), new=10**9)
    assert found.high - found.value == pytest.approx(1.96 * values.std() / math.sqrt(9_000), rel=0.1)


def test_a_ratio_to_nothing_is_not_a_number() -> None:
    assert math.isnan(predict_ratio(np.ones(5), np.zeros(5), np.arange(5)).value)


def test_an_estimate_reads_as_text_and_as_numbers() -> None:
    found = predict_mean(np.array([0.0, 1.0, 1.0, 0.0]), np.arange(4))
    assert str(found).startswith("0.500 [")
    assert found.as_dict() == {"value": 0.5, "low": found.low, "high": found.high, "queries": 4}


def test_predictions_cover_new_queries_as_often_as_they_say() -> None:
    random = np.random.default_rng(4)
    covered = 0
    for trial in range(150):
        clusters = random.integers(0, 120, 250)
        easy = random.beta(2, 2, 120)

        def draw(which: np.ndarray, easy: np.ndarray = easy) -> tuple[np.ndarray, np.ndarray]:
            below = (random.random(len(which)) < 0.3 + 0.5 * easy[which]).astype(float)
            above = np.where(random.random(len(which)) < 0.7, below, (random.random(len(which)) < 0.5).astype(float))
            return above, below

        found = predict_ratio(*draw(clusters), clusters, new=500, seed=trial)
        easy = random.beta(2, 2, 500)
        above, below = draw(np.arange(500), easy)
        covered += found.low <= above.mean() / below.mean() <= found.high
    assert covered >= 135


# --- hubness ----------------------------------------------------------------------------------------------


def test_the_bias_is_half_the_mean_of_the_nearest_queries() -> None:
    random = np.random.default_rng(5)
    bank, rows = random.normal(size=(30, 6)), random.normal(size=(50, 6))
    expected = -0.5 * np.sort(scores_between(bank, rows, "cosine"), axis=0)[-10:].mean(0)
    assert csls_bias(bank, rows, "cosine") == pytest.approx(expected, abs=1e-6)


def test_a_query_says_nothing_of_its_own_answer() -> None:
    random = np.random.default_rng(6)
    rows = random.normal(size=(40, 6))
    bank = rows[:12] + 0.01
    own = Judged.of(range(12))
    table = scores_between(bank, rows, "dot").astype(np.float64)
    table[np.arange(12), np.arange(12)] = -np.inf
    expected = -0.5 * np.sort(table, axis=0)[-3:].mean(0)
    assert csls_bias(bank, rows, "dot", own=own, neighbours=3) == pytest.approx(expected, abs=1e-5)


def test_a_bank_that_is_small_or_empty_still_gives_numbers() -> None:
    rows = np.eye(4)
    assert csls_bias(rows[:0], rows, "dot").tolist() == [0.0] * 4
    assert csls_bias(rows[:1], rows, "dot", own=Judged.of([0])).tolist() == [0.0] * 4
    assert csls_bias(rows[:1], rows, "dot").tolist() == [-0.5, 0.0, 0.0, 0.0]


def test_the_correction_takes_hubs_back() -> None:
    random = np.random.default_rng(7)
    shared = random.normal(size=24)
    rows = random.normal(size=(400, 24)) + random.random((400, 1)) * shared
    queries = random.normal(size=(600, 24)) + 0.7 * shared
    plain, _ = top_k(queries[300:], rows, 10, "cosine")
    corrected, _ = top_k(queries[300:], rows, 10, "cosine", bias=csls_bias(queries[:300], rows, "cosine"))
    before, after = (skewness(occurrences(found, 400)) for found in (plain, corrected))
    assert after < 0.7 * before


@settings(max_examples=20)
@given(st.lists(st.floats(-100, 100), min_size=3, max_size=30))
def test_skewness_is_the_third_standardised_moment(values: list[float]) -> None:
    array = np.array(values)
    spread = float(array.std())
    if spread < 1e-3:
        return
    assert skewness(array) == pytest.approx(float((((array - array.mean()) / spread) ** 3).mean()), rel=1e-6, abs=1e-9)


def test_what_does_not_vary_is_not_skewed() -> None:
    assert skewness(np.full(5, 3)) == 0.0
    assert skewness(np.zeros(0)) == 0.0
    assert occurrences(np.array([[1, -1], [1, 0]]), 3).tolist() == [1, 2, 0]
