"""Group Q: whether the candidates are the right ones, on sets that break indexes."""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.contracts.effort import curve_problems
from vecdb.testing import datasets
from vecdb.testing.checks import fail, require, rule
from vecdb.testing.index_checks.cases import (
    SEED,
    Built,
    Matrix,
    build,
    capable,
    load,
    metrics_of,
    recall_at_10,
    usual,
    usual_rows,
)
from vecdb.testing.index_checks.searching import masks

_ROWS, _DIM, _ASKED = 1_500, 24, 30
_CHANCE = 0.1
"""So much may thirty queries differ from the mean of all."""


def _set(index_type: Any, name: str) -> tuple[Matrix, Matrix]:
    """Return rows and queries of one set; the queries are like the rows, but none of them."""
    dim = min(_DIM, index_type.capabilities.max_dim or _DIM)
    made = datasets.SETS[name](_ROWS + _ASKED, dim, SEED)
    asked = np.random.default_rng(SEED).permutation(len(made))[:_ASKED]
    return np.delete(made, asked, axis=0), made[asked]


def _require_exact(built: Built, queries: Matrix, k: int, what: str, allowed: Any = None) -> None:
    """Require the best k by float64 scores among the candidates; as good as the last of them is good enough."""
    rows = built.view.gather(np.arange(built.view.count))
    scores = datasets.oracle_scores(built.view.metric, queries, rows)
    there = np.flatnonzero(allowed) if allowed is not None else np.arange(len(rows))
    for row, answer in enumerate(built.answers(queries, k, allowed=allowed)):
        truth = scores[row][there]
        if not len(truth):
            continue
        kth = np.sort(truth)[-min(k, len(truth))]
        slack = 1e-6 * max(1e-30, float(np.abs(truth).max()))
        sure = there[truth > kth + slack]
        missing = np.setdiff1d(sure, answer.positions)
        if len(missing):
            fail(f"{what}: query {row} misses position {missing[0]}, one of its best {k}")
        good = int(np.count_nonzero(scores[row][answer.positions] >= kth - slack))
        if good < min(k, len(truth)):
            fail(f"{what}: query {row} got {good} of its best {k}")


@rule("Q1", capable("exact"))
def check_exact(index_type: Any) -> None:
    """With `exact`, the true best k are among the candidates: on every set, for every metric and k."""
    for name in datasets.SETS:
        rows, queries = _set(index_type, name)
        for metric in metrics_of(index_type):
            built = build(index_type, rows, metric)
            for k in (1, 10, 100):
                _require_exact(built, queries[:10], k, f"set {name}, metric {metric}, k={k}")


@rule("Q2", capable("exact"))
def check_exact_ties(index_type: Any) -> None:
    """With `exact`, of equal vectors those of the lowest positions are chosen."""
    rows = usual_rows(index_type)
    rows[100:200] = rows[100]
    for metric in metrics_of(index_type):
        built = build(index_type, rows, metric)
        answer = built.answers(rows[100], 120 if metric == "dot" else 20)[0]
        copies = answer.positions[(answer.positions >= 100) & (answer.positions < 200)]
        if len(copies) and not np.isin(np.arange(100, 100 + len(copies)), copies).all():
            fail(f"metric {metric}: of equal vectors at 100 to 199, {np.sort(copies)[:5].tolist()}... are chosen")


@rule("Q3", capable("exact", "filtered"))
def check_exact_among_the_allowed(index_type: Any) -> None:
    """With `exact` and `filtered`, the true best k of what is allowed are among the candidates."""
    for metric in metrics_of(index_type):
        built, queries = usual(index_type, metric)
        for name, mask in masks(index_type).items():
            _require_exact(built, queries, 10, f"metric {metric}, allowed {name}", mask)


def _promises(index_type: Any) -> bool:
    return bool(getattr(getattr(index_type, "capabilities", None), "min_recall_at_10", None))


def _require_recall(index_type: Any, name: str) -> None:
    rows, queries = _set(index_type, name)
    declared = index_type.capabilities.min_recall_at_10
    for metric in metrics_of(index_type):
        recall = recall_at_10(build(index_type, rows, metric), queries)
        if recall < declared:
            fail(f"metric {metric}: recall@10 is {recall:.3f} on the set {name!r}, declared {declared}")


@rule("Q4", _promises)
def check_recall_gaussian(index_type: Any) -> None:
    """The declared recall@10 is reached on independent normal components."""
    _require_recall(index_type, "gaussian")


@rule("Q5", _promises)
def check_recall_clustered(index_type: Any) -> None:
    """The declared recall@10 is reached on narrow clusters of different sizes."""
    _require_recall(index_type, "clustered")


@rule("Q6", _promises)
def check_recall_hubs(index_type: Any) -> None:
    """The declared recall@10 is reached where few vectors are neighbours of very many."""
    _require_recall(index_type, "hubs")


@rule("Q7", _promises)
def check_recall_low_dimensional(index_type: Any) -> None:
    """The declared recall@10 is reached near a curved surface of three dimensions."""
    _require_recall(index_type, "low-dimensional")


@rule("Q8", _promises)
def check_recall_duplicated(index_type: Any) -> None:
    """The declared recall@10 is reached where half of the vectors are copies of a few."""
    _require_recall(index_type, "duplicated")


@rule("Q9", _promises)
def check_recall_sorted(index_type: Any) -> None:
    """The declared recall@10 is reached on clusters that arrive in sorted order."""
    _require_recall(index_type, "sorted")


@rule("Q10", capable("measured"))
def check_curve(index_type: Any) -> None:
    """With `measured`, `effort_curve` is None or ascending efforts with recalls from 0 to 1; 1,500 vectors give one."""
    for rows in (usual_rows(index_type)[:1], usual_rows(index_type)[:40], _set(index_type, "clustered")[0]):
        curve = build(index_type, rows).index.effort_curve()
        problems = [] if curve is None else list(curve_problems(curve))
        require(not problems, f"{len(rows)} vectors: {'; '.join(problems)}")
        require(curve is not None or len(rows) < _ROWS, f"{len(rows)} vectors: there is no curve")


@rule("Q11", capable("measured"))
def check_curve_holds(index_type: Any) -> None:
    """With `measured`, queries that are not in the index find as much as the lower bounds of the curve say."""
    for name in ("gaussian", "clustered", "low-dimensional"):
        rows, queries = _set(index_type, name)
        for metric in metrics_of(index_type):
            built = build(index_type, rows, metric)
            curve = built.index.effort_curve()
            for effort, bound in () if curve is None else zip(curve.efforts, curve.lower_bounds(), strict=True):
                recall = recall_at_10(built, queries, effort=int(effort))
                owed, what = bound - _CHANCE, f"set {name}, {metric}, effort {effort}"
                require(recall >= owed, f"{what}: recall@10 is {recall:.3f}, said to reach {bound:.3f}")


@rule("Q12", capable("measured"))
def check_curve_is_kept(index_type: Any) -> None:
    """With `measured`, a loaded index knows the same curve."""
    built = build(index_type, _set(index_type, "clustered")[0])
    curves = [each.index.effort_curve() for each in (built, load(built, built.dumped()))]
    require(_as_plain(curves[0]) == _as_plain(curves[1]), "the curve of a loaded index is another")


@rule("Q13", capable("proves"))
def check_problems(index_type: Any) -> None:
    """With `proves`, `problems` finds nothing wrong with an index that was built, nor with one that was loaded."""
    for name in ("clustered", "duplicated"):
        rows, _ = _set(index_type, name)
        for metric in metrics_of(index_type):
            built = build(index_type, rows, metric)
            for each, what in ((built, "built"), (load(built, built.dumped()), "loaded")):
                found = list(each.index.problems(each.view))
                require(not found, f"set {name}, {metric}: a {what} index has problems: {found[:1]}")


def _as_plain(curve: Any) -> Any:
    if curve is None:
        return None
    deviations = None if curve.deviations is None else curve.deviations.tolist()
    return curve.efforts.tolist(), curve.recalls.tolist(), curve.queries, curve.k, deviations
