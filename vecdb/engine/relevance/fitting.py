"""Fitting a relevance filter and measuring it on queries that it has not seen, ready to be stored.

Queries are shuffled by group, and the last quarter of the groups is kept back: what the report says was measured there,
of the very filter that is stored. Of fewer than 40 queries all are fitted on, and nothing is measured; so it is where
one group, standing first, would be split.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.contracts.quiet import never, silent
from vecdb.contracts.relevance import RelevanceFilter
from vecdb.engine.relevance import border, material
from vecdb.engine.view import CollectionView
from vecdb.evaluation.pools import JudgedPool, drawn, measurer
from vecdb.registry import Provided
from vecdb.storage.relevance import Basis, FilterEntry, Judgements
from vecdb.storage.relevancestore import FilterBlobs
from vecdb.types import CancelCheck, Progress, Space

F32 = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

KEPT_FROM: Final = 40
"""Queries from which some are kept back to measure on."""
_KEPT: Final = 0.25
_RAW: Final = ("pr_auc", "precision_at_95", "opis")
"""What is measured of raw scores as well, for comparison."""


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A fit whose arguments are settled.

    Attributes
    ----------
    name : str
    space : Space
    provided : Provided
        The kind.
    params : mapping
    queries : ndarray of float32, shape (q, d)
    judged : Judgements
    pool : int
        Candidates of each query.
    seed : int
    basis : Basis
        What answers a query of the space now.
    correction : int
        Set of the score correction that is in the scores, 0 for none.
    progress, cancel : callable
    """

    name: str
    space: Space
    provided: Provided
    params: Mapping[str, Any]
    queries: F32
    judged: Judgements
    pool: int = 100
    seed: int = 0
    basis: Basis = ()
    correction: int = 0
    progress: Progress = silent
    cancel: CancelCheck = never


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A fitted filter: its entry for the catalog, without a number, and its blobs."""

    entry: FilterEntry
    blobs: FilterBlobs


def fit_filter(job: Job, pool: material.Pool, view: CollectionView, count: int) -> Fitted:
    """Fit a filter on a pool and measure it.

    Parameters
    ----------
    job : Job
    pool : Pool
    view : CollectionView
    count : int
        Vectors that are searched.

    Raises
    ------
    FitError, CancelledError
    PluginError, PluginContractError
    """
    seen, kept = split_queries(pool.groups, job.seed)
    scope = job.provided.thing.capabilities.scope

    def given(rows: Integers) -> Any:
        some = pool.take(rows)
        data = material.relevance_data(view, job.space, some, scope=scope, count=count, seed=job.seed)
        return replace(data, progress=job.progress, cancel=job.cancel)

    made = border.fit(job.provided, given(seen), job.params)
    state, digest = border.state_of(job.provided, made)
    made = border.load(job.provided, state)
    report = measured(job.provided, made, given(kept), job.seed) if len(kept) and pool.labels is not None else {}
    entry = FilterEntry(
        set=0,
        name=job.name,
        space=job.space.id,
        kind=job.provided.name,
        version=int(job.provided.thing.version),
        seed=job.seed,
        pool=job.pool,
        queries=len(pool.queries),
        positives=0 if pool.labels is None else int(np.count_nonzero(pool.labels == 1)),
        missed=len(pool.missed),
        correction=job.correction,
        asked=job.space.id,
        width=job.space.dim,
        owner=job.provided.distribution or job.provided.plugin,
        digest=digest,
        created=time.time(),
        basis=job.basis,
        params=dict(job.params),
        report={"fitted_on": len(seen), "measured_on": len(kept), **report},
    )
    return Fitted(entry, FilterBlobs(state, pool.queries, job.judged))


def split_queries(groups: Integers, seed: int) -> tuple[Integers, Integers]:
    """Return the queries to fit on, in random order with groups together, and those that are kept back."""
    random = np.random.default_rng([seed, len(groups)])
    order = random.permutation(int(groups.max(initial=-1)) + 1)
    rows = np.argsort(order[groups], kind="stable").astype(np.int64)
    if len(groups) < KEPT_FROM:
        return rows, rows[:0]
    ranks = order[groups][rows]
    cut = int(np.searchsorted(ranks, ranks[math.floor((1.0 - _KEPT) * len(rows))]))
    return (rows[:cut], rows[cut:]) if cut else (rows, rows[:0])  # a group of nearly all would leave nothing to fit on


def measured(provided: Provided, made: RelevanceFilter, data: Any, seed: int) -> dict[str, Any]:
    """Return what a filter is worth on queries that it has not seen: plain values, each with its interval."""
    vectors = None if data.vectors is None else np.stack([data.vectors(row) for row in range(len(data.queries))])
    said = border.judge(provided, made, data.scores, data.queries, vectors, data.count)
    used = ~data.ignore & (data.labels >= 0) & np.isfinite(data.scores)
    groups = np.ascontiguousarray(data.groups)
    pool = JudgedPool(data.scores, data.labels == 1, used, groups, groups)
    if not pool.labels[used].any() or pool.labels[used].all():
        return {}
    of_filter = drawn(measurer(pool, said, made.threshold), groups, seed=seed).estimates()
    of_scores = drawn(measurer(pool, data.scores), groups, seed=seed).estimates()
    found = {name: _plain(each) for name, each in of_filter.items()}
    return {**found, "raw": {name: _plain(of_scores[name]) for name in _RAW}}


def _plain(estimate: Any) -> dict[str, Any]:
    numbers = {name: getattr(estimate, name) for name in ("value", "low", "high")}
    return {name: round(number, 6) if math.isfinite(number) else None for name, number in numbers.items()}


Measure = Callable[..., Any]
