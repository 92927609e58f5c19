"""Labels that spread over a graph of neighbours: learning with local and global consistency.

D. Zhou, O. Bousquet, T. Lal, J. Weston and B. Schoelkopf, Learning with local and global consistency, NIPS 2003 (2004),
section 2: with ``S = D^-1/2 W D^-1/2`` of a symmetric affinity W without a diagonal, the labels are the limit
``F* = (1 - alpha) (I - alpha S)^-1 Y`` of ``F <- alpha S F + (1 - alpha) Y``. The system is symmetric and positive
definite, so it is solved by conjugate gradients (Hestenes and Stiefel, 1952), one label after the other, in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

ROUNDS: Final = 1_000
TOLERANCE: Final = 1e-8


@dataclass(frozen=True, slots=True)
class Graph:
    """A symmetric, normalised graph: entry e adds ``weights[e]`` at (``ends[e]``, ``starts[e]``)."""

    nodes: int
    ends: Places
    starts: Places
    weights: F64

    def times(self, vector: F64) -> F64:
        """Return S times a vector, shape (nodes,)."""
        products = self.weights * vector[self.starts]
        return np.bincount(self.ends, products, self.nodes).astype(np.float64, copy=False)


def affinity(neighbours: Places, scores: F64) -> Graph:
    """Return the normalised graph of nearest neighbours.

    A neighbour's weight is ``exp((score - best) / spread)``, best and spread the largest and the standard deviation of
    all scores: it depends neither on the unit nor on the origin of a metric. W is the mean of both directions.

    Parameters
    ----------
    neighbours : ndarray of int64, shape (n, k)
        -1 where there are fewer.
    scores : ndarray of float64, shape (n, k)
    """
    there = neighbours >= 0
    ends = np.nonzero(there)[0].astype(np.int64)
    starts, known = neighbours[there], scores[there]
    spread = float(known.std()) if len(known) else 0.0
    weights = np.exp((known - known.max(initial=-np.inf)) / spread) if spread > 0 else np.ones(len(known))
    both = np.concatenate([ends, starts]), np.concatenate([starts, ends])
    twice = np.concatenate([weights, weights]) / 2
    degree = np.bincount(both[0], twice, len(neighbours))
    scale = 1.0 / np.sqrt(np.maximum(degree, np.finfo(np.float64).tiny))
    return Graph(len(neighbours), both[0], both[1], twice * scale[both[0]] * scale[both[1]])


def propagate(graph: Graph, labels: Places, count: int, alpha: float) -> F64:
    """Return how much of each label reaches each node, shape (nodes, count).

    Parameters
    ----------
    labels : ndarray of int64, shape (nodes,)
        -1 where it is not known.
    count : int
        Labels.
    alpha : float
        How much comes from neighbours, in (0, 1).
    """
    found = np.empty((graph.nodes, count))
    for label in range(count):
        given = (1.0 - alpha) * (labels == label)
        found[:, label] = solve(graph, given, alpha)
    return np.maximum(found, 0.0)  # what rounding makes of nothing


def solve(graph: Graph, given: F64, alpha: float) -> F64:
    """Return x of ``(I - alpha S) x = given`` by conjugate gradients."""
    x = np.zeros_like(given)
    rest, step = given.copy(), given.copy()
    square = float(rest @ rest)
    limit = TOLERANCE * TOLERANCE * square
    for _ in range(ROUNDS):
        if square <= limit or square == 0.0:
            break
        moved = step - alpha * graph.times(step)
        size = square / float(step @ moved)
        x += size * step
        rest -= size * moved
        square, before = float(rest @ rest), square
        step = rest + (square / before) * step
    return x


def decide(reached: F64) -> tuple[Places, F64]:
    """Return the label of each node and its share of all that reached it; -1 and 0 where nothing did.

    Equal shares go to the smaller number.
    """
    total = reached.sum(axis=1)
    best = np.argmax(reached, axis=1) if reached.shape[1] else np.zeros(len(reached), np.int64)
    there = total > 0
    amount = reached[np.arange(len(reached)), best] if reached.shape[1] else total
    confidence = np.divide(amount, total, out=np.zeros(len(total)), where=there)
    return np.where(there, best, -1).astype(np.int64), confidence
