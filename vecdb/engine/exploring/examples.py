"""Queries made of examples: records and vectors that answers should be like, or unlike.

Records that are examples are no answers. Where several spaces have vectors, the examples meet in one of them: the
query's own, or, if neither a query nor a vector is given, the newest in which every one of the records has a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.arrays import as_matrix, as_query
from vecdb.engine.exploring.rocchio import combine
from vecdb.engine.exploring.wishes import Wishes
from vecdb.engine.queries import Asked
from vecdb.engine.view import CollectionView, Selection
from vecdb.engine.views import as_float32
from vecdb.errors import VectorMissingError
from vecdb.storage.format import StoredRecord
from vecdb.storage.idkeys import id_key
from vecdb.types import Id, Space

F32 = npt.NDArray[np.float32]


def is_several(like: Any) -> bool:
    """Whether `like` names several records."""
    return isinstance(like, (list, tuple, np.ndarray))


@dataclass(frozen=True, slots=True)
class Settled:
    """Queries made of examples, the record rows of these, and their vectors."""

    asked: Asked
    rows: tuple[int, ...]
    positive: F32
    negative: F32


def settle(view: CollectionView, space: Space, q: Any, wished: Wishes, *, text: bool) -> Settled:
    """Return the queries made of a query and of examples.

    Raises
    ------
    RecordMissingError, VectorMissingError
        An example is not there, or has no vector in the space where they meet.
    DimensionError, DTypeError, NonFiniteError, ZeroVectorError
        A vector does not fit the space, or nothing is left of the combination.
    ParameterError
        There is nothing positive.
    """
    records = _records(view, wished)
    space = _meeting(view, space, records, free=q is None and all(map(_is_id, (*wished.positive, *wished.negative))))
    positive = _vectors(view, space, "positive", wished.positive, records)
    negative = _vectors(view, space, "negative", wished.negative, records)
    rows = tuple(sorted(row for row, _ in records.values()))
    alpha, beta, gamma = wished.weights
    examples = [(beta, positive), (-gamma, negative)]
    if q is None:
        made = combine(space.metric, examples)[None]
        return Settled(Asked(_checked(made, space), True, space), rows, positive, negative)
    given, single = as_query(q, space.dim, metric=space.metric, where=f"query for space {space.name!r}")
    made = np.stack([combine(space.metric, [(alpha, given[row : row + 1]), *examples]) for row in range(len(given))])
    return Settled(Asked(_checked(made, space), single or text, space), rows, positive, negative)


def _checked(made: F32, space: Space) -> F32:
    where = f"query that the examples make in space {space.name!r}"
    checked: F32 = as_matrix(made, space.dim, metric=space.metric, where=where)
    return checked


def _is_id(example: Any) -> bool:
    return isinstance(example, (str, int, np.integer)) and not isinstance(example, bool)


def _records(view: CollectionView, wished: Wishes) -> dict[Id, tuple[int, StoredRecord]]:
    """Return the records among the examples, by id, and their rows."""
    named = [each for each in (*wished.positive, *wished.negative) if _is_id(each)]
    found: dict[Id, tuple[int, StoredRecord]] = {}
    missing = []
    for id in dict.fromkeys(named):
        key = id_key(id)
        row = view.find(key)
        if row is None:
            missing.append(id)
        else:
            found[id] = (row, view.record(row, key))
    if missing:
        from vecdb.engine.operations import missing_records

        raise missing_records(missing, len(missing), view.entry.name)
    return found


def _meeting(view: CollectionView, space: Space, records: dict[Id, tuple[int, StoredRecord]], *, free: bool) -> Space:
    """Return the space in which the examples meet; `free`: it need not be the query's own."""
    if free and view.entry.transforms:
        others = sorted(view.entry.given_spaces, key=lambda other: -other.id)
        for each in (space, *others):
            if all(each.id in record.refs for _, record in records.values()):
                return each
    for id, (_, record) in records.items():
        if space.id not in record.refs:
            raise VectorMissingError(
                f"record {id!r} is an example and has no vector in space {space.name!r}",
                hint="Name the space in which all examples have vectors.",
                id=id,
                space=space.name,
            )
    return space


def _vectors(
    view: CollectionView,
    space: Space,
    name: str,
    examples: Sequence[Any],
    records: dict[Id, tuple[int, StoredRecord]],
) -> F32:
    """Return the vectors of examples, shape (n, dim)."""
    rows = np.empty((len(examples), space.dim), np.float32)
    for place, example in enumerate(examples):
        where = f"example {place} of {name} for space {space.name!r}"
        given = view.vector(records[example][1], space) if _is_id(example) else example
        rows[place] = as_matrix(given, space.dim, metric=space.metric, where=where, allow_single=True)[0]
    return rows


def without(view: CollectionView, selected: Selection | None, rows: Sequence[int]) -> Selection:
    """Return a selection without some record rows; None selects every record."""
    gone = np.array(sorted(rows), np.uint64)
    before = np.arange(view.next_row, dtype=np.uint64) if selected is None else selected.rows
    decoded = () if selected is None else selected.decoded
    return Selection(np.setdiff1d(before, gone, assume_unique=True), decoded)


def vectors_of_rows(view: CollectionView, space: Space, records: Sequence[StoredRecord]) -> F32:
    """Return the vectors of records in a space in which all of them have one."""
    ordinals = [record.refs[space.id] for record in records]
    return as_float32(view.space(space).vectors_of(view.tx, ordinals))
