"""Maximal marginal relevance: hits that are good and unlike each other.

J. Carbonell and J. Goldstein, The use of MMR, diversity-based reranking for reordering documents and producing
summaries, SIGIR 1998, section 2. Similarities come from the canonical routine, so the choice does not depend on what
else is in the batch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from vecdb.scan_numpy import canonical_scores
from vecdb.types import Metric

F32 = npt.NDArray[np.float32]


def choose(scores: F32, vectors: F32, metric: Metric, k: int, trade: float) -> list[int]:
    """Return the places of the chosen candidates, in the order of choosing.

    Parameters
    ----------
    scores : ndarray of float32, shape (n,)
        Of the candidates, best first.
    vectors : ndarray of float32, shape (n, dim)
    metric : {"cosine", "dot", "l2"}
        By which candidates are compared.
    k : int
    trade : float
        Weight of the score, 0 to 1. Equal values go by place.

    Returns
    -------
    list of min(k, n) ints
    """
    relevance = trade * scores.astype(np.float64)
    nearest = np.full(len(scores), -np.inf)
    free = np.ones(len(scores), np.bool_)
    chosen: list[int] = []
    for _ in range(min(k, len(scores))):
        value = relevance - (1.0 - trade) * nearest if chosen else relevance
        best = int(np.argmax(np.where(free, value, -np.inf)))
        chosen.append(best)
        free[best] = False
        np.maximum(nearest, canonical_scores(metric, vectors[best], vectors), out=nearest)
    return chosen
