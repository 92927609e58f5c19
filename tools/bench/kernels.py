"""The yardstick of scans: how fast this machine reads memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

_READ_ONLY = numba.types.Array(numba.float32, 1, "C", readonly=True)


@numba.njit(numba.float32(_READ_ONLY), fastmath=True, nogil=True)  # type: ignore[untyped-decorator]
def total(values: Any) -> Any:
    """Return the sum: one load a component and as little arithmetic as a compiler leaves in."""
    found = np.float32(0)
    for place in range(values.size):  # iterating over the array itself is not vectorised
        found += values[place]
    return found


def read(parts: Sequence[npt.NDArray[np.float32]]) -> float:
    """Read every byte of `parts` once."""
    return sum(float(total(part.reshape(-1))) for part in parts)
