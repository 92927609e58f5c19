"""What a filter is worth on a pool of judged candidates, with intervals from resampled clusters of queries.

The numbers are not means over queries, so that each is computed anew for every resample; a comparison draws both sides
together. Invariant: the same seed and clusters give the same resamples, whatever is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vecdb.evaluation.intervals import Estimate
from vecdb.evaluation.relevance import BINS, Curve, binned_error, brier_skill, equal_mass_bins, opis, opis_cuts

__all__ = ["DEPTHS", "JudgedPool", "Measured", "compared", "estimated", "measurer"]

F32 = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Measured = dict[str, float]
Measurer = Callable[[Floats | None], Measured]

DEPTHS: Final = (1, 10)
"""How many hits a search asks for, where calibration is measured."""
_RESAMPLES: Final = 200


@dataclass(frozen=True, slots=True, eq=False)
class JudgedPool:
    """The candidates of q queries, best first, as far as they were judged.

    Attributes
    ----------
    scores : ndarray of float32, shape (q, m)
        Not increasing along a row; -inf behind the last candidate.
    labels : ndarray of bool, shape (q, m)
        Relevant.
    used : ndarray of bool, shape (q, m)
        Judged and not to be ignored.
    clusters : ndarray of int64, shape (q,)
        Queries of one cluster are resampled together.
    groups : ndarray of int64, shape (q,)
        Queries of one kind, for the consistency of thresholds.
    """

    scores: F32
    labels: npt.NDArray[np.bool_]
    used: npt.NDArray[np.bool_]
    clusters: Integers
    groups: Integers


def measurer(pool: JudgedPool, relevance: F32, threshold: float | None = None) -> Measurer:
    """Return what measures a filter on a pool, given how often each query counts (None: once).

    Parameters
    ----------
    pool : JudgedPool
    relevance : ndarray of float32, shape (q, m)
        What the filter says of each candidate; raw scores may be measured, too.
    threshold : float, optional
        Of the filter: adds what it keeps.

    Returns
    -------
    callable
        From weights of shape (q,) to numbers by name: ``pr_auc``, ``precision_at_95`` (precision at 95 % recall),
        ``opis``, ``ece_top1``, ``ece_top10``, ``brier_skill_top1``, ``brier_skill_top10``; with a threshold ``recall``
        and ``precision`` of what is kept, and ``kept``, its share.
    """
    rows = np.nonzero(pool.used)[0]
    values, labels = relevance[pool.used], pool.labels[pool.used]
    curve, groups = Curve(values, labels), pool.groups[rows]
    cuts = opis_cuts(values, labels) if labels.any() else np.zeros(1)
    served = [(depth, *_served(pool, relevance, depth)) for depth in DEPTHS]

    def measure(weights: Floats | None) -> Measured:
        mass = None if weights is None else weights[rows]
        found = {"pr_auc": curve.area(mass), "precision_at_95": curve.at_recall(0.95, mass)[0]}
        found["opis"] = opis(values, labels, groups, cuts, mass)
        for depth, owners, said, truth, bins in served:
            some = None if weights is None else weights[owners]
            found[f"ece_top{depth}"] = binned_error(said, truth, bins, some)
            found[f"brier_skill_top{depth}"] = brier_skill(said, truth, some)
        return found if threshold is None else {**found, **_kept(values, labels, threshold, mass)}

    return measure


def _served(pool: JudgedPool, relevance: F32, depth: int) -> tuple[Integers, F32, npt.NDArray[np.bool_], Integers]:
    """Return query, relevance, label and bin of the candidates that a search for so many would return."""
    used = pool.used.copy()
    used[:, depth:] = False
    said = relevance[used]
    return np.nonzero(used)[0].astype(np.int64), said, pool.labels[used], equal_mass_bins(said, BINS)


def _kept(values: F32, labels: npt.NDArray[np.bool_], threshold: float, weights: Floats | None) -> Measured:
    mass = np.ones(len(values)) if weights is None else weights
    kept = values >= np.float32(threshold)
    there, found = float(mass[kept].sum()), float(mass[kept & labels].sum())
    return {
        "recall": found / max(float(mass[labels].sum()), 1e-12),
        "precision": found / max(there, 1e-12),
        "kept": there / max(float(mass.sum()), 1e-12),
    }


def estimated(
    measure: Measurer, clusters: Integers, *, seed: int = 0, resamples: int = _RESAMPLES, level: float = 0.95
) -> dict[str, Estimate]:
    """Return each number with the percentile interval of resampled clusters.

    Parameters
    ----------
    measure : callable
        As `measurer` returns it.
    clusters : ndarray of int64, shape (q,)
    seed, resamples : int
    level : float, default 0.95
    """
    return _intervals(
        measure(None), [measure(weights) for weights in _weights(clusters, seed, resamples)], clusters, level
    )


def compared(
    one: Measurer,
    other: Measurer,
    clusters: Integers,
    *,
    seed: int = 0,
    resamples: int = _RESAMPLES,
    level: float = 0.95,
) -> dict[str, Estimate]:
    """Return the difference ``one - other`` of each number that both have; parameters as in `estimated`."""

    def difference(weights: Floats | None) -> Measured:
        first, second = one(weights), other(weights)
        return {name: first[name] - second[name] for name in first if name in second}

    return estimated(difference, clusters, seed=seed, resamples=resamples, level=level)


def _weights(clusters: Integers, seed: int, resamples: int) -> list[Floats]:
    """Return how often each query counts in each resample: clusters are drawn with replacement."""
    numbers = np.unique(clusters, return_inverse=True)[1].reshape(-1)
    count = int(numbers.max(initial=-1)) + 1
    if not count:
        return []
    random = np.random.default_rng(seed)
    return [
        random.multinomial(count, np.full(count, 1.0 / count)).astype(np.float64)[numbers] for _ in range(resamples)
    ]


def _intervals(
    value: Mapping[str, float], drawn: list[Measured], clusters: Integers, level: float
) -> dict[str, Estimate]:
    tail = (1.0 - level) / 2.0
    found = {}
    for name, number in value.items():
        known = np.array([each[name] for each in drawn])
        known = known[~np.isnan(known)]
        low, high = np.quantile(known, [tail, 1.0 - tail]) if len(known) else (np.nan, np.nan)
        found[name] = Estimate(float(number), float(low), float(high), len(clusters))
    return found
