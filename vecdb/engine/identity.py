"""Identity of a space: a small profile of its vectors, and the judge that refuses another model's.

A profile is fitted to a sample of the space's own vectors and is then a pure value: judging reads nothing else,
draws no random numbers and gives the same verdict before and after storage. Invariant: a space whose geometry offers
no discrimination refuses nothing. Called by the engine's write path and by search. Design:
docs/explanation/identity.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vecdb.engine.identity_fit import BATCH_ROWS, Limits, fit_limits
from vecdb.engine.identity_numbers import (
    EVIDENCE,
    QUIET_MAX_DIM,
    Axes,
    Floats,
    Screen,
    axis_count,
    fit_axes,
    unit_rows,
    variety,
)
from vecdb.errors import CorruptionError, DimensionError, NonFiniteError, ParameterError
from vecdb.types import MAX_DIM, METRICS, Metric

__all__ = [
    "JUDGED_ROWS",
    "MIN_BATCH",
    "MIN_DIM",
    "MIN_ROWS",
    "WINDOW",
    "Cusum",
    "Profile",
    "Verdict",
    "explain",
    "fit_profile",
]

MIN_ROWS = 2000
"""Rows a space must hold before it has a profile."""
MIN_BATCH = BATCH_ROWS
"""Rows a write must have to be judged as a batch; smaller ones go through `Profile.step`."""
MIN_DIM = 16
"""Narrower spaces have too few axes to tell two models apart."""
JUDGED_ROWS = 256
"""Rows of a batch that are looked at, evenly spaced."""
WINDOW = 64
"""Rows within which a stream of single foreign rows raises the alarm."""

_FORMAT = 1
_FIT_ELEMENTS = 4 << 20
_FIT_MIN_ROWS = 512
_NORM_BINS = 32
_SIMILARITY_BINS = 64
_TIGHT_ROWS = 4.0
_TIGHT_SPREAD = 0.003
_FEW_ROWS = 16.0
_FEW_SCORES = 3
"""Rows up to which one at a time is quicker than all together."""
_ODD_ROWS = 1 / 3
_DRIFT = 0.3
_ALARM = 0.5 * WINDOW * _DRIFT
_NORM_RATIO = 8.0
_TINY = 1e-30
"""Squared norm in float32 above which no component that matters is lost."""


class Cusum(NamedTuple):
    """Running evidence that unverified rows are foreign; plain numbers, stored by the engine.

    Attributes
    ----------
    level : float
        Cumulative sum, 0 for a stream that looks native.
    rows : int
        Rows seen.
    """

    level: float = 0.0
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the judge found: `ok`, the batch's numbers, the limits they were held against, and a remark."""

    ok: bool
    numbers: dict[str, float]
    limits: dict[str, float]
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """What the vectors of one space look like.

    Attributes
    ----------
    metric : {"cosine", "dot", "l2"}
    rows : int
        Rows of the sample it was fitted to.
    axes : Axes
        Mean, loud and quiet axes of the unit rows.
    limits : Limits
        The fitted decision rule.
    norm_range : tuple of float
        Accepted range of a batch's median norm; (0, inf) where norms tell nothing (always so for cosine).
    norm_edges, norm_counts : tuple of float, ndarray of int64, shape (32,)
        Histogram of the sample's norms between two edges.
    similarity_counts : ndarray of int64, shape (64,)
        Histogram of the cosine of random pairs, over [-1, 1].
    """

    metric: Metric
    rows: int
    axes: Axes
    limits: Limits
    norm_range: tuple[float, float]
    norm_edges: tuple[float, float]
    norm_counts: npt.NDArray[np.int64]
    similarity_counts: npt.NDArray[np.int64]
    discriminates: bool = field(init=False)
    screen: Screen = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "discriminates", self.limits.discriminates)
        object.__setattr__(self, "screen", Screen.of(self.axes))

    @property
    def dim(self) -> int:
        return self.axes.dim

    def judge(self, batch: npt.NDArray[Any]) -> Verdict:
        """Say whether a batch looks like the output of the space's model.

        Parameters
        ----------
        batch : ndarray of float, shape (n, d), n >= 32
            Finite rows. At most `JUDGED_ROWS` of them, evenly spaced, are looked at.

        Returns
        -------
        Verdict
            Always ok where the profile does not discriminate.

        Raises
        ------
        DimensionError
            If `batch` is not a matrix of the space's width.
        ParameterError
            If it has fewer than `MIN_BATCH` rows.
        """
        self._check(batch)
        if len(batch) < MIN_BATCH:
            raise ParameterError(
                f"a batch of {len(batch)} rows cannot be judged, at least {MIN_BATCH} are needed.",
                hint="pass single rows through step().",
                name="batch",
                got=len(batch),
                allowed=f">= {MIN_BATCH} rows",
            )
        if not self.discriminates:
            return Verdict(True, {}, {}, "the space's geometry does not tell models apart")
        if len(batch) > JUDGED_ROWS:
            batch = batch[np.linspace(0, len(batch) - 1, JUDGED_ROWS).astype(np.intp)]
        unit, norms = unit_rows(batch)
        kept = norms > 0
        count = int(np.count_nonzero(kept))
        if count < MIN_BATCH // 2:
            return Verdict(True, {}, {}, "nearly all rows are zero vectors")
        if count < len(unit):
            unit, norms = unit[kept], norms[kept]
        return self._verdict(unit, _median(norms))

    def _verdict(self, unit: Floats, norm: float) -> Verdict:
        limits, found = self.limits, variety(unit)
        whole, rows = self.screen.batches(unit)
        alone = found.spread < _TIGHT_SPREAD * limits.spread
        tight = alone or found.independent < _TIGHT_ROWS
        evidence = rows.mean(axis=0) if tight else whole
        numbers = dict(zip(EVIDENCE, evidence.tolist(), strict=True)) | {
            "score": float(limits.score(evidence)),
            "odd_rows": min(1.0, float(found.weights @ (limits.score(rows) < limits.odd_row) / found.weights.sum())),
            "spread": found.spread,
            "independent_rows": found.independent,
            "norm": norm,
        }
        held = {
            "score": self._limit_of_rows(alone) if tight else self._limit(found.independent),
            "odd_rows": _ODD_ROWS if limits.rows_discriminate and found.weights.sum() >= _FEW_ROWS else 1.0,
            "norm_low": self.norm_range[0],
            "norm_high": self.norm_range[1],
        }
        native = numbers["score"] >= held["score"] and numbers["odd_rows"] <= held["odd_rows"]
        note = "near-duplicates: judged as single rows" if tight else ""
        return Verdict(native and held["norm_low"] <= norm <= held["norm_high"], numbers, held, note)

    def _limit_of_rows(self, alone: bool) -> float:
        """Return the limit for rows that are measured one by one.

        Copies of one row are `alone`: the evidence of a single row, of which one native in some thousands lies below
        the limit for rows. A query is warned about then, but a write is refused only where foreign rows usually lie.
        """
        return min(self.limits.row_limit, self.limits.row_foreign) if alone else self.limits.row_limit

    def _limit(self, independent: float) -> float:
        """Return the limit for a batch; few independent rows average less noise away and get more room."""
        room = max(0.0, 1 / math.sqrt(max(independent, 1.0)) - 1 / math.sqrt(_FEW_ROWS))
        return self.limits.limit - 3 * self.limits.row_deviation * room

    def step(self, state: Cusum, rows: npt.NDArray[Any]) -> tuple[Cusum, bool]:
        """Add rows too few to be judged to the running sum; the alarm says that they come from another model.

        Parameters
        ----------
        state : Cusum
            As returned before, or ``Cusum()``.
        rows : ndarray of float, shape (n, d)
            Finite rows, in the order in which they were written.

        Returns
        -------
        tuple of Cusum and bool
            One-sided cumulative sum after Page (Biometrika 1954). The sum is reset after an alarm.
        """
        self._check(rows)
        if not self.limits.rows_discriminate or not len(rows):
            return Cusum(0.0, state.rows + len(rows)), False
        span = self.limits.row_native - self.limits.row_foreign
        level, alarm = state.level, False
        for score in self._scores(rows):
            place = (score - self.limits.row_foreign) / span
            level = max(0.0, level + _DRIFT - min(max(place, -1.0), 1.0))
            alarm = alarm or level > _ALARM
        return Cusum(0.0 if alarm else level, state.rows + len(rows)), alarm

    def _scores(self, rows: npt.NDArray[Any]) -> list[float]:
        """Return the score of each row that has a direction."""
        few = [self._score(row) for row in rows] if len(rows) <= _FEW_SCORES else [None]
        if None not in few:
            return [score for score in few if score is not None]
        unit, norms = unit_rows(rows)
        scores: list[float] = self.limits.score(self.screen.rows(unit[norms > 0])).tolist()
        return scores

    def _score(self, row: npt.NDArray[Any]) -> float | None:
        """Return the score of one row, shape (d,), up to rounding in float32; None if that takes more care."""
        if row.dtype != np.float32 or not row.flags.c_contiguous or not _TINY < float(np.vdot(row, row)) < np.inf:
            return None
        return self.limits.score_of(self.screen.row_evidence(row))

    def query_warning(self, query: npt.NDArray[Any]) -> str | None:
        """Return a sentence if one query, shape (d,), looks less native than any vector of the sample; else None.

        The numbers are those of `query_warnings` up to rounding in float32.
        """
        self._check(query[None])
        score = self._score(query) if self.limits.rows_discriminate else None
        if score is None:
            return self._warnings_of(query[None])[0]
        return self._sentence(score) if score < self.limits.row_limit else None

    def query_warnings(self, queries: npt.NDArray[Any]) -> list[str | None]:
        """Return `query_warning` of each query, shape (n, d), at the cost of one product."""
        if len(queries) == 1:
            return [self.query_warning(queries[0])]
        self._check(queries)
        return self._warnings_of(queries)

    def _warnings_of(self, queries: npt.NDArray[Any]) -> list[str | None]:
        if not self.limits.rows_discriminate:
            return [None] * len(queries)
        unit, norms = unit_rows(queries)
        scores = self.limits.score(self.screen.rows(unit))
        foreign = (scores < self.limits.row_limit) & (norms > 0)
        return [self._sentence(float(score)) if odd else None for score, odd in zip(scores, foreign, strict=True)]

    def _sentence(self, score: float) -> str:
        return (
            f"the query does not look like this space's vectors (score {score:.2f}, limit "
            f"{self.limits.row_limit:.2f}); was it embedded by another model?"
        )

    def _check(self, rows: npt.NDArray[Any]) -> None:
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            raise DimensionError(
                f"the profile is of width {self.dim}, got an array of shape {rows.shape}.",
                expected=self.dim,
                got=rows.shape,
                where="identity profile",
            )

    def to_state(self) -> dict[str, Any]:
        """Return the profile as plain ints, floats, str and little-endian bytes; about 155 kB at 384 columns."""
        return {
            "format": _FORMAT,
            "metric": self.metric,
            "rows": self.rows,
            "dim": self.dim,
            "loud_axes": len(self.axes.loud),
            "quiet_axes": len(self.axes.quiet),
            "mean": self.axes.mean.astype("<f8").tobytes(),
            "loud": self.axes.loud.astype("<f4").tobytes(),
            "quiet": self.axes.quiet.astype("<f2").tobytes(),
            "signs": self.axes.signs.astype("i1").tobytes(),
            "limits": np.array(_flat(self.limits), dtype="<f8").tobytes(),
            "norms": np.array([*self.norm_range, *self.norm_edges], dtype="<f8").tobytes(),
            "norm_counts": self.norm_counts.astype("<i8").tobytes(),
            "similarity_counts": self.similarity_counts.astype("<i8").tobytes(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Profile:
        """Return the profile that `to_state` described.

        Raises
        ------
        CorruptionError
            If anything is missing, of a wrong type or length, out of range, or not finite.
        """
        metric = state.get("metric")
        if metric not in METRICS or _integer(state, "format", _FORMAT, _FORMAT) != _FORMAT:
            raise _damaged("metric", metric)
        dim = _integer(state, "dim", 1, MAX_DIM)
        loud = _integer(state, "loud_axes", 1, axis_count(dim))
        quiet = _integer(state, "quiet_axes", 0, axis_count(dim) if dim <= QUIET_MAX_DIM else 0)
        mean, signs = _array(state, "mean", "<f8", (dim,)), _array(state, "signs", "i1", (dim,))
        if (np.abs(mean) > 1.001).any() or (np.abs(signs.astype(np.int64)) > 1).any():
            raise _damaged("mean or signs", "out of range")
        axes = Axes.of(
            mean,
            _axis_rows(state, "loud", "<f4", (loud, dim)),
            _axis_rows(state, "quiet", "<f2", (quiet, dim)),
            signs,
        )
        norms = _array(state, "norms", "<f8", (4,), finite=False).tolist()
        if any(np.isnan(norms)) or norms[0] < 0:
            raise _damaged("norms", norms)
        return cls(
            metric=metric,
            rows=_integer(state, "rows", 0, 1 << 62),
            axes=axes,
            limits=_unflat(_array(state, "limits", "<f8", (_LIMIT_NUMBERS,)).tolist()),
            norm_range=(norms[0], norms[1]),
            norm_edges=(norms[2], norms[3]),
            norm_counts=_array(state, "norm_counts", "<i8", (_NORM_BINS,)),
            similarity_counts=_array(state, "similarity_counts", "<i8", (_SIMILARITY_BINS,)),
        )


def _median(norms: Floats) -> float:
    """Return `np.median`, which takes longer over its options than over a batch."""
    ordered = np.sort(norms)
    return float(ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def explain(verdict: Verdict) -> str:
    """Return one sentence for people on why a batch was or was not accepted."""
    if not verdict.numbers:
        return f"accepted: {verdict.note}."
    numbers, limits = verdict.numbers, verdict.limits
    verb = "looks like" if verdict.ok else "does not look like"
    norms = ""
    if not limits["norm_low"] <= numbers["norm"] <= limits["norm_high"]:
        norms = f", median norm {numbers['norm']:.4g} (accepted {limits['norm_low']:.4g} to {limits['norm_high']:.4g})"
    note = f"; {verdict.note}" if verdict.note else ""
    return (
        f"the batch {verb} the space's model: score {numbers['score']:.2f} (limit {limits['score']:.2f}; another "
        f"model: about 0) from alignment with the space's mean {numbers['alignment']:.2f}, "
        f"signs {numbers['signs']:.2f}, loud axes {numbers['energy']:+.2f}, quiet axes {numbers['quiet']:+.2f}; "
        f"odd rows {100 * numbers['odd_rows']:.0f} % (limit {100 * limits['odd_rows']:.0f} %), "
        f"spread {numbers['spread']:.3g}{norms}{note}."
    )


def fit_profile(sample: npt.NDArray[Any], metric: Metric, *, seed: int = 0) -> Profile:
    """Fit the profile of a space to a uniform sample of its own vectors.

    Parameters
    ----------
    sample : ndarray of float32, shape (m, d)
        m >= `MIN_ROWS`. Not kept. Wide samples are thinned evenly to 4 M elements (at least 512 rows).
    metric : {"cosine", "dot", "l2"}
        Norms are part of the identity except for cosine.
    seed : int, default 0
        Of the resampling; the same sample and seed give the same profile.

    Returns
    -------
    Profile
        With ``discriminates`` False where the geometry cannot tell models apart: fewer than `MIN_DIM` columns,
        (nearly) constant or isotropic vectors, topics that share no directions.

    Raises
    ------
    DimensionError
        If `sample` is not a matrix.
    ParameterError
        If it has fewer than `MIN_ROWS` rows.
    NonFiniteError
        If it holds NaN or an infinity.
    """
    if sample.ndim != 2 or sample.shape[1] < 1:
        raise DimensionError(f"a sample is a matrix, got shape {sample.shape}.", got=sample.shape, where="sample")
    if len(sample) < MIN_ROWS:
        raise ParameterError(
            f"a profile needs {MIN_ROWS} rows, got {len(sample)}.",
            name="sample",
            got=len(sample),
            allowed=f">= {MIN_ROWS} rows",
        )
    if not np.isfinite(sample).all():
        raise NonFiniteError("a sample of stored vectors holds NaN or an infinity.", where="sample")
    limited = min(len(sample), max(_FIT_MIN_ROWS, _FIT_ELEMENTS // sample.shape[1]))  # bounds time and memory
    unit, norms = unit_rows(sample[np.linspace(0, len(sample) - 1, limited).astype(np.intp)])
    kept = unit[norms > 0] if np.count_nonzero(norms) >= len(unit) // 2 else unit
    axes = fit_axes(kept, seed=seed)
    limits = fit_limits(kept, axes, seed=seed) if sample.shape[1] >= MIN_DIM and norms.any() else Limits()
    edges = (float(norms.min()), float(norms.max()))
    wide = edges if edges[0] < edges[1] else (edges[0], float(np.nextafter(edges[1], np.inf)) + 1.0)
    return Profile(
        metric=metric,
        rows=len(sample),
        axes=axes,
        limits=limits,
        norm_range=(0.0, float("inf")) if metric == "cosine" else _norm_range(norms),
        norm_edges=wide,
        norm_counts=np.histogram(norms, _NORM_BINS, wide)[0].astype(np.int64),
        similarity_counts=_similarities(kept, seed),
    )


def _norm_range(norms: Floats) -> tuple[float, float]:
    """Return the accepted range of a median norm: the sample's own, widened by its own width, at least twofold.

    Norms that already vary more than `_NORM_RATIO`-fold, or reach zero, tell nothing and are not used.
    """
    low, high = np.quantile(norms, [0.001, 0.999]).tolist()
    if low <= 0 or high / low > _NORM_RATIO:
        return 0.0, float("inf")
    room = max(2.0, high / low)
    return low / room, high * room


def _similarities(unit: Floats, seed: int) -> npt.NDArray[np.int64]:
    pairs = np.random.default_rng(seed).integers(0, len(unit), (2, 4096))
    cosines = np.einsum("ij,ij->i", unit[pairs[0]], unit[pairs[1]])
    return np.histogram(np.clip(cosines, -1, 1), _SIMILARITY_BINS, (-1, 1))[0].astype(np.int64)


# --- stored form -------------------------------------------------------------------------------------------

_LIMIT_NUMBERS = 2 * len(EVIDENCE) + len(fields(Limits)) - 2


def _flat(limits: Limits) -> list[float]:
    rest = (getattr(limits, each.name) for each in fields(Limits)[2:])
    return [*limits.weights, *limits.caps, *rest]


def _unflat(numbers: list[float]) -> Limits:
    weights, caps, rest = np.split(np.array(numbers), [len(EVIDENCE), 2 * len(EVIDENCE)])
    return Limits(tuple(weights.tolist()), tuple(caps.tolist()), *rest.tolist())


def _damaged(name: str, got: object) -> CorruptionError:
    return CorruptionError(f"stored identity profile: {name} is not valid ({got!r}).", what=name, where="profile")


def _integer(state: Mapping[str, Any], name: str, low: int, high: int) -> int:
    value = state.get(name)
    if type(value) is not int or not low <= value <= high:
        raise _damaged(name, value)
    return value


def _axis_rows(state: Mapping[str, Any], name: str, dtype: str, shape: tuple[int, int]) -> npt.NDArray[Any]:
    axes = _array(state, name, dtype, shape)
    if (np.abs(axes) > 1.001).any() or (np.abs(np.square(axes.astype(np.float64)).sum(axis=1) - 1) > 0.01).any():
        raise _damaged(name, "axes not of unit length")
    return axes


def _array(
    state: Mapping[str, Any], name: str, dtype: str, shape: tuple[int, ...], *, finite: bool = True
) -> npt.NDArray[Any]:
    data = state.get(name)
    kind = np.dtype(dtype)
    size = kind.itemsize * int(np.prod(shape))
    if not isinstance(data, bytes) or len(data) != size:
        raise _damaged(name, f"{len(data) if isinstance(data, bytes) else type(data).__name__}, expected {size} bytes")
    array = np.frombuffer(data, dtype=kind).reshape(shape)
    if finite and not np.isfinite(array).all():
        raise _damaged(name, "not finite")
    return array.astype(kind.newbyteorder("="))
