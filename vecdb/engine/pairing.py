"""Records that are known in two spaces: found or given, and split into what a fit may see and what it may not.

Invariant: no record is both in the fit and among the rows kept back, and the split depends on nothing but the seed and
the order of the pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.arrays import as_matrix
from vecdb.engine.view import CollectionView
from vecdb.engine.views import as_float32
from vecdb.errors import FitError, ParameterError, VectorMissingError
from vecdb.storage.idkeys import id_keys
from vecdb.types import Id, Metric, Space

F32 = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

MAX_PAIRS: Final = 20_000
"""Pairs that are taken of all those a collection has: more make fits slower and hardly better."""
MAX_ALONE: Final = 8_000
"""Vectors without partners that fits are given."""
_TINY: Final = float(np.finfo(np.float32).tiny)
_KEPT_FROM: Final = 40
"""Pairs from which some are kept back; of fewer all are fitted on."""


@dataclass(frozen=True, slots=True, eq=False)
class PairSet:
    """The same records in two spaces.

    Attributes
    ----------
    source, target : ndarray of float32, shapes (n, d) and (n, e)
        As stored or given.
    ids : tuple of ids
        Empty where the pairs are no records.
    """

    source: F32
    target: F32
    ids: tuple[Id, ...] = ()

    def __len__(self) -> int:
        return len(self.source)

    def take(self, places: Integers) -> PairSet:
        """Return some of the pairs."""
        ids = tuple(self.ids[place] for place in places.tolist()) if self.ids else ()
        return PairSet(self.source[places], self.target[places], ids)


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Pairs to fit on, to choose by, and to keep for calibration; without overlap, if there are enough."""

    fit: PairSet
    validation: PairSet | None
    reference: PairSet
    held_out: bool


def all_pairs(view: CollectionView, source: Space, target: Space, *, most: int | None, seed: int) -> PairSet:
    """Return the records that hold vectors in both spaces; of more than `most` a random sample, in record order.

    Raises
    ------
    FitError
        There are none.
    """
    places = [_live(view, space) for space in (source, target)]
    rows, first, second = np.intersect1d(places[0][0], places[1][0], assume_unique=True, return_indices=True)
    if not len(rows):
        raise FitError(
            f"no record of collection {view.entry.name!r} has vectors in both {source.name!r} and {target.name!r}",
            hint="Embed some records with both models (set_vectors), or pass pairs=(X, Y).",
            pairs=0,
            needed=1,
        )
    if most is not None and len(rows) > most:
        chosen = np.sort(np.random.default_rng(seed).choice(len(rows), most, replace=False))
        rows, first, second = rows[chosen], first[chosen], second[chosen]
    found = [
        _gather(view, space, positions[at])
        for space, (_, positions), at in zip((source, target), places, (first, second), strict=True)
    ]
    known = view.ids(rows.tolist())
    return PairSet(found[0], found[1], tuple(known[row] for row in rows.tolist()))


def without_partners(view: CollectionView, stored: Space, other: Space, *, most: int, seed: int) -> F32:
    """Return vectors of one space whose records have none in the other: of more than `most` a random sample."""
    (rows, positions), (known, _) = (_live(view, space) for space in (stored, other))
    alone = positions[~np.isin(rows, known)]
    if len(alone) > most:
        alone = np.sort(np.random.default_rng(seed).choice(alone, most, replace=False))
    return _gather(view, stored, alone)


def _live(view: CollectionView, space: Space) -> tuple[npt.NDArray[np.uint64], Integers]:
    """Return the record rows of the live vectors of a space, and their positions."""
    space_view = view.space(space)
    hidden = view.hidden(space_view)
    positions = np.arange(len(space_view), dtype=np.int64) if hidden is None else np.flatnonzero(~hidden)
    return space_view.rows(view.tx)[positions], positions


def _gather(view: CollectionView, space: Space, positions: Integers) -> F32:
    space_view = view.space(space)
    space_view.verify_positions(view.tx, positions)
    return np.array(as_float32(space_view.gather(view.tx, positions)), np.float32)


def pairs_of(view: CollectionView, source: Space, target: Space, ids: Sequence[Id]) -> PairSet:
    """Return the vectors of these records in both spaces.

    Raises
    ------
    RecordMissingError, VectorMissingError
    """
    return PairSet(vectors_of(view, source, ids), vectors_of(view, target, ids), tuple(ids))


def vectors_of(view: CollectionView, space: Space, ids: Sequence[Id]) -> F32:
    """Return the vectors of records in one space, float32, shape (n, dim).

    Raises
    ------
    RecordMissingError, VectorMissingError
    """
    keys = id_keys(ids)
    rows = view.find_all(keys)
    absent = [id for id, row in zip(ids, rows, strict=True) if row is None]
    if absent:
        from vecdb.engine.operations import missing_records

        raise missing_records(absent, len(ids), view.entry.name)
    records = [view.record(row, key) for row, key in zip(rows, keys, strict=True) if row is not None]
    for id, record in zip(ids, records, strict=True):
        if space.id not in record.refs:
            raise VectorMissingError(f"record {id!r} has no vector in space {space.name!r}", id=id, space=space.name)
    ordinals = [record.refs[space.id] for record in records]
    return np.array(as_float32(view.space(space).vectors_of(view.tx, ordinals)), np.float32)


def given_pairs(view: CollectionView, source: Space, target: Space, pairs: Any, *, seed: int) -> PairSet:
    """Return what `pairs=` means: None for all records, ids, ``(X, Y)``, or ``(ids, Y)``.

    Raises
    ------
    ParameterError, FitError
    RecordMissingError, VectorMissingError
    """
    if pairs is None:
        return all_pairs(view, source, target, most=MAX_PAIRS, seed=seed)
    if not isinstance(pairs, tuple) or len(pairs) != 2 or _is_id(pairs[1]):
        return pairs_of(view, source, target, id_sequence(pairs))
    Y = as_matrix(pairs[1], target.dim, metric=target.metric, where=f"pairs in space {target.name!r}")
    if _are_ids(pairs[0]):
        ids = id_sequence(pairs[0])
        X, known = vectors_of(view, source, ids), ids
    else:
        X, known = as_matrix(pairs[0], source.dim, metric=source.metric, where=f"pairs in space {source.name!r}"), ()
    if len(X) != len(Y):
        raise ParameterError(
            f"pairs has {len(X)} rows of {source.name!r} and {len(Y)} of {target.name!r}, expected as many",
            name="pairs",
            got=(len(X), len(Y)),
        )
    return PairSet(X, Y, known)


def given_reference(source: Space, target: Space, reference: tuple[Any, Any]) -> tuple[F32, F32]:
    """Return the reference rows that a caller gave, checked as vectors of their spaces."""
    first, second = (
        as_matrix(rows, space.dim, metric=space.metric, where=f"reference in space {space.name!r}")
        for rows, space in zip(reference, (source, target), strict=True)
    )
    return first, second


def _is_id(value: Any) -> bool:
    return isinstance(value, (str, int, np.integer)) and not isinstance(value, bool)


def _are_ids(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim == 1 and value.dtype.kind in "iuUO"
    return isinstance(value, (list, tuple)) and bool(value) and _is_id(value[0])


def id_sequence(ids: Any) -> tuple[Id, ...]:
    """Return ids, checked as those of a write are."""
    from vecdb.engine.batch import id_list, unique_keys

    values, _ = id_list(ids)
    unique_keys(values)
    return values


def split_pairs(pairs: PairSet, *, reference: int, seed: int) -> Split:
    """Split pairs at random: up to `reference` rows (an eighth at most) and an eighth to validate by are not fitted on.

    Of fewer than 40 pairs all are in every part, and `held_out` is False: what is measured then flatters.
    """
    count = len(pairs)
    if count < _KEPT_FROM:
        some = np.arange(min(count, reference))
        return Split(pairs, None, pairs.take(some), held_out=False)
    order = np.random.default_rng([seed, count]).permutation(count)
    kept, judged = min(reference, count // 8), min(2_000, count // 8)
    parts = np.split(order, [kept, kept + judged])
    first, second, rest = (pairs.take(np.sort(part)) for part in parts)
    return Split(rest, second, first, held_out=True)


def directed(rows: F32, metric: Metric) -> F32:
    """Return rows as transforms are given them: of norm 1 in a cosine space."""
    if metric != "cosine" or not len(rows):
        return np.ascontiguousarray(rows, np.float32)
    wide = rows.astype(np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]  # the same bits for a row in any company
    unit: F32 = (wide / np.maximum(norms, _TINY)).astype(np.float32)
    return unit
