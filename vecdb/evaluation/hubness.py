"""Rows that are near to everything: how skewed a ranking is, and the correction that takes it back.

Cross-domain similarity local scaling (CSLS; Conneau et al., ICLR 2018, section 2.3) for a ranking of rows by one query
comes down to a bias for each row: half its mean similarity to its nearest queries. The bank must hold queries; a bank
of documents gives little. Hubs and skewness: Radovanovic et al., JMLR 2010, section 2.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vecdb.evaluation.judged import Judged
from vecdb.evaluation.ranking import scores_between
from vecdb.types import Metric

__all__ = ["NEIGHBOURS", "csls_bias", "occurrences", "skewness"]

Rows = npt.NDArray[np.floating]
Bias = npt.NDArray[np.float32]

NEIGHBOURS = 10
_BLOCK = 2_048


def csls_bias(
    bank: Rows, rows: Rows, metric: Metric, *, own: Judged | None = None, neighbours: int = NEIGHBOURS
) -> Bias:
    """Return what to add to each row's scores, at the scale of the scores.

    Parameters
    ----------
    bank : ndarray, shape (b, d)
        Queries without answers, as they are asked in this space (mapped ones for a bridged space).
    rows : ndarray, shape (n, d)
    metric : {"cosine", "dot", "l2"}
    own : Judged, optional
        The known answers of the bank's queries: a query says nothing of its own answers, which would else be punished
        for being right.
    neighbours : int, default 10

    Returns
    -------
    ndarray of float32, shape (n,)
        Minus half the mean score of the nearest queries of the bank; 0 where the bank is empty.
    """
    bias = np.zeros(len(rows), np.float32)
    keep = min(neighbours, len(bank))
    for start in range(0, len(rows) if keep else 0, _BLOCK):
        block = slice(start, min(start + _BLOCK, len(rows)))
        table = scores_between(rows[block], bank, metric)  # all three metrics are symmetric
        if own is not None:
            here = (own.rows >= start) & (own.rows < block.stop)
            table[own.rows[here] - start, own.owners[here]] = -np.inf
        near = np.partition(table, len(bank) - keep, axis=1)[:, len(bank) - keep :]
        bias[block] = -0.5 * _mean(near)
    return bias


def _mean(near: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the means of what is finite: of a small bank, a query that is left out is among the nearest."""
    finite = np.isfinite(near)
    means: npt.NDArray[np.float32] = np.where(finite, near, 0.0).sum(1) / np.maximum(finite.sum(1), 1)
    return means


def occurrences(found: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Return how often each of `count` rows is among the nearest of a query; `found` has shape (q, k)."""
    return np.bincount(found[found >= 0].ravel(), minlength=count)


def skewness(values: npt.NDArray[np.generic]) -> float:
    """Return the third standardised moment: 0 for what is symmetric, large where a few rows are near to everything."""
    away = values.astype(np.float64) - float(np.mean(values.astype(np.float64))) if len(values) else np.zeros(1)
    spread = float(away.std())
    return float((away**3).mean() / spread**3) if spread > 0 else 0.0
