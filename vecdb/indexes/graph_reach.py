"""That every row of a graph can be reached from its entries: the proof, and the repair.

The repair keeps a tree of how rows were reached and hangs what is not in it below a row nearby. A full list gives up
only an edge that is not of the tree, so nothing that was reached is cut off; a row whose edges are all of the tree has
children to pass the new one on to. Invariant: after `repair` nothing is unreachable, whatever the degree.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from vecdb.indexes.graph_rows import Rows

__all__ = ["reached", "repair"]

I32 = npt.NDArray[np.int32]

_ROOT, _UNREACHED = -1, -2
_EFFORT = 48


def reached(neighbours: I32, entries: I32) -> npt.NDArray[np.bool_]:
    """Return which rows the entries lead to, bool of shape (n,)."""
    return np.asarray(_spread_all(neighbours, entries)[0] != _UNREACHED)


def _spread_all(neighbours: I32, entries: I32) -> tuple[I32, I32]:
    """Return the parents in a breadth-first tree from the entries, and a queue to go on with."""
    from vecdb.kernels import graph_reach

    parents = np.full(len(neighbours), _UNREACHED, np.int32)
    queue = np.empty(len(neighbours), np.int32)
    roots = np.unique(entries)
    parents[roots] = _ROOT
    queue[: len(roots)] = roots
    graph_reach.spread(neighbours, parents, queue, len(roots))
    return parents, queue


def repair(rows: Rows, neighbours: I32, entries: I32, wanted: I32) -> int:
    """Make every row of `wanted` reachable by changing neighbours (n, R) in place; return how many edges it took."""
    from vecdb.kernels import graph_reach

    parents, queue = _spread_all(neighbours, entries)
    block = np.zeros((2, rows.wide), np.float32)
    hung = 0
    for row in wanted[parents[wanted] == _UNREACHED].tolist():
        if parents[row] != _UNREACHED:
            continue
        for host in _hosts(rows, neighbours, entries, parents, row):
            if graph_reach.insert_edge(*rows.head, neighbours, parents, host, row, block):
                break
        parents[row], queue[0] = host, row
        graph_reach.spread(neighbours, parents, queue, 1)
        hung += 1
    return hung


def _hosts(rows: Rows, neighbours: I32, entries: I32, parents: I32, row: int) -> Iterator[int]:
    """Yield reached rows, near ones first, then whatever hangs below them; one of them has room."""
    yield from (other for other in neighbours[row].tolist() if other >= 0 and parents[other] != _UNREACHED)
    near: list[int] = _met(rows, neighbours, entries, row) if rows.addresses[row] else entries.tolist()
    yield from near
    for host in near:  # each was full of its children: go down the tree, which ends somewhere
        for child in neighbours[host].tolist():
            if child >= 0 and parents[child] == host:
                near.append(child)
                yield child


def _met(rows: Rows, neighbours: I32, entries: I32, row: int) -> list[int]:
    """Return the rows that a search for `row` meets, nearest first."""
    from vecdb.kernels import graph_reach

    found = np.empty((1, _EFFORT), np.int32)
    scratch = np.zeros(rows.count, np.uint32), np.empty(_EFFORT, np.uint64), np.zeros((2, rows.wide), np.float32)
    graph_reach.walk(*rows.head, neighbours, entries, np.array([row], np.int32), *scratch, found)
    return [other for other in found[0].tolist() if other >= 0]
