"""How much of the truth an index finds, query by query.

A candidate that scores as well as the k-th best row counts, whichever of equal rows it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vecdb.evaluation.health.sure import bootstrap
from vecdb.evaluation.intervals import Estimate

__all__ = ["recall_of_scores"]

Scores = npt.NDArray[np.floating]


def recall_of_scores(truth: Sequence[Scores], answers: Sequence[Scores], k: int, *, seed: int = 0) -> Estimate:
    """Return the mean share of the k best rows that answers hold, with a resampled interval.

    Parameters
    ----------
    truth, answers : sequence of ndarray
        Scores of each query, best first, computed by the same routine; a truth that is shorter than k is all there is.
    k : int
    seed : int, default 0
    """
    each = [_recall(best[:k], found[:k]) for best, found in zip(truth, answers, strict=True) if len(best)]
    shares = np.array(each, np.float64)
    return bootstrap(shares, lambda drawn: float(drawn.mean()), seed=seed)


def _recall(best: Scores, found: Scores) -> float:
    return min(1.0, float(np.count_nonzero(found >= best[-1])) / len(best))
