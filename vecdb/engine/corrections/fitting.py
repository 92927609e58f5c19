"""Fitting a correction: banks of checked queries and drawn rows, and the table of all rows that are there now."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vecdb.arrays import as_matrix
from vecdb.contracts.params import settle_params
from vecdb.contracts.state import state_digest
from vecdb.corrections import Banks, Kind, kind_named, reach_of
from vecdb.engine import search
from vecdb.engine.corrections.stored import VERSION, Loaded, Members, state_of
from vecdb.engine.corrections.tables import by_banks, owned, table_of, vectors_at
from vecdb.engine.names import check_count, check_name
from vecdb.engine.operations import missing_records
from vecdb.engine.transforms import plain_facts
from vecdb.engine.view import CollectionView
from vecdb.engine.views import as_float32
from vecdb.errors import ArgumentError, FitError
from vecdb.storage.corrections import CorrectionEntry
from vecdb.storage.correctionstore import Table
from vecdb.storage.idkeys import id_key
from vecdb.storage.spaces import SpaceView
from vecdb.types import Space

F32 = npt.NDArray[np.float32]

MAX_BANK: Final = 20_000
"""Queries of one bank: each new row is compared with all of them."""


@dataclass(frozen=True, slots=True, eq=False)
class Wish:
    """A correction that is to be fitted, its arguments checked as far as that is possible without the collection.

    Attributes
    ----------
    name : str
    kind : Kind
    params : mapping
    space : Space
    bank : ndarray of float32, shape (b, d)
    answers : tuple of tuple of (int, bytes)
        (member of the bank, typed id of a record that answers it).
    seed : int
    quality : mapping
    """

    name: str
    kind: Kind
    params: Mapping[str, Any]
    space: Space
    bank: F32
    answers: tuple[tuple[int, bytes], ...]
    seed: int
    quality: Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """What is stored of a correction."""

    entry: CorrectionEntry
    state: Mapping[str, Any]
    table: Table


def wish(
    name: object,
    kind: object,
    space: Space,
    bank: Any,
    relevant_ids: Sequence[Any] | None,
    *,
    seed: object = 0,
    params: Mapping[str, Any] | None = None,
    quality: Mapping[str, Any] | None = None,
) -> Wish:
    """Return the checked arguments of `fit_correction`.

    Raises
    ------
    UnknownNameError, ParameterError
        No such kind, or parameters that it does not have.
    DimensionError, DTypeError, NonFiniteError, ZeroVectorError
        The bank is not made of queries of the space.
    FitError
        The bank is empty or too large.
    ArgumentError
        There is not one answer, list of answers or None for each query of the bank.
    """
    chosen = kind_named(kind)
    settled = settle_params(f"correction {chosen.name!r}", chosen.params, params or {})
    queries = as_matrix(bank, space.dim, metric=space.metric, where=f"bank of space {space.name!r}")
    if not 1 <= len(queries) <= MAX_BANK:
        raise FitError(
            f"the bank has {len(queries)} queries, expected 1 to {MAX_BANK}",
            hint="A few hundred to a few thousand queries like those to come.",
        )
    return Wish(
        check_name("correction", name),
        chosen,
        settled,
        space,
        as_float32(queries),
        _answers(relevant_ids, len(queries)),
        check_count("seed", seed, 0),
        plain_facts("quality", quality or {}),
    )


def _answers(relevant_ids: Any, count: int) -> tuple[tuple[int, bytes], ...]:
    if relevant_ids is None:
        return ()
    hint = "Give an id, a list of ids or None for each query of the bank."
    if isinstance(relevant_ids, np.ndarray):
        relevant_ids = relevant_ids.tolist()  # of shape (): a scalar
    if isinstance(relevant_ids, (str, bytes, Mapping)) or not hasattr(relevant_ids, "__len__"):
        raise ArgumentError(f"relevant_ids is a {type(relevant_ids).__name__}, expected a list", hint=hint)
    if len(relevant_ids) != count:
        raise ArgumentError(f"relevant_ids has {len(relevant_ids)} entries, the bank {count} queries", hint=hint)
    found = []
    for member, given in enumerate(relevant_ids):
        several = given if isinstance(given, (list, tuple, set, frozenset, np.ndarray)) else [given]
        found += [(member, id_key(id.item() if isinstance(id, np.generic) else id)) for id in several if id is not None]
    return tuple(found)


def fit(view: CollectionView, wished: Wish) -> Fitted:
    """Return a correction for the rows that a view shows.

    Raises
    ------
    RecordMissingError
        An answer is no record.
    """
    space_view = view.space(wished.space)
    own = _own(view, wished.answers)
    gallery, own_gallery = _gallery(view, space_view, wished)
    banks = Banks(wished.space.metric, wished.bank, gallery)
    entry = CorrectionEntry(
        0,
        wished.name,
        wished.space.id,
        wished.kind.name,
        VERSION,
        len(banks.queries),
        len(gallery),
        len(own.keys),
        wished.seed,
        columns=wished.kind.width(wished.params, wished.space.dim),
        created=time.time(),
        params=dict(wished.params),
        quality=dict(wished.quality),
    )
    loaded = Loaded(entry, wished.kind, wished.params, wished.space, banks, own, own_gallery)
    if wished.kind.dynamic(wished.params):
        banks = _with_reach(view, space_view, loaded)
        loaded = replace(loaded, banks=banks)
    state = state_of(banks, own, own_gallery)
    if not wished.kind.stored:
        nothing = np.empty(0, np.uint64), np.empty((0, entry.columns), np.float32)
        return Fitted(replace(entry, digest=state_digest(state)), state, nothing)
    table = table_of(view, space_view, loaded, by_banks(view, space_view, loaded, banks))
    return Fitted(replace(entry, digest=state_digest(state)), state, (table.ordinals, table.rows))


def _own(view: CollectionView, answers: tuple[tuple[int, bytes], ...]) -> Members:
    keys = [key for _, key in answers]
    there = view.find_all(keys)
    if None in there:
        missing = [key for key, row in zip(keys, there, strict=True) if row is None]
        from vecdb.storage.idkeys import id_value

        raise missing_records([id_value(key) for key in missing], len(missing), view.entry.name)
    return Members(np.array([member for member, _ in answers], np.int64), tuple(keys))


def _gallery(view: CollectionView, space_view: SpaceView, wished: Wish) -> tuple[F32, Members]:
    """Return a sample of the stored rows and the records that they belong to; empty where the kind needs none."""
    wanted = wished.kind.gallery(wished.params)
    if not wanted:
        return np.empty((0, wished.space.dim), np.float32), Members(np.empty(0, np.int64), ())
    hidden = view.hidden(space_view)
    there = np.arange(len(space_view)) if hidden is None else np.flatnonzero(~hidden)
    if len(there) < 2:
        raise FitError(
            f"correction {wished.kind.name!r} compares with stored rows, space {wished.space.name!r} has {len(there)}",
            hint="Add the records first, or use a kind with a bank of queries alone: csls, inverted-softmax.",
        )
    chosen = np.sort(np.random.default_rng(wished.seed).permutation(there)[:wanted]).astype(np.int64)
    vectors, owners = vectors_at(view, space_view, chosen)
    rows = owners.tolist()
    keys = tuple(id_key(id) for id in map(view.ids(rows).__getitem__, rows))
    return vectors, Members(np.arange(len(keys), dtype=np.int64), keys)


def _with_reach(view: CollectionView, space_view: SpaceView, loaded: Loaded) -> Banks:
    """Return the banks with what a row must score to be found by each member."""
    live = search.alive(view, space_view)
    positions = np.arange(len(space_view)) if live.mask is None else np.flatnonzero(live.mask)
    vectors, owners = vectors_at(view, space_view, positions.astype(np.int64))
    high, found = min(int(loaded.params["activated"]), max(1, len(positions))), {}
    for side, members in (("queries", loaded.own), ("gallery", loaded.own_gallery)):
        found[side] = reach_of(loaded.banks, vectors, side, high, owned(view, owners, members))
    return replace(loaded.banks, reach=found["queries"], reach_gallery=found["gallery"], _derived={})
