"""Exact rankings in blocks: the best rows of each query, and the ranks of rows that are known.

Invariant: no more than a block of queries times a block of rows is scored at once, whatever the sizes; what is asked
is answered exactly, up to the rounding of float32 sums. Equal scores: the smaller row first.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from vecdb.evaluation.judged import Judged
from vecdb.types import Metric

__all__ = ["ranks_of", "scores_between", "top_k"]

Rows = npt.NDArray[np.floating]
Scores = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

QUERY_BLOCK, ROW_BLOCK = 512, 16_384
"""A table of scores takes 32 MB."""
_TIED = 4e-7
"""Of the largest product of norms: scores of float32 sums that are nearer to each other are equal."""


def scores_between(queries: Rows, rows: Rows, metric: Metric, bias: Rows | None = None) -> Scores:
    """Return the score of each row for each query, higher is better.

    Parameters
    ----------
    queries : ndarray, shape (q, d)
    rows : ndarray, shape (n, d)
    metric : {"cosine", "dot", "l2"}
        Cosine; inner product; minus the Euclidean distance.
    bias : ndarray, shape (n,), optional
        Added to the scores of each row.

    Returns
    -------
    ndarray of float32, shape (q, n)
    """
    left, right = _prepared(queries, metric), _prepared(rows, metric)
    table: Scores = left @ right.T
    if metric == "l2":
        table *= -2.0
        table += (left * left).sum(1)[:, None]
        table += (right * right).sum(1)
        np.sqrt(np.maximum(table, 0.0, out=table), out=table)
        np.negative(table, out=table)
    if bias is not None:
        table += bias.astype(np.float32)
    return table


def _prepared(rows: Rows, metric: Metric) -> Scores:
    prepared: Scores = rows.astype(np.float32)
    if metric == "cosine":
        prepared /= np.maximum(np.linalg.norm(prepared, axis=1, keepdims=True), 1e-12)
    return prepared


def _blocks(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _part(bias: Rows | None, block: slice) -> Rows | None:
    return None if bias is None else bias[block]


def top_k(
    queries: Rows, rows: Rows, k: int, metric: Metric, *, bias: Rows | None = None, leave_out: Integers | None = None
) -> tuple[Integers, Scores]:
    """Return the k best rows of each query.

    Parameters
    ----------
    queries : ndarray, shape (q, d)
    rows : ndarray, shape (n, d)
    k : int
        At least 1; more than there are rows means all of them.
    metric : {"cosine", "dot", "l2"}
    bias : ndarray, shape (n,), optional
        Added to the scores of each row.
    leave_out : ndarray of int64, shape (q,), optional
        A row for each query that is not returned, whatever it scores (-1: none). Its place is taken by the next one;
        where k is not below n, the last place holds it, with a score of minus infinity.

    Returns
    -------
    found : ndarray of int64, shape (q, min(k, n))
        Best first, ties by the smaller row.
    scores : ndarray of float32, shape (q, min(k, n))
    """
    k = min(k, len(rows))
    found, scores = np.zeros((len(queries), k), np.int64), np.full((len(queries), k), -np.inf, np.float32)
    for asked in _blocks(len(queries), QUERY_BLOCK) if k else ():
        left_out = None if leave_out is None else leave_out[asked]
        found[asked], scores[asked] = _top_block(queries[asked], rows, k, metric, bias, left_out)
    return found, scores


def _top_block(
    queries: Rows, rows: Rows, k: int, metric: Metric, bias: Rows | None, leave_out: Integers | None
) -> tuple[Integers, Scores]:
    """Return the best rows of one block of queries: each block of rows is held against the k best so far."""
    queries = _prepared(queries, metric)
    best = np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0), np.float32)
    for block in _blocks(len(rows), ROW_BLOCK):
        table = scores_between(queries, rows[block], metric, _part(bias, block))
        if leave_out is not None:
            here = np.flatnonzero((leave_out >= block.start) & (leave_out < block.stop))
            table[here, leave_out[here] - block.start] = -np.inf
        best = _merged(best, table, block.start, k)
    return best


def _merged(best: tuple[Integers, Scores], table: Scores, start: int, k: int) -> tuple[Integers, Scores]:
    """Return the k best of those so far and of a block whose first row has the number `start`."""
    known, width = best[0].shape[1], table.shape[1]
    if known == k:
        worthy = table > best[1][:, -1:]  # an equal score further back loses
    elif known + width <= k:
        worthy = np.ones(table.shape, bool)
    else:
        place = max(width - k, 0)
        worthy = table >= np.partition(table, place, axis=1)[:, place : place + 1]
    asked, column = np.nonzero(worthy)
    old = np.repeat(np.arange(len(table)), known)
    asked, row = np.concatenate([old, asked]), np.concatenate([best[0].ravel(), column + start])
    score = np.concatenate([best[1].ravel(), table[worthy]])
    order = np.lexsort((row, -score, asked))
    first = np.searchsorted(asked[order], np.arange(len(table)))
    keep = order[first[:, None] + np.arange(min(k, known + width))]
    return row[keep], score[keep]


def ranks_of(queries: Rows, rows: Rows, judged: Judged, metric: Metric, *, bias: Rows | None = None) -> Integers:
    """Return the rank of each judged row in the ranking of all rows, 1 for the best.

    Parameters
    ----------
    queries : ndarray, shape (q, d)
    rows : ndarray, shape (n, d)
    judged : Judged
        Of the same queries; its rows are below n.
    metric : {"cosine", "dot", "l2"}
    bias : ndarray, shape (n,), optional

    Returns
    -------
    ndarray of int64, shape (judged.count,)
        In the order of ``judged.rows``.
    """
    ranks = np.ones(judged.count, np.int64)
    for asked in _blocks(len(queries), QUERY_BLOCK):
        part = slice(*judged.starts[[asked.start, asked.stop]])
        if part.stop > part.start:
            ranks[part] += _better(queries, rows, judged, part, metric, bias)
    return ranks


def _better(
    queries: Rows, rows: Rows, judged: Judged, part: slice, metric: Metric, bias: Rows | None
) -> npt.NDArray[np.int64]:
    """Return how many rows come before each judged row of a part of the judgements."""
    owners, wanted = judged.owners[part], judged.rows[part]
    first = int(owners[0])
    asked = _prepared(queries[first : int(owners[-1]) + 1], metric)
    places = owners - first
    own, near = _own_scores(asked[places], rows[wanted], metric, None if bias is None else bias[wanted])
    count = np.zeros(len(wanted), np.int64)
    for block in _blocks(len(rows), ROW_BLOCK):
        table = scores_between(asked, rows[block], metric, _part(bias, block))
        for piece in _blocks(len(wanted), QUERY_BLOCK):
            numbers = np.arange(block.start, block.stop)
            count[piece] += _above(table[places[piece]], own[piece], near[piece], numbers, wanted[piece])
    return count


def _above(theirs: Scores, mine: Scores, margin: Scores, numbers: Integers, wanted: Integers) -> Integers:
    """Return how many scores of each row of a table are above one, or equal to it and further to the front."""
    above = np.count_nonzero(theirs > (mine + margin)[:, None], axis=1)
    level = np.count_nonzero(theirs >= (mine - margin)[:, None], axis=1) - above
    for place in np.flatnonzero(level):  # seldom more than the score itself
        tied = np.abs(theirs[place] - mine[place]) <= margin[place]
        above[place] += np.count_nonzero(tied & (numbers < wanted[place]))
    here = np.flatnonzero((wanted >= numbers[0]) & (wanted <= numbers[-1]))
    itself = theirs[here, wanted[here] - numbers[0]]  # summed in another order than `mine`: never before itself
    above[here] -= itself > mine[here] + margin[here]
    return np.asarray(above, np.int64)


def _own_scores(queries: Scores, rows: Rows, metric: Metric, bias: Rows | None) -> tuple[Scores, Scores]:
    """Return the score of row i for query i, and how far another score may be off and still be the same."""
    left, right = queries.astype(np.float64), _prepared(rows, metric).astype(np.float64)
    if metric == "l2":
        own = -np.linalg.norm(left - right, axis=1)
        size = np.linalg.norm(left, axis=1) + np.linalg.norm(right, axis=1)
    else:
        own = (left * right).sum(1)
        size = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    own += 0.0 if bias is None else bias.astype(np.float64)
    return own.astype(np.float32), (size * _TIED).astype(np.float32)
