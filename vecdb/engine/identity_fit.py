"""Fitting of an identity profile: what a space's own hardest batches look like, and what foreigners would.

Native evidence is always out of sample: topics are held out of the axes they are measured against. Foreign evidence
is constructed from the same rows: rotated, with permuted columns, with flipped signs. The limit lies between the
hardest native and the nearest constructed foreign batch; it is an effect size, so it does not move with the number
of rows. Invariant: the same sample and seed give the same limits. Design: docs/explanation/identity.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vecdb.engine.identity_numbers import EVIDENCE, Axes, Floats, Screen, fit_axes, variety

__all__ = ["BATCH_ROWS", "Limits", "fit_limits"]

BATCH_ROWS = 32
"""Rows of a resampled batch: the smallest that is judged, hence the noisiest."""

_WEIGHTS = np.array([2.0, 2.0, 1.0, 1.0])
_TRAITS = np.array([0.75, 0.9])
"""Alignment and signs count only where every held-out batch has them: a trait of the model, not of a topic."""
_MIN_ENERGY_GAP = 0.1
_MIN_GAP = 0.3
_MIN_ROW_GAP = 0.2
_LIMIT_PLACE = 0.2
_ROW_LIMIT_PLACE = 0.1
_TOPICS = 16
_FOLDS = 4
_DRAWS = 8
_Indices = npt.NDArray[np.intp]
_Turn = Callable[[Floats], Floats]


@dataclass(frozen=True, slots=True)
class Limits:
    """What the judge compares with. Scores are weighted sums of evidence in nats; 0 is what a foreigner expects.

    Attributes
    ----------
    weights, caps : tuple of float
        Per number of `EVIDENCE`: its weight (0 = it does not part natives from foreigners here) and the value above
        which more is no better, so that one number cannot outvote the others.
    foreign, native, limit : float
        Highest score of a constructed foreign batch, lowest of a held-out native batch, and the refusal limit.
    row_foreign, row_native : float
        The same for the mean score of 32 single rows.
    row_deviation, row_limit : float
        Standard deviation of single native rows' scores, and the limit for one row: below every native row and
        near what foreign rows reach.
    spread : float
        Mean squared distance of unit rows to their mean, over the sample.
    """

    weights: tuple[float, ...] = (0.0,) * len(EVIDENCE)
    caps: tuple[float, ...] = (0.0,) * len(EVIDENCE)
    foreign: float = 0.0
    native: float = 0.0
    limit: float = 0.0
    row_foreign: float = 0.0
    row_native: float = 0.0
    row_deviation: float = 0.0
    row_limit: float = 0.0
    spread: float = 0.0

    @property
    def discriminates(self) -> bool:
        """Whether held-out native batches stand clear of constructed foreign ones."""
        return self.native - self.foreign >= _MIN_GAP

    @property
    def rows_discriminate(self) -> bool:
        """Whether 32 single rows do."""
        return self.discriminates and self.row_native - self.row_foreign >= _MIN_ROW_GAP

    @property
    def odd_row(self) -> float:
        """Score below which a row is called odd: a few native rows are, nine in ten foreign ones."""
        return self.row_foreign + _ROW_LIMIT_PLACE * (self.row_native - self.row_foreign)

    def score(self, evidence: Floats) -> Floats:
        """Return the weighted, capped sum over the last axis of `evidence`, shape (..., 4)."""
        return np.asarray(np.minimum(evidence, self.caps) @ np.array(self.weights))

    def score_of(self, evidence: Sequence[float]) -> float:
        """Return `score` of one row's numbers."""
        total = 0.0
        for weight, number, cap in zip(self.weights, evidence, self.caps, strict=True):
            total += weight * (number if number < cap else cap)
        return total


def fit_limits(unit: Floats, axes: Axes, *, seed: int) -> Limits:
    """Fit the limits of a space from unit rows, shape (m, d), and the axes fitted to all of them."""
    rng = np.random.default_rng(seed)
    spread = float(np.square(unit - axes.mean).sum(axis=1).mean())
    native, native_rows = _held_out_evidence(unit, rng)
    if not len(native):
        return Limits(spread=spread)
    foreign, foreign_rows = _foreign_evidence(unit, axes, rng)
    rule = Limits(_weights(native, foreign[0]), tuple(np.median(native, axis=0).tolist()))
    low = float(rule.score(native).min())
    single = rule.score(native_rows)
    row_low = float(single.mean(axis=1).min())
    high = _ceiling(rule.score(foreign), low, _MIN_GAP)
    row_high = _ceiling(rule.score(foreign_rows).mean(axis=2), row_low, _MIN_ROW_GAP)
    return Limits(
        weights=rule.weights,
        caps=rule.caps,
        foreign=high,
        native=low,
        limit=high + _LIMIT_PLACE * (low - high),
        row_foreign=row_high,
        row_native=row_low,
        row_deviation=float(single.std()),
        row_limit=min(_below(single), row_high + _ROW_LIMIT_PLACE * (row_low - row_high)),
        spread=spread,
    )


def _weights(native: Floats, rotated: Floats) -> tuple[float, ...]:
    traits = native[:, :2].min(axis=0) >= _TRAITS
    energies = native[:, 2:].min(axis=0) - rotated[:, 2:].max(axis=0) >= _MIN_ENERGY_GAP
    return tuple(np.where(np.concatenate([traits, energies]), _WEIGHTS, 0.0).tolist())


def _ceiling(foreign: Floats, native: float, gap: float) -> float:
    """Return the highest foreign score, shape (families, batches), of the families that stand clear of the natives.

    A rotation is what any other model looks like, so it always counts. Some spaces cannot see a permutation or a
    change of signs (independent columns); they keep what discrimination they have.
    """
    highest = foreign.max(axis=1)
    return float(max([highest[0], *highest[native - highest >= gap]]))


def _below(scores: Floats) -> float:
    """Return a bound below a sample: its lowest values, lowered by half their distance to the median."""
    low, middle = np.quantile(scores, [0.0005, 0.5]).tolist()
    return float(low - 0.5 * (middle - low))


def _held_out_evidence(unit: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return evidence of native batches, shape (b, 4), and of their rows, (b, 32, 4), on axes that never saw them."""
    found: list[tuple[Floats, Floats]] = []
    fold_of = _folds(unit, rng)
    for fold in range(_FOLDS):
        held, kept = unit[fold_of == fold], unit[fold_of != fold]
        if len(held) < 2 * BATCH_ROWS or len(kept) < 2 * BATCH_ROWS:
            continue
        screen = Screen.of(fit_axes(kept, seed=fold))
        members = np.array(list(_batches(held, rng, 24)))
        varied = [place for place in members if variety(held[place]).independent >= 4]  # others are judged as rows
        if varied:
            found.append(screen.batches(held[np.array(varied)]))
    if not found:
        return np.empty((0, len(EVIDENCE))), np.empty((0, BATCH_ROWS, len(EVIDENCE)))
    return np.concatenate([whole for whole, _ in found]), np.concatenate([rows for _, rows in found])


def _folds(unit: Floats, rng: np.random.Generator) -> _Indices:
    """Split rows into folds of whole topics, ordered along the topics' main axis, of about equal size."""
    centres = unit[rng.choice(len(unit), _TOPICS, replace=False)]
    for _ in range(6):
        topic = np.argmax(unit @ centres.T - 0.5 * np.square(centres).sum(axis=1), axis=1)
        for each in np.unique(topic):
            centres[each] = unit[topic == each].mean(axis=0)
    main = np.linalg.svd(centres - centres.mean(axis=0), full_matrices=False)[2][0]
    order = np.argsort(centres @ main, kind="stable")
    size = np.bincount(topic, minlength=_TOPICS)[order]
    fold = np.empty(_TOPICS, dtype=np.intp)
    fold[order] = np.minimum(_FOLDS - 1, (np.cumsum(size) - size / 2) * _FOLDS // len(unit))
    return np.asarray(fold[topic])


def _batches(unit: Floats, rng: np.random.Generator, count: int) -> Iterator[_Indices]:
    """Yield index sets of `BATCH_ROWS` rows: `count` at random, then `count` of nearest neighbours of a row."""
    for _ in range(count):
        yield rng.choice(len(unit), BATCH_ROWS, replace=False)
    for seed_row in rng.choice(len(unit), count, replace=False):
        yield np.argpartition(-(unit @ unit[seed_row]), BATCH_ROWS - 1)[:BATCH_ROWS]


def _foreign_evidence(unit: Floats, axes: Axes, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return evidence of constructed foreign batches, shape (families, b, 4), and of their rows, (families, b, 32, 4).

    The first family are rotations.
    """
    batches = unit[np.array(list(_batches(unit, rng, 8)))]
    flat, screen = batches.reshape(-1, axes.dim), Screen.of(axes)
    numbers: list[Floats] = []
    rows: list[Floats] = []
    for family in (_rotation, _permutation, _flips):
        turned = (family(axes.dim, rng)(flat).reshape(batches.shape) for _ in range(_DRAWS))
        found = [screen.batches(each) for each in turned]
        numbers.append(np.concatenate([whole for whole, _ in found]))
        rows.append(np.concatenate([single for _, single in found]))
    return np.array(numbers), np.array(rows)


def _rotation(dim: int, rng: np.random.Generator) -> _Turn:
    """Return a random isometry as two Hartley transforms between changes of signs: n log n, no matrix."""
    first, second, third = rng.choice([-1.0, 1.0], (3, dim))
    return lambda rows: _hartley(_hartley(rows * first) * second) * third


def _hartley(rows: Floats) -> Floats:
    waves = np.fft.fft(rows, axis=1, norm="ortho")
    return waves.real - waves.imag


def _permutation(dim: int, rng: np.random.Generator) -> _Turn:
    order = rng.permutation(dim)
    return lambda rows: rows[:, order]


def _flips(dim: int, rng: np.random.Generator) -> _Turn:
    signs = rng.choice([-1.0, 1.0], dim)
    return lambda rows: rows * signs
