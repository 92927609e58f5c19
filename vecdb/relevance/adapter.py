"""`cosine-adapter`: a map of the score whose parameters a small network reads from the query.

Rossi et al., Relevance filtering for embedding-based retrieval (CIKM 2024): the same score means another thing for each
query, and the query itself says which. Beside the embedding the network may read the scores of the best candidates,
which say how crowded it is around the query. Several networks are averaged, and what they say is calibrated on queries
that none of them has seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.contracts.params import Param
from vecdb.contracts.relevance import RelevanceCapabilities, RelevanceData
from vecdb.contracts.state import state_array, state_value
from vecdb.errors import CancelledError, CorruptionError
from vecdb.relevance.curves import Curve, PlattCurve, fit_curve, load_curve
from vecdb.relevance.lists import DEPTH_SEEN, WIDTH, list_features
from vecdb.relevance.mapnet import FAMILIES, Net, Scale, Task, mapped, outputs_of, trained
from vecdb.relevance.pool import DEPTH, KEEP, LEAST, Judged, checked, chosen_threshold, in_order, judged_of, keep_of
from vecdb.relevance.scored import stored_threshold, where_there

__all__ = ["AdapterFilter", "AdapterType"]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]

READS: Final = ("both", "scores", "query")
_SHARES: Final = (0.7, 0.3)
"""Of the queries: for the networks, and for calibration."""
_QUIET: Final = 0.25
"""Directions of queries, of which there are many, begin quieter than what the scores say."""
_FAR: Final = 4.0


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """From queries and scores to what the networks read.

    Attributes
    ----------
    reads : {"both", "scores", "query"}
    centre : ndarray of float64, shape (d,)
    axes : ndarray of float64, shape (d, r)
        Leading directions of the calibration queries, scaled.
    means, scales : ndarray of float64, shape (7,)
        Of the features of the scores.
    """

    reads: str
    centre: F64
    axes: F64
    means: F64
    scales: F64

    def __call__(self, queries: F32, scores: F32) -> F64:
        """Return inputs, shape (q, i); each row is a function of its own query and scores."""
        parts = []
        if self.reads != "query":
            parts.append(np.clip((list_features(scores) - self.means) / self.scales, -_FAR, _FAR))
        if self.reads != "scores":
            away = queries.astype(np.float64) - self.centre
            parts.append(np.einsum("qd,dr->qr", away, self.axes))  # the same bits for a row in any company
        return np.concatenate(parts, axis=1)

    @property
    def width(self) -> int:
        """How many numbers the networks read."""
        return int((self.reads != "query") * WIDTH + (self.reads != "scores") * self.axes.shape[1])

    @classmethod
    def of(cls, reads: str, queries: F32, scores: F32, axes: int) -> Reader:
        """Return the reader that suits the calibration queries."""
        wide = queries.astype(np.float64)
        centre = wide.mean(0)
        _, spread, directions = np.linalg.svd(wide - centre, full_matrices=False)
        some = max(1, min(axes, int((spread > 1e-9 * max(float(spread[0]), 1e-12)).sum())))
        loud = (_QUIET if reads == "both" else 2.0 / np.sqrt(some)) * np.sqrt(len(wide))
        chosen = directions[:some].T * (loud / np.maximum(spread[:some], 1e-9))
        features = list_features(scores)
        return cls(reads, centre, chosen, features.mean(0), np.maximum(features.std(0), 1e-9))


@dataclass(frozen=True, slots=True, eq=False)
class AdapterFilter:
    """Networks, what they read, and the curve behind them."""

    family: str
    reader: Reader
    scale: Scale
    nets: tuple[Net, ...]
    curve: Curve
    threshold: float

    def mapped(self, queries: F32, scores: F32) -> F64:
        """Return the mapped scores, the mean over the networks, shape (q, m)."""
        inputs = self.reader(queries, scores)
        there = np.where(np.isneginf(scores), 0.0, scores).astype(np.float64)
        found: F64 = np.mean([mapped(self.family, self.scale, net(inputs), there) for net in self.nets], axis=0)
        return found

    def relevance(self, scores: F32, queries: F32 | None, vectors: F32 | None, *, count: int) -> F32:
        """Return the probability of each candidate; see the contract."""
        if queries is None:
            raise TypeError("a cosine adapter reads queries")
        if not scores.size:
            return np.zeros(scores.shape, np.float32)
        return where_there(scores, self.curve(self.mapped(queries, scores)))

    def state(self) -> dict[str, Any]:
        into, shift, out, level = (np.stack([net.params[part] for net in self.nets]) for part in range(4))
        scale, reader = self.scale, self.reader
        return {
            "threshold": self.threshold,
            "family": self.family,
            "reads": reader.reads,
            "scale": np.array([scale.low, scale.high, scale.slope, scale.level]),
            "centre": reader.centre,
            "axes": reader.axes,
            "features": np.stack([reader.means, reader.scales]),
            "into": into,
            "shift": shift,
            "out": out,
            "level": level,
            "curve": self.curve.state(),
        }


@dataclass(frozen=True, slots=True)
class AdapterType:
    """A rising map of the score, linear, root, square or power, with parameters that are read from the query."""

    name: str = "cosine-adapter"
    version: int = 1
    capabilities: RelevanceCapabilities = field(
        default_factory=lambda: RelevanceCapabilities(
            scope="query", monotone=True, transfer="refit", deterministic=True, depth=DEPTH_SEEN
        )
    )
    parameters: Mapping[str, Param] = field(
        default_factory=lambda: {
            "family": Param("str", "power", "The family of maps.", choices=FAMILIES),
            "reads": Param(
                "str",
                "both",
                "What the networks read: the query, the scores of its ten best candidates, or both.",
                choices=READS,
            ),
            "axes": Param("int", 16, "Leading directions of the queries that are read.", 1, 4_096),
            "hidden": Param("int", 16, "Width of the hidden layer.", 1, 1_024),
            "networks": Param("int", 4, "How many are averaged; each stops early on another part.", 2, 32),
            "steps": Param("int", 400, "Steps of the descent, at most.", 1, 100_000),
            "depth": DEPTH,
            **KEEP,
        }
    )

    def fit(self, data: RelevanceData, params: Mapping[str, Any]) -> AdapterFilter:
        judged = judged_of(checked(data))
        learn, kept = in_order(data, *_SHARES)
        if not _enough(judged.of_queries(learn)) or not _enough(judged.of_queries(kept)):
            learn = kept = np.ones(len(data.queries), np.bool_)  # too few to be split
        some = judged.of_queries(learn)
        reader = Reader.of(params["reads"], data.queries[learn], data.scores[learn], params["axes"])
        scale = _scale_of(params["family"], some)
        task = _task(data, reader, judged)
        nets = _networks(data, task, scale, learn, params)
        made = AdapterFilter(params["family"], reader, scale, nets, PlattCurve(1.0, 0.0), 0.5)
        return _calibrated(made, data, judged.of_queries(kept), params)

    def load(self, state: Mapping[str, Any]) -> AdapterFilter:
        family, reads = (state_value(state, name, str) for name in ("family", "reads"))
        curve = state.get("curve")
        if family not in FAMILIES or reads not in READS or not isinstance(curve, dict):
            raise CorruptionError(f"an adapter {family!r} of {reads!r} is stored", what="state", where="family")
        centre = state_array(state, "centre", np.float64, (None,))
        axes = state_array(state, "axes", np.float64, (len(centre), None))
        means, scales = state_array(state, "features", np.float64, (2, WIDTH))
        reader = Reader(reads, centre, axes, means, scales)
        scale = Scale(*(float(each) for each in state_array(state, "scale", np.float64, (4,))))
        if not scale.low < scale.high or scale.slope <= 0 or not (scales > 0).all():
            raise CorruptionError("an adapter with an impossible scale is stored", what="state", where="scale")
        nets = _stored_nets(state, reader.width, outputs_of(family))
        return AdapterFilter(family, reader, scale, nets, load_curve(curve), stored_threshold(state))


def _stored_nets(state: Mapping[str, Any], width: int, outputs: int) -> tuple[Net, ...]:
    into = state_array(state, "into", np.float64, (None, width, None))
    count, _, hidden = into.shape
    shift = state_array(state, "shift", np.float64, (count, hidden))
    out = state_array(state, "out", np.float64, (count, hidden, outputs))
    level = state_array(state, "level", np.float64, (count, outputs))
    return tuple(Net(each) for each in zip(into, shift, out, level, strict=True))


def _enough(judged: Judged) -> bool:
    yes = int(np.count_nonzero(judged.labels))
    return min(yes, len(judged.labels) - yes) >= LEAST


def _scale_of(family: str, judged: Judged) -> Scale:
    """Return the scale of the scores, and the map that is best for all queries alike."""
    low, high = float(np.quantile(judged.scores, 0.001)), float(judged.scores.max())
    high = high if high > low else low + 1.0
    plain = mapped(family, Scale(low, high, 1.0, 0.0), np.zeros((1, 3)), judged.scores[None])[0]
    curve = fit_curve("platt", plain, judged.labels)
    if not isinstance(curve, PlattCurve):
        raise TypeError("a Platt curve has another type")
    return Scale(low, high, curve.slope, curve.level)


def _task(data: RelevanceData, reader: Reader, judged: Judged) -> Task:
    labels, weights = np.zeros(data.scores.shape), np.zeros(data.scores.shape)
    labels[judged.rows, judged.places] = judged.labels
    weights[judged.rows, judged.places] = 1.0
    scores = np.where(np.isneginf(data.scores), 0.0, data.scores).astype(np.float64)
    return Task(reader(data.queries, data.scores), scores, labels, weights)


def _networks(
    data: RelevanceData, task: Task, scale: Scale, learn: npt.NDArray[np.bool_], params: Mapping[str, Any]
) -> tuple[Net, ...]:
    """Train each network on all but one part of the queries, and stop it by that part."""
    count = params["networks"]
    parts = _parts_of(data, learn, count)
    known = task.weights.any(1)

    def going() -> None:
        if data.cancel():
            raise CancelledError("the fit of a relevance filter was cancelled")

    found = []
    for number, part in enumerate(parts):
        others = learn & known & ~part
        kept = learn & known & part
        if not others.any() or not kept.any():
            others = kept = learn & known
        rng = np.random.default_rng(data.rng.integers(1 << 62))
        net = trained(
            params["family"],
            scale,
            task.take(others),
            task.take(kept),
            params["hidden"],
            params["steps"],
            rng,
            going=going,
        )
        found.append(net)
        data.progress(number + 1, count)
    return tuple(found)


def _parts_of(data: RelevanceData, learn: npt.NDArray[np.bool_], count: int) -> list[npt.NDArray[np.bool_]]:
    """Return masks of parts of the queries that are learnt from, groups whole."""
    groups = (
        np.arange(len(learn)) if data.groups is None else np.unique(data.groups, return_inverse=True)[1].reshape(-1)
    )
    _, numbers = np.unique(groups[learn], return_inverse=True)
    part = np.full(len(learn), -1)
    part[learn] = numbers.reshape(-1) % count
    return [part == number for number in range(count)]


def _calibrated(made: AdapterFilter, data: RelevanceData, judged: Judged, params: Mapping[str, Any]) -> AdapterFilter:
    """Return the filter with a curve, and a threshold, from queries that the networks have not seen."""
    z = made.mapped(data.queries, data.scores)[judged.rows, judged.places]
    served = judged.places < params["depth"]
    if not _enough(judged.take(served)):
        served = np.ones(len(served), np.bool_)
    curve = fit_curve("platt", z[served], judged.labels[served])
    said = curve(z).astype(np.float32)
    threshold = chosen_threshold(said, judged.labels, keep_of(params))
    return AdapterFilter(made.family, made.reader, made.scale, made.nets, curve, threshold)
