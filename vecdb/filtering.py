"""Relevance filters as an application sees them: fitted, fitted again after an upgrade, listed, dropped.

Part of `Collection`, in a file of its own because most programs never use it: everything is loaded when it is first
asked for. `Collection.search` applies them. How to: docs/how-to/filter-by-relevance.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from vecdb.arrays import as_matrix
from vecdb.engine import queries as asking
from vecdb.engine.names import check_count, check_name
from vecdb.errors import ParameterError
from vecdb.lazy import LazyModule
from vecdb.storage.snapshot import find_space
from vecdb.types import CancelCheck, HitsBatch, Progress, Space

if TYPE_CHECKING:
    from vecdb.database import Database
    from vecdb.engine import given
    from vecdb.engine.reading import OpenView
    from vecdb.engine.relevance import basis, border, fitting, material, stored
    from vecdb.searching import Searching
    from vecdb.storage import relevance as relevances
    from vecdb.storage.state import CollectionEntry
    from vecdb.verdicts import FilterInfo
else:
    given = LazyModule("vecdb.engine.given")
    basis = LazyModule("vecdb.engine.relevance.basis")
    border = LazyModule("vecdb.engine.relevance.border")
    fitting = LazyModule("vecdb.engine.relevance.fitting")
    material = LazyModule("vecdb.engine.relevance.material")
    stored = LazyModule("vecdb.engine.relevance.stored")
    relevances = LazyModule("vecdb.storage.relevance")

__all__ = ["Filtering"]


class Filtering:
    """The part of `Collection` that fits relevance filters."""

    if TYPE_CHECKING:
        _database: Database

        @property
        def _key(self) -> tuple[int, str]: ...
        def _entry(self) -> CollectionEntry: ...
        def _view(self, as_of: int | str | None = None) -> OpenView: ...

    @property
    def relevance_filters(self) -> tuple[FilterInfo, ...]:
        """The stored relevance filters in the order they were stored, what each is worth, and whether it is stale."""
        self._database._registry.load()
        with self._view() as view:
            return stored.describe(view, self._database._registry)

    def fit_relevance(
        self,
        name: str,
        kind: str,
        *,
        space: str | None = None,
        queries: Any,
        relevant_ids: Any = None,
        ignore_ids: Any = None,
        negatives: Any = "pool",
        pool: int = 100,
        groups: Sequence[Any] | None = None,
        correction: str | None = None,
        params: Mapping[str, Any] | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        cancel: CancelCheck | None = None,
    ) -> FilterInfo:
        """Fit a filter that says how likely a hit is relevant, measure it, and store it; ``search(relevance=name)``.

        Parameters
        ----------
        name : str
            Unique in the collection.
        kind : str
            Name of a registered relevance filter.
        space : str, optional
            The space that the queries are of; may be left out where the collection has exactly one.
        queries : array_like of shape (q, dim), or list of str
            Real ones, as many as there are; they are stored with the filter. Texts need a space with an encoder.
        relevant_ids : sequence, optional
            For each query the id of the record that answers it, a list of ids (empty: none does), or a mapping from id
            to grade. Left out only for kinds that need no labels.
        ignore_ids : sequence, optional
            For each query ids that count as neither: other records of the same source, say.
        negatives : {"pool"} or sequence, default "pool"
            "pool": every other candidate counts as not relevant. Else for each query the ids that are not; the rest is
            not judged.
        pool : int, default 100
            So many best candidates of each query are looked at, found by exact search, through bridges where there are.
        groups : sequence of hashables, optional
            Queries that belong together (one user, one source) are never split between fit and measurement.
        correction : str, optional
            Name of a stored score correction: the filter is for searches with it.
        params : mapping, optional
            Parameters of the kind; those left out have their defaults.
        seed : int, default 0
        progress, cancel : callable, optional

        Returns
        -------
        FilterInfo
            Its `report` was measured on a quarter of the queries that the fit has not seen, each number with a 95 %
            interval; of fewer than 40 queries, or where nearly all are
            one group, all are fitted on, and nothing is measured.

        Raises
        ------
        UnknownNameError, ParameterError
            No plugin provides `kind`, or a parameter is not allowed.
        FitError
            Too few relevant candidates, or no others.
        ExistsError
            `name` is taken.
        DimensionError, DTypeError, NonFiniteError, ZeroVectorError
            The queries do not fit the space.
        PluginError
            The plugin failed; nothing is stored.
        """
        database = self._database
        database._writable()
        check_name("relevance filter", name)
        entry = self._entry()
        stored.refuse_name(entry, name)
        chosen = asking.choose_space(entry, space)
        provided = database._registry.find("relevance filter", kind)
        matrix = self._queries_for(chosen, queries)
        job = fitting.Job(
            name,
            chosen,
            provided,
            border.settle(provided, params or {}),
            matrix,
            material.given_judgements(len(matrix), relevant_ids, ignore_ids, negatives, groups),
            check_count("pool", pool, 1),
            check_count("seed", seed, 0),
            correction=0 if correction is None else stored.correction_named(entry, chosen, correction),
            progress=given.watched(progress, cancel)[0],
            cancel=given.watched(progress, cancel)[1],
        )
        return self._fit_and_store(job)

    def refit_relevance(
        self,
        name: str,
        *,
        space: str | None = None,
        queries: Any = None,
        correction: str | None = None,
        seed: int | None = None,
        progress: Progress | None = None,
        cancel: CancelCheck | None = None,
    ) -> FilterInfo:
        """Fit a stored filter again, on its own queries and judgements: after an upgrade, or when answers have changed.

        Parameters
        ----------
        name : str
        space : str, optional
            The space it is for from now on; default: the one it was fitted for.
        queries : array_like of shape (q, dim), or list of str, optional
            The stored queries as the model of `space` embeds them, in their order; needed for another space. They are
            stored in the place of the old ones.
        correction : str, optional
            Name of a stored score correction. Default: the one it was fitted with, as long as that is there; another
            space needs one of its own.
        seed : int, optional
            Default: as before.
        progress, cancel : callable, optional

        Returns
        -------
        FilterInfo
            Of the next revision, which has taken the place of the one before.

        Raises
        ------
        UnknownNameError
            There is no such filter, or no plugin provides its kind any more.
        ParameterError
            `queries` is missing for another space, or has another number of rows.
        FitError
            Too few of the relevant records are left.
        """
        database = self._database
        database._writable()
        with self._view() as view:
            known = stored.find_filter(view.entry, name)
            old = next(each for each in view.entry.spaces.values() if each.id == known.space)
            chosen = old if space is None else find_space(view.entry, space)
            judged = relevances.read_judgements(view.tx, known)
            kept = relevances.read_filter_queries(view.tx, known)
        matrix = kept if queries is None else self._queries_for(chosen, queries)
        if (queries is None and chosen.id != known.asked) or len(matrix) != known.queries:
            raise ParameterError(
                f"relevance filter {name!r} has {known.queries} calibration queries, and needs all of them as vectors "
                f"of space {chosen.name!r}, got {'none' if queries is None else len(matrix)}",
                hint="Embed them with the new model and pass queries=.",
                name="queries",
                got=None if queries is None else len(matrix),
                allowed=known.queries,
            )
        provided = database._registry.find("relevance filter", known.kind)
        watched = given.watched(progress, cancel)
        job = fitting.Job(
            name,
            chosen,
            provided,
            border.settle(provided, known.params),
            matrix,
            judged,
            known.pool,
            known.seed if seed is None else check_count("seed", seed, 0),
            correction=self._correction_again(chosen, known, correction),
            progress=watched[0],
            cancel=watched[1],
        )
        return self._fit_and_store(job, known)

    def drop_relevance(self, name: str) -> None:
        """Remove a relevance filter and what it stored; its kind need not be installed.

        Raises
        ------
        UnknownNameError
            There is none of this name.
        """
        self._database._write(stored.drop_filter(self._key, name))

    def _correction_again(self, space: Space, known: relevances.FilterEntry, name: str | None) -> int:
        entry = self._entry()
        if name is not None:
            return stored.correction_named(entry, space, name)
        same = space.id == known.space and known.correction in {each.set for each in entry.corrections}
        return known.correction if same else 0

    def _queries_for(self, space: Space, queries: Any) -> npt.NDArray[np.float32]:
        """Return calibration queries as vectors of a space."""
        if asking.is_text(queries):
            return asking.encode(queries, space, self._database._encoders)
        where = f"calibration queries for space {space.name!r}"
        matrix: npt.NDArray[np.float32] = as_matrix(queries, space.dim, metric=space.metric, where=where)
        return matrix

    def _fit_and_store(self, job: fitting.Job, known: relevances.FilterEntry | None = None) -> FilterInfo:
        """Make the pool by searching, fit, measure, store; return what became of it."""
        registry = self._database._registry
        names = {each.set: each.name for each in self._entry().corrections}

        def ask(rows: npt.NDArray[np.float32], k: int) -> HitsBatch:
            found: HitsBatch = cast("Searching", self).search(
                rows, k, space=job.space.name, exact=True, include=(), correction=names.get(job.correction)
            )
            return found

        with self._view() as view:
            job = replace(job, basis=basis.basis_of(view, job.space, registry))
            live = view.live
        pool = material.make_pool(ask, job.queries, job.judged, job.pool, live, job.progress, job.cancel)
        with self._view() as view:
            fitted = fitting.fit_filter(job, pool, view, live)
        entry = fitted.entry if known is None else replace(fitted.entry, revision=known.revision + 1)
        replaces = None if known is None else known.set
        made = self._database._write(stored.put_filter(self._key, job.space, entry, fitted.blobs, replaces=replaces))
        with self._view() as view:
            return stored.info_of(view, made, registry)
