"""The tree that `parse` builds: leaves that test one path, and their combinations.

Invariant: for every record of a chunk, the element of `mask` equals `matches` of its metadata, whether the path has a
column or its values must be read from the records.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vecdb.engine.where.predicates import Predicate, utf8
from vecdb.storage.columns import MISSING, Column, ColumnChunk, Tag, Values

__all__ = ["AllOf", "Condition", "Contains", "Exists", "NoneOf", "OneOf", "Passes", "value_at"]

Mask = npt.NDArray[np.bool_]
Fetch = Callable[[], Sequence[Mapping[str, Any]]]


def value_at(metadata: Mapping[str, Any], parts: tuple[str, ...]) -> Any:
    """Return the value at a path, or `MISSING`. Only dicts are entered, never lists."""
    value: Any = metadata
    for part in parts:
        if type(value) is not dict and not isinstance(value, Mapping):  # the first test is the quick one
            return MISSING
        value = value.get(part, MISSING)
    return value


class Source:
    """A chunk, and the metadata of its records for the paths that it does not cover, read at most once."""

    __slots__ = ("_fetch", "_records", "chunk")

    def __init__(self, chunk: ColumnChunk, fetch: Fetch) -> None:
        self.chunk = chunk
        self._fetch = fetch
        self._records: Sequence[Mapping[str, Any]] | None = None

    def records(self) -> Sequence[Mapping[str, Any]]:
        if self._records is None:
            self._records = self._fetch()
        return self._records


class Condition(ABC):
    """A checked `where`.

    Attributes
    ----------
    paths : tuple of str
        The dotted paths it reads, sorted, each once.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def paths(self) -> tuple[str, ...]: ...

    @abstractmethod
    def matches(self, metadata: Mapping[str, Any]) -> bool:
        """Whether a record with this metadata is selected."""

    def mask(self, chunk: ColumnChunk, fetch: Fetch) -> Mask:
        """Return which records of a chunk are selected.

        Parameters
        ----------
        chunk : ColumnChunk
        fetch : callable
            Returns the metadata of the chunk's records, in the chunk's order. Called once, and only if a path is
            needed that the chunk does not cover.

        Returns
        -------
        ndarray of bool, shape (len(chunk),)
            A new array.

        Raises
        ------
        CorruptionError
            If a column's bytes are damaged.
        """
        return self.select(Source(chunk, fetch))

    def uncovered(self, chunk: ColumnChunk) -> tuple[str, ...]:
        """Return the paths that `mask` may have to read from the records of this chunk."""
        return tuple(path for path in self.paths if not chunk.covers(path))

    @abstractmethod
    def select(self, source: Source) -> Mask:
        """Return the mask over the records of a source, as a new array."""


@dataclass(frozen=True, slots=True)
class _Combination(Condition):
    children: tuple[Condition, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(sorted({path for child in self.children for path in child.paths}))

    def _cheapest_first(self, chunk: ColumnChunk) -> list[Condition]:
        """Put the children that need no record first: they may settle the answer."""
        return sorted(self.children, key=lambda child: bool(child.uncovered(chunk)))


class AllOf(_Combination):
    """Every child holds; without children, everything is selected."""

    __slots__ = ()

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        return all(child.matches(metadata) for child in self.children)

    def select(self, source: Source) -> Mask:
        whole = np.ones(len(source.chunk), dtype=bool)
        for child in self._cheapest_first(source.chunk):
            if not whole.any():
                break
            whole &= child.select(source)
        return whole


class OneOf(_Combination):
    """At least one child holds."""

    __slots__ = ()

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        return any(child.matches(metadata) for child in self.children)

    def select(self, source: Source) -> Mask:
        whole = np.zeros(len(source.chunk), dtype=bool)
        for child in self._cheapest_first(source.chunk):
            if whole.all():
                break
            whole |= child.select(source)
        return whole


@dataclass(frozen=True, slots=True)
class NoneOf(Condition):
    """The child does not hold; a missing field is on this side too."""

    child: Condition

    @property
    def paths(self) -> tuple[str, ...]:
        return self.child.paths

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        return not self.child.matches(metadata)

    def select(self, source: Source) -> Mask:
        return ~self.child.select(source)


@dataclass(frozen=True, slots=True)
class _Leaf(Condition):
    path: str
    parts: tuple[str, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path,)

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        value = value_at(metadata, self.parts)
        return value is not MISSING and self._holds(value)

    def select(self, source: Source) -> Mask:
        chunk = source.chunk
        if not chunk.covers(self.path):
            return np.fromiter((self.matches(metadata) for metadata in source.records()), bool, count=len(chunk))
        column = chunk.column(self.path)
        return np.zeros(len(chunk), dtype=bool) if column is None else self._column(column)

    @abstractmethod
    def _holds(self, value: Any) -> bool:
        """Whether the value of a record that has the path passes."""

    @abstractmethod
    def _column(self, column: Column) -> Mask:
        """Return the same for all records of a chunk, False where the path is missing."""


@dataclass(frozen=True, slots=True)
class Passes(_Leaf):
    """The value passes a predicate, or, if it is a list, one of its members does."""

    predicate: Predicate

    def _holds(self, value: Any) -> bool:
        if isinstance(value, list):
            return any(map(self.predicate.holds, value))
        return self.predicate.holds(value)

    def _column(self, column: Column) -> Mask:
        values = column.values
        return column.spread(values.combine([*self.predicate.parts(values), *_of_lists(values, self.predicate)]))


@dataclass(frozen=True, slots=True)
class Contains(_Leaf):
    """The value is a list with a member equal to the operand, or a str with the operand inside."""

    predicate: Predicate
    needle: str | None

    def _holds(self, value: Any) -> bool:
        if isinstance(value, list):
            return any(map(self.predicate.holds, value))
        return self.needle is not None and isinstance(value, str) and self.needle in value

    def _column(self, column: Column) -> Mask:
        parts = _of_lists(column.values, self.predicate)
        strings = column.values.strings
        if self.needle is not None and strings is not None:
            parts.append((Tag.STR, strings.containing(utf8(self.needle))[strings.codes]))
        return column.spread(column.values.combine(parts))


@dataclass(frozen=True, slots=True)
class Exists(_Leaf):
    """The record has the path; its value may be null."""

    def _holds(self, value: Any) -> bool:
        return True

    def _column(self, column: Column) -> Mask:
        return column.spread(True)


def _of_lists(values: Values, predicate: Predicate) -> list[tuple[Tag, Mask | bool]]:
    lists = values.lists
    if lists is None:
        return []
    return [(Tag.LIST, lists.any(lists.members.combine(predicate.parts(lists.members))))]
