"""One list over native and bridged rows before there is one: how far scores are apart, which calibration merges best.

Native and bridged scores of the same records are known, so that any share of them can be taken for embedded again. Each
calibration is what the engine does (`engine.bridge.calibration`), here for whole tables of scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vecdb.engine.bridge.calibration import Line, expected, matched, tail_matched
from vecdb.evaluation import Judged, measure, scores_between
from vecdb.upgrade.findings import Mixing, Shift
from vecdb.upgrade.natives import Trial, growing, native_judged
from vecdb.upgrade.parts import Arm
from vecdb.upgrade.sides import Setting, Side

__all__ = ["Tables", "mixing_of", "shift_of", "tables_of"]

Integers = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
_ASKED, _ROWS, _BINS = 300, 4_000, 48
"""Queries, rows, bins of the pictures."""
_CLEAR = 2.0
"""Standard errors of a paired difference, from which another calibration goes before the usual one."""
_SMOOTH = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class Tables:
    """Scores of some queries and native rows.

    Attributes
    ----------
    native, raw : ndarray of float64, shape (q, m)
        By the new model; by the bridge.
    known, cross : ndarray of float64, shape (q, r)
        The same of the reference rows.
    judged : Judged
    order : ndarray of int64, shape (m,)
        In which rows are taken for embedded again.
    """

    native: Values
    raw: Values
    known: Values
    cross: Values
    judged: Judged
    order: Integers

    def done(self, share: float) -> Bools:
        """Return which rows are native when so many of them are."""
        done = np.zeros(len(self.order), bool)
        done[self.order[: round(share * len(self.order))]] = True
        return done


def tables_of(trial: Trial, arm: Arm) -> Tables | None:
    """Return the scores of an arm's first fit, None where new queries or reference rows are missing."""
    setting, _, _ = trial.judging.of(0)
    judged = native_judged(setting)
    asked = np.flatnonzero(judged.answered)[:_ASKED]
    keep = np.sort(growing(setting)[:_ROWS])
    reference = trial.parts[0].reference
    questions = setting.questions.take(asked)
    small = Setting(setting.gallery[setting.natives[keep]], keep, setting.fresh[keep], questions, None)
    other = Setting(trial.material.X[reference], reference, trial.material.Y[reference], questions, None)
    sides = [trial.side(arm, 0, each) for each in (small, other)]
    if questions.new is None or not len(reference) or sides[0] is None or sides[1] is None:
        return None
    metric = trial.material.target.metric
    raw, cross = (_scores(side[0]) for side in sides if side is not None)
    native = scores_between(questions.new, small.fresh, metric).astype(np.float64)
    known = scores_between(questions.new, other.fresh, metric).astype(np.float64)
    order = np.random.default_rng(0).permutation(len(keep))
    return Tables(native, raw, known, cross, judged.take(asked).among(keep, len(setting.natives)), order)


def _scores(side: Side) -> Values:
    return scores_between(side.queries, side.rows, side.metric, side.bias).astype(np.float64)


# --- calibrations -----------------------------------------------------------------------------------------


def _reference(tables: Tables, done: Bools) -> Values:
    return _lined(tables, matched, done)


def _tail(tables: Tables, done: Bools) -> Values:
    return _lined(tables, tail_matched, done)


def _lined(tables: Tables, line: Callable[[Values, Values], Line], done: Bools) -> Values:
    rows = zip(tables.cross, tables.known, tables.raw, strict=True)
    return np.where(done, tables.native, np.stack([_moved(line(cross, known), raw) for cross, known, raw in rows]))


def _moved(line: Line, scores: Values) -> Values:
    moved: Values = scores * line.factor + line.offset
    return moved


def _lists(tables: Tables, done: Bools) -> Values:
    """Level the heads of both lists, each as long as its size lets expect."""
    mixed = _reference(tables, done)
    if done.all() or not done.any():
        return mixed
    heads = [_head(mixed[:, part], expected(int(part.sum()), len(done))) for part in (done, ~done)]
    mixed[:, ~done] += (heads[0] - heads[1])[:, None]
    return mixed


def _head(scores: Values, count: int) -> Values:
    count = min(count, scores.shape[1])
    return np.asarray(np.partition(scores, scores.shape[1] - count, axis=1)[:, -count:].mean(1), np.float64)


def _ranks(tables: Tables, done: Bools) -> Values:
    """Go by the place that is to be expected among all rows."""
    mixed = np.empty_like(tables.native)
    for part, scores, first in ((done, tables.native, 1.0), (~done, tables.raw, 0.5)):
        places = np.argsort(np.argsort(-scores[:, part], axis=1, kind="stable"), axis=1) + 1.0
        mixed[:, part] = 1.0 / (_SMOOTH + (places - first) * (len(done) / max(int(part.sum()), 1)) + 1.0)
    return mixed


_CALIBRATIONS: dict[str, Callable[[Tables, Bools], Values]] = {
    "reference": _reference,
    "lists": _lists,
    "tail": _tail,
    "ranks": _ranks,
}


def mixing_of(tables: Tables, metric: str) -> Mixing:
    """Return what each calibration is worth while rows are embedded again, and which one is to be used.

    The first one, unless another is better over 25, 50 and 75 % together by two standard errors of the paired
    difference: queries are few, and what comes first has more evidence of its own than one collection's.
    """
    found = {name: [_worth(tables, make, share, metric) for share in SHARES] for name, make in _CALIBRATIONS.items()}
    between = {name: np.mean(values[1:-1], axis=0) for name, values in found.items()}
    usual = between["reference"]
    best = max(between, key=lambda name: float(between[name].mean()))
    lost = between[best] - usual
    clear = float(lost.mean()) > _CLEAR * float(lost.std()) / max(len(lost), 1) ** 0.5
    curves = tuple((name, tuple(float(each.mean()) for each in values)) for name, values in found.items())
    return Mixing(best if clear else "reference", SHARES, curves)


def _worth(tables: Tables, make: Callable[[Tables, Bools], Values], share: float, metric: str) -> Values:
    """Return what one list is worth for each query."""
    mixed, judged = make(tables, tables.done(share)), tables.judged
    own = mixed[judged.owners, judged.rows]
    ranks = [int((mixed[query] > score).sum()) + 1 for query, score in zip(judged.owners, own, strict=True)]
    values = measure(np.array(ranks, np.int64), judged).of(metric)
    return values[~np.isnan(values)]


# --- scores -----------------------------------------------------------------------------------------------


def shift_of(tables: Tables) -> Shift:
    """Return how far bridged scores are from native ones, before and after they are matched on the reference rows."""
    native, raw = tables.native, tables.raw
    calibrated = _reference(tables, np.zeros(native.shape[1], bool))
    both = np.concatenate([native.ravel(), raw.ravel(), calibrated.ravel()])
    low, high = (float(end) for end in np.quantile(both, [0.001, 0.999]))
    edges = np.linspace(low, high, _BINS + 1)
    shares = [np.histogram(each, edges)[0] / each.size for each in (native, raw, calibrated)]
    distances = [_distance(native.ravel(), each.ravel()) for each in (raw, calibrated)]
    return Shift(distances[0], distances[1], tuple(edges.tolist()), *(tuple(each.tolist()) for each in shares))


def _distance(one: Values, other: Values) -> float:
    """Return the Kolmogorov-Smirnov distance, at two thousand points of both."""
    points = np.quantile(np.concatenate([one, other]), np.linspace(0, 1, 2_000))
    shares = [np.searchsorted(np.sort(each), points, side="right") / len(each) for each in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max())
