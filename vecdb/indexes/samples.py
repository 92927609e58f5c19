"""Which vectors of a view stand for all of them where looking at all would take too long."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["spread_positions"]


def spread_positions(count: int, most: int) -> npt.NDArray[np.int64]:
    """Return at most so many positions spread evenly over a view, so that the order of arrival does not matter.

    Parameters
    ----------
    count : int
        Vectors of the view, at least 1.
    most : int

    Returns
    -------
    ndarray of int64, shape (min(count, most),)
        Ascending, distinct; the first vector is among them and, of two or more, the last.
    """
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))
