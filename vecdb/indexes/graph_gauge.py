"""What a graph finds by its effort, measured on vectors that are not in it.

Some rows are left out of the graph, asked for their ten neighbours among the others with more and more effort, and
compared with the exact answer; a row as near as the tenth counts. Invariant: what is measured was never reachable, so
that the curve holds for queries like the vectors, not for the vectors themselves.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import numpy.typing as npt

from vecdb.contracts.effort import EffortCurve
from vecdb.contracts.index import VectorView
from vecdb.indexes.codes import unit_rows
from vecdb.indexes.graph_layout import StoredGraph
from vecdb.indexes.graph_walk import walk_graph

__all__ = ["default_effort", "measure", "true_neighbours"]

F32 = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]

NEIGHBOURS: Final = 10
WANTED: Final = 0.98
LEAST: Final = 32
UNMEASURED: Final = 128
_EFFORTS: Final = (12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1_024, 1_536, 2_048)
_ENOUGH: Final = 0.998
"""The ladder ends with the first effort that finds so much: who asks for more is answered by a scan."""
_TOLERANCE: Final = 1e-5
_PIECE: Final = 4_096
_ROWS: Final = 1_024
_FEW: Final = 64
"""Rows of a piece that are better than what a query has: so few are put into a table of their own."""


def true_neighbours(view: VectorView, queries: F32, left_out: Positions) -> tuple[Positions, F32]:
    """Return the positions and scores of the ten best of a view for each query, rows that are left out not counted.

    Where there are fewer, positions are -1 and scores -inf.
    Scores are those of the kernel up to rounding: higher is better.
    """
    best = np.full((len(queries), NEIGHBOURS), -np.inf, np.float32)
    places = np.full((len(queries), NEIGHBOURS), -1, np.int64)
    out = np.zeros(view.count, np.bool_)
    out[left_out] = True
    for positions, rows in view.chunks(_PIECE):
        scores = _scores(view, queries, rows)
        scores[:, out[positions]] = -np.inf
        found, columns = _candidates(scores, best.min(axis=1))
        both = np.concatenate([best, found], axis=1)
        known = np.concatenate([places, positions[columns]], axis=1)
        chosen = np.argpartition(-both, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]
        best, places = np.take_along_axis(both, chosen, axis=1), np.take_along_axis(known, chosen, axis=1)
    places[np.isneginf(best)] = -1
    return places, best


def _candidates(scores: F32, floor: F32) -> tuple[F32, Positions]:
    """Return scores and columns that hold the ten best of each row above its floor; the first pieces know of none."""
    above = scores > floor[:, None]
    counts = np.count_nonzero(above, axis=1)
    widest = int(counts.max(initial=0))
    if widest > min(_FEW, scores.shape[1] - 1):
        few = min(NEIGHBOURS, scores.shape[1])
        columns = np.argpartition(-scores, few - 1, axis=1)[:, :few]
        return np.take_along_axis(scores, columns, axis=1), columns
    found, columns = np.full((len(scores), widest), -np.inf, np.float32), np.zeros((len(scores), widest), np.int64)
    asked, column = np.nonzero(above)
    place = np.arange(len(asked)) - (np.cumsum(counts) - counts)[asked]
    found[asked, place], columns[asked, place] = scores[asked, column], column
    return found, columns


def _scores(view: VectorView, queries: F32, rows: F32) -> F32:
    if view.metric == "cosine":
        rows = unit_rows(rows)
    scores: F32 = queries @ rows.T
    if view.metric == "l2":
        scores *= 2
        scores -= np.einsum("ij,ij->i", rows, rows)
    return scores


def _tenth(view: VectorView, queries: F32, places: Positions) -> npt.NDArray[np.float64]:
    """Return the score of the worst of the true neighbours, without what products of large numbers lose."""
    worst = np.full(len(queries), np.inf)
    asked, rank = np.nonzero(places >= 0)
    for start in range(0, len(asked), _ROWS):
        some = asked[start : start + _ROWS]
        rows = view.gather(places[some, rank[start : start + _ROWS]]).astype(np.float64)
        mine = queries[some].astype(np.float64)
        if view.metric == "l2":
            scores = -np.einsum("ij,ij->i", rows - mine, rows - mine)
        else:
            scores = np.einsum("ij,ij->i", rows, mine)
            if view.metric == "cosine":
                scores /= np.maximum(np.linalg.norm(rows, axis=1), np.finfo(np.float64).tiny)
        np.minimum.at(worst, some, scores)
    return worst


def measure(graph: StoredGraph, view: VectorView, left_out: Positions, threads: int = 1) -> EffortCurve | None:
    """Return recall@10 by effort of queries that are no part of a graph; None without any.

    Parameters
    ----------
    graph : StoredGraph
        No path of which leads to a row that is left out.
    view : VectorView
    left_out : ndarray of int64, shape (h,)
        The rows that are asked for their neighbours.
    threads : int, default 1
        They share the queries; what is found does not depend on them.
    """
    if not len(left_out):
        return None
    queries = view.gather(left_out)
    places, _ = true_neighbours(view, queries, left_out)
    tenth = _tenth(view, queries, places)
    floor = tenth - _TOLERANCE * np.maximum(np.abs(tenth), np.finfo(np.float32).tiny)
    wanted = np.maximum((places >= 0).sum(axis=1), 1)
    told: list[tuple[int, float, float]] = []
    for effort in _EFFORTS:
        most = min(effort, graph.count)
        scores = _walks(graph, queries, most, view, threads)
        recalls = (scores >= floor[:, None]).sum(axis=1) / wanted
        told.append((effort, float(np.minimum(recalls, 1).mean()), float(np.minimum(recalls, 1).std())))
        if told[-1][1] >= _ENOUGH or effort >= graph.count:
            break
    efforts, means, spreads = (np.array(part) for part in zip(*told, strict=True))
    return EffortCurve(efforts.astype(np.int64), means, len(queries), NEIGHBOURS, spreads)


def _walks(graph: StoredGraph, queries: F32, effort: int, view: VectorView, threads: int) -> F32:
    """Return the scores that walks of one effort find, shape (q, k)."""

    def walk(part: F32) -> F32:
        return walk_graph(graph, part, min(NEIGHBOURS, graph.count), None, effort, view).scores

    if threads == 1:
        return walk(queries)
    with ThreadPoolExecutor(threads) as pool:
        return np.concatenate(list(pool.map(walk, np.array_split(queries, threads))))


def default_effort(curve: EffortCurve | None) -> int:
    """Return the smallest effort that is known to reach the wanted recall, or the largest that was tried."""
    if curve is None:
        return UNMEASURED
    return max(LEAST, curve.effort_for(WANTED) or int(curve.efforts[-1]))
