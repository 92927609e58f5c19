"""An intrinsic score from pairs that belong together: how far to the front each finds its partner.

After Wang, Kuo and Li ("Just Rank: Rethinking Evaluation with Word and Sentence Similarities", ACL 2022, section 3):
the partner of each pair is ranked among a background of other vectors. The rank depends on how large that is, so it
is reported. A background row that is either half of any pair stays out of it, unless it is another pair's partner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vecdb.evaluation.health.sure import bootstrap, share_of
from vecdb.evaluation.intervals import Estimate
from vecdb.evaluation.ranking import scores_between
from vecdb.types import Metric

__all__ = ["EvalRank", "evalrank", "ranks_among"]

Rows = npt.NDArray[np.floating]
Integers = npt.NDArray[np.int64]

_BLOCK: Final = 512
_TIED: Final = 4e-7


@dataclass(frozen=True, slots=True)
class EvalRank:
    """How well pairs find each other.

    Attributes
    ----------
    pairs, background : int
        How many pairs there are, and vectors that each partner was ranked among.
    mrr : Estimate
        Mean of the inverse rank.
    hits1, hits3, hits10 : Estimate
        Share of partners among the first 1, 3 and 10.
    """

    pairs: int
    background: int
    mrr: Estimate
    hits1: Estimate
    hits3: Estimate
    hits10: Estimate


def evalrank(
    queries: Rows, partners: Rows, background: Rows, metric: Metric, *, owners: Integers | None = None, seed: int = 0
) -> EvalRank | None:
    """Return how well pairs find each other; parameters as in `ranks_among`. None where there are no pairs."""
    if not len(queries):
        return None
    ranks = ranks_among(queries, partners, background, metric, owners=owners)
    mrr = bootstrap(1.0 / ranks, lambda each: float(each.mean()), seed=seed)
    hits = [share_of(int(np.count_nonzero(ranks <= depth)), len(ranks)) for depth in (1, 3, 10)]
    return EvalRank(len(ranks), len(background) + len(partners), mrr, *hits)


def ranks_among(
    queries: Rows, partners: Rows, background: Rows, metric: Metric, *, owners: Integers | None = None
) -> Integers:
    """Return the rank of each partner, 1 for the best; equal scores do not come before it.

    Parameters
    ----------
    queries, partners : ndarray, shape (p, d)
        Both halves of each pair.
    background : ndarray, shape (n, d)
    metric : {"cosine", "dot", "l2"}
    owners : ndarray of int64, shape (2, p), optional
        Numbers of the records of both halves: a partner that is the query's own record, or a partner that occurs twice,
        does not count. Default: all differ.
    """
    count = len(queries)
    owners = np.arange(2 * count, dtype=np.int64).reshape(2, count) if owners is None else owners
    _, kept = np.unique(owners[1], return_index=True)
    gallery = np.concatenate([partners[kept], background])
    names = np.concatenate([owners[1][kept], np.full(len(background), -1, np.int64)])
    margin = _TIED * _largest(queries, metric) * _largest(gallery, metric)
    ranks = np.empty(count, np.int64)
    for start in range(0, count, _BLOCK):
        part = slice(start, min(start + _BLOCK, count))
        table = scores_between(queries[part], gallery, metric)
        if metric == "l2":  # rounding is that of squares
            table = -np.square(table)
        own = table[np.arange(len(table)), np.searchsorted(owners[1][kept], owners[1][part])]
        others = names[None, :] != owners[0][part][:, None]
        ranks[part] = 1 + np.count_nonzero((table > own[:, None] + margin) & others, axis=1)
    return ranks


def _largest(rows: Rows, metric: Metric) -> float:
    """Return the norm that rounding of scores, or of squared distances, grows with."""
    if metric == "cosine" or not len(rows):
        return 1.0
    return float(np.linalg.norm(rows.astype(np.float64), axis=1).max())
