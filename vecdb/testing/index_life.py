"""A life of an index in steps, each followed by questions whose answers are compared with exact ones.

The steps are plain values, so that Hypothesis can draw them (`vecdb.testing.strategies.index_steps`) and a failure can
be written down. What is checked after each step holds for every index type; more only where it is declared.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from vecdb.contracts.params import settle_params
from vecdb.errors import PluginContractError
from vecdb.testing import datasets
from vecdb.testing.checks import name_of
from vecdb.testing.memory import MemoryBlobs, MemoryView
from vecdb.types import Metric

__all__ = ["Ask", "Grow", "Reload", "Remove", "Step", "live"]

Matrix: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Ask:
    """Search for `k` with three queries made from `seed`; `share` of the vectors are allowed, None: all."""

    seed: int
    k: int
    share: float | None = None
    effort: int | None = None


@dataclass(frozen=True, slots=True)
class Grow:
    """Add so many of the vectors that are not covered yet; built anew where the type has no `add`."""

    count: int


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove `share` of the vectors, chosen by `seed`; only no longer allowed where the type has no `remove`."""

    seed: int
    share: float


@dataclass(frozen=True, slots=True)
class Reload:
    """Dump, and load into another index, where the vectors lie elsewhere; the removed ones are gone."""


Step: TypeAlias = Ask | Grow | Remove | Reload


def live(index_type: Any, metric: Metric, rows: Matrix, start: int, steps: Iterable[Step], seed: int = 0) -> int:
    """Build an index over the first `start` rows and let it live.

    Parameters
    ----------
    index_type : IndexType
    metric : {"cosine", "dot", "l2"}
    rows : ndarray of float32, shape (n, d)
    start : int
        From 1 to n.
    steps : iterable of Step
    seed : int, default 0
        Of the build.

    Returns
    -------
    int
        How many questions were answered.

    Raises
    ------
    PluginContractError
        An answer breaks a rule; `rule` is the name of its check.
    """
    life = _Life(index_type, metric, rows, start, seed)
    for step in steps:
        life.take(step)
    return life.asked


class _Life:
    """One index, the vectors that it covers, and those that were removed."""

    def __init__(self, index_type: Any, metric: Metric, rows: Matrix, start: int, seed: int) -> None:
        self.type = index_type
        self.able = index_type.capabilities
        self.metric: Metric = metric
        self.rows = rows
        self.count = start
        self.seed = seed
        self.asked = 0
        self.removed = np.zeros(len(rows), np.bool_)
        self.params = settle_params(name_of(index_type), index_type.parameters, {})
        self.index = self._built()

    def take(self, step: Step) -> None:
        if isinstance(step, Ask):
            self._ask(step)
        elif isinstance(step, Grow):
            self._grow(step.count)
        elif isinstance(step, Remove):
            self._remove(step)
        else:
            blobs = MemoryBlobs()
            self.index.dump(blobs)
            self.index = self.type.load(blobs, self._view(), self.params)

    def _view(self, whole: bool = False) -> MemoryView:
        """Return the covered vectors; removed ones are there only for a build, and for who does not know of filters."""
        gone = np.flatnonzero(self.removed[: self.count]) if self.able.filtered and not whole else ()
        return MemoryView(self.rows[: self.count], self.metric, removed=gone, block_rows=(5, 17))

    def _built(self) -> Any:
        return self.type.build(
            self._view(whole=True), self.params, seed=self.seed, progress=lambda *_: None, cancel=lambda: False
        )

    def _grow(self, count: int) -> None:
        known, self.count = self.count, min(len(self.rows), self.count + count)
        if not self.able.add:
            self.index = self._built()
            if self.able.remove and self.removed[: self.count].any():
                self.index.remove(np.flatnonzero(self.removed[: self.count]))
        elif self.count > known:
            self.index.add(self._view(), known, progress=lambda *_: None, cancel=lambda: False)

    def _remove(self, step: Remove) -> None:
        chosen = np.random.default_rng(step.seed).permutation(self.count)[: int(step.share * self.count)]
        if self.able.remove:
            self.index.remove(np.sort(chosen).astype(np.int64))
        self.removed[chosen] = True

    def _ask(self, ask: Ask) -> None:
        rng = np.random.default_rng(ask.seed)
        queries = rng.standard_normal((3, self.rows.shape[1])).astype(np.float32)
        queries[0] = self.rows[rng.integers(self.count)]
        mask = ~self.removed[: self.count]
        if ask.share is not None:
            mask &= rng.random(self.count) < ask.share
        allowed = mask if self.able.filtered else None
        said = self.index.search(queries, ask.k, allowed=allowed, effort=ask.effort, view=self._view())
        for query, positions, scores in zip(queries, *said, strict=True):
            self._judge(ask, query, positions[positions != -1], scores[positions != -1], mask)
            self.asked += 1

    def _judge(
        self, ask: Ask, query: Matrix, positions: npt.NDArray[np.int64], scores: Matrix, mask: npt.NDArray[np.bool_]
    ) -> None:
        """Hold one answer to what is true of every index, and to what this one declares."""
        self._require(((positions >= 0) & (positions < self.count)).all(), "check_positions_are_known", ask)
        self._require(len(np.unique(positions)) == len(positions), "check_no_position_twice", ask)
        self._require(np.isfinite(scores).all(), "check_scores_are_numbers", ask)
        self._require((scores[1:] <= scores[:-1]).all(), "check_best_first", ask)
        ties = scores[1:] == scores[:-1]
        self._require((positions[1:] > positions[:-1])[ties].all(), "check_ties_by_position", ask)
        if self.able.filtered:
            self._require(mask[positions].all(), "check_only_what_is_allowed", ask)
        owed = min(ask.k, int(mask.sum()) if self.able.filtered else self._reachable())
        if self.able.complete:
            self._require(len(positions) >= owed, "check_complete", ask)
        if self.able.exact and self.able.filtered and owed:
            truth = datasets.oracle_scores(self.metric, query[None], self.rows[: self.count])[0]
            kth = np.sort(truth[mask])[-owed]
            slack = 1e-5 * max(1e-30, float(np.abs(truth[mask]).max()))
            self._require(int((truth[positions] >= kth - slack).sum()) >= owed, "check_exact", ask)

    def _reachable(self) -> int:
        return int((~self.removed[: self.count]).sum()) if self.able.remove else self.count

    def _require(self, condition: object, rule: str, ask: Ask) -> None:
        if not condition:
            name = name_of(self.type)
            problem = f"{ask} over {self.count} vectors, {int(self.removed.sum())} of them removed"
            raise PluginContractError(f"{name} breaks {rule}: {problem}", plugin=name, rule=rule, problem=problem)
