"""How differently two models see the same records: neighbours in common, and representation similarity.

Both are 0 for models that agree in nothing and 1 for models that agree in everything; neither needs the spaces to have
the same width. What chance would give is found by giving the records of one space other partners, many times. Linear
CKA: Kornblith, Norouzi, Lee and Hinton, ICML 2019, section 3; few rows in many columns look alike by chance alone,
which is why it is shown beside that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vecdb.evaluation.health.sure import bootstrap, mean_of
from vecdb.evaluation.intervals import Estimate
from vecdb.evaluation.ranking import top_k
from vecdb.types import Metric

__all__ = ["Versions", "cka", "overlaps", "versions"]

Rows = npt.NDArray[np.floating]
Integers = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

LEAST: Final = 30
_PERMUTATIONS: Final = 40


@dataclass(frozen=True, slots=True)
class Versions:
    """Two spaces over the same records.

    Attributes
    ----------
    other : str
        Name of the other space.
    records : int
        Records with a vector in both that were compared.
    k : int
    overlap : Estimate
        Share of the k nearest records that both models name, within those compared.
    overlap_by_chance : float
        What 97.5 % of random pairings stay below.
    cka : float
        Linear centred kernel alignment.
    cka_by_chance : float
    cosine : Estimate or None
        Between the two vectors of a record, where both spaces have the same width: near 1 for a revision whose
        vectors may be mixed, near 0 for another model.
    """

    other: str
    records: int
    k: int
    overlap: Estimate
    overlap_by_chance: float
    cka: float
    cka_by_chance: float
    cosine: Estimate | None


def versions(
    name: str, one: Rows, other: Rows, metrics: tuple[Metric, Metric], *, k: int = 10, seed: int = 0
) -> Versions | None:
    """Compare two spaces.

    Parameters
    ----------
    name : str
        Of the other space, for the report.
    one, other : ndarray, shapes (n, d) and (n, e)
        Vectors of the same records.
    metrics : tuple of two metrics
    k : int, default 10
    seed : int, default 0

    Returns
    -------
    Versions or None
        None: fewer than 30 records, or than four times k.
    """
    if len(one) < max(LEAST, 4 * k):
        return None
    itself = np.arange(len(one))
    first, second = (
        top_k(rows, rows, k, metric, leave_out=itself)[0] for rows, metric in zip((one, other), metrics, strict=True)
    )
    left, right = (_kernel(rows, metric) for rows, metric in zip((one, other), metrics, strict=True))
    random = np.random.default_rng(seed)
    dealt = [random.permutation(len(one)) for _ in range(_PERMUTATIONS)]
    by_chance = [float(overlaps(first, second, each).mean()) for each in dealt]
    return Versions(
        name,
        len(one),
        k,
        bootstrap(overlaps(first, second), lambda each: float(each.mean()), seed=seed),
        float(np.quantile(by_chance, 0.975)),
        cka(left, right),
        float(np.quantile([cka(left, right[np.ix_(each, each)]) for each in dealt], 0.975)),
        mean_of(_cosines(one, other)) if one.shape[1] == other.shape[1] else None,
    )


def overlaps(first: Integers, second: Integers, dealt: Integers | None = None) -> F64:
    """Return the share of neighbours that each row has in both tables, shape (n,).

    Parameters
    ----------
    first, second : ndarray of int64, shape (n, k)
        Distinct in each row.
    dealt : ndarray of int64, shape (n,), optional
        Row i of the first table stands for row ``dealt[i]`` of the second.
    """
    count, k = first.shape
    near = np.zeros((count, count), np.bool_)
    near[np.arange(count)[:, None], second] = True
    if dealt is None:
        return np.asarray(np.take_along_axis(near, first, axis=1).sum(axis=1) / k, np.float64)
    return np.asarray(near[dealt[:, None], dealt[first]].sum(axis=1) / k, np.float64)


def cka(left: F64, right: F64) -> float:
    """Return linear centred kernel alignment of two centred kernels, shape (n, n); 0 where one side does not vary."""
    size = float(np.linalg.norm(left)) * float(np.linalg.norm(right))
    return float(np.vdot(left, right)) / size if size > 0 else 0.0


def _kernel(rows: Rows, metric: Metric) -> F64:
    """Return inner products between centred rows: of n times n whatever the width, and ready to be dealt out anew."""
    wide = rows.astype(np.float64)
    if metric == "cosine":
        wide /= np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-300)
    wide -= wide.mean(axis=0)
    return np.asarray(wide @ wide.T)


def _cosines(one: Rows, other: Rows) -> F64:
    left, right = one.astype(np.float64), other.astype(np.float64)
    sizes = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    products = np.einsum("ij,ij->i", left, right)
    return np.asarray(np.divide(products, sizes, out=np.zeros(len(left)), where=sizes > 0))
