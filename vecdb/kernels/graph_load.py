"""Copies of rows in the geometry of a graph, and numbers that tell them apart; see `vecdb.kernels._rows`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import types

from vecdb.kernels import reference
from vecdb.kernels._jit import kernel, read, write
from vecdb.kernels._rows import load_row

__all__ = ["load_rows", "number_rows"]

F32 = npt.NDArray[np.float32]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]


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

    form (2,): the place of the dtype in `blocks.KINDS`, and the width; addresses (n,); factors (n, 2).
    """
    for place in range(wanted.shape[0]):
        row = np.int64(wanted[place])
        if addresses[row]:
            load_row(form, addresses, factors, row, out[place])
        else:
            out[place] = np.float32(0.0)


@kernel(
    (
        read(types.int64),
        read(types.int64),
        read(types.float32, 2),
        read(types.int32),
        write(types.float32),
        write(types.uint64),
    ),
    twin=reference.number_rows,
)
def number_rows(form: I64, addresses: I64, factors: F32, wanted: I32, row: F32, out: U64) -> None:
    """Write a number to out (r,) for each row at wanted (r,): the same for equal rows, for others hardly ever.

    form (2,), addresses (n,), factors (n, 2): as in `load_rows`; no row may be gone. Scratch: row (wide,).
    """
    for place in range(wanted.shape[0]):
        load_row(form, addresses, factors, np.int64(wanted[place]), row)
        number = np.uint64(0x9E3779B97F4A7C15)
        for axis in range(row.shape[0]):
            bits = np.uint64(np.float32(row[axis] + np.float32(0.0)).view(np.uint32))
            if bits == np.uint64(0x80000000):
                bits = np.uint64(0)  # both zeros are equal
            number = (number ^ bits) * np.uint64(0xBF58476D1CE4E5B9)
            number ^= number >> np.uint64(32)
        out[place] = number
