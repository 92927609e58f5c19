"""`order_by`: one total order over records, whatever types their fields hold.

Ascending: null, then bools (False, True), numbers by value (ints and floats exactly), NaN, str by code point, then
lists and dicts, which are all equal. Descending is the reverse. A record without the field comes last either way, and
equal records keep record order. Invariant: `Order.key` and `Order.keys` give equal keys for the same record.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from vecdb.engine.where.condition import value_at
from vecdb.errors import ParameterError
from vecdb.storage.columns import MISSING, ColumnChunk

__all__ = ["MAX_FIELDS", "Order", "Sort", "parse_order"]

MAX_FIELDS = 16
"""Fields of one `order_by`."""

SortKey: TypeAlias = tuple[Any, ...]
_NULL, _BOOL, _NUMBER, _NAN, _STR, _CONTAINER = range(6)


@dataclass(frozen=True, slots=True)
class Sort:
    """One field of an order: its dotted path, and whether it falls."""

    path: str
    descending: bool


@dataclass(frozen=True, slots=True)
class Order:
    """A checked `order_by`; build it with `parse_order`.

    Attributes
    ----------
    fields : tuple of Sort
        The first decides, the next breaks its ties.
    """

    fields: tuple[Sort, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """The dotted paths it reads, in order."""
        return tuple(field.path for field in self.fields)

    def key(self, metadata: Mapping[str, Any]) -> SortKey:
        """Return the record's sort key; keys of one order compare with ``<``."""
        key: SortKey = ()
        for field in self.fields:
            key += _key(value_at(metadata, tuple(field.path.split("."))), field.descending)
        return key

    def keys(self, chunk: ColumnChunk, fetch: Callable[[], Sequence[Mapping[str, Any]]]) -> list[SortKey]:
        """Return the sort keys of a chunk's records, from its columns.

        Parameters
        ----------
        chunk : ColumnChunk
        fetch : callable
            Returns the metadata of the chunk's records, in the chunk's order. Called once, and only if the chunk does
            not cover a path, or keeps it only in part.

        Returns
        -------
        list of n keys
        """
        if not all(map(chunk.covers, self.paths)):
            return [self.key(metadata) for metadata in fetch()]
        columns = [[_key(value, field.descending) for value in chunk.values(field.path)] for field in self.fields]
        if len(columns) == 1:
            return columns[0]
        return [sum(keys, ()) for keys in zip(*columns, strict=True)]

    def sort(self, rows: Sequence[int], keys: Sequence[SortKey], limit: int | None = None) -> list[int]:
        """Return rows in this order.

        Parameters
        ----------
        rows : sequence of n ints
            Record rows, in any order.
        keys : sequence of n keys
            What `key` or `keys` returned for each row.
        limit : int, optional
            Return only so many; cheaper than sorting all.

        Returns
        -------
        list of int
            Ties: the smaller row first.
        """
        pairs = zip(keys, rows, strict=True)
        ordered = sorted(pairs) if limit is None else heapq.nsmallest(limit, pairs)
        return [row for _, row in ordered]


def parse_order(order_by: str | Sequence[str]) -> Order:
    """Return the order for an `order_by`.

    Parameters
    ----------
    order_by : str or sequence of str
        Dotted paths; ``"-path"`` falls. 1 to `MAX_FIELDS`, none twice.

    Raises
    ------
    ParameterError
        If it is empty, names a field twice, or is not made of str.

    Examples
    --------
    >>> order = parse_order(["-year", "title"])
    >>> records = [{"year": 2020, "title": "b"}, {"title": "a"}, {"year": 2024}, {"year": 2020, "title": "a"}]
    >>> order.sort(range(4), [order.key(record) for record in records])
    [2, 3, 0, 1]
    """
    names: Any = [order_by] if isinstance(order_by, str) else order_by
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise _refused(f"is of type {type(order_by).__name__}, expected str or a list of str.", order_by)
    if not 1 <= len(names) <= MAX_FIELDS:
        raise _refused(f"has {len(names)} fields, expected 1 to {MAX_FIELDS}.", order_by)
    fields = tuple(Sort(name.removeprefix("-"), name.startswith("-")) for name in names)
    for field in fields:
        if not field.path or "$" in field.path:
            raise _refused(f"has the field {field.path[:80]!r}, expected a dotted path.", order_by)
    if len({field.path for field in fields}) < len(fields):
        raise _refused("names a field twice.", order_by)
    return Order(fields)


def _refused(problem: str, got: Any) -> ParameterError:
    hint = '"year", "-year" or ["-year", "author.name"].'
    return ParameterError(f"order_by {problem}", hint=hint, name="order_by", got=got)


class _Falling:
    """A value that compares the other way round."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __lt__(self, other: _Falling) -> bool:
        return bool(other.value < self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Falling) and bool(other.value == self.value)

    __hash__ = None  # type: ignore[assignment]  # keys are compared, never hashed


def _key(value: Any, descending: bool) -> SortKey:
    if value is MISSING:
        return (True, 0, 0)
    rank, comparable = _rank(value)
    if not descending:
        return (False, rank, comparable)
    return (False, -rank, _Falling(comparable) if rank == _STR else -comparable)


def _rank(value: Any) -> tuple[int, Any]:
    """Return the place of the value's type among the types, and what orders it within."""
    kind = type(value)
    if kind is str:
        return _STR, value
    if kind is int or kind is float:
        return (_NUMBER, value) if value == value else (_NAN, 0)
    if kind is bool:
        return _BOOL, int(value)
    return (_NULL, 0) if value is None else (_CONTAINER, 0)
