"""The scale of a class: how its scores for one query become native ones, from records known in both spaces.

Along a path each transform's own reference rows bring scores of the space behind it on the scale of the space before
it; the lines are applied one after the other. Where a transform keeps none, records of the collection that hold both
vectors stand in; where there are none either, nothing but ranks can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vecdb.engine.bridge.calibration import CALIBRATIONS, USUAL, Curve, Line, isotonic, matched, tail_matched
from vecdb.engine.bridge.classes import VectorClass, Walk
from vecdb.engine.bridge.folding import Fold
from vecdb.engine.pairing import all_pairs, directed
from vecdb.engine.transforms import REFERENCE_ROWS, Loaded, load_transform, unavailable
from vecdb.engine.view import CollectionView
from vecdb.errors import FitError, PluginError, StateError, StorageError
from vecdb.registry import PluginRegistry
from vecdb.types import Metric, Space

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Scorer = Callable[[F32], F64]
Pairs = tuple[F32, F32]

_LEAST: Final = 8
"""Fewer rows known in both spaces say nothing of a deviation."""
_ASKED: Final = 64
"""Reference rows that stand for queries where a scale is fitted once for all of them."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One step towards the native scale.

    Attributes
    ----------
    behind, before : int
        Levels of the query (see `VectorClass.levels`) that `cross` and `native` are given; -1: the query in the space
        of the whole list.
    cross, native : callable
        From a query, shape (d,), to the scores of the reference rows as the class scores them, and as they should be.
    """

    behind: int
    before: int
    cross: Scorer
    native: Scorer


class Similarity:
    """Scores of fixed rows to a query, by the metric of their space; float64 of float32 products."""

    __slots__ = ("_lengths", "_metric", "_rows")

    def __init__(self, rows: F32, metric: Metric) -> None:
        self._rows = directed(rows, metric)
        self._metric = metric
        self._lengths = (self._rows.astype(np.float64) ** 2).sum(1) if metric == "l2" else None

    def __call__(self, query: F32) -> F64:
        products: F64 = (self._rows @ query).astype(np.float64)
        if self._lengths is not None:
            size = float(np.dot(query, query))
            products = -np.sqrt(np.maximum(0.0, size - 2.0 * products + self._lengths))
        elif self._metric == "cosine":
            products /= max(math.sqrt(float(np.dot(query, query))), 1e-30)
        return products


class FoldedSimilarity:
    """Scores of fixed stored rows to a query, as a fold scores them."""

    __slots__ = ("_fold", "_rows", "_table")

    def __init__(self, rows: F32, fold: Fold) -> None:
        self._fold = fold
        self._rows = directed(rows, fold.stored)
        self._table = fold.rows(rows)

    def __call__(self, query: F32) -> F64:
        asked = self._fold.ask(query)
        return self._fold.scores(asked, (self._rows @ asked.vector).astype(np.float64), self._table)


# --- rows that are known in two spaces --------------------------------------------------------------------


class KnownPairs:
    """Finds the same records in two spaces: reference rows of transforms, else records of the collection."""

    def __init__(self, view: CollectionView, registry: PluginRegistry) -> None:
        self._view = view
        self._registry = registry
        self.sampled = False
        """Whether some pairs were taken from the collection, so that what is made of them holds for this state only."""

    def between(self, first: Space, second: Space, preferred: Loaded | None = None) -> Pairs | None:
        """Return rows of both spaces, first of all those that a transform between them keeps; None if none are."""
        if preferred is not None and preferred.reference is not None:
            return _turned(preferred, first)
        for entry in self._view.entry.transforms:
            fits = {entry.source, entry.target} == {first.id, second.id} and entry.reference >= _LEAST
            if fits and unavailable(entry, self._registry) is None:
                try:
                    loaded = load_transform(self._view.snapshot, self._view.entry, entry, self._registry)
                except (PluginError, StateError, StorageError):
                    continue  # the way itself may well do without this one; `check` tells of it
                return _turned(loaded, first)
        return self._stored(first, second)

    def _stored(self, first: Space, second: Space) -> Pairs | None:
        self.sampled = True
        views = self._view.space(first), self._view.space(second)
        known = None if self._view.is_past else views[0].derived.get(f"pairs {second.id}")
        if known is not None and known[0] is views[1]:
            pairs: Pairs | None = known[1]
            return pairs
        try:
            found = all_pairs(self._view, first, second, most=REFERENCE_ROWS, seed=0)
            made = (found.source, found.target) if len(found) >= _LEAST else None
        except FitError:
            made = None
        if not self._view.is_past:
            views[0].derived[f"pairs {second.id}"] = (views[1], made)
        return made


def _turned(loaded: Loaded, first: Space) -> Pairs | None:
    if loaded.reference is None or len(loaded.reference[0]) < _LEAST:
        return None
    source, target = loaded.reference
    return (source, target) if loaded.source.id == first.id else (target, source)


# --- stages -----------------------------------------------------------------------------------------------


def stages_of(each: VectorClass, target: Space, known: KnownPairs) -> list[Stage] | None:
    """Return the steps that bring the scores of a class on the scale of `target`; None where some rows are missing."""
    stages: list[Stage] = []
    if each.gallery:
        stages = _gallery_stage(each, known)
    for number in range(len(each.walks), 0, -1):
        stages += _walk_stage(each, number, known, innermost=not stages)
    if each.asked.id != target.id:
        pairs = known.between(each.asked, target)
        stages += [] if pairs is None else [_stage(0, -1, pairs, each.asked, target)]
    wanted = (1 if each.gallery else 0) + len(each.walks) + (each.asked.id != target.id)
    return stages if len(stages) == wanted else None


def _gallery_stage(each: VectorClass, known: KnownPairs) -> list[Stage]:
    entry, meets = each.gallery[0][0], each.meets or each.asked
    pairs = known.between(each.space, meets, entry if len(each.gallery) == 1 else None)
    if pairs is None or each.fold is None:
        return []
    level = len(each.walks)
    return [Stage(level, level, FoldedSimilarity(pairs[0], each.fold), Similarity(pairs[1], meets.metric))]


def _walk_stage(each: VectorClass, number: int, known: KnownPairs, *, innermost: bool) -> list[Stage]:
    walk = each.walks[number - 1]
    start, end = _ends(walk, each)
    pairs = known.between(start, end, walk.loaded)
    if pairs is None:
        return []
    cross: Scorer = Similarity(pairs[1], end.metric)
    if innermost and each.fold is not None:
        cross = FoldedSimilarity(pairs[1], each.fold)
    return [Stage(number, number - 1, cross, Similarity(pairs[0], start.metric))]


def _ends(walk: Walk, each: VectorClass) -> tuple[Space, Space]:
    """Return the spaces whose rows a map of queries relates; a joint one those of query and stored vectors."""
    if walk.joint:
        return each.asked, each.space
    return (walk.loaded.target, walk.loaded.source) if walk.inverted else (walk.loaded.source, walk.loaded.target)


def _stage(behind: int, before: int, pairs: Pairs, first: Space, second: Space) -> Stage:
    return Stage(behind, before, Similarity(pairs[0], first.metric), Similarity(pairs[1], second.metric))


def line_of(stages: Sequence[Stage], levels: Sequence[F32], native: F32, row: int, *, tail: bool) -> Line:
    """Return what brings the scores of a class on the native scale, for one query of a batch.

    Parameters
    ----------
    stages : sequence of Stage
        From the stored vectors outwards.
    levels : sequence of ndarray of float32, shape (n, d)
    native : ndarray of float32, shape (n, d)
        The queries in the space of the whole list.
    row : int
    tail : bool
        Match the tails instead of mean and deviation.
    """
    line, match = Line(), tail_matched if tail else matched
    for stage in stages:
        before = native if stage.before < 0 else levels[stage.before]
        line = match(stage.cross(levels[stage.behind][row]), stage.native(before[row])).after(line)
    return line


def static_scale(each: VectorClass, target: Space, known: KnownPairs, method: str) -> Line | Curve | None:
    """Return a scale that is the same for all queries, fitted on documents known in both spaces; None if none are.

    Some of them are asked, in the space of the query, and compared with the others as the class would and natively.
    """
    pairs = None if each.asked.id != target.id else known.between(each.asked, each.space)
    if pairs is None:
        return None
    asked, stored = pairs
    inner: Scorer = FoldedSimilarity(stored, each.fold) if each.fold else Similarity(stored, each.space.metric)
    outer = Similarity(asked, each.asked.metric)
    some = directed(asked[:_ASKED], each.asked.metric)
    last = each.levels(some)[-1]
    others = ~np.eye(len(some), len(asked), dtype=np.bool_)
    cross = np.stack([inner(query) for query in last])[others]
    native = np.stack([outer(query) for query in some])[others]
    return isotonic(cross, native) if method == "isotonic" else matched(cross, native)


def chosen_method(wanted: str | None, classes: Sequence[VectorClass]) -> str:
    """Return the calibration that was asked for, else the one chosen for the first bridge, else `USUAL`."""
    if wanted is not None:
        return wanted
    for each in classes:
        loaded = each.walks[0].loaded if each.walks else each.gallery[0][0] if each.gallery else None
        if loaded is not None:
            return _named(loaded.entry.quality)
    return USUAL


def _named(quality: Mapping[str, object]) -> str:
    found = quality.get("calibration")
    return found if isinstance(found, str) and found in CALIBRATIONS else USUAL
