"""Copies of rows in the geometry of a graph; see `vecdb.kernels._rows`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import types

from vecdb.kernels import reference
from vecdb.kernels._jit import kernel, read, write
from vecdb.kernels._rows import load_row

__all__ = ["load_rows"]

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]


@kernel(
    (
        read(types.int64),
        read(types.int64),
        read(types.float32, 2),
        read(types.int32),
        write(types.float32, 2),
    ),
    twin=reference.load_rows,
)
def load_rows(form: I64, addresses: I64, factors: F32, wanted: I32, out: F32) -> None:
    """Write the rows at wanted (r,) to out (r, wide), zeros where a row is gone.

    form (2,): 1 for float16, and the stored width; addresses (n,); factors (n, 2).
    """
    for place in range(wanted.shape[0]):
        row = np.int64(wanted[place])
        if addresses[row]:
            load_row(form, addresses, factors, row, out[place])
        else:
            out[place] = np.float32(0.0)
