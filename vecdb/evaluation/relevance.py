"""What judging candidates is worth: precision and recall over all thresholds, calibration, the same threshold for all.

Every function takes flat arrays, one entry for each judged candidate, and optional weights (how often an entry counts,
which is how resamples are drawn). Invariant: equal values are one threshold, so that no order of ties matters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "BINS",
    "Consistency",
    "Curve",
    "binned_error",
    "brier_skill",
    "calibration_error",
    "equal_mass_bins",
    "opis_cuts",
    "pr_auc",
    "precision_at",
]

Values = npt.NDArray[np.floating]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

BINS = 15
_STEPS = 46


class Curve:
    """Candidates in the order of what a filter says of them, ready to be counted under any weights.

    Parameters
    ----------
    values : ndarray, shape (n,)
        Higher is more relevant.
    labels : ndarray of bool, shape (n,)
    """

    def __init__(self, values: Values, labels: npt.NDArray[Any]) -> None:
        self.order = np.argsort(-values, kind="stable")
        ordered = values[self.order]
        self._labels = np.asarray(labels, np.float64)[self.order]
        last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True)) if len(ordered) else np.zeros(0, np.int64)
        self._ends = last
        self.thresholds = ordered[last]

    def counts(self, weights: Floats | None = None) -> tuple[Floats, Floats]:
        """Return, for every threshold from the highest, how many candidates pass, and how many relevant ones do."""
        mass = np.ones(len(self.order)) if weights is None else weights[self.order]
        return np.cumsum(mass)[self._ends], np.cumsum(mass * self._labels)[self._ends]

    def area(self, weights: Floats | None = None) -> float:
        """Return the area under precision over recall as a sum over thresholds (average precision)."""
        passed, found = self.counts(weights)
        if not len(found) or found[-1] <= 0:
            return float("nan")
        gained = np.diff(found, prepend=0.0)
        precision = np.divide(found, passed, out=np.zeros_like(found), where=passed > 0)
        return float((gained * precision).sum() / found[-1])

    def at_recall(self, recall: float, weights: Floats | None = None) -> tuple[float, float]:
        """Return the precision at, and the value of, the highest threshold that this share of the relevant passes."""
        passed, found = self.counts(weights)
        if not len(found) or found[-1] <= 0:
            return float("nan"), float("nan")
        place = int(np.searchsorted(found, recall * found[-1] * (1 - 1e-12)))
        return float(found[place] / passed[place]), float(self.thresholds[place])


def pr_auc(values: Values, labels: npt.NDArray[Any], weights: Floats | None = None) -> float:
    """Return the area under the precision-recall curve, as average precision.

    Parameters
    ----------
    values : ndarray, shape (n,)
    labels : ndarray of bool, shape (n,)
    weights : ndarray of float64, shape (n,), optional

    Returns
    -------
    float
        The sum of precision times the recall gained at each threshold (Davis and Goadrich, 2006, section 2): no line
        is drawn between thresholds. NaN where nothing is relevant.
    """
    return Curve(values, labels).area(weights)


def precision_at(
    values: Values, labels: npt.NDArray[Any], recall: float = 0.95, weights: Floats | None = None
) -> float:
    """Return the precision at the highest threshold that `recall` of the relevant candidates pass; else as `pr_auc`."""
    return Curve(values, labels).at_recall(recall, weights)[0]


def equal_mass_bins(values: Values, bins: int = BINS) -> Integers:
    """Return a bin for each value: as many in each as can be, ordered, equal values together."""
    if not len(values):
        return np.zeros(0, np.int64)
    order = np.argsort(values, kind="stable")
    place = np.empty(len(values), np.int64)
    place[order] = np.arange(len(values)) * bins // len(values)
    _, first, numbers = np.unique(values, return_index=True, return_inverse=True)
    lowest = np.full(len(first), bins, np.int64)
    np.minimum.at(lowest, numbers.reshape(-1), place)
    return lowest[numbers.reshape(-1)]


def calibration_error(
    probabilities: Values, labels: npt.NDArray[Any], weights: Floats | None = None, *, bins: int = BINS
) -> float:
    """Return the expected calibration error over bins of equal mass (Naeini et al., 2015; Nixon et al., 2019).

    The mean, over candidates, of how far the mean probability of their bin is from the share of relevant ones in it.
    """
    if not len(probabilities):
        return float("nan")
    return binned_error(probabilities, labels, equal_mass_bins(probabilities, bins), weights)


def binned_error(
    probabilities: Values, labels: npt.NDArray[Any], bins: Integers, weights: Floats | None = None
) -> float:
    """Return the same over given bins."""
    mass = np.ones(len(probabilities)) if weights is None else weights
    excess = mass * (np.asarray(probabilities, np.float64) - np.asarray(labels, np.float64))
    return float(np.abs(np.bincount(bins, weights=excess)).sum() / max(mass.sum(), 1e-12))


def brier_skill(probabilities: Values, labels: npt.NDArray[Any], weights: Floats | None = None) -> float:
    """Return one minus the Brier score, divided by that of the base rate (Brier, 1950): above 0 is better than it.

    NaN where all candidates are relevant, or none is.
    """
    mass = np.ones(len(probabilities)) if weights is None else weights
    truth = np.asarray(labels, np.float64)
    total = max(float(mass.sum()), 1e-12)
    rate = float((mass * truth).sum()) / total
    if rate <= 0.0 or rate >= 1.0:
        return float("nan")
    wrong = float((mass * (np.asarray(probabilities, np.float64) - truth) ** 2).sum()) / total
    return 1.0 - wrong / (rate * (1.0 - rate))


class Consistency:
    """How much groups of queries disagree on what a threshold is worth, ready to be counted under any weights (OPIS).

    The utility of a threshold for a group is the harmonic mean of the share of its relevant candidates that pass and of
    the others that do not. Its variance between groups is averaged over thresholds: 0 where one threshold means the
    same to all (Zhang et al., Threshold-consistent margin loss, ICLR 2024, section 3).

    Parameters
    ----------
    values : ndarray, shape (n,)
    labels : ndarray of bool, shape (n,)
    owners : ndarray of int64, shape (n,)
        The query of each candidate.
    groups : ndarray of int64, shape (q,)
        The group of each query.
    cuts : ndarray of float64, shape (t,)
        Thresholds, rising; see `opis_cuts`.
    """

    def __init__(
        self, values: Values, labels: npt.NDArray[Any], owners: Integers, groups: Integers, cuts: Floats
    ) -> None:
        wanted, passes = np.asarray(labels, bool), np.searchsorted(cuts, values, side="right")
        width = len(cuts) + 1
        self._passing = []
        for part in (wanted, ~wanted):
            flat = np.bincount(owners[part] * width + passes[part], minlength=len(groups) * width)
            table = flat.reshape(len(groups), width)[:, ::-1].cumsum(1)[:, ::-1]  # how many pass so many thresholds
            self._passing.append(table.astype(np.float64))
        numbers = np.unique(groups, return_inverse=True)[1].reshape(-1)
        self._member = np.zeros((int(numbers.max(initial=-1)) + 1, len(groups)))
        self._member[numbers, np.arange(len(groups))] = 1.0

    def __call__(self, weights: Floats | None = None) -> float:
        """Return the score, given how often each query counts (None: once).

        NaN with fewer than two groups that have candidates of both kinds.
        """
        member = self._member if weights is None else self._member * weights
        yes, no = (member @ table for table in self._passing)
        known = (yes[:, 0] > 0) & (no[:, 0] > 0)
        if np.count_nonzero(known) < 2:
            return float("nan")
        kept, left_out = yes[known, 1:] / yes[known, :1], 1.0 - no[known, 1:] / no[known, :1]
        utility = 2.0 * kept * left_out / np.maximum(kept + left_out, 1e-12)
        return float(((utility - utility.mean(0)) ** 2).mean())


def opis_cuts(
    values: Values, labels: npt.NDArray[Any], *, recall: tuple[float, float] = (0.5, 0.95), steps: int = _STEPS
) -> Floats:
    """Return the thresholds that shares of the relevant candidates pass, in equal steps of that share, rising.

    In steps of recall rather than of the value itself, so that a rising map of the values changes nothing.
    """
    wanted = np.asarray(labels, bool)
    found: Floats = np.quantile(values[wanted].astype(np.float64), 1.0 - np.linspace(recall[1], recall[0], steps))
    return found
