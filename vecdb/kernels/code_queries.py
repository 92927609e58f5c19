"""Queries made ready for scans of codes, compiled: what is known of each cell, and the rotated rest.

Ladder: `prepare` (kernel) <- `prepared` (entry). One call does what a scan needs to know of a query, always in the same
order of operations, so that a query gets the same bits alone and in a batch. Meaning of the numbers:
`vecdb.indexes.codes` for estimates, `vecdb.indexes.lists` for the order of lists.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import types

from vecdb.kernels import reference
from vecdb.kernels._jit import helper, kernel, read, write
from vecdb.kernels._lookup import rotate_row

__all__ = ["Ready", "prepare", "prepared"]

F32 = npt.NDArray[np.float32]

_NO_MEAN = 1e-30
"""Squared length below which a mean is as good as none: dividing by it would leave the range of float32."""


class Ready(NamedTuple):
    """Queries as scans take them.

    Attributes
    ----------
    turned : ndarray of float32, shape (q, D)
        Without their part along the mean, rotated.
    bends : ndarray of float32, shape (q,)
        The multiple of the mean that was taken out.
    bases : ndarray of float32, shape (q, cells)
        The score of each centre.
    nearness : ndarray of float32, shape (q, cells), or (q, 0)
        What cells are ordered by, highest first.
    """

    turned: F32
    bends: F32
    bases: F32
    nearness: F32


@helper
def _product(left: F32, right: F32) -> np.float32:
    total = np.float32(0.0)
    for place in range(left.shape[0]):
        total += left[place] * right[place]
    return np.float32(total)


@helper
def _bend(query: F32, mean: F32) -> np.float32:
    """Return the multiple of the mean that a query has."""
    length = np.float64(_product(mean, mean))
    return np.float32(np.float64(_product(query, mean)) / length) if length > _NO_MEAN else np.float32(0.0)


@kernel(
    (
        read(types.float32, 2),
        read(types.float32),
        read(types.float32, 2),
        read(types.float32, 2),
        read(types.float32, 2),
        types.int64,
        write(types.float32, 2),
        write(types.float32),
        write(types.float32, 2),
        write(types.float32, 2),
    ),
    twin=reference.prepare,
)
def prepare(
    queries: F32,
    mean: F32,
    centres: F32,
    traits: F32,
    signs: F32,
    squared: int,
    turned: F32,
    bends: F32,
    bases: F32,
    nearness: F32,
) -> None:
    """Write turned (q, D), bends (q,), bases (q, cells) and nearness (q, cells); nearness (q, 0) is not computed.

    queries (q, dim); mean (dim,); centres (cells, dim); traits (3, cells): squared length, spread and drop of each
    cell; signs (rounds, D), D at least dim; squared is 1 for l2 and 0 for products.
    """
    width = queries.shape[1]
    for number in range(queries.shape[0]):
        query, row, known = queries[number], turned[number], bases[number]
        bend = np.float32(1.0) if squared else _bend(query, mean)
        bends[number] = bend
        row[width:] = np.float32(0.0)
        for place in range(width):
            row[place] = query[place] - bend * mean[place]
        rotate_row(row, signs)
        for cell in range(centres.shape[0]):
            product = _product(query, centres[cell])
            known[cell] = np.float32(2.0) * product - traits[0, cell] if squared else product
        if nearness.shape[1] == 0:
            continue
        square = _product(query, query)
        for cell in range(centres.shape[0]):
            gap = np.sqrt(max(square - known[cell], np.float32(0.0)) if squared else square)
            nearness[number, cell] = known[cell] + traits[1, cell] * gap - traits[2, cell]


def prepared(
    queries: F32, mean: F32, centres: F32, traits: F32, signs: F32, *, squared: bool, ordered: bool = False
) -> Ready:
    """Return queries as scans take them; arrays as in `prepare`, `ordered` if the nearness of cells is wanted."""
    count, cells = len(queries), len(centres)
    ready = Ready(
        np.empty((count, signs.shape[1]), np.float32),
        np.empty(count, np.float32),
        np.empty((count, cells), np.float32),
        np.empty((count, cells if ordered else 0), np.float32),
    )
    prepare(queries, mean, centres, traits, signs, int(squared), *ready)
    return ready
