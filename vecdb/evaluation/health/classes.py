"""How far a label, such as a topic, can be seen in the geometry of vectors.

The silhouette (Rousseeuw, 1987) compares the mean distance to one's own class with that to the nearest other one; the
agreement of neighbours is what a vote of nearest neighbours lives on. Both are held against chance.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vecdb.evaluation.health.sure import bootstrap
from vecdb.evaluation.intervals import Estimate
from vecdb.evaluation.ranking import scores_between
from vecdb.types import Metric

__all__ = ["Classes", "classes", "silhouettes"]

Rows = npt.NDArray[np.floating]
Integers = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

_BLOCK: Final = 512
_SHOWN: Final = 12


@dataclass(frozen=True, slots=True)
class Classes:
    """How separate the classes of a label are.

    Attributes
    ----------
    field : str
    labelled : int
        Vectors that have the label.
    sizes : tuple of (str, int)
        The largest classes in the sample, at most 12.
    classes : int
    silhouette : Estimate
        Mean over labelled vectors, from -1 to 1; around 0 classes overlap.
    agreement : Estimate
        Share of the k nearest labelled neighbours with the same label.
    chance : float
        What the agreement would be if labels were dealt out at random.
    k : int
    """

    field: str
    labelled: int
    sizes: tuple[tuple[str, int], ...]
    classes: int
    silhouette: Estimate
    agreement: Estimate
    chance: float
    k: int


def classes(
    field: str,
    labels: Sequence[Hashable],
    rows: Rows,
    found: Integers,
    metric: Metric,
    *,
    seed: int = 0,
) -> Classes | None:
    """Return how separate classes are.

    Parameters
    ----------
    field : str
        For the report.
    labels : sequence, shape (n,)
        None: no label.
    rows : ndarray, shape (n, d)
    found : ndarray of int64, shape (n, k)
        Nearest other rows of each row.
    metric : {"cosine", "dot", "l2"}
        Distances are 1 - cosine, else Euclidean.
    seed : int, default 0
        Of the intervals.

    Returns
    -------
    Classes or None
        None: fewer than two classes have two members.
    """
    names: dict[Hashable, int] = {}
    numbers = np.array(
        [-1 if label is None else names.setdefault(_key(label), len(names)) for label in labels], np.int64
    )
    sizes = np.bincount(numbers[numbers >= 0], minlength=len(names))
    if np.count_nonzero(sizes > 1) < 2 or not found.shape[1]:
        return None
    there = np.flatnonzero(numbers >= 0)
    widths = silhouettes(rows[there], numbers[there], metric)
    agreement = _agreement(numbers, found)
    total = int(sizes.sum())
    largest = sorted(zip(names, sizes.tolist(), strict=True), key=lambda each: -each[1])[:_SHOWN]
    return Classes(
        field,
        total,
        tuple((str(_shown(name)), size) for name, size in largest),
        len(names),
        bootstrap(widths, _mean, seed=seed),
        bootstrap(agreement, _mean, seed=seed + 1),
        float((sizes * (sizes - 1)).sum() / (total * (total - 1))),
        found.shape[1],
    )


def _key(label: Hashable) -> Hashable:
    """Return what tells labels apart: True is not 1."""
    return (type(label) is bool, label)


def _shown(key: Hashable) -> object:
    return key[1] if isinstance(key, tuple) else key


def _mean(values: npt.NDArray[np.float64]) -> float:
    return float(values.mean())


def _agreement(numbers: Integers, found: Integers) -> F64:
    """Return the share of labelled neighbours that have the label of each labelled row, as far as it has any."""
    theirs = numbers[found]
    known = theirs >= 0
    same = ((theirs == numbers[:, None]) & known).sum(axis=1)
    used = (numbers >= 0) & known.any(axis=1)
    return np.asarray(same[used] / known.sum(axis=1)[used], np.float64)


def silhouettes(rows: Rows, numbers: Integers, metric: Metric) -> F64:
    """Return the silhouette of each row; 0 for the only member of a class.

    Parameters
    ----------
    rows : ndarray, shape (n, d)
    numbers : ndarray of int64, shape (n,)
        Class of each row, from 0; at least two are used.
    metric : {"cosine", "dot", "l2"}
    """
    _, numbers = np.unique(numbers, return_inverse=True)
    sizes = np.bincount(numbers).astype(np.float64)
    member = np.zeros((len(rows), len(sizes)), np.float32)
    member[np.arange(len(rows)), numbers] = 1.0
    widths = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK):
        part = slice(start, min(start + _BLOCK, len(rows)))
        away = _distances(rows[part], rows, metric)
        away[np.arange(part.stop - start), np.arange(start, part.stop)] = 0.0
        widths[part] = _widths(away @ member, numbers[part], sizes)
    return widths


def _distances(one: Rows, rows: Rows, metric: Metric) -> npt.NDArray[np.float32]:
    if metric == "cosine":
        return np.asarray(1.0 - scores_between(one, rows, "cosine"))
    return np.asarray(-scores_between(one, rows, "l2"))


def _widths(sums: npt.NDArray[np.float32], own: Integers, sizes: F64) -> F64:
    """Return silhouettes from sums of distances to each class."""
    rows = np.arange(len(own))
    inside = sums[rows, own] / np.maximum(sizes[own] - 1, 1)
    means = sums / sizes
    means[rows, own] = np.inf
    outside = means.min(axis=1)
    most = np.maximum(inside, outside)
    widths = np.divide(outside - inside, most, out=np.zeros(len(own)), where=most > 0)
    widths[sizes[own] == 1] = 0.0
    return np.asarray(widths, np.float64)
