"""What one query has on the axes of a space's profile, compiled: the numbers behind the warning of foreign queries.

Ladder: `axis_energies` (kernel) <- `energies` (entry) <- `vecdb.engine.identity_numbers`. One pass over the stacked
axes; numpy needs eight calls for it, each of which a single query feels after a scan has emptied the caches. Nothing
here decides an answer, so the sums may be reordered.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import types

from vecdb.kernels import reference
from vecdb.kernels._jit import helper, kernel, read, write

__all__ = ["axis_energies", "energies"]


@helper
def _dot(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> np.float32:
    total = np.float32(0.0)
    for j in range(left.shape[0]):
        total += left[j] * right[j]
    return total


@kernel(
    (
        read(types.float32),
        read(types.float32, 2),
        read(types.float64),
        types.int64,
        write(types.float32),
        write(types.float64),
    ),
    twin=reference.axis_energies,
)
def axis_energies(
    query: npt.NDArray[np.float32],
    axes: npt.NDArray[np.float32],
    shadow: npt.NDArray[np.float64],
    loud: int,
    unit: npt.NDArray[np.float32],
    out: npt.NDArray[np.float64],
) -> None:
    """Write the query's part along the mean, and its energy beside it on the loud and on the quiet axes.

    query (d,) of norm 1e-100 to 1e100; axes (1 + m, d), the direction of the mean first; shadow (m,) of the direction
    on the others; loud, how many of those are loud, 0 <= loud <= m; unit (d,) scratch, which holds the query at unit
    length afterwards; out (3,).
    """
    square = 0.0
    for j in range(query.shape[0]):
        square += np.float64(query[j]) * np.float64(query[j])
    norm = math.sqrt(square)
    for j in range(query.shape[0]):
        unit[j] = np.float32(np.float64(query[j]) / norm)
    alignment = np.float64(_dot(axes[0], unit))
    out[0], out[1], out[2] = alignment, 0.0, 0.0
    for place in range(shadow.shape[0]):
        beside = np.float64(_dot(axes[place + 1], unit)) - alignment * shadow[place]
        out[1 if place < loud else 2] += beside * beside


def energies(
    query: npt.NDArray[np.float32], axes: npt.NDArray[np.float32], shadow: npt.NDArray[np.float64], loud: int
) -> tuple[list[float], npt.NDArray[np.float32]]:
    """Return (alignment, energy on the loud axes, energy on the quiet axes), and the query at unit length."""
    unit, out = np.empty(len(query), dtype=np.float32), np.empty(3, dtype=np.float64)
    axis_energies(query, axes, shadow, loud, unit, out)
    return out.tolist(), unit
