"""Group S: what a search returns."""

from __future__ import annotations

from typing import Any

import numpy as np

from vecdb.testing.checks import fail, rule
from vecdb.testing.index_checks.cases import COUNT, metrics_of, usual


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
