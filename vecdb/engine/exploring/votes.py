"""Nearest neighbours vote on a label, the nearer with more weight.

Weights by distance are those of S. Dudani, The distance-weighted k-nearest-neighbor rule (1976): 1 for the nearest, 0
for the farthest, in proportion between them. They depend neither on the unit nor on the origin of the score, so the
rule is the same for every metric, and for calibrated scores.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.engine.exploring.fields import key_of
from vecdb.explored import Prediction, Share
from vecdb.types import Id

WEIGHTS: Final = ("distance", "uniform")
_Z: Final = 1.959963984540054


def weights_of(scores: npt.NDArray[np.float32], how: str) -> npt.NDArray[np.float64]:
    """Return the weight of each neighbour, shape (k,), best score first.

    Equal scores all around give equal weights.
    """
    wide = scores.astype(np.float64)
    if how == "uniform" or not len(wide) or wide[0] == wide[-1]:
        return np.ones(len(wide))
    weights: npt.NDArray[np.float64] = (wide - wide[-1]) / (wide[0] - wide[-1])
    return weights


def vote(ids: Sequence[Id], labels: Sequence[Any], weights: npt.NDArray[np.float64]) -> Prediction:
    """Return what neighbours say; equal votes go to the label whose first neighbour is nearer."""
    votes: dict[Any, float] = {}
    names: dict[Any, Any] = {}
    for label, weight in zip(labels, weights.tolist(), strict=True):
        key = key_of(label)
        votes[key] = votes.get(key, 0.0) + weight
        names.setdefault(key, label)
    total = math.fsum(votes.values())
    ranked = sorted(votes.items(), key=lambda each: -each[1])
    shares = tuple((names[key], count / total) for key, count in ranked)
    best = shares[0] if shares else (None, 0.0)
    return Prediction(best[0], best[1], shares, tuple(ids))


def share(hits: int, trials: int) -> Share:
    """Return a share with Wilson's score interval of 95 % (E. Wilson, 1927)."""
    if not trials:
        return Share(math.nan, math.nan, math.nan, 0)
    rate, square = hits / trials, _Z * _Z / trials
    middle = (rate + square / 2) / (1 + square)
    half = _Z * math.sqrt(rate * (1 - rate) / trials + square / (4 * trials)) / (1 + square)
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return Share(rate, min(rate, low), max(rate, high), trials)  # rounding may put an end beside the share


def brier(prediction: Prediction, truth: Any) -> float:
    """Return the squared error of a prediction's probabilities, summed over labels."""
    known = key_of(truth)
    errors = [(share - (key_of(label) == known)) ** 2 for label, share in prediction.probabilities]
    seen = any(key_of(label) == known for label, _ in prediction.probabilities)
    return math.fsum(errors) + (0.0 if seen else 1.0)
