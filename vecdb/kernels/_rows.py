"""Rows of a space as the construction of a graph sees them, shared by the kernels that link rows.

A row is read where it lies, turned into float32, multiplied by a factor of its own (one over its length for cosine),
extended by one coordinate for dot, and filled up with zeros to a multiple of 16, so that squared distances between
such rows order neighbours in every metric. Invariant: nothing here checks an address or a position; the caller's
`vecdb.indexes.graph_rows.Rows` proved them. An address of 0 says that the row is gone.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vecdb.kernels._int8 import dequantise
from vecdb.kernels._intrinsics import floats_at, half_to_single, halves_at, prefetch
from vecdb.kernels._jit import helper

__all__ = ["AHEAD", "fetch_row", "load_row", "square_distance"]

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]

AHEAD = 8
"""Rows that are asked for while one is loaded: they lie anywhere, and memory is slower than arithmetic."""


@helper
def _widen(bits: npt.NDArray[np.uint16], factor: np.float32, out: F32) -> None:
    for place in range(bits.shape[0]):
        out[place] = half_to_single(bits[place]) * factor


@helper
def _scale(values: F32, factor: np.float32, out: F32) -> None:
    for place in range(values.shape[0]):
        out[place] = values[place] * factor


@helper
def load_row(form: I64, addresses: I64, factors: F32, position: int | np.int64, out: F32) -> None:
    """Write the row at `position` to out (wide,): form (2,), place in `blocks.KINDS` and width; factors (n, 2)."""
    dim = form[1]
    if form[0] == 2:
        dequantise(addresses[position], dim, out)
        _scale(out[:dim], factors[position, 0], out[:dim])
    elif form[0] == 1:
        _widen(halves_at(addresses[position], dim), factors[position, 0], out[:dim])
    else:
        _scale(floats_at(addresses[position], dim), factors[position, 0], out[:dim])
    for place in range(dim, out.shape[0]):
        out[place] = np.float32(0.0)
    if dim < out.shape[0]:
        out[dim] = factors[position, 1]


@helper
def fetch_row(form: I64, addresses: I64, position: int | np.int64) -> None:
    """Ask for the row at `position`, so that it is at hand when it is loaded."""
    length = form[1] * (4 >> form[0])  # float32, float16, int8
    for line in range(addresses[position], addresses[position] + length, 64):
        prefetch(line)


@helper
def square_distance(left: F32, right: F32) -> np.float32:
    """The squared distance of two rows of the same length."""
    total = np.float32(0.0)
    for place in range(left.shape[0]):
        difference = left[place] - right[place]
        total += difference * difference
    return total
