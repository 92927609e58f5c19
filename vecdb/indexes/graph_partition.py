"""Overlapping leaves: how the rows of a graph to be built are divided, so that near rows share a leaf.

Random rows are leaders; every row goes to the cells of its nearest few; cells that are still too large are divided
again, around leaders of their own (the way of HCNNG, Munoz et al. 2019, with the overlap of PiPNN). Invariant: each row
is in at least one leaf, and in at most ``fans[0] * fans[1]``, each time under another slot; no leaf is larger than
`Shape.most`; everything follows from the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vecdb.indexes.graph_rows import Rows
from vecdb.indexes.graph_work import Work

__all__ = ["Leaves", "Shape", "make_leaves"]

I32 = npt.NDArray[np.int32]
U8 = npt.NDArray[np.uint8]

_PIECE = 4_096
_BLOCK = 64
"""Rows that are compared with a panel of leaders while it is at hand; a multiple of every tile's rows."""
_DEEPEST = 12
"""Divisions after which a cell is cut anyhow: leaders do not tell its rows apart."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How leaves are made.

    Attributes
    ----------
    least, wanted, most : int
        Rows of a leaf: smaller ones are joined, larger ones divided; `wanted` is what divisions aim at.
    fans : tuple of two ints
        To how many leaders a row goes in the first division, and in the second; one in later ones.
    leaders : int
        At most so many in a division.
    """

    least: int = 100
    wanted: int = 600
    most: int = 1_500
    fans: tuple[int, int] = (10, 1)
    leaders: int = 2_048

    @property
    def slots(self) -> int:
        return self.fans[0] * self.fans[1]


@dataclass(frozen=True, slots=True)
class Leaves:
    """Rows by leaf.

    Attributes
    ----------
    members : ndarray of int32, shape (m,)
        Positions.
    homes : ndarray of int32, shape (m,)
        ``slots * rank + slot``: the rank of a member among the divided rows, and which of its memberships this is.
    starts : ndarray of int64, shape (leaves + 1,)
    slots : int
        Most memberships of a row.
    """

    members: I32
    homes: I32
    starts: npt.NDArray[np.int64]
    slots: int

    def order(self) -> I32:
        """Return the rank of every row once, leaf by leaf: rows that follow each other have candidates in common."""
        return np.asarray(self.homes[self.homes % self.slots == 0] // self.slots)


@dataclass(frozen=True, slots=True)
class _Cell:
    ranks: I32
    slots: U8
    depth: int

    def __len__(self) -> int:
        return len(self.ranks)


def make_leaves(rows: Rows, chosen: I32, shape: Shape, seed: int, work: Work) -> Leaves:
    """Divide rows.

    Parameters
    ----------
    rows : Rows
    chosen : ndarray of int32, shape (c,)
        Positions of the rows to divide, at least one.
    shape : Shape
    seed : int
    work : Work
        Runs the assignments, and counts `chosen` once.
    """
    rng = np.random.default_rng(seed)
    open_cells = [_Cell(np.arange(len(chosen), dtype=np.int32), np.zeros(len(chosen), np.uint8), 0)]
    leaves: list[_Cell] = []
    while open_cells:
        cell = open_cells.pop()
        if len(cell) <= shape.most:
            leaves.append(cell)
            continue
        parts = _divide(rows, chosen, cell, shape, rng, work)
        leaves += _joined([part for part in parts if len(part) < shape.least], shape)
        open_cells += [part for part in reversed(parts) if len(part) >= shape.least]
    starts = np.zeros(len(leaves) + 1, np.int64)
    np.cumsum([len(leaf) for leaf in leaves], out=starts[1:])
    ranks = np.concatenate([leaf.ranks for leaf in leaves])
    homes = ranks * np.int32(shape.slots) + np.concatenate([leaf.slots for leaf in leaves])
    return Leaves(chosen[ranks], homes, starts, shape.slots)


def _divide(rows: Rows, chosen: I32, cell: _Cell, shape: Shape, rng: np.random.Generator, work: Work) -> list[_Cell]:
    """Return the cells of random leaders, by leader; cut a cell at random where leaders do not divide it."""
    size = len(cell)
    fan = shape.fans[cell.depth] if cell.depth < 2 else 1
    count = min(shape.leaders, size, max(2, fan, -(-size * fan // shape.wanted)))
    fan = min(fan, count)
    members = chosen[cell.ranks]
    found = _assign(rows, members, members[np.sort(rng.choice(size, count, replace=False))], fan, work)
    counts = np.bincount(found.reshape(-1), minlength=count)
    if cell.depth >= _DEEPEST or (cell.depth >= 2 and counts.max() > 0.9 * size):
        return _cut(cell, shape, rng)
    step = shape.fans[1] if cell.depth == 0 else 1
    order = np.argsort(found, axis=None, kind="stable")
    slots = np.repeat(cell.slots, fan) + np.tile(np.arange(fan, dtype=np.uint8) * np.uint8(step), size)
    cuts = np.cumsum(counts)[:-1]
    pairs = zip(np.split(np.repeat(cell.ranks, fan)[order], cuts), np.split(slots[order], cuts), strict=True)
    return [_Cell(inside, which, cell.depth + 1) for inside, which in pairs if len(inside)]


def _cut(cell: _Cell, shape: Shape, rng: np.random.Generator) -> list[_Cell]:
    """Cut a cell into equal parts of random rows."""
    order = rng.permutation(len(cell))
    pieces = np.array_split(order, -(-len(order) // shape.most))
    return [_Cell(cell.ranks[piece], cell.slots[piece], cell.depth + 1) for piece in pieces]


def _joined(cells: list[_Cell], shape: Shape) -> Iterator[_Cell]:
    """Put cells together until each is large enough; rows without their like are at least not alone."""
    held: list[_Cell] = []
    for number, cell in enumerate(cells):
        held.append(cell)
        if sum(len(each) for each in held) >= shape.wanted or number == len(cells) - 1:
            ranks = np.concatenate([each.ranks for each in held])
            yield _Cell(ranks, np.concatenate([each.slots for each in held]), cell.depth)
            held = []


def _assign(rows: Rows, members: I32, leaders: I32, fan: int, work: Work) -> I32:
    """Return the places of the nearest leaders of each member, int32 of shape (m, fan)."""
    from vecdb.kernels import graph_assign, graph_load  # numba is loaded when a graph is built, not before
    from vecdb.kernels.graph_assign import TILE_COLUMNS, TILE_ROWS

    panels = -(-len(leaders) // TILE_COLUMNS)
    table = np.empty((panels * TILE_COLUMNS, rows.wide), np.float32)
    graph_load.load_rows(*rows.head, leaders, table[: len(leaders)])
    table[len(leaders) :] = table[0]
    centre = table.mean(axis=0)
    table -= centre
    halves = (0.5 * np.einsum("ij,ij->i", table, table)).reshape(panels, TILE_COLUMNS)
    halves.reshape(-1)[len(leaders) :] = np.inf
    columns = np.ascontiguousarray(table.reshape(panels, TILE_COLUMNS, rows.wide).transpose(0, 2, 1))
    found = np.zeros((len(members), fan), np.int32)

    def piece(start: int) -> Callable[[], None]:
        inside, out = members[start : start + _PIECE], found[start : start + _PIECE]

        def assign() -> None:
            block, tile = np.zeros((_BLOCK, rows.wide), np.float32), np.empty((TILE_ROWS + 1, TILE_COLUMNS), np.float32)
            best = np.empty((_BLOCK, fan), np.float32)
            graph_assign.nearest_leaders(*rows.head, inside, columns, centre, halves, block, tile, best, out)

        return assign

    work.run((0, piece(start)) for start in range(0, len(members), _PIECE))
    return found
