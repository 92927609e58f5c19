"""What a ranking is worth, query by query: reciprocal rank, recall, nDCG.

Invariant: each function returns one number for each query, 0 to 1, so that means, differences and resamples are of
the same queries; a query without an answer is NaN and belongs in no mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vecdb.evaluation.judged import Judged

__all__ = ["CANDIDATES", "Measures", "measure", "ndcg_at", "recall_at", "recall_of", "reciprocal_rank"]

Integers = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]

CANDIDATES = (50, 100, 200)
"""How many candidates a second stage may be given."""


@dataclass(frozen=True, slots=True, eq=False)
class Measures:
    """What a ranking is worth for each query.

    Attributes
    ----------
    mrr : ndarray of float64, shape (q,)
        One over the rank of the first answer.
    recall : ndarray of float64, shape (q,)
        Share of the answers among the first 10.
    ndcg : ndarray of float64, shape (q,)
        Of the first 10, with the judged grades as gains.
    candidates : ndarray of float64, shape (q, 3)
        Share of the answers among the first 50, 100 and 200.
    """

    mrr: Values
    recall: Values
    ndcg: Values
    candidates: Values

    def of(self, name: str) -> Values:
        """Return one of them by name: "mrr", "recall@10", "ndcg@10", "recall@50", "recall@100", "recall@200"."""
        named = {"mrr": self.mrr, "recall@10": self.recall, "ndcg@10": self.ndcg}
        named |= {f"recall@{depth}": self.candidates[:, place] for place, depth in enumerate(CANDIDATES)}
        return named[name]


def measure(ranks: Integers, judged: Judged) -> Measures:
    """Return the measures of a ranking in which the judged rows have these ranks.

    Parameters
    ----------
    ranks : ndarray of int64, shape (judged.count,)
        From 1; see `ranks_of`.
    judged : Judged
    """
    deep = [recall_at(ranks, judged, depth) for depth in CANDIDATES]
    return Measures(
        reciprocal_rank(ranks, judged), recall_at(ranks, judged, 10), ndcg_at(ranks, judged), np.column_stack(deep)
    )


def reciprocal_rank(ranks: Integers, judged: Judged) -> Values:
    """Return one over the rank of each query's first answer, NaN where there is none."""
    best = np.zeros(judged.queries)
    np.maximum.at(best, judged.owners, 1.0 / ranks)
    return _known(best, judged)


def recall_at(ranks: Integers, judged: Judged, depth: int = 10) -> Values:
    """Return the share of each query's answers that are among the first `depth`, NaN where there is none.

    With more answers than `depth`, of as many as fit.
    """
    found = np.bincount(judged.owners, weights=ranks <= depth, minlength=judged.queries)
    return _known(found / np.clip(judged.sizes, 1, depth), judged)


def ndcg_at(ranks: Integers, judged: Judged, depth: int = 10) -> Values:
    """Return the discounted gain of the first `depth`, by that of the best order (Jarvelin and Kekalainen, 2002).

    The gain is the grade, the discount ``log2(rank + 1)``; NaN for queries without an answer.
    """
    gains = np.where(ranks <= depth, judged.grades / np.log2(ranks + 1.0), 0.0)
    gained = np.bincount(judged.owners, weights=gains, minlength=judged.queries)
    ideal = np.zeros(judged.queries)
    order = np.lexsort((-judged.grades, judged.owners))
    place = np.arange(judged.count) - judged.starts[judged.owners]
    best = np.where(place < depth, judged.grades[order] / np.log2(place + 2.0), 0.0)
    np.add.at(ideal, judged.owners, best)
    return _known(gained / np.where(ideal > 0, ideal, 1.0), judged)


def recall_of(found: Integers, truth: Integers) -> Values:
    """Return the share of each query's true neighbours that were found.

    Parameters
    ----------
    found : ndarray of int64, shape (q, k)
        Negative numbers stand for nothing.
    truth : ndarray of int64, shape (q, t)
        At least one column, different rows.
    """
    hits = (truth[:, :, None] == found[:, None, :]).any(2)
    shares: Values = hits.mean(1)
    return shares


def _known(values: Values, judged: Judged) -> Values:
    return np.where(judged.answered, values, np.nan)
