"""The lists of a graph under construction: candidates from leaves, pruned lists, and who names whom.

Each runs a kernel over pieces of the rows on the threads of a `Work`. Invariant: a piece writes to the rows it was
given and to no others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from vecdb.indexes.graph_partition import Leaves, Shape
from vecdb.indexes.graph_rows import Rows
from vecdb.indexes.graph_work import Work

__all__ = ["Lists", "Tuning", "joined_lists", "leaf_candidates", "prune", "reversed_lists", "table_lists"]

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

Lists: TypeAlias = Callable[[I32], tuple[I64, I32]]
"""Gives the candidates of the rows at some places of a list as (starts, candidates); see `graph_prune.prune_rows`."""

_LEAVES_A_PIECE: Final = 4
_ROWS_A_PIECE: Final = 512


@dataclass(frozen=True, slots=True)
class Tuning:
    """What decides between time and quality.

    Attributes
    ----------
    shape : Shape
        Of the leaves.
    near : int
        Candidates that a row takes from each of its leaves.
    alpha : float
        How much nearer to a chosen neighbour than to the row itself a candidate must be to be dropped.
    considered : int
        At most so many candidates, the nearest, are looked at when a list is pruned.
    """

    shape: Shape = field(default_factory=Shape)
    near: int = 12
    alpha: float = 1.05
    considered: int = 128

    def fit(self, count: int) -> Tuning:
        """Return the tuning for so many rows: those of a single leaf take from it what they would take from several."""
        if count > self.shape.most:
            return self
        return replace(self, shape=replace(self.shape, fans=(1, 1)), near=self.near * self.shape.slots)


def leaf_candidates(rows: Rows, leaves: Leaves, tuning: Tuning, work: Work) -> I32:
    """Return the nearest of each divided row in each of its leaves, int32 of shape (rows, slots * near), -1 for none.

    Counts every divided row once.
    """
    from vecdb.kernels import graph_leaf  # numba is loaded when a graph is built, not before
    from vecdb.kernels.graph_leaf import TILE_COLUMNS, TILE_ROWS

    near, slots = tuning.near, leaves.slots
    candidates = np.full((int(leaves.homes.max()) // slots + 1, slots * near), -1, np.int32)
    largest = -(-int(np.diff(leaves.starts).max()) // TILE_COLUMNS) * TILE_COLUMNS
    homes = candidates.reshape(-1, near)

    def piece(first: int) -> tuple[int, Callable[[], None]]:
        starts = np.ascontiguousarray(leaves.starts[first : first + _LEAVES_A_PIECE + 1])

        def link() -> None:
            block, panel = np.zeros((largest, rows.wide), np.float32), np.empty((rows.wide, TILE_COLUMNS), np.float32)
            tile, keys = np.empty((TILE_ROWS + 1, TILE_COLUMNS), np.float32), np.empty((largest, near), np.uint64)
            floats = block, panel, tile, np.empty((3, max(largest, rows.wide)), np.float32)
            graph_leaf.leaf_neighbours(*rows.head, leaves.members, leaves.homes, starts, *floats, keys, homes)

        return int(starts[-1] - starts[0]) // slots, link

    work.run(piece(first) for first in range(0, len(leaves.starts) - 1, _LEAVES_A_PIECE))
    return candidates


def prune(
    rows: Rows, targets: I32, order: I32, lists: Lists, out: I32, *, tuning: Tuning, mark: bool, work: Work
) -> None:
    """Prune the candidates of `targets`, positions of shape (t,), into out, shape (t, R); counts every target once.

    Free places go to the nearest that were dropped, marked (`kernels.graph_prune`) if so wanted. Targets are taken in
    `order`, places in `targets`, which decides what the processor finds in its caches, not what comes out.
    """
    from vecdb.kernels import graph_prune

    def piece(first: int) -> tuple[int, Callable[[], None]]:
        places = order[first : first + _ROWS_A_PIECE]

        def do() -> None:
            starts, candidates = lists(places)
            block = np.zeros((tuning.considered + 1, rows.wide), np.float32)
            longest = int(np.diff(starts).max())
            keys = np.empty(longest, np.uint64)
            numbers = np.empty(tuning.considered + out.shape[1] + max(16, 4 * longest), np.int32)
            pruned = np.empty((len(places), out.shape[1]), np.int32)
            alpha = np.float32(tuning.alpha**2)
            graph_prune.prune_rows(
                *rows.head, targets[places], starts, candidates, alpha, mark, block, keys, numbers, pruned
            )
            out[places] = pruned

        return len(places), do

    work.run(piece(first) for first in range(0, len(order), _ROWS_A_PIECE))


def table_lists(table: I32) -> Lists:
    """Return the lists that are the rows of a table."""
    width = table.shape[1]

    def lists(places: I32) -> tuple[I64, I32]:
        return np.arange(len(places) + 1, dtype=np.int64) * width, table[places].reshape(-1)

    return lists


def reversed_lists(rows: I32, forward: I32, count: int) -> tuple[I64, I32]:
    """Return who of `rows`, shape (t,), names each of `count` rows in its list of forward (t, R).

    Returns
    -------
    ends : ndarray of int64, shape (count + 1,)
    sources : ndarray of int32
        Those that name row i: ``sources[ends[i] : ends[i + 1]]``.
    """
    from vecdb.kernels import graph_reach

    named = forward[forward >= 0]
    ends = np.concatenate([[0], np.cumsum(np.bincount(named, minlength=count))])
    sources = np.empty(len(named), np.int32)
    graph_reach.reverse_lists(forward, rows, ends[:-1].copy(), sources)
    return ends, sources


def joined_lists(own: Callable[[I32], I32], targets: I32, ends: I64, sources: I32) -> Lists:
    """Return the lists of what targets have of their `own`, (p, R) by place, and of those that name them."""

    def lists(places: I32) -> tuple[I64, I32]:
        table, rows = own(places), targets[places]
        named = ends[rows + 1] - ends[rows]
        starts, width = np.zeros(len(places) + 1, np.int64), table.shape[1]
        np.cumsum(named + width, out=starts[1:])
        joined = np.empty(int(starts[-1]), np.int32)
        joined[starts[:-1, None] + np.arange(width)] = table
        rank = np.arange(int(named.sum())) - np.repeat(np.cumsum(named) - named, named)
        joined[np.repeat(starts[:-1] + width, named) + rank] = sources[np.repeat(ends[rows], named) + rank]
        return starts, joined

    return lists
