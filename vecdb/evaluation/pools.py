"""What a filter is worth on a pool of judged candidates, with intervals from resampled clusters of queries.

The numbers are not means over queries, so that each is computed anew for every resample; a comparison draws both sides
together. Invariant: the same seed and clusters give the same resamples, whatever is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vecdb.evaluation.intervals import Estimate
from vecdb.evaluation.relevance import (
    BINS,
    Consistency,
    Curve,
    binned_error,
    brier_skill,
    equal_mass_bins,
    opis_cuts,
)

__all__ = ["DEPTHS", "RESAMPLES", "Drawn", "JudgedPool", "Measured", "drawn", "measurer"]

F32 = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Measured = dict[str, float]
Measurer = Callable[[Floats | None], Measured]

DEPTHS: Final = (1, 10)
"""How many hits a search asks for, where calibration is measured."""
RESAMPLES: Final = 200


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
    curve = Curve(values, labels)
    cuts = opis_cuts(values, labels) if labels.any() else np.zeros(1)
    agree = Consistency(values, labels, rows.astype(np.int64), pool.groups, cuts)
    served = [(depth, *_served(pool, relevance, depth)) for depth in DEPTHS]

    def measure(weights: Floats | None) -> Measured:
        mass = None if weights is None else weights[rows]
        found = {"pr_auc": curve.area(mass), "precision_at_95": curve.at_recall(0.95, mass)[0]}
        found["opis"] = agree(weights)
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


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Numbers by name, and the same over resampled clusters: two of them over the same clusters are drawn together."""

    value: Measured
    resamples: list[Measured]
    queries: int

    def estimates(self, level: float = 0.95) -> dict[str, Estimate]:
        """Return each number with its percentile interval."""
        tail = (1.0 - level) / 2.0
        found = {}
        for name, number in self.value.items():
            known = np.array([each[name] for each in self.resamples])
            known = known[~np.isnan(known)]
            low, high = np.quantile(known, [tail, 1.0 - tail]) if len(known) else (np.nan, np.nan)
            found[name] = Estimate(float(number), float(low), float(high), self.queries)
        return found

    def minus(self, other: Drawn) -> Drawn:
        """Return the differences of what both have, over the same resamples."""
        pairs = zip(self.resamples, other.resamples, strict=True)
        return Drawn(_minus(self.value, other.value), [_minus(*pair) for pair in pairs], self.queries)


def _minus(one: Measured, other: Measured) -> Measured:
    return {name: number - other[name] for name, number in one.items() if name in other}


def drawn(measure: Measurer, clusters: Integers, *, seed: int = 0, resamples: int = RESAMPLES) -> Drawn:
    """Return what is measured, and measured of resamples.

    Parameters
    ----------
    measure : callable
        As `measurer` returns it.
    clusters : ndarray of int64, shape (q,)
        Drawn whole, with replacement.
    seed, resamples : int
    """
    return Drawn(measure(None), [measure(weights) for weights in _weights(clusters, seed, resamples)], len(clusters))


def _weights(clusters: Integers, seed: int, resamples: int) -> Iterator[Floats]:
    """Yield how often each query counts in each resample."""
    numbers = np.unique(clusters, return_inverse=True)[1].reshape(-1)
    count = int(numbers.max(initial=-1)) + 1
    random = np.random.default_rng(seed)
    for _ in range(resamples if count else 0):
        yield random.multinomial(count, np.full(count, 1.0 / count)).astype(np.float64)[numbers]
