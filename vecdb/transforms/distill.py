"""`distill`: fit the ranking, not the vectors. A map of queries after which old vectors rank as a teacher ranks them.

Least squares brings mapped vectors near their partners and loses rankings; here the loss is the ranking (`listwise`).
The asked vectors are the new vectors of the pairs and whatever real queries there are; the teacher is the new model on
the paired records, the old model where a query's old vector is known, or the mean of both. It starts from ridge
regression and gives way to it where kept-back pairs find it clearly better. Formulas: docs/reference/transforms.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vecdb.contracts import FitData, Param, State, TransformCapabilities
from vecdb.transforms.affine import AffineMap, Formula, load_affine
from vecdb.transforms.axes import axes_of
from vecdb.transforms.judge import best_of, judge_of
from vecdb.transforms.listwise import Asked, Bank, Course, Lesson, Score, Teacher, learn, taught
from vecdb.transforms.pairs import Rows32, Rows64
from vecdb.transforms.procrustes import WIDTHS
from vecdb.transforms.ridge import PENALTY, choose_ridge
from vecdb.types import Metric

__all__ = ["DISTILL", "Centres", "DistillType", "Learnt", "centres_of", "distilled", "lessons_of"]

_LEAST = 3
_MANY = 8_000
"""Real queries whose lessons count as much as those of the pairs: fewer are soon learnt by heart, and count less."""


class Learnt(NamedTuple):
    """A map of queries, and by which score it was kept (-1: by none)."""

    formula: Formula
    judged: float
    kept: bool


class Centres(NamedTuple):
    """Means of the pairs, and of the real queries: the first one where there are none."""

    before: npt.NDArray[np.float64]
    after: npt.NDArray[np.float64]
    asked: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DistillType:
    """``y = (x - m) W + b`` with W and b of least divergence between the rankings."""

    name: str = "distill"
    version: int = 1
    capabilities: TransformCapabilities = field(
        default=TransformCapabilities(
            min_pairs=_LEAST,
            widths=WIDTHS,
            directions=frozenset({"query"}),
            affine=True,
            row_wise=True,
            deterministic=True,
        )
    )
    parameters: Mapping[str, Param] = field(
        default_factory=lambda: {
            "teacher": Param(
                "str",
                "mean",
                "Whose ranking is fitted: the new model's, the old model's, or the mean of both where both are known.",
                choices=("mean", "new", "old"),
            ),
            "temperature": Param(
                "float", 1.5, "Of both rankings, in deviations of the scores of one query.", low=0.01, high=100.0
            ),
            "steps": Param("int", 200, "Steps of Adam.", 0, 1_000_000),
            "rate": Param("float", 0.1, "Length of a step, in deviations of the map's entries.", 0.0, 10.0),
            "batch": Param("int", 256, "Asked vectors a step, of each population.", 1, 65_536),
            "rows": Param("int", 2500, "Stored vectors a step, of the paired and of the others.", 2, 1_000_000),
            "penalty": PENALTY,
        }
    )

    def fit(self, data: FitData, params: Mapping[str, Any]) -> AffineMap:
        found = distilled(data, params, owner=self.name)
        known = 0 if data.queries is None else len(data.queries)
        chosen = {"distilled": found.kept, "judged": found.judged, "queries": known, "steps": params["steps"]}
        return AffineMap.of(found.formula, data, chosen={**chosen, "teacher": params["teacher"]})

    def load(self, state: State) -> AffineMap:
        return load_affine(state)


def distilled(data: FitData, params: Mapping[str, Any], *, owner: str) -> Learnt:
    """Return the map of queries that ranks most like the teacher.

    Parameters
    ----------
    data : FitData
        For the role "query".
    params : mapping
        As declared by `DistillType`.
    owner : str
        Name of the kind, for messages.

    Raises
    ------
    FitError, NonFiniteError, CancelledError
    """
    mean = "keep" if data.target_space.metric == "l2" else "drop"
    settings = {"penalty": params["penalty"], "restore": "global" if mean == "keep" else "clip", "mean": mean}
    ridge = choose_ridge(data, settings, owner=owner, least=_LEAST)
    start, axes = ridge.formula(), axes_of(data)
    turned = axes.turn(data)
    course = Course(*(params[name] for name in ("steps", "rate", "temperature", "batch", "rows")))
    metrics = data.source_space.metric, data.target_space.metric
    lessons = lessons_of(turned, centres_of(turned), params["teacher"])
    W = axes.before.T @ start.W @ axes.after
    first = Score(W.astype(np.float32), np.zeros((2, W.shape[1]), np.float32))
    score = axes.back(learn(first, lessons, course, metrics, turned))
    return _kept(data, start, _formula(score, centres_of(data), data), ridge.judged)


def centres_of(data: FitData) -> Centres:
    """Return what asked and stored vectors are centred by."""
    before, after = (rows.mean(0, dtype=np.float64) for rows in (data.source, data.target))
    real = data.queries is not None and len(data.queries) > 0
    return Centres(
        before, after, data.queries.mean(0, dtype=np.float64) if real and data.queries is not None else before
    )


def lessons_of(data: FitData, centres: Centres, teacher: Teacher) -> list[Lesson]:
    """Return who is asked over what: all over the paired rows, and over the others who is known to the old model.

    Records come first and real queries last; a fit's bias is that of the last one.

    Parameters
    ----------
    data : FitData
        Of the role "query".
    centres : Centres
    teacher : {"mean", "new", "old"}
    """
    metrics = data.source_space.metric, data.target_space.metric
    crowds = [Asked(data.source, data.target, _rounded(centres.before), 0)]
    crowds += _real(data, _rounded(centres.asked))
    banks = [_bank(data.target, data.source, centres.after, metrics[1])]
    if data.stored is not None:
        banks.append(_bank(data.stored, None, centres.after, metrics[1]))
    found = [taught(crowd, bank, teacher, metrics) for crowd in crowds for bank in banks]
    found += [
        taught(each, _themselves(each, metrics[1]), teacher, metrics) for each in crowds[1:] if each.old is not None
    ]
    share = 1.0 if data.queries is None else min(1.0, len(data.queries) / _MANY)
    return [
        each._replace(weight=each.weight * (share if each.asked.place else 1.0)) for each in found if each is not None
    ]


def _real(data: FitData, centre: Rows32) -> list[Asked]:
    """Return the real queries, those first whose old vectors are known."""
    if data.queries is None or not len(data.queries):
        return []
    known = 0 if data.queries_across is None else len(data.queries_across)
    found = [Asked(data.queries[:known], data.queries_across, centre, 1)] if known else []
    if known < len(data.queries):
        found.append(Asked(data.queries[known:], None, centre, 1))
    return found


def _themselves(asked: Asked, metric: Metric) -> Bank:
    """Return queries as a bank: over documents none of them meets itself, and only the bulk of a list is learnt."""
    old: Rows32 = asked.new[:0] if asked.old is None else asked.old
    return _bank(old, asked.new, old.mean(0, dtype=np.float64), metric)


def _bank(old: Rows32, new: Rows32 | None, centre: npt.NDArray[np.float64], metric: Metric) -> Bank:
    centred = old - _rounded(centre)
    bias = -0.5 * (centred * centred).sum(1) if metric == "l2" else np.zeros(len(old), np.float32)
    return Bank(old, new, centred, bias.astype(np.float32))


def _formula(score: Score, centres: Centres, data: FitData) -> Formula:
    """Return the learnt score as a map of real queries, of records where there are none."""
    W = score.W.astype(np.float64)
    place = 1 if data.queries is not None and len(data.queries) else 0
    b: Rows64 = score.b[place] - centres.asked @ W
    shift = centres.after if data.target_space.metric == "l2" else np.zeros(W.shape[1])
    return Formula(W, b, shift)


def _kept(data: FitData, start: Formula, learnt: Formula, judged: float) -> Learnt:
    """Return what was learnt, unless kept-back pairs find the start clearly better."""
    judge = judge_of(data)
    if judge is None:
        return Learnt(learnt, -1.0, True)
    found, score = best_of(judge, (learnt, start), lambda each: each.apply(judge.rows))
    return Learnt(found, score, found is learnt)


def _rounded(vector: npt.NDArray[np.float64]) -> Rows32:
    return vector.astype(np.float32)


DISTILL: Mapping[str, Any] = {name: param.default for name, param in DistillType().parameters.items()}
"""The usual parameters of `distilled`."""
