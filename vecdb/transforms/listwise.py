"""Ranking distillation: fit a bilinear score so that stored vectors are ranked as a teacher ranks them.

Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network" (2015), with lists of scores in the place of
classes (ListNet; Cao et al., ICML 2007): ``KL(softmax(T / t) || softmax(s / t))`` for each asked vector over a bank of
stored ones, ``s = <(q - m) W + b, x - m_o> + h``. Invariant: teachers and the start of the fit are divided by their
deviations, so that one temperature means the same for all of them. Formulas: docs/reference/transforms.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from vecdb.contracts import FitData
from vecdb.transforms.adam import Adam, cosine_rate
from vecdb.transforms.judge import similarities
from vecdb.transforms.pairs import Rows32, go_on
from vecdb.types import Metric

__all__ = [
    "Asked",
    "Bank",
    "Lesson",
    "Score",
    "Teacher",
    "deviation",
    "divergence",
    "labelled",
    "learn",
    "slopes",
    "softmax",
    "spread_of",
    "taught",
]

Teacher: TypeAlias = Literal["mean", "new", "old", "label"]
Vector32: TypeAlias = npt.NDArray[np.float32]
Places: TypeAlias = slice | npt.NDArray[np.int64]

_SURE = 1e6
"""Of a score: over any temperature in use all of the softmax falls to it."""
_ALONE = 0.1
"""Of a lesson that only the old model can give: without the new one's word an old model's mistakes are learnt, too."""
_NEWER = 0.65
"""Of the new model in the mean of both: what the old one says of a pair is sooner learnt by heart than transferred."""
_PROBE = 256
"""Asked vectors from which deviations are taken."""


class Score(NamedTuple):
    """What is learnt: ``W`` and one ``b`` for each population of asked vectors, float32."""

    W: Rows32
    b: Rows32


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A population of asked vectors.

    Attributes
    ----------
    new : ndarray of float32, shape (q, d)
        In the space in which queries are asked.
    old : ndarray of float32, shape (q, e), or None
        The same ones in the space of what is stored, where they are known.
    centre : ndarray of float32, shape (d,)
        What is taken from `new` before W.
    place : int
        Row of `Score.b`.
    labels : ndarray of int64, shape (q,), or None
        For the teacher "label": the row of the bank that each belongs to.
    """

    new: Rows32
    old: Rows32 | None
    centre: Vector32
    place: int
    labels: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Bank:
    """Stored vectors that are ranked.

    Attributes
    ----------
    old : ndarray of float32, shape (n, e)
        In the space of what is stored.
    new : ndarray of float32, shape (n, d), or None
        The same records in the other space, where they are known.
    centred : ndarray of float32, shape (n, e)
        `old` less the mean of the pairs.
    bias : ndarray of float32, shape (n,)
        h: what a row's score has besides the product.
    """

    old: Rows32
    new: Rows32 | None
    centred: Rows32
    bias: Vector32


class Lesson(NamedTuple):
    """Who is asked over which bank by whose judgement, by what that is divided, and how much the lesson counts."""

    asked: Asked
    bank: Bank
    teacher: Teacher
    spread: tuple[float, float, float]
    weight: float = 1.0


class Course(NamedTuple):
    """How long and how fast: see the parameters of `distill`."""

    steps: int
    rate: float
    temperature: float
    batch: int
    rows: int


def softmax(scores: Rows32) -> Rows32:
    """Return each row's softmax, in place."""
    scores -= scores.max(1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(1, keepdims=True)
    return scores


def deviation(table: npt.NDArray[np.floating]) -> float:
    """Return the deviation of scores within the rows of a table, pooled over the rows; 1 where there is none."""
    spread = float(np.sqrt(np.mean(table.var(1, dtype=np.float64))))
    return spread if spread > 0.0 else 1.0


def taught(asked: Asked, bank: Bank, wanted: Teacher, metrics: tuple[Metric, Metric]) -> Lesson | None:
    """Return the lesson that a teacher can give over a bank, None where the vectors that it judges by are not known.

    Parameters
    ----------
    asked : Asked
    bank : Bank
    wanted : {"mean", "new", "old"}
        "mean" is what is known of both: the weighted mean of both judgements, or the one there is.
    metrics : tuple of str
        Of the space in which queries are asked, and of the space of what is stored.
    """
    new, old = bank.new is not None, asked.old is not None
    if (wanted == "new" and not new) or (wanted == "old" and not old) or not (new or old) or not len(bank.old):
        return None
    teacher: Teacher = "mean" if wanted == "mean" and new and old else "new" if wanted != "old" and new else "old"
    draft = Lesson(asked, bank, teacher, (1.0, 1.0, 1.0))
    first = slice(0, _PROBE)
    tables = [_judgement(draft._replace(teacher=each), first, slice(None), metrics) for each in _parts(teacher)]
    spreads = [deviation(table) for table in tables]
    both = deviation(_between(tables[0] / spreads[0], tables[1] / spreads[1])) if teacher == "mean" else 1.0
    weight = _ALONE if teacher == "old" and wanted == "mean" else 1.0
    return draft._replace(spread=(spreads[0], spreads[-1], both), weight=weight)


def _parts(teacher: Teacher) -> tuple[Teacher, ...]:
    return ("new", "old") if teacher == "mean" else (teacher,)


def _judgement(
    lesson: Lesson,
    rows: slice | npt.NDArray[np.int64],
    columns: slice | npt.NDArray[np.int64],
    metrics: tuple[Metric, Metric],
) -> Rows32:
    """Return the teacher's scores divided by their deviation, shape (rows, columns)."""
    asked, bank, teacher, (one, other, both), _ = lesson
    if teacher == "label":
        return _one_each(asked, rows, columns, len(bank.old))
    if teacher == "mean":
        new = _judgement(Lesson(asked, bank, "new", (one, one, 1.0)), rows, columns, metrics)
        old = _judgement(Lesson(asked, bank, "old", (other, other, 1.0)), rows, columns, metrics)
        new = _between(new, old)
        new /= np.float32(both)
        return new
    known, stored, metric = (asked.new, bank.new, metrics[0]) if teacher == "new" else (asked.old, bank.old, metrics[1])
    assert known is not None and stored is not None  # `taught` gives no other lesson
    # In a cosine space every row has norm 1 already: the inner product is the cosine.
    table = similarities(known[rows], stored[columns], "dot" if metric == "cosine" else metric)
    table /= np.float32(one)
    return table


def _between(new: Rows32, old: Rows32) -> Rows32:
    """Return the weighted mean of both judgements, each of deviation 1, in their place."""
    new *= np.float32(_NEWER)
    old *= np.float32(1.0 - _NEWER)
    new += old
    return new


def _one_each(asked: Asked, rows: Places, columns: Places, count: int) -> Rows32:
    """Return scores of which the softmax is 1 at the row that each asked vector belongs to."""
    assert asked.labels is not None  # of the lessons of `labelled` only
    same = asked.labels[rows][:, None] == np.arange(count)[columns]
    return np.where(same, np.float32(_SURE), np.float32(0.0))


def labelled(asked: Asked, prototypes: Bank) -> Lesson:
    """Return the lesson that each asked vector is nearest to the prototype of its own label."""
    return Lesson(asked, prototypes, "label", (1.0, 1.0, 1.0))


def divergence(
    score: Score,
    lesson: Lesson,
    target: Rows32,
    rows: Places,
    columns: Places,
    scale: float,
) -> tuple[float, Rows32, Vector32]:
    """Return the cross-entropy of the student's lists against the teacher's, and its gradients.

    Parameters
    ----------
    score : Score
    lesson : Lesson
    target : ndarray of float32, shape (rows, columns)
        The teacher's distributions.
    rows, columns : ndarray of int64, or slice
        Of the asked vectors and of the bank.
    scale : float
        By which the student's scores are divided: their deviation at the start, times the temperature.

    Returns
    -------
    loss : float
        Mean over the rows.
    by_W : ndarray of float32, shape (d, e)
    by_b : ndarray of float32, shape (e,)
        Of the population's own row of b.
    """
    asked, stored = lesson.asked.new[rows] - lesson.asked.centre, lesson.bank.centred[columns]
    mapped = asked @ score.W + score.b[lesson.asked.place]
    table = mapped @ stored.T
    table += lesson.bank.bias[columns]
    table /= np.float32(scale)
    guess = softmax(table)
    loss = -float((target * np.log(np.maximum(guess, 1e-30))).sum()) / len(asked)
    guess -= target
    guess /= np.float32(scale * len(asked))
    back = guess @ stored
    return loss, asked.T @ back, back.sum(0)


def learn(
    start: Score, lessons: Sequence[Lesson], course: Course, metrics: tuple[Metric, Metric], data: FitData
) -> Score:
    """Return the score that the lessons lead to, by Adam on batches.

    Parameters
    ----------
    start : Score
    lessons : sequence of Lesson
        At least one; each is asked once a step.
    course : Course
    metrics : tuple of str
        As in `taught`.
    data : FitData
        For its generator, its progress and its wish to stop.

    Raises
    ------
    CancelledError
    """
    score = Score(start.W.copy(), start.b.copy())
    scale = spread_of(score, lessons[0])
    pace = course.rate * float(start.W.std())
    adam = Adam(score)
    for step in range(course.steps):
        go_on(data, step, course.steps)
        found = slopes(score, lessons, course, scale, metrics, data.rng)
        adam.step(found, pace * cosine_rate(step, course.steps))
    return score


def slopes(
    score: Score,
    lessons: Sequence[Lesson],
    course: Course,
    scale: float,
    metrics: tuple[Metric, Metric],
    rng: np.random.Generator,
) -> Score:
    """Return the gradients of the lessons' losses, summed, each over a batch of those who are asked.

    Parameters
    ----------
    score : Score
    lessons : sequence of Lesson
    course : Course
    scale : float
        Deviation by which the student's scores are divided.
    metrics : tuple of str
        As in `taught`.
    rng : numpy.random.Generator
    """
    by_W, by_b = np.zeros_like(score.W), np.zeros_like(score.b)
    for lesson in lessons:
        rows = _drawn(rng, len(lesson.asked.new), course.batch)
        columns = _drawn(rng, len(lesson.bank.old), course.rows)
        target = _judgement(lesson, rows, columns, metrics)
        target /= np.float32(course.temperature)
        _, one, other = divergence(score, lesson, softmax(target), rows, columns, course.temperature * scale)
        by_W += lesson.weight * one
        by_b[lesson.asked.place] += lesson.weight * other
    return Score(by_W, by_b)


def spread_of(score: Score, lesson: Lesson) -> float:
    """Return the deviation of a student's scores in a lesson."""
    asked = lesson.asked.new[:_PROBE] - lesson.asked.centre
    mapped = asked @ score.W + score.b[lesson.asked.place]
    return deviation(mapped @ lesson.bank.centred.T + lesson.bank.bias)


def _drawn(rng: np.random.Generator, count: int, most: int) -> Places:
    """Return the places of at most so many of `count`, each once, in order."""
    return slice(None) if count <= most else np.sort(rng.choice(count, most, replace=False))
