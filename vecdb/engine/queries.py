"""What a search was asked with: vectors, texts, or a record; in which space.

Everything a caller can write in the place of a query becomes a checked matrix here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vecdb.arrays import as_matrix, as_query
from vecdb.engine.view import CollectionView
from vecdb.errors import ParameterError, SpaceMismatchError, VectorMissingError
from vecdb.storage.idkeys import id_key
from vecdb.storage.snapshot import find_space
from vecdb.storage.state import CollectionEntry
from vecdb.types import Id, Space, Where

if TYPE_CHECKING:
    from vecdb.engine.where import Condition


@dataclass(frozen=True, slots=True)
class Asked:
    """Queries as a matrix.

    Attributes
    ----------
    matrix : ndarray of float32, shape (n, dim)
    single : bool
        One query was given, not a list of them.
    space : Space
        Of the matrix.
    row : int or None
        The record that the query came from; it is not its own answer.
    """

    matrix: npt.NDArray[np.float32]
    single: bool
    space: Space
    row: int | None = None


def named(q: Mapping[str, Any], space: str | None) -> tuple[str, Any, dict[str, Any]]:
    """Return the space and the query of ``{"space": query}``, and the same query in other spaces.

    The first is the space whose scale the answer has: `space`, or the one that is named last.
    """
    if not q or (space is not None and space not in q):
        raise ParameterError(
            f"a query in the spaces {sorted(map(str, q))} says nothing of space {space!r}"
            if q
            else "a query in no space cannot be answered",
            hint="Give the query in at least one space, and in the one that space= names.",
            name="q",
            got=sorted(map(str, q)),
        )
    chosen = str(list(q)[-1]) if space is None else space
    return chosen, q[chosen], {str(name): given for name, given in q.items() if name != chosen}


def condition(where: Where | None) -> Condition | None:
    """Return the checked condition, None where every record satisfies it."""
    if where is None or where == {}:
        return None
    from vecdb.engine.where import parse

    return parse(where)


def known_as(where: Where) -> str | None:
    """Return what a condition that was checked is remembered by."""
    from vecdb.engine.remembering import known_as

    return known_as(where)


def wishes(recall: float | None, effort: int | None, exact: bool) -> dict[str, Any]:
    """Return what a plan repeats of the arguments of a search."""
    given = (("recall", recall), ("effort", effort), ("exact", exact or None))
    return {name: value for name, value in given if value is not None}


def is_text(q: Any) -> bool:
    """Whether the query has to be embedded first."""
    return isinstance(q, str) or (isinstance(q, (list, tuple)) and bool(q) and all(isinstance(t, str) for t in q))


def choose_space(entry: CollectionEntry, name: str | None) -> Space:
    """Return the space of a query; it may be left out where there is exactly one."""
    if name is not None:
        return find_space(entry, name)
    known = entry.spaces
    if len(known) != 1:
        raise SpaceMismatchError(
            f"collection {entry.name!r} has {len(known)} spaces {list(known)}, so the query's space must be named",
            hint="Pass space='name'." if known else "Add one with add_space(name, dim=...).",
            query_space=None,
            available=list(known),
        )
    return next(iter(known.values()))


def settle(view: CollectionView, space: Space, q: Any, like: Id | None, *, text: bool) -> Asked:
    """Return the queries, checked; `text` says that `q` was made of one text."""
    if (q is None) == (like is None):
        raise ParameterError("search takes either a query or like=id", hint="Give one of the two.", name="q")
    if like is None:
        matrix, single = as_query(q, space.dim, metric=space.metric, where=f"query for space {space.name!r}")
        return Asked(matrix, single or text, space)
    vector, space, row = _vector_of(view, space, like)
    where = f"vector of record {like!r}"
    matrix = as_matrix(vector, space.dim, metric=space.metric, where=where, allow_single=True)
    return Asked(matrix, True, space, row)


def _vector_of(view: CollectionView, space: Space, id: Id) -> tuple[npt.NDArray[Any], Space, int]:
    """Return a record's vector: in `space`, or where transforms are stored, in the newest space that it has one in."""
    key = id_key(id)
    row = view.find(key)
    if row is None:
        from vecdb.engine.operations import missing_records

        raise missing_records([id], 1, view.entry.name)
    record = view.record(row, key)
    others = sorted(view.entry.given_spaces, key=lambda other: -other.id) if view.entry.transforms else []
    chosen = next((each for each in (space, *others) if each.id in record.refs), space)
    vector = view.vector(record, chosen)
    if vector is None:
        raise VectorMissingError(f"record {id!r} has no vector in space {space.name!r}", id=id, space=space.name)
    return vector, chosen, row


def check_direction(direction: object) -> None:
    """Refuse what vectors cannot be used as."""
    from vecdb.engine.names import check_option

    check_option("direction", direction, ("query", "gallery"))


def check_encoder(encode: object) -> None:
    """Refuse an encoder that cannot be called; None stands for "no encoder"."""
    if encode is not None and not callable(encode):
        raise ParameterError(
            "encode is not callable", hint="Pass a function list[str] -> array.", name="encode", got=repr(encode)
        )


def encode(q: Any, space: Space, encoders: Mapping[int, Callable[[list[str]], Any]]) -> npt.NDArray[Any]:
    """Return the vectors of query texts, made by the encoder of their space in this process."""
    encoder = encoders.get(space.id)
    if encoder is None:
        raise SpaceMismatchError(
            f"the query is text, and space {space.name!r} has no encoder in this process",
            hint="Give one with set_encoder(space, function), or pass a vector.",
            query_space=space.name,
            available=[],
        )
    texts = [q] if isinstance(q, str) else [str(text) for text in q]
    where = f"output of the encoder of space {space.name!r}"
    found = as_matrix(encoder(texts), space.dim, metric=space.metric, where=where, allow_single=True)
    if len(found) != len(texts):
        raise ParameterError(
            f"the encoder of space {space.name!r} returned {len(found)} vectors for {len(texts)} texts",
            name="encode",
            got=len(found),
            allowed=len(texts),
        )
    return found
