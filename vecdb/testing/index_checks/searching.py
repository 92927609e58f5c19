"""Group S: what a search returns."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.testing import datasets
from vecdb.testing.checks import fail, require, rule
from vecdb.testing.index_checks.cases import (
    COUNT,
    QUERIES,
    SEED,
    build,
    capable,
    metrics_of,
    recall_at_10,
    same_answers,
    usable,
    usual,
    usual_queries,
    usual_rows,
)


@rule("S1")
def check_answer_shape(index_type: Any) -> None:
    """`positions` is an int64 and `scores` a float32 array, both of shape (queries, m)."""
    built, queries = usual(index_type)
    for wanted, k in ((queries, 10), (queries[:1], 1), (queries, COUNT * 2)):
        said = built.ask(wanted, k)
        if not isinstance(said, tuple) or len(said) != 2:
            fail(f"the answer is {type(said).__name__}, expected Candidates")
        for array, name, dtype in zip(said, ("positions", "scores"), (np.int64, np.float32), strict=True):
            if not isinstance(array, np.ndarray) or array.dtype != dtype:
                fail(f"{name} is {getattr(array, 'dtype', type(array).__name__)}, expected {np.dtype(dtype)}")
            if array.ndim != 2 or len(array) != len(wanted) or array.shape != said[0].shape:
                fail(f"{name} has shape {array.shape} for {len(wanted)} queries")


@rule("S2")
def check_positions_are_known(index_type: Any) -> None:
    """Every position is one of the view, or the -1 behind the last."""
    built, queries = usual(index_type)
    for k in (1, 10, COUNT * 2):
        positions = np.asarray(built.ask(queries, k)[0])
        strange = positions[(positions < -1) | (positions >= COUNT)]
        if strange.size:
            fail(f"position {int(strange[0])} is returned, expected 0 to {COUNT - 1}")


@rule("S3")
def check_padding(index_type: Any) -> None:
    """A position of -1 stands only behind the last candidate, and its score is -inf."""
    built, queries = usual(index_type)
    for k in (10, COUNT * 2):
        positions, scores = map(np.asarray, built.ask(queries, k))
        empty = positions == -1
        if (empty[:, :-1] & ~empty[:, 1:]).any():
            fail("a candidate stands behind a position of -1")
        if not (scores[empty] == -np.inf).all():
            fail(f"position -1 has score {scores[empty].max()}, expected -inf")


@rule("S4")
def check_scores_are_numbers(index_type: Any) -> None:
    """The score of a candidate is finite."""
    for metric in metrics_of(index_type):
        built, queries = usual(index_type, metric)
        positions, scores = map(np.asarray, built.ask(queries, 10))
        if not np.isfinite(scores[positions >= 0]).all():
            fail(f"metric {metric}: the score of a candidate is not finite")


@rule("S5")
def check_best_first(index_type: Any) -> None:
    """Scores do not increase along a row."""
    for metric in metrics_of(index_type):
        built, queries = usual(index_type, metric)
        scores = np.asarray(built.ask(queries, 10)[1], np.float64)
        if (scores[:, 1:] > scores[:, :-1]).any():
            fail(f"metric {metric}: a score is larger than the one before it")


@rule("S6")
def check_ties_by_position(index_type: Any) -> None:
    """Candidates of equal score stand in the order of their positions."""
    dim = usual_rows(index_type).shape[1]
    rows = datasets.duplicated(COUNT, dim, SEED)
    for metric in metrics_of(index_type):
        built = build(index_type, rows, metric)
        positions, scores = map(np.asarray, built.ask(rows[:QUERIES], 30))
        equal = (scores[:, 1:] == scores[:, :-1]) & (positions[:, 1:] >= 0)
        if (equal & (positions[:, 1:] < positions[:, :-1])).any():
            fail(f"metric {metric}: of two candidates with one score the later position comes first")


@rule("S7")
def check_no_position_twice(index_type: Any) -> None:
    """No position stands twice in a row."""
    built, queries = usual(index_type)
    for k in (10, COUNT * 2):
        for row in np.asarray(built.ask(queries, k)[0]):
            real = row[row != -1]
            if len(np.unique(real)) != len(real):
                fail(f"k={k}: a position is returned twice")


@rule("S8")
def check_any_k(index_type: Any) -> None:
    """The k of a search may be 1, and may exceed the number of vectors."""
    built, queries = usual(index_type)
    for k in (1, COUNT, COUNT + 1, 10_000):
        usable(built, queries, k, f"k={k}")


@rule("S9")
def check_one_query_as_in_a_batch(index_type: Any) -> None:
    """A query gets the same answer alone and among others."""
    for metric in metrics_of(index_type):
        built, queries = usual(index_type, metric)
        alone = [built.answers(query, 10)[0] for query in queries]
        same_answers(built.answers(queries, 10), alone, f"metric {metric}, alone and in a batch")


@rule("S10")
def check_order_of_queries(index_type: Any) -> None:
    """The order of the queries does not matter."""
    built, queries = usual(index_type)
    turned = built.answers(queries[::-1], 10)
    same_answers(built.answers(queries, 10), turned[::-1], "queries in reverse")


@rule("S11")
def check_search_changes_nothing(index_type: Any) -> None:
    """Asked again, the same question gets the same answer, whatever was asked between."""
    built, queries = usual(index_type)
    first = built.answers(queries, 10)
    built.answers(queries + 1, 50)
    built.answers(queries[:1], 1)
    same_answers(first, built.answers(queries, 10), "asked again")


@rule("S12")
def check_threads(index_type: Any) -> None:
    """Several threads may search at once and get what one would."""
    built, queries = usual(index_type)
    one = [built.answers(query, 10) for query in queries]
    with ThreadPoolExecutor(4) as pool:
        work = [query for _ in range(6) for query in queries]
        for place, answer in enumerate(pool.map(lambda query: built.answers(query, 10), work)):
            same_answers(one[place % len(queries)], answer, "in a thread")


def masks(index_type: Any) -> dict[str, npt.NDArray[np.bool_]]:
    """Return filters by name: of different sizes, and one that allows only what is far from the first queries."""
    rng = np.random.default_rng(SEED)
    rows, queries = usual_rows(index_type), usual_queries(index_type)
    near = datasets.oracle_scores("l2", queries[:3], rows).max(axis=0)
    return {
        "none": np.zeros(COUNT, np.bool_),
        "one": np.arange(COUNT) == COUNT // 2,
        "1 %": rng.permutation(COUNT) < COUNT // 100,
        "half": rng.permutation(COUNT) < COUNT // 2,
        "the far half": near < np.median(near),
        "all": np.ones(COUNT, np.bool_),
    }


@rule("S13", capable("filtered"))
def check_only_what_is_allowed(index_type: Any) -> None:
    """With `filtered`, every candidate is `allowed`."""
    built, queries = usual(index_type)
    for name, mask in masks(index_type).items():
        for answer in built.answers(queries, 10, allowed=mask):
            wrong = answer.positions[~mask[answer.positions]]
            if len(wrong):
                fail(f"allowed {name}: position {wrong[0]} is returned, which is not allowed")


@rule("S14", capable("filtered"))
def check_everything_allowed(index_type: Any) -> None:
    """With `filtered`, allowing everything is the same as no filter."""
    built, queries = usual(index_type)
    everything = built.answers(queries, 10, allowed=np.ones(COUNT, np.bool_))
    same_answers(built.answers(queries, 10), everything, "everything allowed and no filter")


@rule("S15", capable("complete"))
def check_complete(index_type: Any) -> None:
    """With `complete`, at least min(k, allowed) candidates are returned."""
    built, queries = usual(index_type)
    chosen: dict[str, Any] = masks(index_type) if index_type.capabilities.filtered else {"all": None}
    for name, mask in chosen.items():
        there = COUNT if mask is None else int(mask.sum())
        for k in (1, 10, COUNT, 2 * COUNT):
            owed = min(k, there)
            for answer in built.answers(queries[:3], k, allowed=mask):
                got = len(answer.positions) if mask is None else int(mask[answer.positions].sum())
                if got < owed:
                    fail(f"allowed {name}, k={k}: {got} candidates, expected {owed}")


@rule("S16")
def check_any_effort(index_type: Any) -> None:
    """Any `effort` of at least 1 is understood, however small or large."""
    built, queries = usual(index_type)
    for effort in (1, 7, COUNT, 1_000_000):
        usable(built, queries, 10, f"effort={effort}", effort=effort)


@rule("S17")
def check_more_effort(index_type: Any) -> None:
    """More `effort` does not find less."""
    built, queries = usual(index_type)
    little, much = (recall_at_10(built, queries, effort=effort) for effort in (10, 4 * COUNT))
    if much < little - 0.05:
        fail(f"recall@10 is {little:.3f} with effort 10 and {much:.3f} with effort {4 * COUNT}")


@rule("S18", capable("prepares"))
def check_prepared(index_type: Any) -> None:
    """With `prepares`, what `prepare` returns answers as `search` does, for several threads at once."""
    built, queries = usual(index_type)
    able = index_type.capabilities.filtered
    for name, mask in masks(index_type).items() if able else (("all", None),):
        for k, effort in ((1, None), (10, None), (10, COUNT // 4), (2 * COUNT, None)):
            ask = built.index.prepare(k, allowed=mask, effort=effort, view=built.view)
            if ask is None:
                continue
            wanted = [built.ask(query, k, allowed=mask, effort=effort) for query in queries]
            with ThreadPoolExecutor(4) as pool:
                found = list(pool.map(ask, [query.reshape(1, -1) for query in queries]))
            for one, other in zip(wanted, found, strict=True):
                same = [np.array_equal(*pair) for pair in zip(one, other, strict=True)]
                require(all(same), f"allowed {name}, k={k}, effort={effort}: a prepared search answers otherwise")
