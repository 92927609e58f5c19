"""What the checks of index types share: building over memory, asking, and reading answers.

`Built.ask` returns what the plugin said; `read` keeps of it what is usable, so that a check about one rule does not
fail for the breach of another. Sizes are small: the whole kit takes seconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

import vecdb
from vecdb.contracts.params import settle_params
from vecdb.testing import datasets
from vecdb.testing.checks import fail
from vecdb.testing.memory import MemoryBlobs, MemoryView
from vecdb.types import METRICS, Metric

__all__ = [
    "Answer",
    "Built",
    "build",
    "capable",
    "load",
    "metric_of",
    "metrics_of",
    "read",
    "recall_at_10",
    "same_answers",
    "usable",
    "usual",
    "usual_queries",
    "usual_rows",
]

Matrix: TypeAlias = npt.NDArray[np.float32]
SEED = 20_240_229
_LARGEST = 1e38
COUNT, DIM, QUERIES = 400, 16, 12
"""Size of most checks: large enough that an index has structure, small enough to build a hundred times."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The usable part of one query's answer, best first.

    Attributes
    ----------
    positions : ndarray of int64
    scores : ndarray of float64
    """

    positions: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Built:
    """An index and the view it was built over.

    Attributes
    ----------
    type : IndexType
    index : Index
    view : MemoryView
    """

    type: Any
    index: Any
    view: MemoryView

    def ask(
        self,
        queries: npt.ArrayLike,
        k: int,
        *,
        allowed: npt.NDArray[np.bool_] | None = None,
        effort: int | None = None,
        view: MemoryView | None = None,
    ) -> Any:
        """Return what the index says; it is given copies."""
        wanted = np.array(queries, np.float32, order="C", ndmin=2)
        if allowed is not None:
            allowed = allowed.copy()
        return self.index.search(wanted, k, allowed=allowed, effort=effort, view=view or self.view)

    def answers(self, queries: npt.ArrayLike, k: int, **options: Any) -> list[Answer]:
        """Return the usable part of what the index says."""
        return read(self.ask(queries, k, **options), self.view.count)

    def dumped(self) -> MemoryBlobs:
        """Return the blobs that the index writes; what is wrong with them is for one check to say."""
        blobs = MemoryBlobs(strict=False)
        self.index.dump(blobs)
        return blobs


@cache
def _settle_kernels() -> None:
    """Load compiled kernels before the first answer, so that all answers of one index come the same way."""
    if os.environ.get("VECDB_KERNELS") != "0":
        vecdb.warmup()


def build(
    index_type: Any,
    rows: npt.ArrayLike,
    metric: Metric | None = None,
    *,
    params: Mapping[str, Any] | None = None,
    seed: int = SEED,
    progress: Callable[[int, int | None], object] | None = None,
    cancel: Callable[[], bool] | None = None,
    **layout: Any,
) -> Built:
    """Build an index of a type over rows in memory; `layout` goes to `MemoryView`."""
    _settle_kernels()
    view = MemoryView(np.asarray(rows, np.float32), metric or metric_of(index_type), **layout)
    index = index_type.build(
        view,
        settle_params(str(index_type.name), index_type.parameters, params or {}),
        seed=seed,
        progress=progress or (lambda done, total: None),
        cancel=cancel or (lambda: False),
    )
    return Built(index_type, index, view)


def load(built: Built, blobs: MemoryBlobs, view: MemoryView | None = None) -> Built:
    """Load what an index of this type wrote."""
    _settle_kernels()
    view = view or built.view
    return Built(built.type, built.type.load(blobs, view, settle_params("kit", built.type.parameters, {})), view)


def usable(built: Built, queries: npt.ArrayLike, k: int, what: str, **options: Any) -> list[Answer]:
    """Return answers, of which each must have a candidate."""
    found = built.answers(queries, k, **options)
    for row, answer in enumerate(found):
        if not len(answer.positions):
            fail(f"{what}: query {row} got no usable candidate among {built.view.count} vectors")
    return found


def recall_at_10(built: Built, queries: Matrix, **options: Any) -> float:
    """Return the recall of the best ten among the candidates, as the engine finds it by exact scores.

    A vector as near as the tenth best counts as one of the ten.
    """
    rows = built.view.gather(np.arange(built.view.count))
    scores = datasets.oracle_scores(built.view.metric, queries, rows)
    found = 0.0
    for answer, each in zip(built.answers(queries, 10, **options), scores, strict=True):
        k = min(10, len(each))
        kth = np.sort(each)[-k]
        good = int(np.count_nonzero(each[answer.positions] >= kth - 1e-6 * max(1.0, abs(kth))))
        found += min(good, k) / k
    return found / len(queries)


def usual(index_type: Any, metric: Metric | None = None, **options: Any) -> tuple[Built, Matrix]:
    """Return an index over the usual rows, and the usual queries."""
    return build(index_type, usual_rows(index_type), metric, **options), usual_queries(index_type)


def usual_rows(index_type: Any) -> Matrix:
    """Return rows that most checks use."""
    return datasets.gaussian(COUNT, _dim(index_type), SEED)


def usual_queries(index_type: Any) -> Matrix:
    """Return queries for them."""
    return datasets.gaussian(QUERIES, _dim(index_type), SEED + 1)


def _dim(index_type: Any) -> int:
    return min(DIM, index_type.capabilities.max_dim or DIM)


def metrics_of(index_type: Any) -> list[Metric]:
    """Return the metrics that an index type declares, in one order."""
    return [metric for metric in METRICS if metric in index_type.capabilities.metrics]


def metric_of(index_type: Any) -> Metric:
    """Return one metric that it declares."""
    return metrics_of(index_type)[0]


def capable(*names: str) -> Callable[[Any], bool]:
    """Return whether a type declares all these capabilities."""

    def applies(index_type: Any) -> bool:
        capabilities = getattr(index_type, "capabilities", None)
        return all(bool(getattr(capabilities, name, False)) for name in names)

    return applies


def read(said: Any, count: int) -> list[Answer]:
    """Return the usable part of an answer: known, distinct positions with their scores, best first.

    Positions outside ``[0, count)``, repeated ones and NaN scores are left out, infinite scores are replaced by very
    large ones, and the rest is sorted: other checks are about those.
    """
    positions, scores = np.asarray(said[0]), np.clip(np.asarray(said[1], dtype=np.float64), -_LARGEST, _LARGEST)
    if positions.ndim != 2 or positions.shape != scores.shape:
        fail(f"positions have shape {positions.shape}, scores {scores.shape}")
    return [_read_row(*row, count) for row in zip(positions, scores, strict=True)]


def _read_row(positions: npt.NDArray[Any], scores: npt.NDArray[np.float64], count: int) -> Answer:
    usable = (positions >= 0) & (positions < count) & ~np.isnan(scores)
    positions, scores = positions[usable].astype(np.int64), scores[usable]
    _, first = np.unique(positions, return_index=True)
    positions, scores = positions[np.sort(first)], scores[np.sort(first)]
    order = np.lexsort((positions, -scores))
    return Answer(positions[order], scores[order])


def same_answers(one: Sequence[Answer], other: Sequence[Answer], what: str) -> None:
    """Require that two lists of answers agree, but for the order of scores that differ by rounding."""
    if len(one) != len(other):
        fail(f"{what}: {len(one)} rows and {len(other)} rows")
    for row, (left, right) in enumerate(zip(one, other, strict=True)):
        difference = _difference(left, right)
        if difference:
            fail(f"{what}: query {row} got {difference}")


def _difference(left: Answer, right: Answer) -> str | None:
    """Return how two answers differ by more than rounding."""
    if len(left.positions) != len(right.positions):
        return f"{len(left.positions)} and {len(right.positions)} candidates"
    if not len(left.positions):
        return None
    slack = 1e-5 * max(1e-30, float(np.abs(left.scores).max()))
    if not np.allclose(left.scores, right.scores, rtol=0.0, atol=slack):
        return "different scores"
    # Candidates may differ only where their scores are as good as that of the last one.
    last = min(left.scores[-1], right.scores[-1]) + 2 * slack
    for this, that in ((left, right), (right, left)):
        moved = this.positions[(this.scores > last) & ~np.isin(this.positions, that.positions)]
        if len(moved):
            return f"different candidates, among them {moved[:5].tolist()}"
    return None
