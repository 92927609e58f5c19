"""What a collection offers when a model changes: transforms between its spaces, and what is built on them.

Part of `Collection`, in a file of its own because most programs never use it: everything is loaded when it is first
asked for. Arguments are settled here; the work is done by the engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from vecdb.arrays import as_query
from vecdb.engine import queries
from vecdb.engine.names import check_count
from vecdb.errors import ConflictError, RecordMissingError
from vecdb.lazy import LazyModule
from vecdb.storage.idkeys import id_keys
from vecdb.storage.snapshot import find_space
from vecdb.types import CancelCheck, Progress, Space, TransformInfo, WriteResult

if TYPE_CHECKING:
    from vecdb.contracts.transform import Transform
    from vecdb.database import Database
    from vecdb.engine import batch as batching
    from vecdb.engine import fitting, given, mapping, operations, pairing, transformfiles
    from vecdb.engine import transforms as stored
    from vecdb.engine.batch import Batch
    from vecdb.engine.bridge.twostage import Made
    from vecdb.engine.operations import WriteRules
    from vecdb.engine.reading import OpenView
    from vecdb.storage.state import CollectionEntry
else:
    batching = LazyModule("vecdb.engine.batch")
    operations = LazyModule("vecdb.engine.operations")
    fitting = LazyModule("vecdb.engine.fitting")
    given = LazyModule("vecdb.engine.given")
    mapping = LazyModule("vecdb.engine.mapping")
    pairing = LazyModule("vecdb.engine.pairing")
    stored = LazyModule("vecdb.engine.transforms")
    transformfiles = LazyModule("vecdb.engine.transformfiles")

__all__ = ["Upgrading"]


class Upgrading:
    """The part of `Collection` that is about changing models."""

    if TYPE_CHECKING:
        _database: Database

        @property
        def _key(self) -> tuple[int, str]: ...
        def _entry(self) -> CollectionEntry: ...
        def _view(self, as_of: int | str | None = None) -> OpenView: ...
        def _backfill(self, space: Space, made: Made) -> Made: ...
        def _write_batch(self, batch: Batch, rules: WriteRules, *, trust: bool) -> WriteResult: ...

    @property
    def transforms(self) -> tuple[TransformInfo, ...]:
        """The stored transforms in the order they were stored, and whether each can be used here."""
        return stored.describe(self._entry(), self._database._registry)

    def fit_transform(
        self,
        source: str,
        target: str,
        kind: str = "ridge",
        *,
        pairs: Any = None,
        direction: Literal["query", "gallery"] = "query",
        params: Mapping[str, Any] | None = None,
        queries: Any = None,
        queries_across: Any = None,
        name: str | None = None,
        seed: int = 0,
        progress: Progress | None = None,
        cancel: CancelCheck | None = None,
    ) -> TransformInfo:
        """Fit a map from one space to another and store it; searches use it from then on.

        Parameters
        ----------
        source, target : str
            Spaces to map from and to. So that queries of a new model are answered over an old model's vectors, fit a
            map of queries from the new space to the old one, or a map of stored vectors from the old one to the new.
        kind : str, default "ridge"
            Name of a registered transform. "auto": what a plugin chooses, else `distill`, `ridge` or `procrustes`,
            whichever does best on pairs that are kept back.
        pairs : optional
            What to fit on. None: the records that hold vectors in both spaces (of more than 20,000 a random sample). A
            sequence of ids: these records. A tuple ``(X, Y)`` or ``(ids, Y)``: rows of source and target.
        direction : {"query", "gallery"}, default "query"
            What will be mapped: queries, or stored vectors. These are two fits; the inverse of one is not the other.
        params : mapping, optional
            Parameters of the kind; those left out have their defaults.
        queries : array_like of shape (q, dim), optional
            Queries without answers, in the space that is asked in (`source` for a map of queries, else `target`).
        queries_across : array_like of shape (p, dim), optional
            The first p of `queries` as the other model embeds them.
        name : str, optional
            Default: ``"SOURCE-to-TARGET-KIND"``, with a number where that is taken.
        seed : int, default 0
        progress, cancel : callable, optional

        Returns
        -------
        TransformInfo
            An eighth of the pairs, 256 at most, was kept to calibrate scores by, and another to choose by; what
            `quality` says was measured on the former. Fewer than 40 pairs are all fitted on.

        Raises
        ------
        UnknownNameError, ParameterError
            No plugin provides `kind`, or it cannot map between these widths or for this direction.
        FitError
            Too few pairs, or pairs that do not determine the map.
        ExistsError
            `name` is taken.
        PluginError
            The plugin failed; nothing is stored.
        """
        database = self._database
        database._writable()
        with self._view() as view:
            spaces = find_space(view.entry, source), find_space(view.entry, target)
            stored = spaces[::-1] if direction == "query" else spaces
            alone = pairing.without_partners(view, *stored, most=pairing.MAX_ALONE, seed=check_count("seed", seed, 0))
            wish = fitting.Wish(
                *spaces,
                kind,
                direction,
                params,
                name,
                seed,
                queries,
                queries_across,
                alone,
                *given.watched(progress, cancel),
            )
            found = pairing.given_pairs(view, wish.source, wish.target, pairs, seed=wish.seed)
        return self._put_transform(fitting.fit_transform(wish, found, database._registry))

    def add_transform(
        self,
        source: str,
        target: str,
        transform: Transform,
        *,
        kind: str,
        name: str | None = None,
        reference: tuple[Any, Any] | None = None,
        quality: Mapping[str, Any] | None = None,
    ) -> TransformInfo:
        """Store a transform that was fitted elsewhere.

        Parameters
        ----------
        source, target : str
            Spaces it maps from and to.
        transform : Transform
            What a registered type's `fit` returned.
        kind : str
            Name of that type, which loads it again.
        name : str, optional
            As in `fit_transform`.
        reference : tuple of array_like, shapes (r, d) and (r, e), optional
            Vectors of the same records in both spaces that the fit has not seen, 256 are plenty: scores are calibrated
            by them. Without them results over several spaces are merged by ranks.
        quality : mapping, optional
            What was measured; ``retention`` from 0 to 1 decides which of several paths is taken.

        Raises
        ------
        UnknownNameError, ExistsError, ParameterError, DimensionError
        PluginContractError
            The type does not load what the transform stores.
        """
        database = self._database
        entry = self._entry()
        spaces = find_space(entry, source), find_space(entry, target)
        new = stored.NewTransform(
            *spaces,
            database._registry.find("transform", kind),
            transform,
            name=name,
            reference=None if reference is None else pairing.given_reference(*spaces, reference),
            quality={} if quality is None else quality,
            provenance={"pairs": "elsewhere"},
        )
        return self._put_transform(new)

    def _put_transform(self, new: stored.NewTransform) -> TransformInfo:
        entry = self._database._write(stored.put_transform(self._key, new))
        names = {space.id: space.name for space in self._entry().spaces.values()}
        return stored.info_of(entry, names, self._database._registry)

    def _write_back(self, space: Space, made: Made) -> None:
        """Store vectors that a search made, of the records that are still as they were read.

        While the collection is migrated to this space they are the migration's own.
        """
        made = self._backfill(space, made)
        for _ in range(2):  # the second time without those that changed since
            kept = [place for place, same in enumerate(self._unchanged(made)) if same]
            if not kept:
                return
            batch = batching.vector_batch([made.ids[place] for place in kept], made.vectors[kept], space)
            rules = operations.WriteRules(merge=True, new=False, verb=f"set vectors of {space.name}")
            versions = [made.versions[place] for place in kept]
            try:
                self._write_batch(batch, operations.rules_for(rules, versions, batch), trust=False)
            except (ConflictError, RecordMissingError):
                continue
            return

    def _unchanged(self, made: Made) -> list[bool]:
        with self._view() as view:
            rows = view.find_all(id_keys(made.ids))
            known = [None if row is None else view.record(row).version for row in rows]
        return [version == read for version, read in zip(known, made.versions, strict=True)]

    def dump_transform(self, name: str) -> bytes:
        """Return a stored transform as bytes that `load_transform` of another collection takes.

        Their form is documented (``vecdb-transform/1``, docs/reference/interchange.md); the kind need not be installed.

        Raises
        ------
        UnknownNameError, CorruptionError
        """
        with self._view() as view:
            return transformfiles.dump(view, name)

    def load_transform(self, data: bytes, *, name: str | None = None) -> TransformInfo:
        """Store a transform that `dump_transform` returned, between the spaces of the same names.

        What is there already under the same name changes nothing. Nothing in the bytes is executed.

        Parameters
        ----------
        data : bytes
        name : str, optional
            Default: the name it had.

        Raises
        ------
        CorruptionError
            The bytes are damaged, or no transform.
        SpaceMissingError, SpaceMismatchError
            A space is not there, or of another model, width or metric.
        ExistsError
            The name is taken by another transform.
        """
        database = self._database
        database._writable()
        registry = database._registry
        entry = database._write(transformfiles.restoring(self._key, self._entry(), data, name, registry))
        return stored.info_of(entry, {space.id: space.name for space in self._entry().spaces.values()}, registry)

    def drop_transform(self, name: str) -> None:
        """Remove a transform and what it stored; its kind need not be installed.

        Raises
        ------
        UnknownNameError
            There is none of this name.
        """
        self._database._write(stored.drop_transform(self._key, name))

    def transform(
        self, X: Any, source: str, target: str, *, direction: Literal["query", "gallery"] = "query"
    ) -> npt.NDArray[np.float32]:
        """Map vectors of one space to another along the best path of stored transforms.

        Parameters
        ----------
        X : array_like of shape (n, d) or (d,)
        source, target : str
        direction : {"query", "gallery"}, default "query"
            What the vectors are used as.

        Returns
        -------
        ndarray of float32, shape (n, e) or (e,)
            Of norm 1 in a cosine space.

        Raises
        ------
        SpaceMismatchError
            No path of at most three transforms.
        """
        queries.check_direction(direction)
        with self._view() as view:
            spaces = find_space(view.entry, source), find_space(view.entry, target)
            where = f"vectors of space {source!r}"
            rows, single = as_query(X, spaces[0].dim, metric=spaces[0].metric, where=where)
            mapped = mapping.map_vectors(view, *spaces, rows, direction, self._database._registry)
        return mapped[0] if single else mapped
