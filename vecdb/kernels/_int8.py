"""Reading rows of int8 where they lie: codes, and the step behind them; see vecdb/int8rows.py.

Compiled into each kernel that calls them; nothing here is a kernel.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vecdb.kernels._intrinsics import codes_at, floats_at
from vecdb.kernels._jit import helper

__all__ = ["dequantise", "int8_size", "multiply_codes"]

F32 = npt.NDArray[np.float32]


@helper
def int8_size(d: int) -> int:
    """Return the bytes of a row: codes up to a multiple of four, and the step."""
    return (d + 3) // 4 * 4 + 4


@helper
def dequantise(address: int, d: int, out: F32) -> None:
    """Write the float32 components of a row: products rounded once, as everybody else has them.

    They go through memory, so that no product is contracted with what is computed of it: at small distances a bound
    that is relative to the distance leaves no room for that.
    """
    codes, step = codes_at(address, d), floats_at(address + int8_size(d) - 4, 1)[0]
    for j in range(d):
        out[j] = np.float32(codes[j]) * step


@helper
def _sum_products(codes: npt.NDArray[np.int8], wanted: F32) -> np.float32:
    total = np.float32(0.0)
    for j in range(codes.shape[0]):
        total += np.float32(codes[j]) * wanted[j]
    return total


@helper
def multiply_codes(address: int, query: F32) -> np.float32:
    """Return the inner product of the query with a row: of the codes, times the step."""
    d = query.shape[0]
    product: np.float32 = _sum_products(codes_at(address, d), query) * floats_at(address + int8_size(d) - 4, 1)[0]
    return product
