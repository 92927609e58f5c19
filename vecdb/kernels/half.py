"""Widening float16 rows to float32, which numpy does one number at a time.

Ladder: `widen` (kernel) <- `as_singles` (entry). A batch over float16 storage needs float32 rows for its matrix
products; only one tile of them exists at a time.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import types

from vecdb.blocks import Matrix
from vecdb.kernels import reference
from vecdb.kernels._intrinsics import half_to_single
from vecdb.kernels._jit import kernel, read, write

__all__ = ["as_singles", "widen"]


@kernel((read(types.uint16), write(types.float32)), twin=reference.widen)
def widen(bits: npt.NDArray[np.uint16], out: npt.NDArray[np.float32]) -> None:
    """Write the float32 of each float16; bits (n,), out (n,)."""
    for place in range(bits.shape[0]):
        out[place] = half_to_single(bits[place])


def as_singles(rows: Matrix) -> npt.NDArray[np.float32]:
    """Return C-contiguous rows (n, d) as float32; float32 rows are returned as they are."""
    if rows.dtype != np.float16:
        return rows.astype(np.float32, copy=False)
    out = np.empty(rows.shape, dtype=np.float32)
    widen(rows.view(np.uint16).reshape(-1), out.reshape(-1))
    return out
