"""What the scores of a query's best candidates say of it: how far the first stands out, how crowded it is around it."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["DEPTH_SEEN", "WIDTH", "list_features"]

F64 = npt.NDArray[np.float64]

DEPTH_SEEN: Final = 10
"""Best candidates that are looked at."""
WIDTH: Final = 7


def list_features(scores: npt.NDArray[np.floating]) -> F64:
    """Return seven numbers for each query; they move and stretch with the scores.

    The best score, its lead over the second and the third, mean and deviation of the second to the tenth, the tenth,
    and the lead of the best over that mean. Where there are fewer candidates the last stands in for those missing.

    Parameters
    ----------
    scores : ndarray, shape (q, m)
        In any order, -inf where there is no candidate.

    Returns
    -------
    ndarray of float64, shape (q, 7)
        Zeros where a query has no candidate.
    """
    best = _best(np.asarray(scores, np.float64))
    rest = best[:, 1:]
    mean = rest.mean(1)
    first = best[:, 0]
    return np.column_stack(
        [first, first - best[:, 1], first - best[:, 2], mean, best[:, -1], rest.std(1), first - mean]
    )


def _best(scores: F64) -> F64:
    """Return the ten best of each row, best first, the last repeated where there are fewer."""
    ordered = -np.sort(-scores, axis=1)[:, :DEPTH_SEEN]
    count = np.isfinite(ordered).sum(1)
    places = np.minimum(np.arange(DEPTH_SEEN)[None, :], np.maximum(count - 1, 0)[:, None])
    if not ordered.shape[1]:
        return np.zeros((len(scores), DEPTH_SEEN))
    found = np.take_along_axis(ordered, places, axis=1)
    return np.where(count[:, None] > 0, found, 0.0)
