"""Relevance filters and backfill policies that keep every rule, small enough to be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vecdb.contracts import (
    BackfillFacts,
    Param,
    RelevanceCapabilities,
    RelevanceData,
    state_array,
    state_value,
)
from vecdb.errors import CancelledError, FitError, NonFiniteError


def checked(data: RelevanceData) -> RelevanceData:
    if data.cancel():
        raise CancelledError("the fit was cancelled")
    if np.isnan(data.scores).any():
        raise NonFiniteError("the scores are not numbers", where="scores")
    data.progress(1, 1)
    return data


@dataclass(frozen=True)
class Sigmoid:
    """``1 / (1 + exp(-(slope * score + level)))``."""

    slope: float
    level: float
    threshold: float = 0.5

    def relevance(self, scores, queries, vectors, *, count):
        with np.errstate(over="ignore"):
            found = 1 / (1 + np.exp(-(self.slope * scores.astype(np.float64) + self.level)))
        return np.where(np.isneginf(scores), 0, found).astype(np.float32)

    def state(self):
        return {"slope": self.slope, "level": self.level, "threshold": self.threshold}


@dataclass(frozen=True)
class Threshold:
    """A score that is relevant enough, chosen by whoever knows it."""

    name: str = "acme.threshold"
    version: int = 1
    capabilities: RelevanceCapabilities = field(
        default=RelevanceCapabilities(scope="score", monotone=True, transfer="rescore", requires=frozenset())
    )
    parameters: Mapping[str, Param] = field(
        default_factory=lambda: {
            "cut": Param("float", 0.5, "Lowest score that is kept."),
            "hard": Param("bool", False, "Nothing in between."),
        }
    )

    def fit(self, data: RelevanceData, params: Mapping[str, Any]) -> Sigmoid:
        checked(data)
        slope = 1e4 if params["hard"] else 10.0
        return Sigmoid(slope, -slope * params["cut"])

    def load(self, state: Mapping[str, Any]) -> Sigmoid:
        return Sigmoid(*(state_value(state, name, float) for name in ("slope", "level", "threshold")))


@dataclass(frozen=True)
class Platt(Threshold):
    """Logistic regression of relevance on the score, by Newton's method."""

    name: str = "acme.platt"
    capabilities: RelevanceCapabilities = field(
        default=RelevanceCapabilities(scope="score", monotone=True, transfer="refit", deterministic=True)
    )
    parameters: Mapping[str, Param] = field(default_factory=dict)

    def fit(self, data: RelevanceData, params: Mapping[str, Any]) -> Sigmoid:
        checked(data)
        used = ~data.ignore & (data.labels >= 0)
        scores, labels = data.scores[used].astype(np.float64), data.labels[used].astype(np.float64)
        fewer = int(min(labels.sum(), len(labels) - labels.sum())) if len(labels) else 0
        if fewer < 2:
            raise FitError("too few judged candidates", pairs=fewer, needed=2)
        middle, spread = scores.mean(), scores.std() + 1e-12
        x = np.stack([(scores - middle) / spread, np.ones_like(scores)], axis=1)
        weights = np.zeros(2)
        for _ in range(20):
            p = 1 / (1 + np.exp(-x @ weights))
            curve = (x * (p * (1 - p))[:, None]).T @ x + 1e-2 * np.eye(2)
            weights -= np.linalg.solve(curve, x.T @ (p - labels) + 1e-2 * weights)
        slope = float(max(weights[0], 1e-6) / spread)
        return Sigmoid(slope, float(weights[1] - slope * middle))


@dataclass(frozen=True)
class Nearness:
    """How near the query is to records of the space: nothing may be relevant to one that is far from all."""

    sample: np.ndarray
    usual: float
    threshold: float = 0.3

    def relevance(self, scores, queries, vectors, *, count):
        similar = np.sort(queries @ self.sample.T, axis=1)[:, -3:].sum(1)[:, None]
        found = 1 / (1 + np.exp(-(similar - self.usual) - np.where(np.isneginf(scores), 0, scores)))
        return np.where(np.isneginf(scores), 0, found).astype(np.float32)

    def state(self):
        return {"sample": self.sample, "usual": self.usual}


@dataclass(frozen=True)
class Outlier:
    """Is the query like anything in the space."""

    name: str = "acme.outlier"
    version: int = 1
    capabilities: RelevanceCapabilities = field(
        default=RelevanceCapabilities(scope="query", requires=frozenset({"sample"}), deterministic=True)
    )
    parameters: Mapping[str, Param] = field(default_factory=dict)

    def fit(self, data: RelevanceData, params: Mapping[str, Any]) -> Nearness:
        sample = np.array(checked(data).sample[data.rng.permutation(len(data.sample))[:50]])
        return Nearness(sample, float(np.sort(data.queries @ sample.T, axis=1)[:, -3:].sum(1).mean()))

    def load(self, state: Mapping[str, Any]) -> Nearness:
        return Nearness(state_array(state, "sample", np.float32, (None, None)), state_value(state, "usual", float))


@dataclass(frozen=True)
class Company(Sigmoid):
    """The score, and how much a candidate is like the other candidates."""

    def relevance(self, scores, queries, vectors, *, count):
        there = ~np.isneginf(scores)
        near = np.einsum("qmd,qd->qm", vectors, vectors.sum(1) / np.maximum(1, there.sum(1))[:, None])
        return super().relevance(np.where(there, scores + 0.01 * near, -np.inf), queries, None, count=count)


@dataclass(frozen=True)
class Agreement(Platt):
    """Logistic regression, applied to scores that count company."""

    name: str = "acme.agreement"
    capabilities: RelevanceCapabilities = field(default=RelevanceCapabilities())

    def fit(self, data: RelevanceData, params: Mapping[str, Any]) -> Company:
        data.vectors(0)
        found = super().fit(data, params)
        return Company(found.slope, found.level)

    def load(self, state: Mapping[str, Any]) -> Company:
        return Company(*(state_value(state, name, float) for name in ("slope", "level", "threshold")))


FILTERS = (Threshold(), Platt(), Outlier(), Agreement())


@dataclass(frozen=True)
class Policy:
    """Records in descending order of one fact, ties by noise, then by age."""

    name: str
    needs: frozenset[str]
    parameters: Mapping[str, Param] = field(default_factory=dict)

    def rank(self, facts: BackfillFacts, params: Mapping[str, Any]) -> np.ndarray:
        return next((getattr(facts, name) for name in self.needs), np.zeros(len(facts.noise)))

    def order(self, facts: BackfillFacts, params: Mapping[str, Any]) -> np.ndarray:
        rows = np.flatnonzero(facts.pending)
        keys = (facts.ordinals[rows], facts.noise[rows], -self.rank(facts, params)[rows].astype(np.float64))
        return rows[np.lexsort(keys)].astype(np.int64)


@dataclass(frozen=True)
class Hybrid(Policy):
    """Novelty or uncertainty, times traffic."""

    def rank(self, facts: BackfillFacts, params: Mapping[str, Any]) -> np.ndarray:
        return getattr(facts, params["by"]) * (1 + np.log1p(facts.traffic))


POLICIES = (
    Policy("acme.random", frozenset()),
    Policy("acme.novelty", frozenset({"novelty"})),
    Policy("acme.traffic", frozenset({"traffic"})),
    Hybrid(
        "acme.hybrid",
        frozenset({"novelty", "traffic", "uncertainty"}),
        {"by": Param("str", "novelty", "What is weighted with traffic.", choices=("novelty", "uncertainty"))},
    ),
)
