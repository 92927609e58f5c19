"""The rows of a view as the construction of a graph reads them: in place, in one geometry for all metrics.

Cosine is l2 between unit rows; dot is l2 after every row, over the greatest length M, is extended by
``sqrt(1 - |x|**2 / M**2)`` (Bachrach et al., "Speeding up the Xbox recommender system", RecSys 2014); l2 is scaled by
a power of two, so that neither squares nor their differences leave float32. Nothing is copied but twelve bytes a row.
Invariant: addresses hold only until the ``with`` block ends, and 0 stands for a row that is gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vecdb.blocks import VectorBlocks
from vecdb.contracts.index import InPlace, VectorView

__all__ = ["Rows", "lend_rows", "rows_of"]

_LANES = 16


@dataclass(frozen=True, slots=True)
class Rows:
    """What kernels are given to read rows; see `vecdb.kernels._rows`.

    Attributes
    ----------
    form : ndarray of int64, shape (2,)
        The place of the dtype in `blocks.KINDS`, and the width.
    addresses : ndarray of int64, shape (n,)
    factors : ndarray of float32, shape (n, 2)
        What a row is multiplied by, and its additional coordinate.
    wide : int
        Coordinates of a row as loaded, a multiple of 16.
    blocks : VectorBlocks
        What the addresses point into.
    """

    form: npt.NDArray[np.int64]
    addresses: npt.NDArray[np.int64]
    factors: npt.NDArray[np.float32]
    wide: int
    blocks: VectorBlocks

    @property
    def count(self) -> int:
        return len(self.addresses)

    @property
    def head(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """The first three arguments of every kernel that reads rows."""
        return self.form, self.addresses, self.factors


@contextmanager
def lend_rows(view: VectorView) -> Iterator[Rows]:
    """Give the rows of a view where they lie, until the ``with`` block ends."""
    with view.in_place() as here:
        yield rows_of(here, view.count)


def rows_of(here: InPlace, count: int) -> Rows:
    """Return the rows of a view of `count` vectors that lie `here`, while they do."""
    blocks = here.blocks
    places = np.arange(here.first, here.first + count) if here.places is None else here.places
    there = places >= 0
    at = np.where(there, places, 0)
    block = np.searchsorted(blocks.starts, at, side="right") - 1
    table, row_bytes = blocks.any_table, blocks.row_bytes - 4  # without the scale, which lies elsewhere
    addresses = np.where(there, table[block, 0] + (at - table[block, 2]) * row_bytes, 0)
    factors = _factors(blocks, np.concatenate([*blocks.scales, np.zeros(1, np.float32)])[at])
    wide = -(-(blocks.dim + (blocks.metric == "dot")) // _LANES) * _LANES
    return Rows(np.array([blocks.kind, blocks.dim], np.int64), addresses, factors, wide, blocks)


def _factors(blocks: VectorBlocks, scales: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return what each row is multiplied by and its additional coordinate, from the scales stored beside the rows."""
    factors = np.zeros((len(scales), 2), np.float32)
    if blocks.metric == "cosine":
        factors[:, 0] = np.where(np.isfinite(scales), scales, 0)
    elif blocks.metric == "dot":
        longest = float(scales.max(initial=0)) or 1.0
        factors[:, 0] = 1 / longest
        factors[:, 1] = np.sqrt(np.maximum(0, 1 - (scales.astype(np.float64) / longest) ** 2))
    else:
        longest = float(np.sqrt(scales.max(initial=0).astype(np.float64))) or 1.0
        factors[:, 0] = 2.0 ** -np.ceil(np.log2(longest))
    return factors
