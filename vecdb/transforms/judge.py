"""Choose by retrieval, on pairs and queries that the fit has not seen: squared error ranks maps in another order.

Criterion: the new model's nearest record must come first in the bridged ranking, too (mean reciprocal rank, ties
counted against the map). It needs no answers, only what the new model itself says; among proxies without answers the
nearest neighbour alone follows real queries best. Real queries are asked where there
are any, else the kept-back records themselves, each without itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from vecdb.contracts import FitData
from vecdb.transforms.pairs import Rows32
from vecdb.types import Metric

__all__ = ["Judge", "best_of", "judge_of", "similarities"]

Choice = TypeVar("Choice")

FEWEST = 20
"""Fewer kept-back pairs or queries say nothing."""
MOST_ASKED, MOST_KEPT = 800, 3_000
"""Of queries and of records: what a choice among twenty maps may cost."""
_CLEAR = 2.0
"""Standard errors of a paired difference."""


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """What maps are compared by.

    Attributes
    ----------
    rows : ndarray of float32
        Vectors of the source space: map them, and give the result to `score`.
    other : ndarray of float32
        Vectors of the target space that the mapped ones are compared with.
    nearest : ndarray of int64, shape (q,)
        For each query the record that the new model finds nearest.
    queries_mapped : bool
        Whether `rows` are the queries (else they are the records).
    masked : bool
        Whether query i is record i, which is left out of its own answer.
    metric : {"cosine", "dot", "l2"}
        Of the target space.
    """

    rows: Rows32
    other: Rows32
    nearest: npt.NDArray[np.int64]
    queries_mapped: bool
    masked: bool
    metric: Metric

    def score(self, mapped: npt.NDArray[np.floating]) -> float:
        """Return the mean of `reciprocal_ranks`, 0 to 1."""
        return float(self.reciprocal_ranks(mapped).mean())

    def reciprocal_ranks(self, mapped: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Return one over the rank of each query's nearest record in the bridged ranking, float64, shape (q,).

        Parameters
        ----------
        mapped : ndarray, shape (len(rows), e)
        """
        table = (
            similarities(mapped, self.other, self.metric)
            if self.queries_mapped
            else similarities(self.other, mapped, self.metric)
        )
        places = np.arange(len(table))
        if self.masked:
            table[places, places] = -np.inf
        own = table[places, self.nearest][:, None]
        found: npt.NDArray[np.float64] = 1.0 / (table >= own).sum(1)
        return found


def judge_of(data: FitData) -> Judge | None:
    """Return how to compare maps fitted on `data`; None where too little was kept back."""
    kept = data.validation
    if kept is None or len(kept.source) < FEWEST:
        return None
    by_query = data.role == "query"
    source, target = _some(kept.source, MOST_KEPT), _some(kept.target, MOST_KEPT)
    asked_side, metric = (source, data.source_space.metric) if by_query else (target, data.target_space.metric)
    real = data.queries is not None and len(data.queries) >= FEWEST
    asked = _some(data.queries, MOST_ASKED) if real and data.queries is not None else asked_side[:MOST_ASKED]
    truth = similarities(asked, asked_side, metric)
    if not real:
        np.fill_diagonal(truth, -np.inf)
    rows, other = (asked, target) if by_query else (source, asked)
    return Judge(rows, other, truth.argmax(1), by_query, not real, data.target_space.metric)


def best_of(
    judge: Judge, choices: Iterable[Choice], mapping: Callable[[Choice], npt.NDArray[np.floating]]
) -> tuple[Choice, float]:
    """Return the first choice that is not clearly worse than the best one, and its score.

    Clearly: by more than two standard errors of the difference over the same queries. The criterion is a proxy and the
    queries are few; what comes first has evidence of its own and gives way only to more.

    Parameters
    ----------
    judge : Judge
    choices : iterable
        At least one, the preferred ones first.
    mapping : callable
        Returns ``judge.rows`` as a choice maps them.
    """
    tried = [(choice, judge.reciprocal_ranks(mapping(choice))) for choice in choices]
    best = max((ranks for _, ranks in tried), key=lambda ranks: float(ranks.mean()))
    return next((choice, float(ranks.mean())) for choice, ranks in tried if not _clearly_worse(ranks, best))


def _clearly_worse(one: npt.NDArray[np.float64], best: npt.NDArray[np.float64]) -> bool:
    lost = best - one
    return float(lost.mean()) > _CLEAR * float(lost.std()) / math.sqrt(len(lost))


def similarities(one: npt.NDArray[np.floating], other: npt.NDArray[np.floating], metric: Metric) -> Rows32:
    """Return a table that orders the rows of `other` as their scores to each row of `one` do, float32."""
    left, right = one.astype(np.float32), other.astype(np.float32)
    if metric == "cosine":
        left, right = _directions(left), _directions(right)
    table: Rows32 = left @ right.T
    if metric == "l2":
        table -= 0.5 * (right * right).sum(1)
    return table


def _directions(rows: Rows32) -> Rows32:
    directions: Rows32 = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return directions


def _some(rows: Rows32, most: int) -> Rows32:
    """Return at most so many rows, spread evenly."""
    return rows[:: -(-len(rows) // most)]
