"""`mlp`: ridge regression plus what a small network makes of its residual.

``f(x) = ridge(x) + gelu(((x - m) / s) W1 + b1) W2`` with W2 zero at the start, so that training begins at the linear
map and is stopped where a tenth of the pairs, kept aside by group, says so. The network is used only if the kept-back
pairs find it clearly better than the linear map: it cannot be worse there. numpy only, the same for the same generator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vecdb.contracts import FitData, Param, State, TransformCapabilities, state_array
from vecdb.errors import CorruptionError
from vecdb.transforms.adam import Adam, cosine_rate
from vecdb.transforms.affine import AffineMap, Formula, load_affine, spectral_norm
from vecdb.transforms.judge import best_of, judge_of
from vecdb.transforms.oneway import OneWay
from vecdb.transforms.pairs import Rows32, Rows64, checked_rows, go_on
from vecdb.transforms.procrustes import WIDTHS
from vecdb.transforms.restore import MEAN, Finish, Restore, finished
from vecdb.transforms.ridge import PENALTY, RESTORE, RidgeChoice, choose_ridge

__all__ = ["MlpMap", "MlpType", "Network", "gelu", "gelu_slope", "train"]

_TINY = 1e-12
_SLOPE = 1.13
"""The steepest slope of gelu."""
_ROOT = np.sqrt(2.0 / np.pi)
_CUBE = 0.044715
_BATCH = 128
_ASIDE = 0.1


class Network(NamedTuple):
    """``z -> gelu(z W1 + b1) W2`` with ``z = (x - mean) / deviation``."""

    mean: Rows64
    deviation: Rows64
    W1: Rows64
    b1: Rows64
    W2: Rows64

    def apply(self, vectors: npt.NDArray[np.floating]) -> Rows64:
        """Return what is added to the linear map, shape (n, e)."""
        hidden = (vectors - self.mean) / self.deviation @ self.W1 + self.b1
        added: Rows64 = gelu(hidden) @ self.W2
        return added


def gelu(x: npt.NDArray[np.floating]) -> npt.NDArray[Any]:
    """Return ``x Phi(x)`` by the usual approximation with the hyperbolic tangent."""
    bent: npt.NDArray[Any] = 0.5 * x * (1.0 + np.tanh(_ROOT * (x + _CUBE * x * x * x)))
    return bent


def gelu_slope(x: npt.NDArray[np.floating]) -> npt.NDArray[Any]:
    """Return the derivative of `gelu`."""
    bent = np.tanh(_ROOT * (x + _CUBE * x * x * x))
    slope: npt.NDArray[Any] = 0.5 * (1.0 + bent) + 0.5 * x * (1.0 - bent * bent) * _ROOT * (1.0 + 3.0 * _CUBE * x * x)
    return slope


@dataclass(frozen=True, slots=True, eq=False)
class MlpMap(OneWay):
    """A linear map, a network beside it, and the length that residuals are brought to.

    Attributes
    ----------
    inner : AffineMap
        The linear part; its `length`, where it has one, counts for the sum of both.
    mean, scale, W1, b1, W2 : ndarray of float32
        Of the network; `scale` is one over the deviation. W2 is zero where the linear map is better alone.
    """

    inner: AffineMap
    mean: Rows32
    scale: Rows32
    W1: Rows32
    b1: Rows32
    W2: Rows32

    @property
    def source_dim(self) -> int:
        return self.inner.source_dim

    @property
    def lipschitz(self) -> float | None:
        if self.inner.lipschitz is None or not self.W2.any():
            return self.inner.lipschitz
        inside = spectral_norm((self.W1 * self.scale[:, None]).astype(np.float64))
        return self.inner.lipschitz + _SLOPE * inside * spectral_norm(self.W2.astype(np.float64))

    def apply(self, vectors: Rows32) -> Rows32:
        rows, base = checked_rows(vectors, self.source_dim), self.inner
        hidden = gelu((rows - self.mean) * self.scale @ self.W1 + self.b1)
        mapped: Rows32 = rows @ base.W + base.b + (hidden @ self.W2).astype(np.float32)
        if base.length:
            norms = np.linalg.norm(mapped, axis=1, keepdims=True)
            mapped = mapped * (base.length / np.maximum(norms, _TINY)).astype(np.float32) + base.shift
        return mapped

    def affine(self) -> None:
        return None

    def state(self) -> State:
        network = {name: getattr(self, name) for name in ("mean", "scale", "W1", "b1", "W2")}
        return {"base": dict(self.inner.state()), **network}


@dataclass(frozen=True, slots=True)
class MlpType:
    """Ridge regression and a network for its residual."""

    name: str = "mlp"
    version: int = 1
    capabilities: TransformCapabilities = field(
        default=TransformCapabilities(min_pairs=3, widths=WIDTHS, row_wise=True, deterministic=True)
    )
    parameters: Mapping[str, Param] = field(
        default_factory=lambda: {
            "hidden": Param("int", 256, "Units of the hidden layer.", 1, 65_536),
            "epochs": Param("int", 30, "Passes over the pairs at most.", 0, 100_000),
            "patience": Param(
                "int", 4, "Passes without a gain on the tenth kept aside, after which it stops.", 1, 1000
            ),
            "rate": Param("float", 1e-3, "Step of AdamW.", 0.0, 1.0),
            "decay": Param("float", 1e-2, "Weight decay of AdamW.", 0.0, 1e3),
            "penalty": PENALTY,
            "restore": RESTORE,
            "mean": MEAN,
        }
    )

    def fit(self, data: FitData, params: Mapping[str, Any]) -> MlpMap:
        found = choose_ridge(data, params, owner=self.name, least=self.capabilities.min_pairs)
        network, epoch = train(found, data, params)
        how, used, score = _chosen(found, network, data)
        chosen = {**found.facts(), "restore": how.restore, "judged": score, "network": used, "epoch": epoch}
        if not used:
            nothing = network._replace(W1=network.W1[:, :1], b1=network.b1[:1], W2=np.zeros_like(network.W2[:1]))
            return _mapped(found.formula(), nothing, data, chosen)
        formula, factor = _together(found, network, how)
        return _mapped(formula, network._replace(W2=network.W2 * factor), data, chosen)

    def load(self, state: State) -> MlpMap:
        base = state.get("base")
        if not isinstance(base, dict):
            raise CorruptionError("base of a stored state is no map", what="state", where="base")
        made = load_affine(base)
        W1 = state_array(state, "W1", np.float32, (made.source_dim, None))
        return MlpMap(
            made,
            state_array(state, "mean", np.float32, (made.source_dim,)),
            state_array(state, "scale", np.float32, (made.source_dim,)),
            W1,
            state_array(state, "b1", np.float32, (W1.shape[1],)),
            state_array(state, "W2", np.float32, (W1.shape[1], made.target_dim)),
        )


def train(found: RidgeChoice, data: FitData, params: Mapping[str, Any]) -> tuple[Network, int]:
    """Fit a network to the residuals of a ridge regression.

    Returns
    -------
    network : Network
        Of the epoch with the least squared error on the tenth kept aside; epoch 0 adds nothing.
    epoch : int
    """
    pairs = found.path.pairs
    residuals = pairs.B - pairs.A @ found.path.weights(found.penalty)
    deviation = np.maximum(pairs.A.std(0), 1e-9)
    Z, width = pairs.A / deviation, params["hidden"]
    aside = _aside(data)
    rows = np.flatnonzero(~aside)
    W1 = data.rng.standard_normal((Z.shape[1], width)) / np.sqrt(Z.shape[1])
    weights = [W1, np.zeros(width), np.zeros((width, residuals.shape[1]))]
    best = [each.copy() for each in weights]
    adam, least, epoch = Adam(weights, params["decay"]), _error(Z[aside], residuals[aside], weights), 0
    for turn in range(1, params["epochs"] + 1):
        go_on(data, turn, params["epochs"])
        rate = params["rate"] * cosine_rate(turn - 1, params["epochs"])
        for batch in _batches(data.rng.permutation(rows)):
            adam.step(_gradients(Z[batch], residuals[batch], weights), rate)
        error = _error(Z[aside], residuals[aside], weights)
        if error < least:
            least, epoch, best = error, turn, [each.copy() for each in weights]
        elif turn - epoch >= params["patience"]:
            break
    return Network(pairs.before, deviation, *best), epoch


def _batches(rows: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    return [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]


def _aside(data: FitData) -> npt.NDArray[np.bool_]:
    """Return which pairs are kept aside: a tenth of the groups, at least one pair and never all."""
    groups = np.arange(len(data.source)) if data.groups is None else data.groups
    names = np.unique(groups)
    chosen = data.rng.permutation(names)[: max(1, round(_ASIDE * len(names)))]
    aside: npt.NDArray[np.bool_] = np.isin(groups, chosen)
    if aside.all():
        aside = np.arange(len(groups)) == 0
    return aside


def _error(Z: Rows64, residuals: Rows64, weights: list[Rows64]) -> float:
    W1, b1, W2 = weights
    return float(((gelu(Z @ W1 + b1) @ W2 - residuals) ** 2).sum() / len(Z))


def _gradients(Z: Rows64, residuals: Rows64, weights: list[Rows64]) -> list[Rows64]:
    """Return the gradients of the mean squared error, divided by the number of columns."""
    W1, b1, W2 = weights
    before = Z @ W1 + b1
    hidden = gelu(before)
    off = (hidden @ W2 - residuals) * (2.0 / residuals.size)
    back = (off @ W2.T) * gelu_slope(before)
    return [Z.T @ back, back.sum(0), hidden.T @ off]


def _chosen(found: RidgeChoice, network: Network, data: FitData) -> tuple[Finish, bool, float]:
    """Return the finish, whether the network is used, and the score: only if it is clearly better than without."""
    judge = judge_of(data)
    if judge is None or not network.W2.any():
        return found.how, bool(network.W2.any()), -1.0
    restores: tuple[Restore, ...] = ("unit", "none", "global") if found.how.mean else ("none",)
    choices = [(found.how, False), *((Finish(each, found.how.mean), True) for each in restores)]

    def mapped(choice: tuple[Finish, bool]) -> Rows64:
        return _rows(found, network, choice[0], judge.rows) if choice[1] else found.formula().apply(judge.rows)

    (how, used), score = best_of(judge, choices, mapped)
    return how, used, score


def _rows(found: RidgeChoice, network: Network, how: Finish, rows: Rows32) -> Rows64:
    formula, factor = _together(found, network, how)
    mapped = rows @ formula.W + formula.b + network.apply(rows) * factor
    if formula.length:
        mapped *= formula.length / np.maximum(np.linalg.norm(mapped, axis=1, keepdims=True), _TINY)
    mapped += formula.shift
    return mapped


def _together(found: RidgeChoice, network: Network, how: Finish) -> tuple[Formula, float]:
    """Return the linear part under a finish, and the factor of the network."""
    pairs = found.path.pairs
    W = found.path.weights(found.penalty)
    if how.restore != "global":
        return finished(W, pairs, how), 1.0
    fitted = pairs.A @ W + network.apply(pairs.A + pairs.before)
    factor = float(np.sqrt((pairs.B**2).sum() / max(float((fitted**2).sum()), 1e-300)))
    return finished(W * factor, pairs, Finish("none", how.mean)), factor


def _mapped(formula: Formula, network: Network, data: FitData, chosen: Mapping[str, Any]) -> MlpMap:
    base = AffineMap.of(formula, data, chosen=chosen)
    arrays = [network.mean, 1.0 / network.deviation, network.W1, network.b1, network.W2]
    frozen = [np.array(array, dtype=np.float32, order="C") for array in arrays]
    for array in frozen:
        array.flags.writeable = False
    return MlpMap(base, *frozen)
