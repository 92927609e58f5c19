"""Whether a space holds vectors of more than one model, and where one gives way to another.

For collections whose vectors came from somewhere without model names. In order of age, each stretch of vectors is held
against the profiles (`identity`) of what came before; a stretch that none of them knows begins a new model. Models that
were mixed row by row have no place where they change: two clusters are then held against each other, which finds them
if their means differ more than their topics do. Invariant: a topic is no model, as in `identity`; nothing is written.
Design: docs/explanation/identity.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from vecdb.engine.identity import MIN_BATCH, MIN_DIM, MIN_ROWS, Profile, fit_profile
from vecdb.types import Metric

__all__ = ["Found", "Stretch", "examine"]

F32 = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

WINDOW = 64
"""Consecutive rows that are judged together."""
MOST_MODELS = 8
_RUN = 2
"""Windows in a row that a new model takes: one alone may be an accident."""
_REFUSED = 0.9
"""Of the batches of a cluster: so many must be foreign to the other."""
_BATCHES = 24
_SHRINK = 0.1
_ROUNDS = 12


@dataclass(frozen=True, slots=True)
class Stretch:
    """Rows in order of age that look like one model: from `start` up to, without, `stop`."""

    model: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Found:
    """What a space seems to hold.

    Attributes
    ----------
    models : int or None
        None: it cannot be told.
    stretches : tuple of Stretch
        One model after the other; one stretch where nothing changes.
    mixed : tuple of int
        Sizes of the parts where models alternate row by row, else empty.
    note : str
    """

    models: int | None
    stretches: tuple[Stretch, ...]
    mixed: tuple[int, ...] = ()
    note: str = ""


def examine(rows: F32, metric: Metric, *, seed: int = 0) -> Found:
    """Return what a space seems to hold.

    Parameters
    ----------
    rows : ndarray of float32, shape (n, d)
        Its vectors, the oldest first.
    metric : {"cosine", "dot", "l2"}
    seed : int, default 0
    """
    whole = (Stretch(0, 0, len(rows)),)
    if len(rows) < MIN_ROWS + 2 * WINDOW or rows.shape[1] < MIN_DIM:
        needed = f"{MIN_ROWS + 2 * WINDOW:,} vectors of at least {MIN_DIM} columns"
        return Found(None, whole, note=f"too little to tell models apart: {needed} are needed")
    labels = _labelled(rows, metric, seed)
    if labels.max() == 0:  # what begins as a mixture knows both: ask from the other end
        labels = _labelled(rows[::-1], metric, seed)[::-1]
        labels = labels.max() - labels
    if labels.max() > 0:
        stretches = _stretches(rows, labels)
        return Found(len({each.model for each in stretches}), stretches)
    return _mixture(rows, metric, seed, whole)


# --- one after the other ----------------------------------------------------------------------------------


def _labelled(rows: F32, metric: Metric, seed: int) -> Integers:
    """Return the model of each window: the number of the first profile that knows it."""
    profiles = [fit_profile(rows[:MIN_ROWS], metric, seed=seed)]
    starts = range(0, len(rows) - WINDOW + 1, WINDOW)
    labels = np.zeros(len(starts), np.int64)
    current = strange = 0
    for place, start in enumerate(starts):
        known = _knower(profiles, current, rows[start : start + WINDOW])
        if known is not None:
            labels[place], current, strange = known, known, 0
            continue
        labels[place], strange = current, strange + 1
        if strange >= _RUN and len(profiles) < MOST_MODELS:
            first = place - strange + 1
            profiles.append(_profile_from(rows, starts[first], metric, seed))
            current, strange = len(profiles) - 1, 0
            labels[first : place + 1] = current
    return labels


def _profile_from(rows: F32, start: int, metric: Metric, seed: int) -> Profile:
    """Return the profile of what begins at a row; where too little follows, of its rows again and again."""
    following = rows[start : start + MIN_ROWS]
    if len(following) < MIN_ROWS:
        following = np.resize(following, (MIN_ROWS, rows.shape[1]))
    return fit_profile(following, metric, seed=seed)


def _knower(profiles: list[Profile], current: int, batch: F32) -> int | None:
    """Return which profile knows a batch, the current one if it does."""
    order = [current, *(number for number in range(len(profiles)) if number != current)]
    return next((number for number in order if profiles[number].judge(batch).ok), None)


def _stretches(rows: F32, labels: Integers) -> tuple[Stretch, ...]:
    """Return runs of one label, each change moved to the row where it is likeliest."""
    changes = np.flatnonzero(np.diff(labels)) + 1
    bounds = [0, *(int(change) for change in changes), len(labels)]
    runs = [(int(labels[start]), start * WINDOW, stop * WINDOW) for start, stop in pairwise(bounds)]
    starts = [0, *(_change(rows, one, other) for one, other in pairwise(runs))]
    stops = [*starts[1:], len(rows)]
    return tuple(Stretch(run[0], start, stop) for run, start, stop in zip(runs, starts, stops, strict=True))


def _change(rows: F32, one: tuple[int, int, int], other: tuple[int, int, int]) -> int:
    """Return the first row of the second of two runs: where a linear discriminant of both changes its sign."""
    before, after = rows[one[1] : max(one[2] - WINDOW, one[1] + 1)], rows[other[1] + WINDOW : other[2]]
    if len(after) < MIN_BATCH or len(before) < MIN_BATCH:
        return other[1]
    side, middle = _discriminant(before[-MIN_ROWS:], after[:MIN_ROWS])
    start, stop = max(one[1], other[1] - 2 * WINDOW), min(other[2], other[1] + 2 * WINDOW)
    scores = rows[start:stop].astype(np.float64) @ side - middle
    return start + int(np.concatenate([[0.0], np.cumsum(scores)]).argmax())


def _discriminant(one: F32, other: F32) -> tuple[npt.NDArray[np.float64], float]:
    """Return Fisher's direction between two sets, positive for the first, and its middle."""
    means = one.mean(0, dtype=np.float64), other.mean(0, dtype=np.float64)
    away = np.concatenate([one - means[0], other - means[1]])
    spread = away.T @ away / len(away)
    spread += _SHRINK * np.trace(spread) / len(spread) * np.eye(len(spread))
    side = np.linalg.solve(spread, means[0] - means[1])
    return side, float(side @ (means[0] + means[1]) / 2.0)


# --- row by row -------------------------------------------------------------------------------------------


def _mixture(rows: F32, metric: Metric, seed: int, whole: tuple[Stretch, ...]) -> Found:
    """Return whether two clusters are foreign to each other, as those of two models are and those of topics are not."""
    side = _two_clusters(rows, seed)
    parts = sorted((rows[side], rows[~side]), key=len, reverse=True)
    if len(parts[0]) < MIN_ROWS or len(parts[1]) < 2 * MIN_BATCH:
        return Found(1, whole)
    foreign = [_refused(fit_profile(parts[0], metric, seed=seed), parts[1], seed)]
    if len(parts[1]) >= MIN_ROWS:
        foreign.append(_refused(fit_profile(parts[1], metric, seed=seed), parts[0], seed))
    if min(foreign) < _REFUSED:
        return Found(1, whole)
    return Found(2, whole, tuple(len(part) for part in parts), "vectors of two models alternate")


def _refused(profile: Profile, rows: F32, seed: int) -> float:
    """Return the share of random batches that a profile does not know."""
    random = np.random.default_rng(seed)
    size = min(WINDOW, len(rows))
    verdicts = [profile.judge(rows[random.choice(len(rows), size, replace=False)]).ok for _ in range(_BATCHES)]
    return 1.0 - float(np.mean(verdicts))


def _two_clusters(rows: F32, seed: int) -> npt.NDArray[np.bool_]:
    """Return two-means of the directions, begun on both ends of their main axis."""
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    away = unit - unit.mean(0)
    axis: F32 = np.random.default_rng(seed).standard_normal((1, rows.shape[1])).astype(np.float32)[0]
    for _ in range(_ROUNDS):
        axis = away.T @ (away @ axis)
        axis /= max(float(np.linalg.norm(axis)), 1e-12)
    side = away @ axis > 0
    for _ in range(_ROUNDS):
        if not side.any() or side.all():
            break
        difference = unit[side].mean(0) - unit[~side].mean(0)
        middle = difference @ (unit[side].mean(0) + unit[~side].mean(0)) / 2.0
        side = np.asarray(unit @ difference > middle, np.bool_)
    return np.asarray(side, np.bool_)
