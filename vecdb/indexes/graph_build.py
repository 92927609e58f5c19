"""Construction of a proximity graph by overlapping leaves and products of rows, not by n insertions.

Steps: leaves (`graph_partition`), the nearest of each row in each of its leaves (`kernels.graph_leaf`), robust pruning,
reverse edges, pruning again (`kernels.graph_prune`), entries, and the repair of what cannot be reached
(`graph_reach`). Memory: the candidates, ``4 * slots * near`` bytes a row, and twice the graph; vectors are read where
they lie. Invariant: the graph follows from the vectors, the degree and the seed, whatever the number of threads; each
row is reachable from the entries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vecdb.contracts.index import VectorView
from vecdb.indexes.codes import find_centres
from vecdb.indexes.graph_partition import Leaves, Shape, make_leaves
from vecdb.indexes.graph_reach import reached, repair
from vecdb.indexes.graph_rows import Rows, lend_rows
from vecdb.indexes.graph_work import Work
from vecdb.types import CancelCheck, Progress

__all__ = ["Graph", "build_graph", "unreachable"]

I32 = npt.NDArray[np.int32]
F32 = npt.NDArray[np.float32]

_MOST_ENTRIES = 64
_SAMPLE = 8_192
_LEAVES_A_PIECE = 4
_ROWS_A_PIECE = 512


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


@dataclass(frozen=True, slots=True)
class Tuning:
    """What decides between time and quality.

    Attributes
    ----------
    near : int
        Candidates that a row takes from each of its leaves.
    alpha : float
        How much nearer to a chosen neighbour than to the row itself a candidate must be to be dropped.
    considered : int
        At most so many candidates are pruned.
    fill : bool
        Give free places to candidates that were dropped.
    """

    shape: Shape = Shape()
    near: int = 10
    alpha: float = 1.2
    considered: int = 96
    fill: bool = True


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
        leaves = make_leaves(rows, chosen, tuning.shape, seed, work)
        candidates = _candidates(rows, leaves, tuning, work)
        order = leaves.order()
        forward = np.full((rows.count, degree), -1, np.int32)
        _prune(rows, order, _fixed_lists(candidates), Pruning(tuning, forward, fill=False), work)
        del candidates
        neighbours = np.full((rows.count, degree), -1, np.int32)
        both = _with_reverse(forward, chosen)
        _prune(rows, order, both, Pruning(tuning, neighbours, fill=tuning.fill), work)
        entries = _entries(rows, chosen, seed)
        repair(rows, neighbours, entries, chosen)
    work.finish()
    return Graph(neighbours, entries)


def unreachable(graph: Graph) -> npt.NDArray[np.int64]:
    """Return the rows that no entry leads to, ascending; rows that were left out of the graph are among them."""
    return np.flatnonzero(~reached(graph.neighbours, graph.entries))


# --- candidates -------------------------------------------------------------------------------------------


def _candidates(rows: Rows, leaves: Leaves, tuning: Tuning, work: Work) -> I32:
    """Return the nearest of each row in each of its leaves, int32 of shape (n, slots * near)."""
    from vecdb.kernels import graph_leaf

    candidates = np.full((rows.count, tuning.shape.slots * tuning.near), -1, np.int32)
    largest = -(-int(np.diff(leaves.starts).max()) // 32) * 32

    def piece(first: int) -> tuple[int, Callable[[], None]]:
        starts = np.ascontiguousarray(leaves.starts[first : first + _LEAVES_A_PIECE + 1])
        size = int(starts[-1] - starts[0])

        def link() -> None:
            block = np.zeros((largest, rows.wide), np.float32), np.zeros((rows.wide, largest), np.float32)
            tile = np.zeros((8, max(largest, rows.wide)), np.float32)
            best = np.empty((largest, tuning.near), np.float32), np.empty((largest, tuning.near), np.int32)
            graph_leaf.leaf_neighbours(
                *rows.head, leaves.members, leaves.slots, starts, *block, tile, *best, candidates
            )

        return size // tuning.shape.slots, link

    work.run(piece(first) for first in range(0, len(leaves.starts) - 1, _LEAVES_A_PIECE))
    return candidates


# --- pruning ----------------------------------------------------------------------------------------------

Lists = Callable[[I32], tuple[npt.NDArray[np.int64], I32]]
"""Gives the candidates of some rows as (starts, candidates), as `kernels.graph_prune.prune_rows` takes them."""


@dataclass(frozen=True, slots=True)
class Pruning:
    """How lists are pruned, and where the result goes: out (n, R), a row at its own place."""

    tuning: Tuning
    out: I32
    fill: bool


def _prune(rows: Rows, order: I32, lists: Lists, how: Pruning, work: Work) -> None:
    """Prune the candidates of all rows in `order`, which also decides what is in the processor's caches."""
    from vecdb.kernels import graph_prune

    def piece(first: int) -> tuple[int, Callable[[], None]]:
        targets = order[first : first + _ROWS_A_PIECE]

        def prune() -> None:
            starts, candidates = lists(targets)
            longest = int(np.diff(starts).max())
            block = np.zeros((how.tuning.considered + 1, rows.wide), np.float32)
            scratch = block, np.empty(longest, np.uint64), np.empty(how.out.shape[1], np.int32)
            pruned = np.empty((len(targets), how.out.shape[1]), np.int32)
            alpha = np.float32(how.tuning.alpha**2)
            graph_prune.prune_rows(*rows.head, targets, starts, candidates, alpha, how.fill, *scratch, pruned)
            how.out[targets] = pruned

        return len(targets), prune

    work.run(piece(first) for first in range(0, len(order), _ROWS_A_PIECE))


def _fixed_lists(candidates: I32) -> Lists:
    def lists(targets: I32) -> tuple[npt.NDArray[np.int64], I32]:
        width = candidates.shape[1]
        return np.arange(len(targets) + 1, dtype=np.int64) * width, candidates[targets].reshape(-1)

    return lists


def _with_reverse(forward: I32, chosen: I32) -> Lists:
    """Return the lists of each row's own neighbours and of those that name it."""
    from vecdb.kernels import graph_reach

    named = forward[forward >= 0]
    ends = np.concatenate([[0], np.cumsum(np.bincount(named, minlength=len(forward)))])
    sources = np.empty(len(named), np.int32)
    graph_reach.reverse_lists(np.ascontiguousarray(forward[chosen]), chosen, ends[:-1].copy(), sources)

    def lists(targets: I32) -> tuple[npt.NDArray[np.int64], I32]:
        pieces = [
            part for row in targets.tolist() for part in (forward[row], sources[ends[row] : ends[row + 1]])
        ]
        sizes = forward.shape[1] + ends[targets + 1] - ends[targets]
        return np.concatenate([[0], np.cumsum(sizes)]), np.concatenate(pieces)

    return lists


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
    return sample[nearest[np.sort(places)][:_MOST_ENTRIES]]
