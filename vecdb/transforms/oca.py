"""`oca`: an orthogonal layer on the widened new space, turned so that its first columns meet the old prototypes.

Ricci et al., "Backward-compatible aligned representations via an orthogonal transformation layer" (ECCV workshops
2024), section 3, after the fact: Q in O(max(d_new + a, d_old)) acts on ``[y; 0]``, and its first d_old columns are
learnt by a softmax over old prototypes. The part of them that meets y is a contraction, so that the result is stored as
a joint space (`dilation`), and new vectors keep all inner products.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from vecdb.contracts import FitData, Param, State, TransformCapabilities
from vecdb.transforms.adam import cosine_rate
from vecdb.transforms.bt2 import free_values, towards_old
from vecdb.transforms.contraction import bounded, contraction_of
from vecdb.transforms.dilation import JointMap, dilate, joint_map, load_joint
from vecdb.transforms.distill import DISTILL, Centres, centres_of
from vecdb.transforms.judge import best_of, judge_of
from vecdb.transforms.listwise import Course, Lesson, Score, slopes, spread_of
from vecdb.transforms.pairs import Rows64, go_on
from vecdb.transforms.procrustes import WIDTHS
from vecdb.transforms.prototypes import cell_lesson, class_lesson
from vecdb.transforms.stiefel import Turning, completed

__all__ = ["OcaType", "aligned"]

_LEAST = 3
_TEMPERATURES = (0.5, 0.25, 1.0)
"""In deviations of the scores over the prototypes; the first one where nothing was kept back to choose by."""


class _Turned(NamedTuple):
    """A block of Q, and what it was learnt with."""

    M: Rows64
    temperature: float


@dataclass(frozen=True, slots=True)
class OcaType:
    """Old vectors ``[x; 0]``, new vectors ``[y; 0] Q``."""

    name: str = "oca"
    version: int = 1
    capabilities: TransformCapabilities = field(
        default=TransformCapabilities(
            min_pairs=_LEAST, widths=WIDTHS, affine=True, row_wise=True, deterministic=True, joint=True
        )
    )
    parameters: Mapping[str, Param] = field(
        default_factory=lambda: {
            "columns": Param("int", 32, "Columns by which the new space is widened.", 0, 65_536),
            "cells": Param("int", 64, "Prototypes at most where there are no labels.", 2, 65_536),
            "temperature": Param(
                "float",
                0.0,
                "Of the softmax over prototypes, in deviations of its scores; 0: chosen by retrieval on the kept-back"
                " pairs.",
                low=0.0,
                high=100.0,
            ),
            "steps": Param("int", 60, "Steps of the fit.", 0, 1_000_000),
            "rate": Param("float", 0.05, "Angle of a step, in radians.", 0.0, 1.0),
        }
    )

    def fit(self, data: FitData, params: Mapping[str, Any]) -> JointMap:
        upgrade = towards_old(data)
        start = contraction_of(upgrade, "clip", owner=self.name).M
        centres = centres_of(upgrade)
        lesson = class_lesson(upgrade, centres) or cell_lesson(upgrade, centres, params["cells"])
        found, score = _chosen(upgrade, start, lesson, centres, params)
        pull = -centres.asked @ found.M
        chosen = {"prototypes": len(lesson.bank.old), "temperature": found.temperature, "judged": score}
        return joint_map(dilate(found.M), pull, data, **chosen)

    def load(self, state: State) -> JointMap:
        return load_joint(state)


def _chosen(
    upgrade: FitData, start: Rows64, lesson: Lesson, centres: Centres, params: Mapping[str, Any]
) -> tuple[_Turned, float]:
    """Return the block of the temperature that kept-back pairs prefer, and its score (-1: there was no choice)."""
    judge = judge_of(upgrade)
    given = params["temperature"]
    wanted = (given,) if given else _TEMPERATURES if judge is not None else _TEMPERATURES[:1]
    free = params["columns"] + max(start.shape[0] - start.shape[1], 0)
    found = [_Turned(aligned(start, free, lesson, _course(params, each), upgrade), each) for each in wanted]
    if judge is None or len(found) == 1:
        return found[0], -1.0
    return best_of(judge, found, lambda each: (judge.rows - centres.asked) @ each.M)


def _course(params: Mapping[str, Any], temperature: float) -> Course:
    return Course(params["steps"], params["rate"], temperature, DISTILL["batch"], DISTILL["rows"])


def aligned(start: Rows64, columns: int, lesson: Lesson, course: Course, data: FitData) -> Rows64:
    """Return the block of an orthogonal matrix that a lesson over prototypes leads to.

    Parameters
    ----------
    start : ndarray of float64, shape (d_new, d_old)
        A contraction; of its singular values as many become 1 as the widened space leaves no room for.
    columns : int
        Extra columns of the joint space at most.
    lesson : Lesson
    course : Course
    data : FitData
        For its generator, its progress and its wish to stop.

    Returns
    -------
    ndarray of float64, shape (d_new, d_old)

    Raises
    ------
    CancelledError
    """
    d_new, d_old = start.shape
    E = dilate(bounded(start, free_values(d_new, d_old, columns)).product()).E
    size = max(d_old + columns, E.shape[1])
    Q = np.ascontiguousarray(completed(E, size)[:, :d_old])
    b = np.zeros((1, d_old), np.float32)
    metrics = data.source_space.metric, data.target_space.metric
    scale, turning = spread_of(Score(Q[:d_new].astype(np.float32), b), lesson), Turning(size)
    for step in range(course.steps):
        go_on(data, step, course.steps)
        found = slopes(Score(Q[:d_new].astype(np.float32), b), [lesson], course, scale, metrics, data.rng)
        gradient = np.zeros_like(Q)
        gradient[:d_new] = found.W
        Q = turning.step(Q, gradient, course.rate * cosine_rate(step, course.steps))
    return Q[:d_new]
