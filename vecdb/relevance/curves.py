"""Monotone curves from a score to the probability of being relevant: Platt, isotonic with smoothing, beta.

Each is a frozen value with `__call__` and `state`; fits are plain functions over scores and labels. Invariant: a curve
never falls, stays strictly between 0 and 1, and is the same for any order of the scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.contracts.state import state_array, state_value
from vecdb.errors import CorruptionError

__all__ = ["METHODS", "BetaCurve", "Curve", "IsotonicCurve", "PlattCurve", "fit_curve", "load_curve", "logistic", "pav"]

F64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

METHODS: Final = ("platt", "isotonic", "beta")
_STEPS: Final = 60
_EDGE: Final = 1e-3
_SURE: Final = 1e-7
"""No candidate is surer than this to be, or not to be, relevant."""


def logistic(x: F64) -> F64:
    """Return ``1 / (1 + exp(-x))``, strictly between 0 and 1, without overflow."""
    small: F64 = np.exp(-np.abs(x))
    found: F64 = np.where(x >= 0, 1.0, small) / (1.0 + small)
    return np.clip(found, _SURE, 1.0 - _SURE)


@dataclass(frozen=True, slots=True)
class PlattCurve:
    """``logistic(slope * score + level)``, ``slope > 0``."""

    slope: float
    level: float

    def __call__(self, scores: F64) -> F64:
        return logistic(self.slope * scores + self.level)

    def state(self) -> dict[str, Any]:
        return {"method": "platt", "numbers": np.array([self.slope, self.level])}


@dataclass(frozen=True, slots=True)
class BetaCurve:
    """``logistic(a ln u - b ln(1 - u) + c)`` of the score u on a scale from 0 to 1; a and b are not negative."""

    low: float
    high: float
    a: float
    b: float
    c: float

    def __call__(self, scores: F64) -> F64:
        u = _on_scale(scores, self.low, self.high)
        return logistic(self.a * np.log(u) - self.b * np.log1p(-u) + self.c)

    def state(self) -> dict[str, Any]:
        return {"method": "beta", "numbers": np.array([self.low, self.high, self.a, self.b, self.c])}


@dataclass(frozen=True, slots=True, eq=False)
class IsotonicCurve:
    """Straight lines between knots, level outside of them."""

    places: F64
    values: F64

    def __call__(self, scores: F64) -> F64:
        found: F64 = np.interp(scores, self.places, self.values)
        return np.clip(found, _SURE, 1.0 - _SURE)

    def state(self) -> dict[str, Any]:
        return {"method": "isotonic", "numbers": np.concatenate([self.places, self.values])}


Curve = PlattCurve | BetaCurve | IsotonicCurve


def fit_curve(method: str, scores: F64, labels: Bools) -> Curve:
    """Fit a curve.

    Parameters
    ----------
    method : {"platt", "isotonic", "beta"}
    scores : ndarray of float64, shape (n,)
        Finite.
    labels : ndarray of bool, shape (n,)
        Some of each kind.
    """
    if method == "platt":
        return fit_platt(scores, labels)
    return fit_isotonic(scores, labels) if method == "isotonic" else fit_beta(scores, labels)


def load_curve(state: Mapping[str, Any]) -> Curve:
    """Return the curve whose state this is.

    Raises
    ------
    CorruptionError
    """
    method = state_value(state, "method", str)
    numbers = state_array(state, "numbers", np.float64, (None,))
    if method == "isotonic" and len(numbers) % 2 == 0:
        places, values = np.split(numbers, 2)
        if (np.diff(places) > 0).all() and (np.diff(values) >= 0).all() and values[0] >= 0 and values[-1] <= 1:
            return IsotonicCurve(places, values)
    plain = [float(each) for each in numbers[:5]]
    if method == "platt" and len(numbers) == 2 and plain[0] > 0:
        return PlattCurve(*plain)
    if method == "beta" and len(numbers) == 5 and plain[0] < plain[1] and plain[2] >= 0 and plain[3] >= 0:
        return BetaCurve(*plain)
    raise CorruptionError(f"{len(numbers)} numbers are no curve {method!r}", what="state", where="numbers")


# --- fits -------------------------------------------------------------------------------------------------


def fit_platt(scores: F64, labels: Bools) -> PlattCurve:
    """Fit a logistic curve by Newton's method, with softened labels (Platt, 1999; Lin, Lin and Weng, 2007)."""
    middle, spread = float(scores.mean()), float(scores.std()) or 1.0
    x = np.column_stack([(scores - middle) / spread, np.ones(len(scores))])
    slope, level = regress(x, _softened(labels))
    slope = max(slope, 1e-6) / spread
    return PlattCurve(slope, level - slope * middle)


def fit_beta(scores: F64, labels: Bools) -> BetaCurve:
    """Fit a beta calibration (Kull, Silva Filho and Flach, 2017); a term with a negative factor is left out."""
    low, high = float(scores.min()), float(scores.max())
    reach = max(high - low, 1e-9)
    low, high = low - _EDGE * reach, high + _EDGE * reach
    u = _on_scale(scores, low, high)
    terms = {"a": np.log(u), "b": -np.log1p(-u)}
    while True:
        x = np.column_stack([*terms.values(), np.ones(len(u))])
        weights = regress(x, _softened(labels))
        negative = [name for name, weight in zip(terms, weights, strict=False) if weight < 0]
        if not negative:
            break
        terms.pop(min(negative, key=lambda name: weights[list(terms).index(name)]))
    found = dict(zip(terms, weights, strict=False))
    return BetaCurve(low, high, found.get("a", 0.0), found.get("b", 0.0), weights[-1])


def _on_scale(scores: F64, low: float, high: float) -> F64:
    return np.clip((scores - low) / (high - low), 1e-6, 1.0 - 1e-6)


def _softened(labels: Bools) -> F64:
    """Return the labels as Platt's targets: a little less sure than they are."""
    yes = int(np.count_nonzero(labels))
    return np.where(labels, (yes + 1) / (yes + 2), 1 / (len(labels) - yes + 2))


def regress(x: F64, targets: F64, *, ridge: float = 1e-3) -> list[float]:
    """Return the weights of a logistic regression, the last column being constant; damped Newton steps."""
    weights = np.zeros(x.shape[1])
    penalty = np.full(x.shape[1], ridge)
    penalty[-1] = 1e-9
    loss = _loss(x, targets, weights, penalty)
    for _ in range(_STEPS):
        p = logistic(x @ weights)
        slope = x.T @ (p - targets) + penalty * weights
        curve = (x * (p * (1 - p))[:, None]).T @ x + np.diag(penalty + 1e-12)
        step = np.linalg.solve(curve, slope)
        size = 1.0
        while size > 1e-6 and _loss(x, targets, weights - size * step, penalty) > loss:
            size /= 2
        weights = weights - size * step
        before, loss = loss, _loss(x, targets, weights, penalty)
        if before - loss < 1e-10 * max(abs(loss), 1.0):
            break
    return [float(weight) for weight in weights]


def _loss(x: F64, targets: F64, weights: F64, penalty: F64) -> float:
    z = x @ weights
    return float((np.logaddexp(0.0, z) - targets * z).sum() + 0.5 * (penalty * weights * weights).sum())


def fit_isotonic(scores: F64, labels: Bools) -> IsotonicCurve:
    """Fit a rising step function and smooth it (Zadrozny and Elkan, 2002, with shrinkage and straight lines).

    Each step is drawn towards the base rate by two candidates' worth, so that a step of few is not believed, stands at
    the mean score of its candidates, and steps are joined by straight lines.
    """
    order = np.argsort(scores, kind="stable")
    distinct, first = np.unique(scores[order], return_index=True)
    mass = np.diff(np.append(first, len(order))).astype(np.float64)
    yes = np.add.reduceat(labels[order].astype(np.float64), first)
    starts = pav(yes / mass, mass)
    mass, yes, place = (np.add.reduceat(each, starts) for each in (mass, yes, distinct * mass))
    place = place / mass
    rate, shrink = float(yes.sum() / mass.sum()), 2.0
    values = (yes + shrink * rate) / (mass + shrink)
    again = pav(values, mass)
    whole = np.add.reduceat(mass, again)
    values, place = (np.add.reduceat(each * mass, again) / whole for each in (values, place))
    return IsotonicCurve(np.asarray(place, np.float64), np.asarray(values, np.float64))


def pav(values: F64, mass: F64) -> npt.NDArray[np.int64]:
    """Return where the blocks of the rising least-squares fit begin (pool adjacent violators; Ayer et al., 1955)."""
    means: list[float] = []
    sizes: list[float] = []
    starts: list[int] = []
    for place, (value, size) in enumerate(zip(values.tolist(), mass.tolist(), strict=True)):
        start = place
        while means and means[-1] >= value:
            before = sizes.pop()
            value = (means.pop() * before + value * size) / (before + size)
            size += before
            start = starts.pop()
        means.append(value)
        sizes.append(size)
        starts.append(start)
    return np.array(starts, np.int64)
