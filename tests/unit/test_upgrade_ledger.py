"""The ledger: what is written is read, choices are made by the other half, worth is measured on what was judged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.evaluation import Judged, measure
from vecdb.upgrade.ledger import MEASURES, Ledger
from vecdb.upgrade.sides import halves_of

QUERIES = 24


def ledger(splits: int = 3, metric: str = "mrr") -> Ledger:
    return Ledger(splits, np.arange(QUERIES) // 2, metric)


def ranks(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 300, QUERIES)


JUDGED = Judged.of(list(range(QUERIES)))


def test_what_is_written_is_what_a_ranking_is_worth() -> None:
    made = ledger()
    made.write("a", slice(1, 2), np.arange(QUERIES), ranks(0), JUDGED)
    found = measure(ranks(0), JUDGED)
    for name in MEASURES:
        assert made.of("a", name)[1] == pytest.approx(found.of(name))
        assert np.isnan(made.of("a", name)[[0, 2]]).all()
    assert made.mean("a") == pytest.approx(found.mrr.mean())
    assert made.mean("a", "recall@10") == pytest.approx(found.recall.mean())


def test_what_holds_for_all_splits_is_written_once() -> None:
    made = ledger()
    made.write("a", slice(None), np.arange(QUERIES), ranks(1), JUDGED)
    assert (made.of("a") == made.of("a")[0]).all()


def test_columns_may_be_judged_by_several_rankings() -> None:
    made = ledger(1)
    first, second = np.arange(0, 10), np.arange(10, QUERIES)
    made.write("a", slice(0, 1), first, ranks(2)[first], JUDGED.take(first))
    made.write("a", slice(0, 1), second, ranks(2)[second], JUDGED.take(second))
    assert made.of("a")[0] == pytest.approx(1.0 / ranks(2))


def test_a_key_that_a_split_has_not_measured_is_not_whole() -> None:
    made = ledger(2)
    made.write("a", slice(None), np.arange(QUERIES), ranks(0), JUDGED)
    made.write("b", slice(0, 1), np.arange(QUERIES), ranks(1), JUDGED)
    assert made.whole(["a", "b", "c"]) == ["a"]


def test_the_best_key_is_the_first_of_equals() -> None:
    made = ledger(1)
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        made.write(name, slice(None), np.arange(QUERIES), ranks(seed), JUDGED)
    assert made.best(["a", "b"]) == "a" and made.best(["b", "a"]) == "b"
    assert made.mean(made.best(["a", "b", "c"])) == max(made.mean(name) for name in "abc")


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 4))
def test_each_half_is_read_from_what_the_other_half_prefers(seed: int, keys: int, splits: int) -> None:
    random = np.random.default_rng(seed)
    made = Ledger(splits, random.integers(0, 12, QUERIES), "recall@10")
    for key in range(keys):
        for split in range(splits):
            made.write(key, slice(split, split + 1), np.arange(QUERIES), random.integers(1, 30, QUERIES), JUDGED)
    half = halves_of(made.clusters)
    found = made.chosen(list(range(keys)))
    for mine in (half, ~half):
        if not mine.any() or mine.all():
            continue
        means = [made.of(key)[:, ~mine].mean() for key in range(keys)]
        assert (found[:, mine] == made.of(int(np.argmax(means)))[:, mine]).all()


def test_a_choice_among_noise_gains_nothing() -> None:
    random = np.random.default_rng(0)
    lucky, honest = [], []
    for _ in range(60):
        made = Ledger(1, np.arange(QUERIES), "recall@10")
        for key in range(8):
            made.write(key, slice(None), np.arange(QUERIES), random.integers(1, 21, QUERIES), JUDGED)
        lucky.append(made.mean(made.best(list(range(8)))))
        honest.append(made.chosen(list(range(8))).mean())
    assert np.mean(lucky) > 0.6
    assert np.mean(honest) == pytest.approx(0.5, abs=0.04)


def test_clusters_stay_in_one_half() -> None:
    clusters = np.random.default_rng(1).integers(0, 40, 300)
    half = halves_of(clusters)
    assert all(len(set(half[clusters == cluster].tolist())) == 1 for cluster in np.unique(clusters))
    assert 0.35 < half.mean() < 0.65


def test_worth_has_an_interval_for_each_measure() -> None:
    made = ledger()
    for split in range(3):
        made.write("a", slice(split, split + 1), np.arange(QUERIES), ranks(split), JUDGED)
    found = made.worth("a")
    assert found.mrr.low <= found.mrr.value <= found.mrr.high
    assert found.of("recall@10") is found.recall and found.of("ndcg@10") is found.ndcg and found.of("mrr") is found.mrr
    assert found.candidates == tuple(made.mean("a", name) for name in MEASURES[3:])
    assert list(found.candidates) == sorted(found.candidates)
    assert found.mrr.queries == QUERIES


def test_ratios_are_of_the_same_queries() -> None:
    made = ledger(1)
    made.write("a", slice(None), np.arange(QUERIES), np.full(QUERIES, 2), JUDGED)
    made.write("b", slice(None), np.arange(10), np.full(10, 4), JUDGED.take(np.arange(10)))
    found = made.ratio(made.of("a"), made.of("b"))
    assert found.value == pytest.approx(2.0) and found.queries == 10 and 1.0 < found.low < 2.0 < found.high
