"""Kinds that look at scores alone: `threshold`, `topk-gap` and `calibrated`.

Baselines that everybody has, with one difference: what they return is a calibrated probability, too. Fits and formulas:
docs/explanation/relevance.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.contracts.params import Param
from vecdb.contracts.relevance import RelevanceCapabilities, RelevanceData
from vecdb.contracts.state import state_value
from vecdb.errors import CorruptionError
from vecdb.relevance.curves import METHODS, Curve, fit_curve, load_curve
from vecdb.relevance.pool import DEPTH, KEEP, checked, chosen_threshold, judged_of, keep_of

__all__ = ["CalibratedFilter", "CalibratedType", "GapFilter", "GapType", "ThresholdFilter", "ThresholdType"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

SCORES_ALONE = RelevanceCapabilities(scope="score", monotone=True, transfer="refit", deterministic=True)
IN_COMPANY = replace(SCORES_ALONE, depth=11)


def where_there(scores: F32, relevance: npt.NDArray[Any]) -> F32:
    """Return relevance as it leaves a filter: float32, 0 where there is no candidate."""
    return np.where(np.isneginf(scores), 0.0, relevance).astype(np.float32)


def stored_threshold(state: Mapping[str, Any]) -> float:
    """Return the threshold of a stored filter.

    Raises
    ------
    CorruptionError
    """
    threshold = state_value(state, "threshold", float)
    if not 0.0 < threshold <= 1.0:
        raise CorruptionError(f"a threshold of {threshold} is stored", what="state", where="threshold")
    return threshold


# --- threshold --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ThresholdFilter:
    """Two values: how many of those above the cut are relevant, and of those below."""

    cut: float
    above: float
    below: float

    @property
    def threshold(self) -> float:
        return self.above

    def relevance(self, scores: F32, queries: F32 | None, vectors: F32 | None, *, count: int) -> F32:
        """Return one of two values for each candidate; see the contract."""
        return where_there(scores, np.where(scores >= np.float32(self.cut), self.above, self.below))

    def state(self) -> dict[str, Any]:
        return {"cut": self.cut, "above": self.above, "below": self.below}


@dataclass(frozen=True, slots=True)
class ThresholdType:
    """A raw score from which candidates are kept, the same for all queries."""

    name: str = "threshold"
    version: int = 1
    capabilities: RelevanceCapabilities = SCORES_ALONE
    parameters: Mapping[str, Param] = field(default_factory=lambda: dict(KEEP))

    def fit(self, data: RelevanceData, params: Mapping[str, Any]) -> ThresholdFilter:
        judged = judged_of(checked(data))
        scores = judged.scores
        low, reach = float(scores.min()), float(np.ptp(scores)) or 1.0
        scaled = (0.25 + 0.5 * (scores - low) / reach).astype(np.float32)  # thresholds lie between 0 and 1
        cut_at = chosen_threshold(scaled, judged.labels, keep_of(params))
        kept = scaled >= np.float32(cut_at)
        return ThresholdFilter(float(scores[kept].min()), *two_levels(kept, judged.labels))

    def load(self, state: Mapping[str, Any]) -> ThresholdFilter:
        cut, above, below = (state_value(state, name, float) for name in ("cut", "above", "below"))
        refuse_levels(above, below)
        return ThresholdFilter(cut, above, below)


def two_levels(kept: npt.NDArray[np.bool_], labels: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Return the shares of relevant candidates among those kept and those dropped, the second below the first."""
    above, below = (
        (float(np.count_nonzero(labels[part])) + 0.5) / (float(np.count_nonzero(part)) + 1.0) for part in (kept, ~kept)
    )
    above = float(np.float32(min(above, 1.0)))
    return above, float(np.float32(min(below, 0.5 * above)))


def refuse_levels(above: float, below: float) -> None:
    """Refuse stored levels that no fit has made."""
    if not 0.0 <= below < above <= 1.0:
        raise CorruptionError(f"levels of {below} and {above} are stored", what="state", where="above")


# --- topk-gap ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GapFilter:
    """Candidates before the largest gap between neighbouring scores of a query."""

    first: int
    least: float
    above: float
    below: float

    @property
    def threshold(self) -> float:
        return self.above

    def relevance(self, scores: F32, queries: F32 | None, vectors: F32 | None, *, count: int) -> F32:
        """Return one of two values for each candidate; see the contract."""
        cuts = gap_cuts(scores, self.first, self.least)
        return where_there(scores, np.where(scores >= cuts[:, None], self.above, self.below))

    def state(self) -> dict[str, Any]:
        return {"first": self.first, "least": self.least, "above": self.above, "below": self.below}


def gap_cuts(scores: F32, first: int, least: float) -> F32:
    """Return the last score before the largest gap of each row, shape (q,).

    Parameters
    ----------
    scores : ndarray of float32, shape (q, m)
        In any order, -inf where there is nothing.
    first : int
        The gap begins at one of so many best candidates.
    least : float
        Smaller gaps are none: everything is kept. Of several equal gaps the one further to the front is taken.
    """
    ordered = -np.sort(-scores, axis=1)[:, : first + 1]
    if ordered.shape[1] < 2:
        return np.full(len(scores), -np.inf, np.float32)
    upper, lower = ordered[:, :-1].astype(np.float64), ordered[:, 1:].astype(np.float64)
    gaps = np.where(np.isfinite(lower), np.where(np.isfinite(upper), upper, 0.0) - lower, -1.0)
    place = gaps.argmax(1)
    rows = np.arange(len(scores))
    found = ordered[rows, place]
    return np.where(gaps[rows, place] >= least, found, np.float32(-np.inf)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class GapType:
    """The cut at the largest gap between neighbouring scores: for each query another, without any training."""

    name: str = "topk-gap"
    version: int = 1
    capabilities: RelevanceCapabilities = IN_COMPANY
    parameters: Mapping[str, Param] = field(
        default_factory=lambda: {
            "first": Param("int", 10, "The gap begins at one of so many best candidates.", 1),
            "least": Param("float", 0.0, "Smaller gaps are none, and everything is kept, in units of the score.", 0.0),
        }
    )

    def fit(self, data: RelevanceData, params: Mapping[str, Any]) -> GapFilter:
        judged = judged_of(checked(data))
        cuts = gap_cuts(data.scores, params["first"], params["least"])
        kept = judged.scores >= cuts[judged.rows]
        return GapFilter(params["first"], params["least"], *two_levels(kept, judged.labels))

    def load(self, state: Mapping[str, Any]) -> GapFilter:
        least, above, below = (state_value(state, name, float) for name in ("least", "above", "below"))
        refuse_levels(above, below)
        first = state_value(state, "first", int)
        if first < 1:
            raise CorruptionError(f"a gap after {first} candidates is stored", what="state", where="first")
        return GapFilter(first, least, above, below)


# --- calibrated -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class CalibratedFilter:
    """A curve from score to probability."""

    curve: Curve
    threshold: float

    def relevance(self, scores: F32, queries: F32 | None, vectors: F32 | None, *, count: int) -> F32:
        """Return the probability of each candidate; see the contract."""
        there = np.where(np.isneginf(scores), 0.0, scores).astype(np.float64)
        return where_there(scores, self.curve(there))

    def state(self) -> dict[str, Any]:
        return {"threshold": self.threshold, **self.curve.state()}


@dataclass(frozen=True, slots=True)
class CalibratedType:
    """One curve from score to probability for all queries of a space."""

    name: str = "calibrated"
    version: int = 1
    capabilities: RelevanceCapabilities = SCORES_ALONE
    parameters: Mapping[str, Param] = field(
        default_factory=lambda: {
            "method": Param("str", "platt", "The family of the curve.", choices=METHODS),
            "depth": DEPTH,
            **KEEP,
        }
    )

    def fit(self, data: RelevanceData, params: Mapping[str, Any]) -> CalibratedFilter:
        served = judged_of(checked(data), depth=params["depth"])
        curve = fit_curve(params["method"], served.scores, served.labels)
        judged = judged_of(data)
        said = curve(judged.scores).astype(np.float32)
        return CalibratedFilter(curve, chosen_threshold(said, judged.labels, keep_of(params)))

    def load(self, state: Mapping[str, Any]) -> CalibratedFilter:
        return CalibratedFilter(load_curve(state), stored_threshold(state))
