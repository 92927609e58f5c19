"""Construction of a proximity graph by overlapping leaves and products of rows, not by n insertions.

Steps: one of each group of equal rows (`graph_equal`), leaves (`graph_partition`), the nearest of each row in each of
its leaves (`kernels.graph_leaf`), robust pruning, reverse edges, pruning again (`kernels.graph_prune`), entries, and
the repair of what cannot be reached (`graph_reach`). Memory: the candidates, ``4 * slots * near`` bytes a row, or three
times the graph; vectors are read where they lie. Invariant: the graph follows from the vectors, the degree and the
seed, whatever the number of threads; each row is reachable from the entries.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from vecdb.contracts.index import VectorView
from vecdb.indexes.codes import find_centres
from vecdb.indexes.graph_equal import group_equal, hang_equal
from vecdb.indexes.graph_lists import Tuning, joined_lists, leaf_candidates, prune, reversed_lists, table_lists
from vecdb.indexes.graph_partition import Leaves, make_leaves
from vecdb.indexes.graph_reach import reached, repair
from vecdb.indexes.graph_rows import Rows, lend_rows
from vecdb.indexes.graph_work import Work
from vecdb.types import CancelCheck, Progress

__all__ = ["Graph", "build_graph", "unreachable"]

I32 = npt.NDArray[np.int32]
F32 = npt.NDArray[np.float32]

_MOST_ENTRIES = 64
_SAMPLE = 4_096
_THINNING, _LEAST_THINNED = 8, 64
_SHARE = 4
"""Of the places of a list, one in so many is for far rows."""
_FAR_FANS = (4, 1)


@dataclass(frozen=True, slots=True)
class Graph:
    """A directed graph over the rows of a view.

    Attributes
    ----------
    neighbours : ndarray of int32, shape (n, R)
        Row i: the out-neighbours of i, distinct, never i itself, nearest first, -1 behind the last. Rows that were left
        out have none.
    entries : ndarray of int32, shape (e,)
        1 to 64 rows at which a search starts, the most central one first.
    """

    neighbours: I32
    entries: I32

    @property
    def count(self) -> int:
        return len(self.neighbours)

    @property
    def degree(self) -> int:
        return int(self.neighbours.shape[1])


def build_graph(
    view: VectorView,
    *,
    degree: int,
    seed: int,
    progress: Progress,
    cancel: CancelCheck,
    threads: int,
    left_out: npt.NDArray[np.int64] | None = None,
    tuning: Tuning | None = None,
) -> Graph:
    """Build a graph.

    Parameters
    ----------
    view : VectorView
        At least one vector.
    degree : int
        R, the most neighbours of a row, at least 1.
    seed : int
        The only source of randomness.
    progress, cancel : callable
        As for `vecdb.contracts.index.IndexType.build`.
    threads : int
        At least 1; the graph does not depend on it.
    left_out : ndarray of int64, optional
        Positions that are not linked, to be linked later or never; not all.
    tuning : Tuning, optional

    Raises
    ------
    CancelledError
    """
    tuning = tuning or Tuning()
    chosen = np.setdiff1d(np.arange(view.count), left_out if left_out is not None else []).astype(np.int32)
    work = Work(threads, progress, cancel, 3 * len(chosen) + 1)
    work.check()
    with lend_rows(view) as rows:
        groups = group_equal(rows, chosen)
        neighbours, entries = _connect(rows, groups.firsts(), degree, seed, tuning, work)
        hang_equal(groups, neighbours)
        work.check()
        repair(rows, neighbours, entries, chosen)
    work.finish()
    return Graph(neighbours, entries)


def _connect(rows: Rows, chosen: I32, degree: int, seed: int, tuning: Tuning, work: Work) -> tuple[I32, I32]:
    """Return neighbours (n, degree) and entries (e,) of the chosen rows, no two of them equal."""
    neighbours = np.full((rows.count, degree), -1, np.int32)
    neighbours[chosen] = _linked(rows, chosen, degree, seed, tuning, work)
    if degree >= _SHARE:
        _add_far_ones(rows, chosen, neighbours, seed, tuning, work)
    return neighbours, _entries(rows, chosen, seed)


def _linked(rows: Rows, chosen: I32, degree: int, seed: int, tuning: Tuning, work: Work) -> I32:
    """Return the neighbours of the chosen rows among each other, int32 of shape (c, degree)."""
    tuning = tuning.fit(len(chosen))
    leaves = make_leaves(rows, chosen, tuning.shape, seed, work)
    forward = _forward(rows, chosen, leaves, degree, tuning, work)
    both = joined_lists(forward.__getitem__, chosen, *reversed_lists(chosen, forward, rows.count))
    linked = np.empty_like(forward)
    prune(rows, chosen, leaves.order(), both, linked, tuning=tuning, mark=False, work=work)
    return linked


def _add_far_ones(rows: Rows, chosen: I32, neighbours: I32, seed: int, tuning: Tuning, work: Work) -> None:
    """Link ever fewer rows with each other, in the last places of their lists.

    The nearest rows of a row in a tight cluster are all of that cluster, and a search would never leave it. Among one
    row in eight, one in 64, and so on, whole clusters are few rows, whose nearest are in others.
    """
    degree = neighbours.shape[1]
    rng = np.random.default_rng(seed + 2)
    coarse = replace(tuning, shape=replace(tuning.shape, fans=_FAR_FANS))
    sample = chosen
    while len(sample) >= _LEAST_THINNED:
        sample = np.sort(rng.choice(sample, len(sample) // _THINNING, replace=False))
        far = _linked(rows, sample, degree // _SHARE, seed, coarse, work)
        both = np.concatenate([neighbours[sample, : degree - far.shape[1]], far], axis=1)
        ordered, order = np.empty((len(sample), degree), np.int32), np.arange(len(sample), dtype=np.int32)
        keep_all = replace(tuning, alpha=0.0)
        prune(rows, sample, order, table_lists(both), ordered, tuning=keep_all, mark=False, work=work)
        neighbours[sample] = ordered


def unreachable(graph: Graph) -> npt.NDArray[np.int64]:
    """Return the rows that no entry leads to, ascending; rows that were left out of the graph are among them."""
    return np.flatnonzero(~reached(graph.neighbours, graph.entries))


def _forward(rows: Rows, chosen: I32, leaves: Leaves, degree: int, tuning: Tuning, work: Work) -> I32:
    """Return the pruned candidates of the chosen rows, fillers marked, int32 of shape (c, degree)."""
    candidates = table_lists(leaf_candidates(rows, leaves, tuning, work))
    forward = np.empty((len(chosen), degree), np.int32)
    prune(rows, chosen, leaves.order(), candidates, forward, tuning=tuning, mark=True, work=work)
    return forward


# --- entries ----------------------------------------------------------------------------------------------


def _entries(rows: Rows, chosen: I32, seed: int) -> I32:
    """Return the sampled rows nearest to the centres of a few groups, and to the mean of all."""
    from vecdb.kernels import graph_load

    rng = np.random.default_rng(seed + 1)
    sample = chosen[np.sort(rng.choice(len(chosen), min(_SAMPLE, len(chosen)), replace=False))]
    table = np.empty((len(sample), rows.wide), np.float32)
    graph_load.load_rows(*rows.head, sample, table)
    wanted = int(min(_MOST_ENTRIES, max(1, len(chosen) ** 0.5 / 4)))
    centres = np.concatenate([table.mean(axis=0)[None], find_centres(table, wanted, rng)])
    squares = np.einsum("ij,ij->i", table, table)
    nearest = (squares - 2 * centres @ table.T).argmin(axis=1)
    places = np.unique(nearest, return_index=True)[1]
    return np.asarray(sample[nearest[np.sort(places)][:_MOST_ENTRIES]])
