"""`conformal`: a threshold that keeps, on average over queries to come, all but a chosen share of what is relevant.

Conformal risk control (Angelopoulos, Bates, Fisch, Lei and Schuster, ICLR 2024, section 2) of the loss "one minus
recall" of a query, which rises with the threshold: the highest threshold with ``n / (n + 1) R + 1 / (n + 1) <= alpha``.
What is promised holds where queries to come are like those of the calibration, whatever their scores are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.contracts.params import Param
from vecdb.contracts.relevance import RelevanceCapabilities, RelevanceData
from vecdb.contracts.state import state_value
from vecdb.errors import CorruptionError, FitError
from vecdb.relevance.curves import Curve, fit_curve, load_curve
from vecdb.relevance.pool import DEPTH, checked, judged_of
from vecdb.relevance.scored import SCORES_ALONE, where_there

__all__ = ["ConformalFilter", "ConformalType", "risk_threshold"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


def risk_threshold(scores: F64, owners: npt.NDArray[np.int64], alpha: float) -> float:
    """Return the highest score at which the bound on the mean of one minus recall is at most `alpha`.

    Parameters
    ----------
    scores : ndarray of float64, shape (n,)
        Of relevant records.
    owners : ndarray of int64, shape (n,)
        The query of each.
    alpha : float
        Between 0 and 1.

    Raises
    ------
    FitError
        So few queries that no threshold can promise it.
    """
    numbers, sizes = np.unique(owners, return_inverse=True, return_counts=True)[1:]
    queries = len(sizes)
    needed = math.ceil(1.0 / alpha - 1e-9) - 1
    if queries < needed:
        raise FitError(
            f"to keep {1 - alpha:.3g} of what is relevant can be promised from {needed} queries on, got {queries}",
            hint="Give more queries with answers, or allow a larger alpha.",
            pairs=queries,
            needed=needed,
        )
    order = np.argsort(scores, kind="stable")
    mass = 1.0 / sizes[numbers.reshape(-1)[order]]
    ordered = scores[order]
    first = np.searchsorted(ordered, ordered, side="left")
    below = np.concatenate([[0.0], np.cumsum(mass)])[first]  # loss over all queries with the threshold at each score
    allowed = np.flatnonzero(below + 1.0 <= alpha * (queries + 1) * (1 + 1e-12))
    return float(ordered[allowed[-1]])


@dataclass(frozen=True, slots=True, eq=False)
class ConformalFilter:
    """A cut of the score, with a probability above and below it that never contradicts it."""

    cut: float
    curve: Curve

    @property
    def threshold(self) -> float:
        return float(self.curve(np.array([self.cut]))[0].astype(np.float32))

    def relevance(self, scores: F32, queries: F32 | None, vectors: F32 | None, *, count: int) -> F32:
        """Return the probability of each candidate; see the contract."""
        there = np.where(np.isneginf(scores), 0.0, scores).astype(np.float64)
        said = self.curve(there).astype(np.float32)
        edge = np.float32(self.threshold)
        below = np.nextafter(edge, np.float32(0.0))
        return where_there(
            scores, np.where(scores >= np.float32(self.cut), np.maximum(said, edge), np.minimum(said, below))
        )

    def state(self) -> dict[str, Any]:
        return {"cut": self.cut, "curve": self.curve.state()}


@dataclass(frozen=True, slots=True)
class ConformalType:
    """A threshold that promises a recall for queries to come."""

    name: str = "conformal"
    version: int = 1
    capabilities: RelevanceCapabilities = SCORES_ALONE
    parameters: Mapping[str, Param] = field(
        default_factory=lambda: {
            "alpha": Param("float", 0.1, "Share of what is relevant that may be lost, on average.", 1e-4, 0.9999),
            "of": Param(
                "str",
                "pool",
                "Of what: of the relevant candidates in the pool, so that the promise is conditional on being a "
                "candidate; or of all relevant records, for searches that ask for everything above the threshold.",
                choices=("pool", "all"),
            ),
            "depth": DEPTH,
        }
    )

    def fit(self, data: RelevanceData, params: Mapping[str, Any]) -> ConformalFilter:
        judged = judged_of(checked(data))
        scores, owners = judged.scores[judged.labels], judged.rows[judged.labels]
        if params["of"] == "all" and data.missed is not None and len(data.missed):
            scores = np.concatenate([scores, data.missed[:, 1].astype(np.float64)])
            owners = np.concatenate([owners, data.missed[:, 0].astype(np.int64)])
        cut = risk_threshold(scores, owners, params["alpha"])
        served = judged_of(data, depth=params["depth"])
        return ConformalFilter(cut, fit_curve("platt", served.scores, served.labels))

    def load(self, state: Mapping[str, Any]) -> ConformalFilter:
        cut, curve = state_value(state, "cut", float), state.get("curve")
        if not isinstance(curve, dict):
            raise CorruptionError("a conformal filter without a curve is stored", what="state", where="curve")
        return ConformalFilter(cut, load_curve(curve))
