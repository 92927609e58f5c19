"""Rankings in blocks against sorting everything; judgements; metrics against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vecdb.errors import ArgumentError
from vecdb.evaluation import Judged, measure, ndcg_at, ranking, ranks_of, recall_of, scores_between, top_k
from vecdb.types import METRICS, Metric

metrics = st.sampled_from(METRICS)


def small_integers(seed: int, rows: int, dim: int) -> np.ndarray:
    """Return rows whose inner products are exact in float32, with many ties, none of them zero."""
    values = np.random.default_rng(seed).integers(-2, 3, size=(rows, dim)).astype(np.float32)
    values[:, 0] = 3.0
    return values


def sorted_rows(queries: np.ndarray, rows: np.ndarray, metric: Metric, bias: np.ndarray | None) -> list[list[int]]:
    """Return every row in order of its score, equal ones by number: one query and one row at a time."""
    answers = []
    for query in queries.astype(np.float64):
        scores = []
        for number, row in enumerate(rows.astype(np.float64)):
            if metric == "cosine":
                score = query @ row / math.sqrt(query @ query) / math.sqrt(row @ row)
            else:
                score = query @ row if metric == "dot" else -math.dist(query, row)
            scores.append((-round(score + (0.0 if bias is None else float(bias[number])), 5), number))
        answers.append([number for _, number in sorted(scores)])
    return answers


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "QUERY_BLOCK", 3)
    monkeypatch.setattr(ranking, "ROW_BLOCK", 7)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 40), k=st.integers(1, 50), biased=st.booleans())
def test_the_best_rows_are_those_of_a_full_sort(seed: int, count: int, k: int, biased: bool) -> None:
    queries, rows = small_integers(seed, 5, 4), small_integers(seed + 1, count, 4)
    bias = np.random.default_rng(seed).integers(-2, 3, count).astype(np.float32) if biased else None
    found, scores = top_k(queries, rows, k, "dot", bias=bias)
    assert found.tolist() == [each[:k] for each in sorted_rows(queries, rows, "dot", bias)]
    table = scores_between(queries, rows, "dot", bias)
    assert (scores == np.take_along_axis(table, found, 1)).all()


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 40), metric=metrics, biased=st.booleans())
def test_ranks_are_places_of_a_full_sort(seed: int, count: int, metric: Metric, biased: bool) -> None:
    random = np.random.default_rng(seed)
    queries, rows = small_integers(seed, 8, 4), small_integers(seed + 1, count, 4)
    bias = random.integers(-1, 2, count).astype(np.float32) if biased else None
    judged = Judged.of([random.choice(count, random.integers(0, min(count, 5) + 1), False) for _ in queries])
    ranks = ranks_of(queries, rows, judged, metric, bias=bias)
    order = sorted_rows(queries, rows, metric, bias)
    expected = [order[query].index(row) + 1 for query, row in zip(judged.owners, judged.rows, strict=True)]
    assert ranks.tolist() == expected


@pytest.mark.parametrize("metric", METRICS)
def test_scores_are_those_of_the_metric(metric: Metric) -> None:
    random = np.random.default_rng(0)
    queries, rows = random.normal(size=(3, 6)), random.normal(size=(5, 6))
    table = scores_between(queries, rows, metric)
    inner = queries @ rows.T
    sizes = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(rows, axis=1)
    away = -np.linalg.norm(queries[:, None] - rows, axis=2)
    assert table == pytest.approx({"cosine": inner / sizes, "dot": inner, "l2": away}[metric], abs=1e-6)


def test_a_row_left_out_is_not_found() -> None:
    rows = np.eye(9, dtype=np.float32)
    own = np.arange(9)
    found, _ = top_k(rows, rows, 8, "dot", leave_out=own)
    assert (found != own[:, None]).all()
    everything, scores = top_k(rows, rows, 9, "dot", leave_out=own)
    assert (everything[:, -1] == own).all() and np.isneginf(scores[:, -1]).all()


def test_nothing_is_found_among_no_rows() -> None:
    found, scores = top_k(np.ones((2, 3)), np.ones((0, 3)), 5, "cosine")
    assert found.shape == scores.shape == (2, 0)


def test_half_precision_rows_are_ranked_as_their_float32() -> None:
    rows = np.random.default_rng(3).normal(size=(30, 5)).astype(np.float16)
    assert (top_k(rows, rows, 4, "l2")[0] == top_k(rows.astype("f4"), rows.astype("f4"), 4, "l2")[0]).all()


# --- judgements -------------------------------------------------------------------------------------------


def test_judgements_are_read_from_numbers_lists_and_grades() -> None:
    judged = Judged.of([4, -1, [7, 2], {3: 2.0, 5: 0.0, 1: -1}, []])
    assert judged.starts.tolist() == [0, 1, 1, 3, 4, 4]
    assert judged.rows.tolist() == [4, 7, 2, 3]
    assert judged.grades.tolist() == [1.0, 1.0, 1.0, 2.0]
    assert judged.answered.tolist() == [True, False, True, True, False]
    assert judged.owners.tolist() == [0, 2, 2, 3]


def test_an_entry_that_names_no_row_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"relevant\[1\]"):
        Judged.of([1, "abc"])


@given(st.lists(st.lists(st.integers(0, 9), unique=True, max_size=4), min_size=1, max_size=6), st.data())
def test_taking_queries_and_smaller_galleries_keeps_the_judgements(
    relevant: list[list[int]], data: st.DataObject
) -> None:
    judged = Judged.of(relevant)
    chosen = data.draw(st.lists(st.integers(0, len(relevant) - 1), max_size=6))
    taken = judged.take(np.array(chosen, np.int64))
    assert [taken.rows[slice(*taken.starts[[q, q + 1]])].tolist() for q in range(len(chosen))] == [
        relevant[q] for q in chosen
    ]
    kept = data.draw(st.lists(st.integers(0, 9), unique=True))
    smaller = judged.among(np.array(kept, np.int64), 10)
    for query, rows in enumerate(relevant):
        own = smaller.rows[slice(*smaller.starts[[query, query + 1]])]
        assert [kept[row] for row in own] == [row for row in rows if row in kept]


def test_a_mask_takes_the_marked_queries() -> None:
    judged = Judged.of([1, [2, 3], 4])
    assert judged.take(np.array([False, True, True])).rows.tolist() == [2, 3, 4]


# --- metrics ----------------------------------------------------------------------------------------------


def test_metrics_by_hand() -> None:
    judged = Judged.of([[0], [1, 2], [], {3: 1.0, 4: 3.0}])
    ranks = np.array([4, 120, 2, 1, 2])
    found = measure(ranks, judged)
    nan = math.nan
    assert found.mrr == pytest.approx([0.25, 0.5, nan, 1.0], nan_ok=True)
    assert found.recall == pytest.approx([1.0, 0.5, nan, 1.0], nan_ok=True)
    assert found.of("recall@100") == pytest.approx([1.0, 0.5, nan, 1.0], nan_ok=True)
    assert found.of("recall@200") == pytest.approx([1.0, 1.0, nan, 1.0], nan_ok=True)
    assert found.of("mrr") is found.mrr
    log = math.log2
    two = (1 / log(3)) / (1 + 1 / log(3))
    last = (1 / log(2) + 3 / log(3)) / (3 / log(2) + 1 / log(3))
    assert found.ndcg == pytest.approx([1 / log(5), two, nan, last], nan_ok=True)


def test_recall_does_not_ask_for_more_than_fits() -> None:
    judged = Judged.of([list(range(12))])
    assert measure(np.arange(1, 13), judged).recall.tolist() == [1.0]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=15, unique=True))
def test_the_best_order_has_full_gain(ranks: list[int]) -> None:
    judged = Judged.of([{row: float(row + 1) for row in range(len(ranks))}])
    best = np.empty(len(ranks), np.int64)
    best[np.argsort(-judged.grades)] = np.arange(1, len(ranks) + 1)
    assert ndcg_at(best, judged) == pytest.approx([1.0])
    assert ndcg_at(np.array(ranks), judged)[0] <= 1.0 + 1e-12


def test_recall_of_neighbours() -> None:
    found, truth = np.array([[1, 2, -1], [5, 6, 7]]), np.array([[2, 3], [7, 5]])
    assert recall_of(found, truth).tolist() == [0.5, 1.0]


def test_no_row_comes_before_itself_however_its_score_was_rounded():
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((600, 1024)).astype(np.float32)
    rows[:, 0] += 60.0  # sums that round differently in another order
    ranks = ranks_of(rows, rows, Judged.of(list(range(600))), "cosine")
    exact = rows.astype(float) / np.linalg.norm(rows.astype(float), axis=1, keepdims=True)
    table = exact @ exact.T
    assert (ranks == 1).all() and (table.argmax(1) == np.arange(600)).all()
