"""One query made of a query and of examples: Rocchio's formula, with weights that sum to one.

``q' = (a q + b mean(positive) - c mean(negative)) / (a + b - c)``, the vectors of unit length in a cosine space. Its
direction is that of J. Rocchio, Relevance feedback in information retrieval (1971); dividing by the sum of the weights
makes it a point between and beyond the vectors, which in an l2 space does not depend on where the origin lies.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vecdb.errors import ParameterError
from vecdb.types import Metric

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


def combine(metric: Metric, parts: Sequence[tuple[float, F32]]) -> F32:
    """Return the weighted sum of the means of several groups of vectors, divided by the sum of the weights.

    Parameters
    ----------
    metric : {"cosine", "dot", "l2"}
    parts : sequence of (weight, ndarray of float32, shape (n, dim))
        Groups without vectors or of weight 0 do not count.

    Returns
    -------
    ndarray of float32, shape (dim,)

    Raises
    ------
    ParameterError
        The weights of what there is do not sum to more than 0.
    """
    there = [(weight, rows) for weight, rows in parts if len(rows) and weight]
    total = sum(weight for weight, _ in there)
    if total <= 0:
        raise ParameterError(
            f"the weights of query and examples sum to {total:g}, expected more than 0",
            hint="Give a query or positive examples, and weigh them above the negative ones.",
            name="weights",
            got=total,
            allowed="> 0",
        )
    made = sum((weight * _mean(rows, metric) for weight, rows in there), np.zeros(there[0][1].shape[1]))
    combined: F32 = (made / total).astype(np.float32)
    return combined


def _mean(rows: F32, metric: Metric) -> F64:
    wide = rows.astype(np.float64)
    if metric == "cosine":
        wide /= np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]
    mean: F64 = wide.mean(axis=0)
    return mean
