"""Linking further rows into a graph: what a search found for them is pruned, and those that it names name them back.

Rows that come together are offered to each other as well, by leaves of their own, so that a new cluster hangs
together. Invariant: every row that was reachable still is, and so is every new one; all other lists stay as they were.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vecdb.contracts.index import VectorView
from vecdb.indexes.graph_build import Graph
from vecdb.indexes.graph_lists import Tuning, joined_lists, leaf_candidates, prune, reversed_lists, table_lists
from vecdb.indexes.graph_partition import make_leaves
from vecdb.indexes.graph_reach import reached, repair
from vecdb.indexes.graph_rows import Rows, lend_rows
from vecdb.indexes.graph_work import Work
from vecdb.types import CancelCheck, Progress

__all__ = ["link"]

I32 = npt.NDArray[np.int32]


def link(
    graph: Graph,
    view: VectorView,
    rows: npt.NDArray[np.int64],
    candidates: npt.NDArray[np.integer],
    *,
    seed: int,
    progress: Progress,
    cancel: CancelCheck,
    threads: int,
    tuning: Tuning | None = None,
) -> Graph:
    """Link rows into a graph.

    Parameters
    ----------
    graph : Graph
        Left as it is.
    view : VectorView
        With all rows of the graph, and perhaps more behind them.
    rows : ndarray of int64, shape (c,)
        Positions to link, distinct, none of them linked yet.
    candidates : ndarray of int, shape (c, m)
        Linked rows near each of them, in any order, -1 for none.
    seed : int
    progress, cancel, threads
        As for `graph_build.build_graph`.
    tuning : Tuning, optional

    Returns
    -------
    Graph
        Of ``view.count`` rows.

    Raises
    ------
    CancelledError
    """
    tuning = tuning or Tuning()
    new = rows.astype(np.int32)
    work = Work(threads, progress, cancel, 3 * len(new) + 1)
    work.check()
    neighbours = np.full((view.count, graph.degree), -1, np.int32)
    neighbours[: graph.count] = graph.neighbours
    if len(new):
        with lend_rows(view) as lent:
            wanted = np.union1d(np.flatnonzero(reached(graph.neighbours, graph.entries)), rows).astype(np.int32)
            forward = _forward(lent, new, candidates.astype(np.int32), graph.degree, seed, tuning, work)
            neighbours[new] = forward
            _name_back(lent, new, forward, neighbours, tuning, work)
            repair(lent, neighbours, graph.entries, wanted)
    work.finish()
    return Graph(neighbours, graph.entries)


def _forward(rows: Rows, new: I32, candidates: I32, degree: int, seed: int, tuning: Tuning, work: Work) -> I32:
    """Return the pruned candidates of the new rows, those of their own leaves among them, shape (c, degree)."""
    tuning = tuning.fit(len(new))
    leaves = make_leaves(rows, new, tuning.shape, seed, work)
    table = np.concatenate([candidates, leaf_candidates(rows, leaves, tuning, work)], axis=1)
    forward = np.empty((len(new), degree), np.int32)
    prune(rows, new, leaves.order(), table_lists(table), forward, tuning=tuning, mark=False, work=work)
    return forward


def _name_back(rows: Rows, new: I32, forward: I32, neighbours: I32, tuning: Tuning, work: Work) -> None:
    """Offer the new rows to those that they name, new ones among them, and prune their lists."""
    ends, sources = reversed_lists(new, forward, rows.count)
    named = np.flatnonzero(np.diff(ends)).astype(np.int32)
    lists = joined_lists(lambda places: neighbours[named[places]], named, ends, sources)
    pruned = np.empty((len(named), neighbours.shape[1]), np.int32)
    order = np.arange(len(named), dtype=np.int32)
    prune(rows, named, order, lists, pruned, tuning=tuning, mark=False, work=work)
    neighbours[named] = pruned
