"""Equal rows: a graph is built over one of each, and the others hang below it.

Thousands of equal rows would name only each other, and crowd everything else out of the lists around them. So the first
of each group stands for it; the others form a tree below it, and have its neighbours besides, so that a search that
comes to one of them goes on as from the first. Equal are rows whose loaded forms have the same 64-bit number; two
unequal ones that share a number by chance would share neighbours, and nothing worse.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vecdb.indexes.graph_rows import Rows

__all__ = ["Groups", "group_equal", "hang_equal"]

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

_CHILDREN = 4
"""Of each row in the tree of a group: few, to leave room for neighbours; enough for a tree of little depth."""


@dataclass(frozen=True, slots=True)
class Groups:
    """Rows by what they are equal to.

    Attributes
    ----------
    members : ndarray of int32, shape (c,)
        Positions, the rows of a group behind each other, ascending.
    begins : ndarray of int64, shape (c,)
        Where the group of each member begins.
    sizes : ndarray of int64, shape (c,)
        Rows of the group of each member.
    """

    members: I32
    begins: I64
    sizes: I64

    def firsts(self) -> I32:
        """Return one row of each group, ascending."""
        return np.sort(self.members[np.unique(self.begins)])


def group_equal(rows: Rows, chosen: I32) -> Groups:
    """Group the chosen rows, ascending positions of shape (c,), by equality."""
    from vecdb.kernels import graph_load

    numbers = np.empty(len(chosen), np.uint64)
    graph_load.number_rows(*rows.head, chosen, np.empty(rows.wide, np.float32), numbers)
    order = np.argsort(numbers, kind="stable")
    numbers = numbers[order]
    starts = np.flatnonzero(np.concatenate([[True], numbers[1:] != numbers[:-1]]))
    sizes = np.diff(np.append(starts, len(chosen)))
    return Groups(chosen[order], np.repeat(starts, sizes), np.repeat(sizes, sizes))


def hang_equal(groups: Groups, neighbours: I32) -> None:
    """Write the lists of all rows that are not alone in their group; neighbours (n, R) know the first ones."""
    places = np.flatnonzero(groups.sizes > 1)
    if not len(places):
        return
    begins, sizes = groups.begins[places], groups.sizes[places]
    below = min(_CHILDREN, neighbours.shape[1])
    ranks = (places - begins)[:, None] * below + np.arange(1, below + 1)
    inside = ranks < sizes[:, None]
    children = np.where(inside, groups.members[np.where(inside, begins[:, None] + ranks, 0)], -1)
    listed = np.concatenate([children, neighbours[groups.members[begins]]], axis=1)
    order = np.argsort(listed < 0, axis=1, kind="stable")[:, : neighbours.shape[1]]
    neighbours[groups.members[places]] = np.take_along_axis(listed, order, axis=1)
