"""Which effort a wished recall takes, from what was measured of each part, and what may be expected of an effort.

A curve is measured for k of 10 and mostly of 100. For fewer than 10 neighbours the effort of 10 is taken; between two
measured k it follows a power of k through both; beyond the last it grows in proportion to k, which is more than is
needed. Where vectors and recorded queries were measured, the harder of the two decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, log
from typing import Final

import numpy as np

from vecdb.contracts.effort import EffortCurve
from vecdb.storage.indexes import IndexEntry, IndexPart
from vecdb.storage.measured import MILLION, StoredCurve

RECORDED_FROM: Final = 200
"""Recorded queries from which they are measured."""


@dataclass(frozen=True, slots=True)
class Choice:
    """An effort, and what it is expected to find.

    Attributes
    ----------
    effort : int or None
        None: nothing that was measured reaches the recall; the part is scanned.
    expected : float or None
        Mean recall to be expected; None: unknown.
    source : str or None
        What was asked when it was measured.
    """

    effort: int | None
    expected: float | None = None
    source: str | None = None


SCAN: Final = Choice(None, 1.0)
"""A scan, because nothing else is known to reach what is asked."""
DEFAULT: Final = Choice(None)
"""The index's own default effort."""
EXACT: Final = Choice(None, 1.0)
"""An index that is exact at any effort."""


def as_stored(curve: EffortCurve, source: str) -> StoredCurve:
    """Return a curve as the catalog keeps it: never better than it was measured."""
    unknown = np.ones(len(curve.efforts))
    deviations = unknown if curve.deviations is None else curve.deviations
    points = tuple(
        (int(effort), int(recall * MILLION), min(MILLION, ceil(deviation * MILLION)))
        for effort, recall, deviation in zip(curve.efforts, curve.recalls, deviations, strict=True)
    )
    return StoredCurve(source, curve.k, curve.queries, points)


def as_curve(stored: StoredCurve) -> EffortCurve:
    efforts, recalls, deviations = np.array(stored.points, np.int64).T
    known = bool((deviations < MILLION).all())
    return EffortCurve(
        np.ascontiguousarray(efforts),
        recalls / MILLION,
        stored.queries,
        stored.k,
        deviations / MILLION if known else None,
    )


def curves_for(index: IndexEntry, part: IndexPart, *, two_kinds: bool) -> tuple[StoredCurve, ...]:
    """Return what was measured of a part, or of a larger one of its kind where it was not measured itself."""
    if part.measured.curves:
        return part.measured.curves
    alike = [each for each in index.parts if each.measured.curves and (each.coded == part.coded or not two_kinds)]
    larger = [each for each in alike if each.count >= part.count]
    return max(larger, key=lambda each: each.count).measured.curves if larger else ()


def choose_effort(curves: Iterable[StoredCurve], recall: float, k: int) -> Choice:
    """Return the smallest effort whose lower bound reaches `recall` for k neighbours, for every source of queries."""
    chosen: Choice | None = None
    for source, known in _by_source(curves).items():
        efforts = [(curve.k, as_curve(curve).effort_for(recall)) for curve in known]
        effort = _at_k(efforts, k)
        if effort is None:
            return SCAN
        if chosen is None or effort > (chosen.effort or 0):
            chosen = Choice(effort, expected_at(known, effort, k), source)
    return chosen or SCAN


def expectation(curves: Iterable[StoredCurve], effort: int, k: int) -> Choice:
    """Return what an effort is expected to find: of several sources, the least."""
    found = [Choice(effort, expected_at(known, effort, k), source) for source, known in _by_source(curves).items()]
    return min(found, key=lambda choice: choice.expected or 0.0) if found else Choice(effort)


def _by_source(curves: Iterable[StoredCurve]) -> dict[str, list[StoredCurve]]:
    """Return the curves of each source, ascending by k."""
    sources: dict[str, list[StoredCurve]] = {}
    for curve in sorted(curves, key=lambda curve: curve.k):
        sources.setdefault(curve.source, []).append(curve)
    return sources


def _at_k(efforts: Sequence[tuple[int, int | None]], k: int) -> int | None:
    """Return the effort for k neighbours from those that a recall takes at the measured k."""
    least, first = efforts[0]
    if k <= least or first is None:
        return first
    for (low, before), (high, after) in pairwise(efforts):
        if k <= high and before is not None and after is not None:
            power = log(max(after, before) / before) / log(high / low)
            return ceil(float(before * (k / low) ** power) - 1e-9)
    most, last = efforts[-1]
    return None if last is None else ceil(last * k / most)


def expected_at(curves: Sequence[StoredCurve], effort: int, k: int) -> float:
    """Return the mean recall of the measured k that is nearest, at the effort that corresponds."""
    nearest = min(curves, key=lambda curve: abs(log(max(k, curves[0].k) / curve.k)))
    factor = nearest.k / k if k > nearest.k else 1.0
    return as_curve(nearest).recall_at(max(1, round(effort * factor)))
