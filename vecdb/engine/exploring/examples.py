"""Queries made of examples: records and vectors that answers should be like, or unlike.

Records that are examples are no answers. Where several spaces have vectors, the examples meet in one of them: the
query's own, or, if neither a query nor a vector is given, the newest in which every one of the records has a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.arrays import as_matrix, as_query
from vecdb.engine.exploring.rocchio import combine
from vecdb.engine.exploring.wishes import Wishes
from vecdb.engine.queries import Asked
from vecdb.engine.view import CollectionView, Selection
from vecdb.engine.views import as_float32
from vecdb.errors import ParameterError, VectorMissingError
from vecdb.storage.format import StoredRecord
from vecdb.storage.idkeys import id_key
from vecdb.types import Id, Space

F32 = npt.NDArray[np.float32]


def is_several(like: Any) -> bool:
    """Whether `like` names several records."""
    return isinstance(like, (list, tuple, np.ndarray))


def several(like: Any) -> list[Id]:
    """Return the records that `like` names."""
    named: list[Id] = like.tolist() if isinstance(like, np.ndarray) else list(like)
    if not named or not isinstance(named, list):
        raise ParameterError(
            "like names no record", hint="Pass an id, or a list of ids.", name="like", got=like, allowed="ids"
        )
    return named


def settle(view: CollectionView, space: Space, q: Any, wished: Wishes, *, text: bool) -> tuple[Asked, list[int]]:
    """Return the queries made of a query and of examples, and the record rows of these.

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
    rows = sorted(row for row, _ in records.values())
    alpha, beta, gamma = wished.weights
    examples = [(beta, positive), (-gamma, negative)]
    if q is None:
        made = combine(space.metric, examples)[None]
        return Asked(_checked(made, space), True, space), rows
    given, single = as_query(q, space.dim, metric=space.metric, where=f"query for space {space.name!r}")
    made = np.stack([combine(space.metric, [(alpha, given[row : row + 1]), *examples]) for row in range(len(given))])
    return Asked(_checked(made, space), single or text, space), rows


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
        others = sorted(view.entry.spaces.values(), key=lambda other: -other.id)
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
