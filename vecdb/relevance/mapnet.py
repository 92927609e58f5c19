"""A small network whose outputs are the parameters of a rising map of a score; trained by plain numpy.

Owns the families of maps, the forward pass and the descent. Invariant: whatever the network says, the map rises: its
factor is an exponential. Source: Rossi et al., Relevance filtering for embedding-based retrieval, CIKM 2024, section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vecdb.relevance.curves import logistic

__all__ = ["FAMILIES", "Net", "Scale", "Task", "mapped", "trained"]

F64 = npt.NDArray[np.float64]
Params = tuple[F64, F64, F64, F64]

FAMILIES: Final = ("linear", "sqrt", "quadratic", "power")
_LOWEST, _HIGHEST, _FAR = 1e-4, 1.5, 6.0
_RATE, _DECAY = 0.01, 3e-3
_EVERY, _PATIENCE = 10, 80


@dataclass(frozen=True, slots=True)
class Scale:
    """Which scores are 0 and 1 for a map, and the map before anything was learnt: ``slope * t + level``."""

    low: float
    high: float
    slope: float
    level: float

    def on(self, scores: F64) -> F64:
        """Return scores on that scale, held within what the maps are defined for."""
        return np.clip((scores - self.low) / (self.high - self.low), _LOWEST, _HIGHEST)


@dataclass(frozen=True, slots=True, eq=False)
class Net:
    """One hidden layer of hyperbolic tangents: weights (i, h), (h,), (h, p), (p,)."""

    params: Params

    def __call__(self, inputs: F64) -> F64:
        """Return the outputs, shape (q, p)."""
        into, shift, out, level = self.params
        found: F64 = np.tanh(inputs @ into + shift) @ out + level
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What a network is trained on: inputs (q, i), scores, labels and weights (q, m)."""

    inputs: F64
    scores: F64
    labels: F64
    weights: F64

    def take(self, rows: npt.NDArray[np.bool_]) -> Task:
        """Return some of the queries."""
        return Task(self.inputs[rows], self.scores[rows], self.labels[rows], self.weights[rows])


def outputs_of(family: str) -> int:
    """Return how many numbers a network says of each query."""
    return 3 if family == "power" else 2


def mapped(family: str, scale: Scale, said: F64, scores: F64) -> F64:
    """Return the mapped scores, shape (q, m), before the logistic function.

    Parameters
    ----------
    family : {"linear", "sqrt", "quadratic", "power"}
        ``a t + b`` with t the score on its scale, its root, its square, or its power ``exp(o_3)``.
    scale : Scale
    said : ndarray of float64, shape (q, 2 or 3)
        ``a = slope * exp(o_1)``, ``b = level + slope * o_2``.
    scores : ndarray of float64, shape (q, m)
    """
    o = np.clip(said, -_FAR, _FAR)
    t = _curved(family, scale.on(scores), o)
    found: F64 = scale.slope * np.exp(o[:, :1]) * t + scale.level + scale.slope * o[:, 1:2]
    return found


def _curved(family: str, t: F64, o: F64) -> F64:
    if family == "power":
        return np.asarray(t ** np.exp(o[:, 2:3]), np.float64)
    return {"linear": t, "sqrt": np.sqrt(t), "quadratic": t * t}[family]


def trained(
    family: str,
    scale: Scale,
    task: Task,
    kept: Task,
    hidden: int,
    steps: int,
    rng: np.random.Generator,
    *,
    going: Callable[[], None],
) -> Net:
    """Return the network of the step that was best on what was kept back.

    Binary cross-entropy over all candidates, Adam with decoupled decay (Loshchilov and Hutter, 2019) over whole passes;
    the output layer begins at zero, so that the first map is the same for all queries.

    Parameters
    ----------
    family : str
    scale : Scale
    task, kept : Task
    hidden, steps : int
    rng : numpy.random.Generator
    going : callable
        Called now and then; what it raises ends the training.
    """
    width = task.inputs.shape[1]
    into = rng.standard_normal((width, hidden)) / np.sqrt(width)
    count = outputs_of(family)
    params: list[F64] = [into, np.zeros(hidden), np.zeros((hidden, count)), np.zeros(count)]
    first, second = ([np.zeros_like(each) for each in params] for _ in range(2))
    best, best_loss, best_step = _copied(params), np.inf, 0
    for step in range(1, steps + 1):
        for place, slope in enumerate(_slopes(family, scale, task, params)):
            first[place] = 0.9 * first[place] + 0.1 * slope
            second[place] = 0.999 * second[place] + 0.001 * slope * slope
            move = first[place] / (1 - 0.9**step) / (np.sqrt(second[place] / (1 - 0.999**step)) + 1e-8)
            decay = _DECAY * params[place] if params[place].ndim == 2 else 0.0
            params[place] = params[place] - _RATE * (move + decay)
        if step % _EVERY and step != steps:
            continue
        going()
        loss = _loss(family, scale, kept, Net(_copied(params)))
        if loss < best_loss - 1e-7:
            best, best_loss, best_step = _copied(params), loss, step
        elif step - best_step > _PATIENCE:
            break
    return Net(best)


def _copied(params: list[F64]) -> Params:
    into, shift, out, level = (each.copy() for each in params)
    return into, shift, out, level


def _loss(family: str, scale: Scale, task: Task, net: Net) -> float:
    z = mapped(family, scale, net(task.inputs), task.scores)
    return float((task.weights * (np.logaddexp(0.0, z) - task.labels * z)).sum() / task.weights.sum())


def _slopes(family: str, scale: Scale, task: Task, params: list[F64]) -> list[F64]:
    """Return the gradient of the loss with respect to each array of the network."""
    into, shift, out, level = params
    hidden = np.tanh(task.inputs @ into + shift)
    said = hidden @ out + level
    o = np.clip(said, -_FAR, _FAR)
    on_scale = scale.on(task.scores)
    t = _curved(family, on_scale, o)
    factor = scale.slope * np.exp(o[:, :1])
    z = factor * t + scale.level + scale.slope * o[:, 1:2]
    wrong = task.weights * (logistic(z) - task.labels) / task.weights.sum()
    columns = [(wrong * t * factor).sum(1), scale.slope * wrong.sum(1)]
    if family == "power":
        columns.append((wrong * factor * t * np.log(on_scale) * np.exp(o[:, 2:3])).sum(1))
    by_output = np.where(np.abs(said) < _FAR, np.column_stack(columns), 0.0)
    by_hidden = (by_output @ out.T) * (1.0 - hidden * hidden)
    return [task.inputs.T @ by_hidden, by_hidden.sum(0), hidden.T @ by_output, by_output.sum(0)]
