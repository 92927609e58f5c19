"""`background`: would the best of so many random records score as much? No labels are needed.

For each query a sample of the collection is scored; the upper tail of these scores is a generalised Pareto distribution
(Pickands, 1975), fitted by probability-weighted moments (Hosking and Wallis, Technometrics 1987), and extrapolated to
the size of the collection: ``P(best of N < s) = F(s)^N``. One minus that is a p-value; it is called a probability of
being relevant only where judged candidates have calibrated it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.contracts.params import Param
from vecdb.contracts.relevance import RelevanceCapabilities, RelevanceData
from vecdb.contracts.state import state_array, state_value
from vecdb.errors import CorruptionError, FitError
from vecdb.relevance.curves import PlattCurve, fit_platt, load_curve
from vecdb.relevance.pool import DEPTH, KEEP, LEAST, checked, chosen_threshold, judged_of, keep_of
from vecdb.relevance.scored import stored_threshold, where_there
from vecdb.types import METRICS

__all__ = ["BackgroundFilter", "BackgroundType", "Tail", "pareto_tail"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

_ROWS: Final = 100
"""Fewer random records say nothing of a tail."""
_SURE: Final = 1e-300
"""The smallest number of random records that is expected to score as much."""
_POOLED: Final = 20_000
"""Scores that are kept of a background of all queries."""
_SHAPES: Final = (0.0, 0.5)


@dataclass(frozen=True, slots=True, eq=False)
class Tail:
    """Generalised Pareto tails of q rows of scores.

    Attributes
    ----------
    ordered : ndarray of float64, shape (q, n)
        The scores, rising; one row may stand for all.
    start, shape, scale : ndarray of float64, shape (q,)
        Where the tail begins, and its two parameters.
    share : float
        Of the scores that lie in it.
    """

    ordered: F64
    start: F64
    shape: F64
    scale: F64
    share: float

    def above(self, scores: F64) -> F64:
        """Return the share of random records that score at least as much, shape (q, m); 0 beyond the end of a tail."""
        excess = np.maximum(scores - self.start[:, None], 0.0) / self.scale[:, None]
        shape = np.where(np.abs(self.shape) < 1e-6, 1e-6, self.shape)[:, None]
        tail = self.share * np.maximum(1.0 + shape * excess, 0.0) ** (-1.0 / shape)
        body = np.empty_like(tail)
        for row in range(len(scores)):
            known = self.ordered[row % len(self.ordered)]
            body[row] = 1.0 - np.searchsorted(known, scores[row], side="left") / len(known)
        found: F64 = np.where(scores >= self.start[:, None], tail, np.maximum(body, self.share))
        return found


def pareto_tail(scores: F64, share: float) -> Tail:
    """Fit the upper tail of each row of scores.

    Parameters
    ----------
    scores : ndarray of float64, shape (q, n)
    share : float
        Of the scores that are the tail.

    Returns
    -------
    Tail
        Shapes are held between -0.5 and 0.5; with a0 the mean excess and a1 the mean of the excesses weighted by the
        share of excesses above them, ``shape = 2 - a0 / (a0 - 2 a1)`` and ``scale = 2 a0 a1 / (a0 - 2 a1)``.
    """
    ordered = np.sort(scores, axis=1)
    count = max(round(share * scores.shape[1]), 2)
    start = ordered[:, -count - 1]
    excess = ordered[:, -count:] - start[:, None]
    above = 1.0 - (np.arange(1, count + 1) - 0.35) / count
    a0, a1 = excess.mean(1), (excess * above).mean(1)
    spread = np.maximum(a0 - 2.0 * a1, 1e-12)
    shape = np.clip(2.0 - a0 / spread, *_SHAPES)
    scale = np.maximum(a0 * (1.0 - shape), 1e-9)  # the mean excess is scale / (1 - shape)
    return Tail(ordered, start, shape, scale, count / scores.shape[1])


@dataclass(frozen=True, slots=True, eq=False)
class BackgroundFilter:
    """Random records, and what being better than the best of them means.

    `pooled` are scores of calibration queries on random records, where these are the background of every query.
    """

    sample: F32
    metric: str
    share: float
    curve: PlattCurve | None
    threshold: float
    pooled: F64 | None = None

    def expected(self, scores: F32, queries: F32, count: int) -> F64:
        """Return how many of `count` random records are expected to score at least as much, shape (q, m)."""
        own = _scored(queries, self.sample, self.metric) if self.pooled is None else self.pooled[None]
        tail = pareto_tail(own, self.share)
        there = np.where(np.isneginf(scores), 0.0, scores).astype(np.float64)
        return np.maximum(count * tail.above(there), _SURE)

    def relevance(self, scores: F32, queries: F32 | None, vectors: F32 | None, *, count: int) -> F32:
        """Return a probability for each candidate, of being relevant or of being no chance; see the contract."""
        if queries is None:
            raise TypeError("the background of a query needs the query")
        if not scores.size:
            return np.zeros(scores.shape, np.float32)
        expected = self.expected(scores, queries, max(count, 1))
        said = np.exp(-expected) if self.curve is None else self.curve(-np.log(expected))
        return where_there(scores, np.clip(said, 0.0, 1.0))

    def state(self) -> dict[str, Any]:
        return {
            "sample": self.sample,
            "metric": self.metric,
            "share": self.share,
            "curve": {} if self.curve is None else self.curve.state(),
            "threshold": self.threshold,
            **({} if self.pooled is None else {"pooled": self.pooled}),
        }


def _scored(queries: F32, rows: F32, metric: str) -> F64:
    """Return the score of each row for each query; of vectors of norm 1 in a cosine space."""
    left, right = queries.astype(np.float64), rows.astype(np.float64)
    products: F64 = left @ right.T
    if metric != "l2":
        return products
    squares = (left * left).sum(1)[:, None] + (right * right).sum(1)
    return np.asarray(-np.sqrt(np.maximum(squares - 2.0 * products, 0.0)), np.float64)


@dataclass(frozen=True, slots=True)
class BackgroundType:
    """How much better a hit is than the best of so many random records would be."""

    name: str = "background"
    version: int = 1
    capabilities: RelevanceCapabilities = field(
        default_factory=lambda: RelevanceCapabilities(
            scope="query", monotone=True, transfer="refit", requires=frozenset({"sample"}), deterministic=True
        )
    )
    parameters: Mapping[str, Param] = field(
        default_factory=lambda: {
            "of": Param(
                "str",
                "query",
                "Whose scores on random records are the background: the query's own, or those of all calibration "
                "queries together.",
                choices=("query", "queries"),
            ),
            "rows": Param("int", 1_000, "Random records that are scored for each query.", _ROWS, 100_000),
            "tail": Param("float", 0.1, "Share of them that is the tail.", 0.01, 0.5),
            "level": Param(
                "float", 0.95, "Without labels: kept is what random records score less than, this probably.", 0.5, 0.999
            ),
            "by": replace(KEEP["by"], doc="With labels: " + KEEP["by"].doc),
            "wanted": replace(KEEP["level"], doc="With labels: the recall or precision that is wanted."),
            "depth": DEPTH,
        }
    )

    def fit(self, data: RelevanceData, params: Mapping[str, Any]) -> BackgroundFilter:
        found = 0 if checked(data).sample is None else len(data.sample if data.sample is not None else ())
        if data.sample is None or found < _ROWS:
            raise FitError(
                f"a background needs {_ROWS} random records, got {found}",
                hint="Records have to hold vectors in the space itself.",
                pairs=found,
                needed=_ROWS,
            )
        some = np.sort(data.rng.permutation(found)[: params["rows"]])
        sample, metric = np.array(data.sample[some]), data.space.metric
        pooled = _pooled(_scored(data.queries, sample, metric)) if params["of"] == "queries" else None
        plain = BackgroundFilter(sample, metric, params["tail"], None, params["level"], pooled)
        return plain if _unlabelled(data, params["depth"]) else _calibrated(plain, data, params)

    def load(self, state: Mapping[str, Any]) -> BackgroundFilter:
        sample = state_array(state, "sample", np.float32, (None, None))
        metric, share = state_value(state, "metric", str), state_value(state, "share", float)
        curve = state.get("curve")
        if metric not in METRICS or not 0.0 < share <= 0.5 or type(curve) is not dict or len(sample) < _ROWS:
            raise CorruptionError(f"a background of {len(sample)} rows is stored", what="state", where="sample")
        made = load_curve(curve) if curve else None
        if made is not None and not isinstance(made, PlattCurve):
            raise CorruptionError("a background with another curve is stored", what="state", where="curve")
        pooled = state_array(state, "pooled", np.float64, (None,)) if "pooled" in state else None
        return BackgroundFilter(sample, metric, share, made, stored_threshold(state), pooled)


def _pooled(scores: F64) -> F64:
    """Return the scores of all queries on random records, rising; of many, those in equal steps of rank."""
    ordered = np.sort(scores, axis=None)
    if len(ordered) <= _POOLED:
        return ordered
    return np.asarray(ordered[np.linspace(0, len(ordered) - 1, _POOLED).round().astype(np.int64)], np.float64)


def _unlabelled(data: RelevanceData, depth: int) -> bool:
    if data.labels is None:
        return True
    used = (~data.ignore & (data.labels >= 0))[:, :depth]
    yes = int(np.count_nonzero(used & (data.labels == 1)[:, :depth]))
    return min(yes, int(np.count_nonzero(used)) - yes) < LEAST


def _calibrated(plain: BackgroundFilter, data: RelevanceData, params: Mapping[str, Any]) -> BackgroundFilter:
    z = -np.log(plain.expected(data.scores, data.queries, max(data.count, 1)))
    served, judged = judged_of(data, depth=params["depth"]), judged_of(data)
    curve = fit_platt(z[served.rows, served.places], served.labels)
    said = curve(z[judged.rows, judged.places]).astype(np.float32)
    keep = keep_of({"by": params["by"], "level": params["wanted"]})
    return replace(plain, curve=curve, threshold=chosen_threshold(said, judged.labels, keep))
